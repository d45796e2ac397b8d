//! A report on a fleet: the state of each kind and of each process, the problems, and hints for the operator.

use std::collections::BTreeMap;

use genfleet_core::{
    genesys::describe_skew,
    job::Kind,
    membership::{HoldStatus, KindStatus, MemberStatus},
};
use serde_json::{Value, json};

use crate::terminal;

/// The state of a kind. Unknown values are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KindReport {
    /// Number of new jobs in the queue.
    pub waiting: Option<u64>,
    /// Number of begun jobs in the queue.
    pub begun: Option<u64>,
    /// Number of suspects in the queue.
    pub suspect: Option<u64>,
    /// Number of dead letters.
    pub dead: Option<u64>,
    /// Number of jobs in handlers.
    pub running: u64,
    /// Number of unsettled deliveries of the processes, with those of the running jobs.
    pub held: u64,
    /// Seconds for which the oldest waiting job, or the one that was delivered last, has waited.
    pub oldest: Option<f64>,
    /// Number of jobs that ended in the last minute.
    pub ended: u64,
    /// Number of jobs that failed in the last minute.
    pub failed: u64,
    /// Number of processes for this kind.
    pub processes: usize,
    /// Number of processes for this kind that are not only standing by.
    pub working: usize,
}

impl KindReport {
    /// Number of jobs in the kind's queues.
    fn queued(&self) -> u64 {
        [self.waiting, self.begun, self.suspect].into_iter().flatten().sum()
    }
}

/// A report on a fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    /// `rabbitmq` or `sqlite`.
    pub queue: &'static str,
    /// The state of every kind.
    pub kinds: BTreeMap<Kind, KindReport>,
    /// Number of dead letters whose kind cannot be read.
    pub unknown_dead: u64,
    /// Number of messages that matched no queue.
    pub unrouted: Option<u64>,
    /// Number of delayed jobs.
    pub delayed: Option<u64>,
    /// The live processes; `None` if they could not be asked.
    pub processes: Option<Vec<MemberStatus>>,
    /// The reason why processes could not be asked.
    pub no_answer: String,
    /// Kinds that have to be worked, also while none of their jobs waits.
    pub expected: Vec<Kind>,
}

impl Report {
    /// The live processes; empty if they could not be asked.
    pub(super) fn alive(&self) -> &[MemberStatus] {
        self.processes.as_deref().unwrap_or_default()
    }

    /// Returns the report of a fleet that has to work the kinds `expected`.
    pub(super) fn expecting(self, expected: &[Kind]) -> Self {
        Self { expected: expected.to_vec(), ..self }
    }

    /// Returns true if no process works one of the expected kinds, or if that is not known.
    pub(super) fn lacks_expected(&self) -> bool {
        let is_worked = |kind| self.kinds.get(kind).is_some_and(|of_kind| of_kind.working > 0);
        !self.expected.is_empty() && (self.processes.is_none() || !self.expected.iter().all(is_worked))
    }

    /// Adds what the processes report about their kinds.
    pub(super) fn add_processes(&mut self, running: RunningJobs) {
        let statuses: Vec<KindStatus> = self.alive().iter().flat_map(|process| process.kinds.clone()).collect();
        for status in statuses {
            let Ok(kind) = status.kind.parse::<Kind>() else { continue };
            let of_kind = self.kinds.entry(kind).or_default();
            of_kind.ended += u64::from(status.ended_last_minute);
            of_kind.failed += u64::from(status.failed_last_minute);
            of_kind.processes += 1;
            of_kind.working += usize::from(!status.standing_by);
            if running == RunningJobs::FromProcesses {
                of_kind.running += u64::from(status.running);
                of_kind.held += u64::from(status.held);
                of_kind.oldest = of_kind.oldest.into_iter().chain(status.oldest_seconds).reduce(f64::max);
            }
        }
        // If no job waits, the age of a job that was delivered earlier says nothing.
        for of_kind in self.kinds.values_mut() {
            let waiting = [of_kind.waiting, of_kind.begun].into_iter().flatten().sum::<u64>() + of_kind.held;
            of_kind.oldest = of_kind.oldest.filter(|_| waiting > 0);
        }
    }

