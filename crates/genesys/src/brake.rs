//! The brakes: credentials that are bad stop the process, permissions that are missing stop a kind (SPEC 4), before
//! they cost more than five jobs.
//!
//! Asks for no token itself: [`crate::client`] does, when [`CredentialHold::is_due`] says so.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::circuit_breaker::RequestRole;
use genfleet_job::{JobId, Kind};

/// So many different jobs in a row, and it is no longer a matter of the job.
const JOBS_IN_A_ROW: usize = 5;

/// On while the token endpoint refuses us, or the API refuses tokens it just gave.
#[derive(Debug)]
pub(crate) struct CredentialHold {
    interval: Duration,
    on: Option<(String, Instant)>,
}

impl CredentialHold {
    /// One try each `interval`.
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, on: None }
    }

    /// Puts it on, or says that a try failed. True where it was off.
    pub(crate) fn put_on(&mut self, why: &str, now: Instant) -> bool {
        self.on.replace((why.to_owned(), now + self.interval)).is_none()
    }

    /// A token was given. True where it was on.
    pub(crate) fn lift(&mut self) -> bool {
        self.on.take().is_some()
    }

    /// Why it is on.
    pub(crate) fn why(&self) -> Option<&str> {
        self.on.as_ref().map(|(why, _)| why.as_str())
    }

    /// When the next try is; `None` while it is off.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.on.as_ref().map(|(_, next)| *next)
    }

    /// Is it time for a try? If so, the next one comes an interval later.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.on.as_mut().filter(|(_, next)| now >= *next);
        due.map(|(_, next)| *next = now + self.interval).is_some()
    }
}

/// Per kind: on while an endpoint refuses the kind's jobs with 403.
#[derive(Debug)]
pub(crate) struct PermissionHolds {
    interval: Duration,
    kinds: HashMap<Kind, Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// The jobs that were refused in a row, by endpoint; never more than five.
    jobs: HashMap<&'static str, Vec<JobId>>,
    brake: Option<On>,
}

#[derive(Debug)]
struct On {
    endpoint: &'static str,
    next_probe: Instant,
    /// The jobs that try: all their requests go, since the endpoint in question may not be their first.
    probes: Vec<JobId>,
}

/// What a 403 does to one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It fails.
    Fails,
    /// It waits: the brake is on.
    Waits(Instant),
}

impl PermissionHolds {
    /// One probe each `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, kinds: HashMap::new() }
    }

    /// `job` got a 403. Also true where that put the brake on.
    pub(crate) fn judge(&mut self, kind: Kind, endpoint: &'static str, job: &JobId, now: Instant) -> (Judgement, bool) {
        let refusals = self.kinds.entry(kind).or_default();
        let jobs = refusals.jobs.entry(endpoint).or_default();
        let known = jobs.contains(job);
        if let Some(on) = &mut refusals.brake {
            if on.endpoint == endpoint {
                on.probes.clear();
            }
            let judgement = if known { Judgement::Fails } else { Judgement::Waits(on.next_probe) };
            return (judgement, false);
        }
        if !known {
            jobs.push(job.clone());
        }
        let enough = jobs.len() >= JOBS_IN_A_ROW;
        if enough {
            refusals.brake = Some(On { endpoint, next_probe: now + self.interval, probes: Vec::new() });
        }
        (Judgement::Fails, enough)
    }

    /// The endpoint let the kind do something. True where that lifted the brake.
    pub(crate) fn permitted(&mut self, kind: Kind, endpoint: &'static str) -> bool {
        let Some(refusals) = self.kinds.get_mut(&kind) else { return false };
        refusals.jobs.remove(endpoint);
        refusals.brake.take_if(|on| on.endpoint == endpoint).is_some()
    }

    /// The endpoint refused a shared request: the probe, if it was one, is over.
    pub(crate) fn refused(&mut self, kind: Kind, endpoint: &'static str) {
        let brake = self.kinds.get_mut(&kind).and_then(|refusals| refusals.brake.as_mut());
        if let Some(on) = brake.filter(|on| on.endpoint == endpoint) {
            on.probes.clear();
        }
    }

    /// Until when requests of `jobs` are held; `None` where they may go, also as the probe.
    pub(crate) fn held(&self, kind: Kind, jobs: &[JobId], now: Instant) -> Option<Instant> {
        let on = self.on(kind)?;
        let may = now >= on.next_probe || on.is_probe(jobs);
        (!may).then_some(on.next_probe)
    }

    /// Lets a request through that is not [`held`](Self::held): its jobs are the probe, if the brake is on.
    pub(crate) fn take(&mut self, kind: Kind, jobs: &[JobId], now: Instant) -> RequestRole {
        let brake = self.kinds.get_mut(&kind).and_then(|refusals| refusals.brake.as_mut());
        let Some(on) = brake else { return RequestRole::Free };
        if !on.is_probe(jobs) {
            on.next_probe = now + self.interval;
            on.probes = jobs.to_vec();
        }
        RequestRole::Probe
    }

    /// When the next probe of the kind goes; `None` while its brake is off.
    pub(crate) fn next_probe(&self, kind: Kind) -> Option<Instant> {
        self.on(kind).map(|on| on.next_probe)
    }

    /// The kinds whose brake is on, and the endpoint that refuses them.
    pub(crate) fn all_on(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        self.kinds.iter().filter_map(|(kind, refusals)| Some((*kind, refusals.brake.as_ref()?.endpoint)))
    }

    fn on(&self, kind: Kind) -> Option<&On> {
        self.kinds.get(&kind)?.brake.as_ref()
    }
}

