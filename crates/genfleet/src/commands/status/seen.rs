//! What a look came by: per kind, and per process.

use std::{collections::BTreeMap, time::Duration};

use genfleet_core::{
    genesys::{clock_is_off, describe_skew},
    job::Kind,
    membership::{HoldStatus, KindStatus, MemberStatus},
};
use serde_json::{Value, json};

use crate::terminal;

/// Of one kind. What nobody knows is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OfKind {
    /// New jobs that could start.
    pub waiting: Option<u64>,
    /// Begun ones that could go on.
    pub begun: Option<u64>,
    /// Those that may kill processes.
    pub suspect: Option<u64>,
    /// Dead letters.
    pub dead: Option<u64>,
    /// Jobs in handlers.
    pub running: u64,
    /// Deliveries that processes hold unsettled, whatever they wait for: those of the running jobs among them.
    pub held: u64,
    /// Seconds that the oldest, or the one delivered last, has waited.
    pub oldest: Option<f64>,
    /// In the last minute.
    pub ended: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Processes that work it.
    pub processes: usize,
    /// Those of them that do not only stand by.
    pub working: usize,
}

impl OfKind {
    /// Jobs in its queues.
    fn there(&self) -> u64 {
        [self.waiting, self.begun, self.suspect].into_iter().flatten().sum()
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// `rabbitmq` or `sqlite`.
    pub queue: &'static str,
    /// Every kind.
    pub kinds: BTreeMap<Kind, OfKind>,
    /// Dead letters whose kind could not be read.
    pub unknown_dead: u64,
    /// What matched no queue.
    pub unrouted: Option<u64>,
    /// Jobs that wait for their time.
    pub delayed: Option<u64>,
    /// Who is alive; none where nobody could be asked.
    pub processes: Option<Vec<MemberStatus>>,
    /// Why nobody could be asked.
    pub unheard: String,
}

impl Seen {
    /// Who is alive, as far as is known.
    pub(super) fn alive(&self) -> &[MemberStatus] {
        self.processes.as_deref().unwrap_or_default()
    }

    /// Adds what processes tell of the kinds they work. What runs is theirs to tell where the queue does not.
    pub(super) fn add_told(&mut self, running_too: RunningIs) {
        let details: Vec<KindStatus> = self.alive().iter().flat_map(|process| process.kinds.clone()).collect();
        for news in details {
            let Ok(kind) = news.kind.parse::<Kind>() else { continue };
            let of_kind = self.kinds.entry(kind).or_default();
            of_kind.ended += u64::from(news.ended_last_minute);
            of_kind.failed += u64::from(news.failed_last_minute);
            of_kind.processes += 1;
            of_kind.working += usize::from(!news.standing_by);
            if running_too == RunningIs::Told {
                of_kind.running += u64::from(news.running);
                of_kind.held += u64::from(news.held);
                let oldest = of_kind.oldest.into_iter().chain(news.oldest_seconds).reduce(f64::max);
                of_kind.oldest = oldest;
            }
        }
        // The age of a job that was delivered long ago is no age of what waits.
        for of_kind in self.kinds.values_mut() {
            let there = [of_kind.waiting, of_kind.begun].into_iter().flatten().sum::<u64>() + of_kind.held;
            of_kind.oldest = of_kind.oldest.filter(|_| there > 0);
        }
    }

    /// Clients, by their mark, with their processes.
    pub(super) fn clients(&self) -> BTreeMap<&str, Vec<&MemberStatus>> {
        let mut clients = BTreeMap::<&str, Vec<&MemberStatus>>::new();
        self.alive().iter().for_each(|process| clients.entry(&process.client).or_default().push(process));
        clients
    }