    /// The processes of each OAuth client, by its fingerprint.
    pub(super) fn clients(&self) -> BTreeMap<&str, Vec<&MemberStatus>> {
        let mut clients = BTreeMap::<&str, Vec<&MemberStatus>>::new();
        self.alive().iter().for_each(|process| clients.entry(&process.client).or_default().push(process));
        clients
    }

    /// Describes each problem in a sentence; empty if everything is in order.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let missing: Vec<&str> =
            self.kinds.iter().filter(|(_, of)| of.waiting.is_none()).map(|(kind, _)| kind.as_str()).collect();
        if !missing.is_empty() {
            problems.push(format!("the queues of {} do not exist", missing.join(", ")));
        }
        match &self.processes {
            None => problems.push(format!("processes cannot be asked: {}", self.no_answer)),
            Some(_) => problems.extend(self.unworked()),
        }
        for process in self.alive() {
            let name = &process.process;
            problems.extend(process.not_ready.iter().map(|why| format!("{name} is not ready: {why}")));
            problems.extend(process.shut.iter().map(|hold| {
                let of = hold.kind.as_ref().map(|kind| format!(" for {kind}")).unwrap_or_default();
                let why = if hold.why.is_empty() { String::new() } else { format!(": {}", hold.why) };
                format!("{} at {name}: {}{of}{why}", describe_hold(hold), hold.reason)
            }));
            // A hold already says that requests fail.
            let failing = process.failing.as_ref().filter(|_| process.shut.is_empty());
            problems.extend(failing.map(|failing| format!("at {name}: {failing}")));
            let skew = process.clock_ahead_seconds.and_then(describe_skew);
            problems.extend(skew.map(|skew| format!("the clock at {name} is {skew} the API's")));
        }
        if let Some(unrouted) = self.unrouted.filter(|unrouted| *unrouted > 0) {
            problems.push(format!("{} matched no queue", terminal::count(unrouted, "message")));
        }
        problems
    }

    /// Describes the kinds that no live process works although their jobs wait or they are expected.
    fn unworked(&self) -> impl Iterator<Item = String> {
        let lacks = |kind: &Kind, of_kind: &KindReport| of_kind.queued() > 0 || self.expected.contains(kind);
        let unworked = self.kinds.iter().filter(move |(kind, of_kind)| of_kind.working == 0 && lacks(kind, of_kind));
        unworked.map(|(kind, of_kind)| {
            if of_kind.queued() == 0 {
                return format!("no process works {kind}, which is expected (--expect)");
            }
            let verb = if of_kind.queued() == 1 { "waits" } else { "wait" };
            format!("no process works {kind}: {} {verb}", terminal::count(of_kind.queued(), "job"))
        })
    }

    /// Suggests commands and settings that help with this report.
    pub(super) fn hints(&self) -> Vec<String> {
        let dead = self.kinds.values().filter_map(|of_kind| of_kind.dead).sum::<u64>() + self.unknown_dead;
        let mut hints = Vec::new();
        if dead > 0 {
            hints.push("genfleet dead list groups dead letters by cause".to_owned());
        }
        if self.alive().iter().any(|process| !process.receivers.is_empty()) {
            hints.push(
                "webhooks are tried again for 18 hours; after that genfleet dead list --kind webhook.deliver shows them"
                    .to_owned(),
            );
        }
        if self.unrouted.is_some_and(|unrouted| unrouted > 0) {
            hints.push("genfleet dead list --unrouted shows messages that matched no queue".to_owned());
        }
        if self.alive().iter().any(|process| process.verified == Some(false)) {
            hints.push(
                "unverified: every user who may write to the control exchange can send such an answer; answers are \
                 verified if GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET are set as for the workers. Workers without \
                 them, such as a purger of your own CDN only, are never verified"
                    .to_owned(),
            );
        }
        if self.kinds.values().any(|of_kind| of_kind.waiting.is_none()) {
            hints.push("queues without a count do not exist: is --queue-prefix correct?".to_owned());
        }
        hints
    }

    /// Returns the report as one JSON object.
    pub(super) fn json(&self) -> Value {
        let kinds: Vec<Value> =
            self.kinds.iter().map(|(kind, of_kind)| of_kind.json(*kind, self.processes.is_some())).collect();
        let clients: Vec<Value> = self.clients().into_iter().map(client_json).collect();
        json!({
            "queue": self.queue, "kinds": kinds, "unknownDead": self.unknown_dead, "unrouted": self.unrouted,
            "delayed": self.delayed, "alive": self.processes.as_ref().map(Vec::len), "clients": clients,
            "processes": self.processes, "problems": self.problems(),
        })
    }
}