impl On {
    fn is_probe(&self, jobs: &[JobId]) -> bool {
        jobs.iter().any(|job| self.probes.contains(job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind::ChannelProvision;
    const CREATE: &str = "/api/v2/purecloudv2/webchat";
    const QUEUE: &str = "/api/v2/routing/queues/{queueId}";
    const MINUTE: Duration = Duration::from_secs(60);

    fn job(number: usize) -> JobId {
        JobId::parse(&format!("job-{number}")).unwrap()
    }

    fn judge(brakes: &mut PermissionHolds, number: usize, now: Instant) -> Judgement {
        brakes.judge(KIND, CREATE, &job(number), now).0
    }

    fn braked(now: Instant) -> PermissionHolds {
        let mut brakes = PermissionHolds::new(MINUTE);
        for number in 0..5 {
            assert_eq!(judge(&mut brakes, number, now), Judgement::Fails);
        }
        assert!(brakes.next_probe(KIND).is_some());
        brakes
    }

    #[test]
    fn five_jobs_fail_and_all_others_wait_probes_included() {
        let now = Instant::now();
        let mut brakes = braked(now);
        for number in 5..50 {
            assert_eq!(judge(&mut brakes, number, now), Judgement::Waits(now + MINUTE));
        }
        let due = now + MINUTE;
        assert_eq!(brakes.take(KIND, &[job(7)], due), RequestRole::Probe);
        assert_eq!(judge(&mut brakes, 7, due), Judgement::Waits(due + MINUTE));
    }

    #[test]
    fn one_job_that_is_refused_again_and_again_is_one_job() {
        let (now, mut brakes) = (Instant::now(), PermissionHolds::new(MINUTE));
        for _ in 0..20 {
            assert_eq!(judge(&mut brakes, 1, now), Judgement::Fails);
        }
        assert_eq!(brakes.next_probe(KIND), None);
    }

    #[test]
    fn a_success_between_begins_the_row_anew_but_only_on_that_endpoint() {
        let (now, mut brakes) = (Instant::now(), PermissionHolds::new(MINUTE));
        for number in 0..4 {
            judge(&mut brakes, number, now);
        }
        brakes.permitted(KIND, QUEUE);
        brakes.permitted(KIND, CREATE);
        for number in 4..8 {
            judge(&mut brakes, number, now);
        }
        brakes.permitted(KIND, QUEUE);
        assert_eq!(brakes.next_probe(KIND), None);
        judge(&mut brakes, 8, now);
        assert_eq!(brakes.next_probe(KIND), Some(now + MINUTE));
    }

    #[test]
    fn only_the_kind_is_held_and_only_one_job_probes() {
        let now = Instant::now();
        let mut brakes = braked(now);
        assert_eq!(brakes.held(Kind::CdnPurge, &[job(9)], now), None);
        assert_eq!(brakes.held(KIND, &[job(9)], now), Some(now + MINUTE));
        let due = now + MINUTE;
        assert_eq!(brakes.held(KIND, &[job(9)], due), None);
        brakes.take(KIND, &[job(9)], due);
        assert_eq!(brakes.held(KIND, &[job(10)], due), Some(due + MINUTE));
    }

    #[test]
    fn a_probing_job_gets_past_its_other_requests_to_the_endpoint_in_question() {
        let now = Instant::now();
        let (mut brakes, due) = (braked(now), now + MINUTE);
        brakes.take(KIND, &[job(9)], due);
        assert!(!brakes.permitted(KIND, QUEUE));
        assert_eq!(brakes.held(KIND, &[job(9)], due), None);
        assert!(brakes.permitted(KIND, CREATE), "that lifts it");
        assert_eq!(brakes.held(KIND, &[job(10)], due), None);
    }

    #[test]
    fn a_shared_probe_that_is_refused_is_over() {
        let now = Instant::now();
        let (mut brakes, due) = (braked(now), now + MINUTE);
        brakes.take(KIND, &[job(9), job(10)], due);
        brakes.refused(KIND, CREATE);
        assert_eq!(brakes.held(KIND, &[job(9)], due), Some(due + MINUTE));
    }

    #[test]
    fn credentials_are_tried_once_each_interval() {
        let (now, mut brake) = (Instant::now(), CredentialHold::new(MINUTE));
        assert!(!brake.is_due(now));
        assert!(brake.put_on("invalid_client", now));
        assert!(!brake.put_on("invalid_client", now), "it was on");
        assert!(!brake.is_due(now + MINUTE / 2));
        assert!(brake.is_due(now + MINUTE));
        assert!(!brake.is_due(now + MINUTE), "this try is under way");
        assert!(brake.lift());
        assert_eq!(brake.next_try(), None);
    }
}
