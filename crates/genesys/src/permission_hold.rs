//! The hold for missing permissions (SPEC 4): a kind of job that one endpoint refuses with 403 waits, before that costs
//! more than five jobs.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{admission::PROBE_GRACE, circuit_breaker::RequestRole};
use genfleet_job::{JobId, Kind};

/// Number of different jobs refused in a row after which the cause is not the job.
const JOBS_IN_A_ROW: usize = 5;

#[derive(Debug)]
pub(crate) struct PermissionHolds {
    interval: Duration,
    kinds: HashMap<Kind, Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// The jobs that were refused in a row, by endpoint; never more than five.
    jobs: HashMap<&'static str, Vec<JobId>>,
    hold: Option<PermissionHold>,
}

#[derive(Debug)]
struct PermissionHold {
    endpoint: &'static str,
    next_probe: Instant,
    /// The jobs that are the probe. All their requests are admitted, because the forbidden endpoint may not be the
    /// first one that they call.
    probes: Vec<JobId>,
}

impl PermissionHolds {
    /// Lets one job probe each `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, kinds: HashMap::new() }
    }

    /// Handles a 403 of `job`. Returns until when the job waits, `None` if it fails; and whether a hold began.
    pub(crate) fn judge(
        &mut self,
        kind: Kind,
        endpoint: &'static str,
        job: &JobId,
        now: Instant,
    ) -> (Option<Instant>, bool) {
        let refusals = self.kinds.entry(kind).or_default();
        let jobs = refusals.jobs.entry(endpoint).or_default();
        let known = jobs.contains(job);
        if let Some(hold) = &mut refusals.hold {
            if hold.endpoint == endpoint {
                hold.probes.clear();
            }
            return ((!known).then_some(hold.next_probe), false);
        }
        if !known {
            jobs.push(job.clone());
        }
        let begins = jobs.len() >= JOBS_IN_A_ROW;
        if begins {
            let next_probe = now + self.interval;
            refusals.hold = Some(PermissionHold { endpoint, next_probe, probes: Vec::new() });
        }
        (None, begins)
    }

    /// Records that the endpoint accepted a request of the kind. Returns true if that ended the hold.
    pub(crate) fn note_permitted(&mut self, kind: Kind, endpoint: &'static str) -> bool {
        let Some(refusals) = self.kinds.get_mut(&kind) else { return false };
        refusals.jobs.remove(endpoint);
        refusals.hold.take_if(|hold| hold.endpoint == endpoint).is_some()
    }

    /// Records that the endpoint refused a shared request, which ends it as a probe.
    pub(crate) fn note_refused(&mut self, kind: Kind, endpoint: &'static str) {
        if let Some(hold) = self.hold_mut(kind).filter(|hold| hold.endpoint == endpoint) {
            hold.probes.clear();
        }
    }

    /// Returns until when requests of `jobs` are held; `None` if they may go, also as the probe.
    pub(crate) fn held_until(&self, kind: Kind, jobs: &[JobId], now: Instant) -> Option<Instant> {
        let hold = self.hold(kind)?;
        let may = now >= hold.next_probe || hold.is_probe(jobs);
        (!may).then_some(hold.next_probe)
    }

    /// Admits a request that is not [`held`](Self::held_until): its jobs are the probe, if there is a hold.
    pub(crate) fn admit(&mut self, kind: Kind, jobs: &[JobId], now: Instant) -> RequestRole {
        let next_probe = now + self.interval;
        let Some(hold) = self.hold_mut(kind) else { return RequestRole::Normal };
        if !hold.is_probe(jobs) {
            hold.next_probe = next_probe;
            hold.probes = jobs.to_vec();
        }
        RequestRole::Probe
    }

    /// Returns when the next probe of the kind goes; `None` without a hold.
    pub(crate) fn next_probe(&self, kind: Kind) -> Option<Instant> {
        self.hold(kind).map(|hold| hold.next_probe)
    }

    /// Lists the kinds on hold, and the endpoint that refuses them. A hold whose probe no job has taken is not among
    /// them: it holds nothing.
    pub(crate) fn all(&self, now: Instant) -> impl Iterator<Item = (Kind, &'static str)> {
        self.holds().filter(move |(_, hold)| !hold.is_untaken(now)).map(|(kind, hold)| (kind, hold.endpoint))
    }

    /// Lists the kinds, and the endpoint that refused them, whose probe no job has taken since it was due.
    pub(crate) fn untaken(&self, now: Instant) -> impl Iterator<Item = (Kind, &'static str)> {
        self.holds().filter(move |(_, hold)| hold.is_untaken(now)).map(|(kind, hold)| (kind, hold.endpoint))
    }

    fn holds(&self) -> impl Iterator<Item = (Kind, &PermissionHold)> {
        self.kinds.iter().filter_map(|(kind, refusals)| Some((*kind, refusals.hold.as_ref()?)))
    }

    fn hold(&self, kind: Kind) -> Option<&PermissionHold> {
        self.kinds.get(&kind)?.hold.as_ref()
    }

    fn hold_mut(&mut self, kind: Kind) -> Option<&mut PermissionHold> {
        self.kinds.get_mut(&kind)?.hold.as_mut()
    }
}