impl KindReport {
    /// Returns the state of `kind` as JSON. What only processes know is null if they were not `asked`.
    fn json(&self, kind: Kind, asked: bool) -> Value {
        let of_processes = [self.running, self.held, self.ended, self.failed, self.processes as u64];
        let [running, held, ended, failed, processes] = of_processes.map(|count| asked.then_some(count));
        json!({
            "kind": kind.as_str(), "waiting": self.waiting, "running": running, "held": held, "begun": self.begun,
            "suspect": self.suspect, "dead": self.dead, "oldestSeconds": self.oldest,
            "endedLastMinute": ended, "failedLastMinute": failed, "processes": processes,
        })
    }
}

/// The source of the number of running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunningJobs {
    /// The queue has counted them.
    FromQueue,
    /// The processes report them.
    FromProcesses,
}

/// Number of requests that a client's processes sent in the last minute.
pub(super) fn requests_sent(processes: &[&MemberStatus]) -> u64 {
    processes.iter().map(|process| u64::from(process.requests_last_minute)).sum()
}

/// The client's limit of requests a minute, as its processes know it.
pub(super) fn limit(processes: &[&MemberStatus]) -> u32 {
    processes.iter().map(|process| process.client_limit).min().unwrap_or_default()
}

fn client_json((client, processes): (&str, Vec<&MemberStatus>)) -> Value {
    let shut = processes.iter().filter_map(|process| process.client_shut()).max();
    json!({
        "client": client, "processes": processes.len(), "requestsLastMinute": requests_sent(&processes),
        "requestsPerMinute": limit(&processes), "shutForMs": shut.map(|shut| shut.as_millis()),
    })
}