    /// What is wrong now, each in a sentence; empty for a sound fleet.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let missing: Vec<&str> =
            self.kinds.iter().filter(|(_, of)| of.waiting.is_none()).map(|(kind, _)| kind.as_str()).collect();
        if !missing.is_empty() {
            problems.push(format!("the queues of {} are not there", missing.join(", ")));
        }
        match &self.processes {
            None => problems.push(format!("processes cannot be asked: {}", self.unheard)),
            Some(_) => problems.extend(self.unworked()),
        }
        for process in self.alive() {
            let shut = |shut: &HoldStatus| {
                let of = shut.kind.as_ref().map(|kind| format!(" for {kind}")).unwrap_or_default();
                let why = if shut.why.is_empty() { String::new() } else { format!(": {}", shut.why) };
                format!("{} is shut at {}: {}{of}{why}", what_is_shut(shut), process.process, shut.reason)
            };
            let not_ready = |why: &String| format!("{} is not ready: {why}", process.process);
            problems.extend(process.not_ready.iter().map(not_ready));
            problems.extend(process.shut.iter().map(shut));
            // What is shut says so itself.
            let failing = process.failing.as_ref().filter(|_| process.shut.is_empty());
            problems.extend(failing.map(|details| format!("at {}: {details}", process.process)));
            let ahead = process.clock_ahead_seconds.filter(|ahead| clock_is_off(*ahead));
            let details = |ahead| format!("the clock at {} is {} the API's", process.process, describe_skew(ahead));
            problems.extend(ahead.map(details));
        }
        if let Some(unrouted) = self.unrouted.filter(|unrouted| *unrouted > 0) {
            problems.push(format!("{} matched no queue", terminal::count(unrouted, "message")));
        }
        problems
    }

    /// Kinds whose jobs wait while nobody alive works them.
    fn unworked(&self) -> impl Iterator<Item = String> {
        let unworked = self.kinds.iter().filter(|(_, of_kind)| of_kind.working == 0 && of_kind.there() > 0);
        unworked.map(|(kind, of_kind)| {
            let verb = if of_kind.there() == 1 { "waits" } else { "wait" };
            format!("nobody works {kind}: {} {verb}", terminal::count(of_kind.there(), "job"))
        })
    }

    /// What to do next, where there is something.
    pub(super) fn hints(&self) -> Vec<String> {
        let dead = self.kinds.values().filter_map(|of_kind| of_kind.dead).sum::<u64>() + self.unknown_dead;
        let mut hints = Vec::new();
        if dead > 0 {
            hints.push("genfleet dead list groups dead letters by cause".to_owned());
        }
        if self.alive().iter().any(|process| !process.receivers.is_empty()) {
            hints.push(
                "webhooks are tried again for 18 hours; after that genfleet dead list --kind webhook.deliver has them"
                    .to_owned(),
            );
        }
        if self.unrouted.is_some_and(|unrouted| unrouted > 0) {
            hints.push("genfleet dead list --unrouted shows what matched no queue".to_owned());
        }
        if self.alive().iter().any(|process| process.verified == Some(false)) {
            hints.push(
                "unverified: who may write to the control exchange can say this; with GENESYS_CLIENT_ID and \
                 GENESYS_CLIENT_SECRET set as for the workers, what they say is verified"
                    .to_owned(),
            );
        }
        if self.kinds.values().any(|of_kind| of_kind.waiting.is_none()) {
            hints.push("queues without a count are not there: is --queue-prefix right?".to_owned());
        }
        hints
    }

    /// As one object.
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

impl OfKind {
    /// What only processes can tell is null where they could not be asked.
    fn json(&self, kind: Kind, is_heard: bool) -> Value {
        let of_processes = [self.running, self.held, self.ended, self.failed, self.processes as u64];
        let [running, held, ended, failed, processes] = of_processes.map(|count| is_heard.then_some(count));
        json!({
            "kind": kind.as_str(), "waiting": self.waiting, "running": running, "held": held, "begun": self.begun,
            "suspect": self.suspect, "dead": self.dead, "oldestSeconds": self.oldest,
            "endedLastMinute": ended, "failedLastMinute": failed, "processes": processes,
        })
    }
}

/// Where it is known what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunningIs {
    /// In the queue.
    Counted,
    /// From the processes.
    Told,
}

/// Requests that a client's processes sent in the last minute.
pub(super) fn sent(processes: &[&MemberStatus]) -> u64 {
    processes.iter().map(|process| u64::from(process.requests_last_minute)).sum()
}

/// What a client's processes take for its limit.
pub(super) fn limit(processes: &[&MemberStatus]) -> u32 {
    processes.iter().map(|process| process.client_limit).min().unwrap_or_default()
}