impl PermissionHold {
    fn is_untaken(&self, now: Instant) -> bool {
        now >= self.next_probe + PROBE_GRACE
    }

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

    fn judge(holds: &mut PermissionHolds, number: usize, now: Instant) -> Option<Instant> {
        holds.judge(KIND, CREATE, &job(number), now).0
    }

    fn holding(now: Instant) -> PermissionHolds {
        let mut holds = PermissionHolds::new(MINUTE);
        for number in 0..5 {
            assert_eq!(judge(&mut holds, number, now), None);
        }
        assert!(holds.next_probe(KIND).is_some());
        holds
    }

    #[test]
    fn five_jobs_fail_and_all_others_wait_probes_included() {
        let now = Instant::now();
        let mut holds = holding(now);
        for number in 5..50 {
            assert_eq!(judge(&mut holds, number, now), Some(now + MINUTE));
        }
        let due = now + MINUTE;
        assert_eq!(holds.admit(KIND, &[job(7)], due), RequestRole::Probe);
        assert_eq!(judge(&mut holds, 7, due), Some(due + MINUTE));
    }

    #[test]
    fn one_job_that_is_refused_again_and_again_is_one_job() {
        let (now, mut holds) = (Instant::now(), PermissionHolds::new(MINUTE));
        for _ in 0..20 {
            assert_eq!(judge(&mut holds, 1, now), None);
        }
        assert_eq!(holds.next_probe(KIND), None);
    }

    #[test]
    fn a_success_between_begins_the_row_anew_but_only_on_that_endpoint() {
        let (now, mut holds) = (Instant::now(), PermissionHolds::new(MINUTE));
        for number in 0..4 {
            judge(&mut holds, number, now);
        }
        holds.note_permitted(KIND, QUEUE);
        holds.note_permitted(KIND, CREATE);
        for number in 4..8 {
            judge(&mut holds, number, now);
        }
        holds.note_permitted(KIND, QUEUE);
        assert_eq!(holds.next_probe(KIND), None);
        judge(&mut holds, 8, now);
        assert_eq!(holds.next_probe(KIND), Some(now + MINUTE));
    }

    #[test]
    fn only_the_kind_is_held_and_only_one_job_probes() {
        let now = Instant::now();
        let mut holds = holding(now);
        assert_eq!(holds.held_until(Kind::CdnPurge, &[job(9)], now), None);
        assert_eq!(holds.held_until(KIND, &[job(9)], now), Some(now + MINUTE));
        let due = now + MINUTE;
        assert_eq!(holds.held_until(KIND, &[job(9)], due), None);
        holds.admit(KIND, &[job(9)], due);
        assert_eq!(holds.held_until(KIND, &[job(10)], due), Some(due + MINUTE));
    }

    #[test]
    fn a_probing_job_gets_past_its_other_requests_to_the_endpoint_in_question() {
        let now = Instant::now();
        let (mut holds, due) = (holding(now), now + MINUTE);
        holds.admit(KIND, &[job(9)], due);
        assert!(!holds.note_permitted(KIND, QUEUE));
        assert_eq!(holds.held_until(KIND, &[job(9)], due), None);
        assert!(holds.note_permitted(KIND, CREATE), "that ends it");
        assert_eq!(holds.held_until(KIND, &[job(10)], due), None);
    }

    #[test]
    fn a_shared_probe_that_is_refused_is_over() {
        let now = Instant::now();
        let (mut holds, due) = (holding(now), now + MINUTE);
        holds.admit(KIND, &[job(9), job(10)], due);
        holds.note_refused(KIND, CREATE);
        assert_eq!(holds.held_until(KIND, &[job(9)], due), Some(due + MINUTE));
    }
}