/// A pause and the circuit breaker end by themselves; a hold lasts until somebody removes its cause.
fn describe_hold(hold: &HoldStatus) -> &'static str {
    match hold.reason.as_str() {
        "throttled" | "service_limit" | "cdn_throttled" => "a pause is in force",
        "api_unavailable" | "cdn_unavailable" => "the circuit breaker is open",
        _ => "a hold is in force",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, running: u32) -> MemberStatus {
        let kinds = vec![KindStatus {
            kind: "cdn.purge".to_owned(),
            standing_by: false,
            running,
            held: 2 * running,
            ended_last_minute: 30,
            failed_last_minute: 1,
            oldest_seconds: Some(f64::from(running)),
        }];
        MemberStatus {
            process: name.to_owned(),
            client: "c".to_owned(),
            client_limit: 3000,
            requests_last_minute: 5,
            kinds,
            ..MemberStatus::default()
        }
    }

    fn report(waiting: u64, running: u32) -> Report {
        let of_kind = KindReport { waiting: Some(waiting), ..KindReport::default() };
        let kinds = BTreeMap::from([(Kind::CdnPurge, of_kind)]);
        Report { kinds, processes: Some(vec![process("a", running), process("b", 0)]), ..Report::default() }
    }

    #[test]
    fn the_answers_of_processes_are_summed() {
        let mut report = report(1, 7);
        report.add_processes(RunningJobs::FromProcesses);
        let of_kind = &report.kinds[&Kind::CdnPurge];
        assert_eq!((of_kind.running, of_kind.ended, of_kind.failed, of_kind.processes), (7, 60, 2, 2));
        assert_eq!((of_kind.held, &report.json()["kinds"][0]["held"]), (14, &json!(14)));
        assert_eq!(of_kind.oldest, Some(7.0));
        let json = report.json();
        assert_eq!(json["alive"], 2);
        assert_eq!(json["clients"][0]["requestsLastMinute"], 10);
    }

    #[test]
    fn a_healthy_fleet_has_no_problems_and_everything_that_is_wrong_is_one() {
        let mut sound = report(3, 7);
        sound.add_processes(RunningJobs::FromProcesses);
        assert_eq!(sound.problems(), Vec::<String>::new());

        let mut unworked = sound.clone();
        let scans = KindReport { waiting: Some(0), begun: Some(2), suspect: Some(1), ..KindReport::default() };
        unworked.kinds.insert(Kind::FileScan, scans);
        unworked.kinds.insert(Kind::VniProvision, KindReport { waiting: Some(0), ..KindReport::default() });
        assert_eq!(unworked.problems(), ["no process works file.scan: 3 jobs wait"], "only kinds with jobs");

        let expected = [Kind::CdnPurge, Kind::FileScan, Kind::VniProvision];
        assert!(!unworked.lacks_expected() && !unworked.clone().expecting(&expected[..1]).lacks_expected());
        let expecting = unworked.expecting(&expected);
        assert!(expecting.lacks_expected());
        let told =
            ["no process works vni.provision, which is expected (--expect)", "no process works file.scan: 3 jobs wait"];
        assert!(
            expecting.problems().len() == 2
                && told.iter().all(|told| expecting.problems().contains(&(*told).to_owned()))
        );
        assert!(Report { processes: None, ..expecting }.lacks_expected(), "it is not known");

        let mut standing_by = report(1, 0);
        for process in standing_by.processes.iter_mut().flatten() {
            process.kinds[0].standing_by = true;
        }
        standing_by.add_processes(RunningJobs::FromProcesses);
        assert_eq!(standing_by.problems(), ["no process works cdn.purge: 1 job waits"]);

        let mut held = sound.clone();
        let reason = |reason: &str| HoldStatus { reason: reason.to_owned(), ..HoldStatus::default() };
        held.processes.as_mut().unwrap()[1].shut =
            vec![reason("audit"), reason("throttled"), reason("api_unavailable")];
        assert_eq!(
            held.problems(),
            [
                "a hold is in force at b: audit",
                "a pause is in force at b: throttled",
                "the circuit breaker is open at b: api_unavailable"
            ]
        );

        let mut off = sound.clone();
        off.processes.as_mut().unwrap()[0].clock_ahead_seconds = Some(-600);
        off.processes.as_mut().unwrap()[1].clock_ahead_seconds = Some(29);
        assert_eq!(off.problems(), ["the clock at a is 600 s behind the API's"]);

        let mut failing = sound.clone();
        failing.processes.as_mut().unwrap()[0].failing = Some("requests to the API fail: 503 ×3".to_owned());
        assert_eq!(failing.problems(), ["at a: requests to the API fail: 503 ×3"]);

        let mut away = sound.clone();
        away.processes.as_mut().unwrap()[1].not_ready = vec!["no connection".to_owned()];
        assert_eq!(away.problems(), ["b is not ready: no connection"]);

        let unasked = Report { processes: None, no_answer: "an alarm".to_owned(), unrouted: Some(2), ..sound };
        assert_eq!(unasked.problems(), ["processes cannot be asked: an alarm", "2 messages matched no queue"]);
        let json = unasked.json();
        assert_eq!(json["problems"].as_array().unwrap().len(), 2);
        assert_eq!((&json["kinds"][0]["waiting"], &json["kinds"][0]["running"]), (&json!(3), &Value::Null));
    }

    #[test]
    fn without_waiting_or_running_jobs_there_is_no_oldest() {
        let mut report = report(0, 0);
        report.add_processes(RunningJobs::FromProcesses);
        assert_eq!(report.kinds[&Kind::CdnPurge].oldest, None);
    }

    #[test]
    fn jobs_that_the_queue_counts_are_not_counted_twice() {
        let mut report = report(0, 7);
        report.kinds.entry(Kind::CdnPurge).or_default().running = 6;
        report.add_processes(RunningJobs::FromQueue);
        assert_eq!(report.kinds[&Kind::CdnPurge].running, 6);
    }
}