fn client_json((client, processes): (&str, Vec<&MemberStatus>)) -> Value {
    let shut = processes.iter().filter_map(|process| process.client_shut()).max();
    json!({
        "client": client, "processes": processes.len(), "requestsLastMinute": sent(&processes),
        "requestsPerMinute": limit(&processes), "shutForMs": shut.map(|shut| shut.as_millis()),
    })
}

/// The gate opens by itself; a brake waits until somebody mends what it is on for.
fn what_is_shut(shut: &HoldStatus) -> &'static str {
    match shut.reason.as_str() {
        "throttled" | "service_limit" | "api_unavailable" => "the gate",
        _ => "a brake",
    }
}

/// What is shut, and how long still.
pub(super) fn still(shut: &HoldStatus) -> Option<Duration> {
    shut.for_ms.map(Duration::from_millis)
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

    fn seen(waiting: u64, running: u32) -> Seen {
        let of_kind = OfKind { waiting: Some(waiting), ..OfKind::default() };
        let kinds = BTreeMap::from([(Kind::CdnPurge, of_kind)]);
        Seen { kinds, processes: Some(vec![process("a", running), process("b", 0)]), ..Seen::default() }
    }

    #[test]
    fn what_processes_tell_is_summed() {
        let mut seen = seen(1, 7);
        seen.add_told(RunningIs::Told);
        let of_kind = &seen.kinds[&Kind::CdnPurge];
        assert_eq!((of_kind.running, of_kind.ended, of_kind.failed, of_kind.processes), (7, 60, 2, 2));
        assert_eq!((of_kind.held, &seen.json()["kinds"][0]["held"]), (14, &json!(14)));
        assert_eq!(of_kind.oldest, Some(7.0));
        let json = seen.json();
        assert_eq!(json["alive"], 2);
        assert_eq!(json["clients"][0]["requestsLastMinute"], 10);
    }

    #[test]
    fn a_sound_fleet_has_no_problems_and_each_thing_that_is_wrong_is_one() {
        let mut sound = seen(3, 7);
        sound.add_told(RunningIs::Told);
        assert_eq!(sound.problems(), Vec::<String>::new());

        let mut unworked = sound.clone();
        let scans = OfKind { waiting: Some(0), begun: Some(2), suspect: Some(1), ..OfKind::default() };
        unworked.kinds.insert(Kind::FileScan, scans);
        unworked.kinds.insert(Kind::VniProvision, OfKind { waiting: Some(0), ..OfKind::default() });
        assert_eq!(unworked.problems(), ["nobody works file.scan: 3 jobs wait"], "what has no jobs needs nobody");

        let mut standing_by = seen(1, 0);
        for process in standing_by.processes.iter_mut().flatten() {
            process.kinds[0].standing_by = true;
        }
        standing_by.add_told(RunningIs::Told);
        assert_eq!(standing_by.problems(), ["nobody works cdn.purge: 1 job waits"]);

        let mut shut = sound.clone();
        let reason = |reason: &str| HoldStatus { reason: reason.to_owned(), ..HoldStatus::default() };
        shut.processes.as_mut().unwrap()[1].shut = vec![reason("audit"), reason("throttled")];
        assert_eq!(shut.problems(), ["a brake is shut at b: audit", "the gate is shut at b: throttled"]);

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

        let unheard = Seen { processes: None, unheard: "an alarm".to_owned(), unrouted: Some(2), ..sound };
        assert_eq!(unheard.problems(), ["processes cannot be asked: an alarm", "2 messages matched no queue"]);
        let json = unheard.json();
        assert_eq!(json["problems"].as_array().unwrap().len(), 2);
        assert_eq!((&json["kinds"][0]["waiting"], &json["kinds"][0]["running"]), (&json!(3), &Value::Null));
    }

    #[test]
    fn where_nothing_waits_or_runs_there_is_no_oldest() {
        let mut seen = seen(0, 0);
        seen.add_told(RunningIs::Told);
        assert_eq!(seen.kinds[&Kind::CdnPurge].oldest, None);
    }

    #[test]
    fn what_the_queue_counts_is_not_counted_twice() {
        let mut seen = seen(0, 7);
        seen.kinds.entry(Kind::CdnPurge).or_default().running = 6;
        seen.add_told(RunningIs::Counted);
        assert_eq!(seen.kinds[&Kind::CdnPurge].running, 6);
    }
}
