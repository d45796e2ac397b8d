//! The circuit breaker: while the API does not answer, only probes are sent (SPEC 4). A state machine over the time.
//!
//! An outage then costs no attempts: jobs are held until the next probe. A 429 is no outage
//! ([`crate::rate_limit_pause`]).

use std::{
    collections::{HashMap, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use tokio::time::Instant;

use crate::{admission::PROBE_GRACE, slow_start::HealthSign};
use genfleet_job::JobId;

/// Minimum number of requests for a decision.
const REQUESTS: usize = 20;
/// Minimum number of failed jobs, because one broken job is no outage.
const JOBS: usize = 5;
/// The part of the requests that failed, in percent.
const FAILED_PERCENT: usize = 80;
/// The longest wait between probes, as a multiple of the first.
const LONGEST_WAIT: u32 = 12;

/// Closed: requests are sent. Open: one probe at a time is.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    outages: OutageDetector,
    first_wait: Duration,
    open: Option<Open>,
}

/// Tells an outage from single failures: at least 20 requests of at least 5 jobs in its window, of which 80 % failed.
#[derive(Debug)]
pub struct OutageDetector {
    window: Duration,
    recent: VecDeque<Recent>,
    failed: usize,
    jobs: HashMap<u64, usize>,
}

#[derive(Debug)]
struct Recent {
    at: Instant,
    has_failed: bool,
    jobs: Vec<u64>,
}

#[derive(Debug)]
struct Open {
    next_probe: Instant,
    wait: Duration,
    probe: Probe,
}

#[derive(Debug, PartialEq, Eq)]
enum Probe {
    Waiting,
    InFlight,
}

/// The role in which a request is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestRole {
    Normal,
    /// The probe that checks whether the API answers again.
    Probe,
}

/// A change of the breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerChange {
    None,
    Opened,
    StillOpen,
    Closed,
}

impl CircuitBreaker {
    /// Counts failures over `window`; the first probe goes `first_wait` after opening.
    pub(crate) fn new(window: Duration, first_wait: Duration) -> Self {
        Self { outages: OutageDetector::new(window), first_wait, open: None }
    }

    /// Returns when the next probe goes; `None` while the breaker is closed.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        self.open.as_ref().map(|open| open.next_probe)
    }

    /// Returns true if it is open and no job has taken the probe since it was due: then it holds nothing.
    pub(crate) fn is_untaken(&self, now: Instant) -> bool {
        let untaken = |open: &Open| open.probe == Probe::Waiting && now >= open.next_probe + PROBE_GRACE;
        self.open.as_ref().is_some_and(untaken)
    }

    /// Returns until when a request is held; `None` if it may go, also as the probe.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        let open = self.open.as_ref()?;
        match open.probe {
            // A probe in flight that outlives its wait is still the only one.
            Probe::InFlight => Some(open.next_probe.max(now + self.first_wait)),
            Probe::Waiting => (now < open.next_probe).then_some(open.next_probe),
        }
    }

    /// Admits a request that is not [held](Self::held_until).
    pub(crate) fn admit(&mut self, now: Instant) -> RequestRole {
        let Some(open) = &mut self.open else { return RequestRole::Normal };
        open.probe = Probe::InFlight;
        open.next_probe = now + open.wait;
        RequestRole::Probe
    }

    /// Records that an admitted request ended without a result.
    pub(crate) fn abandon(&mut self, pass: RequestRole, now: Instant) {
        if let (RequestRole::Probe, Some(open)) = (pass, &mut self.open) {
            open.probe = Probe::Waiting;
            open.next_probe = now;
        }
    }

    /// Counts a request of `jobs` that ended.
    pub(crate) fn record(
        &mut self,
        pass: RequestRole,
        sign: HealthSign,
        jobs: &[JobId],
        now: Instant,
    ) -> BreakerChange {
        match (&mut self.open, pass) {
            (Some(open), RequestRole::Probe) => match sign {
                HealthSign::Healthy => {
                    self.open = None;
                    BreakerChange::Closed
                }
                HealthSign::Unhealthy => open.postpone(now, self.first_wait),
            },
            // It was sent before the breaker opened.
            (Some(_), RequestRole::Normal) => BreakerChange::None,
            (None, _) => self.count(sign, jobs, now),
        }
    }

    /// Counts a caller that got no token since the token endpoint does not answer: like a request that failed.
    pub(crate) fn record_no_token(&mut self, jobs: &[JobId], now: Instant) -> BreakerChange {
        match &mut self.open {
            Some(open) if open.probe == Probe::Waiting && now >= open.next_probe => open.postpone(now, self.first_wait),
            Some(_) => BreakerChange::None,
            None => self.count(HealthSign::Unhealthy, jobs, now),
        }
    }

    fn count(&mut self, sign: HealthSign, jobs: &[JobId], now: Instant) -> BreakerChange {
        if !self.outages.record(sign == HealthSign::Unhealthy, jobs, now) {
            return BreakerChange::None;
        }
        let (next_probe, wait) = (now + self.first_wait, self.first_wait);
        self.open = Some(Open { next_probe, wait, probe: Probe::Waiting });
        BreakerChange::Opened
    }
}

impl OutageDetector {
    /// Counts the requests of the last `window`.
    pub fn new(window: Duration) -> Self {
        Self { window, recent: VecDeque::new(), failed: 0, jobs: HashMap::new() }
    }

    /// Counts a request of `jobs` that ended. True if this is an outage; then it begins to count anew.
    pub fn record(&mut self, has_failed: bool, jobs: &[JobId], now: Instant) -> bool {
        self.forget(now);
        let jobs: Vec<u64> = jobs.iter().map(fingerprint).collect();
        for job in &jobs {
            *self.jobs.entry(*job).or_default() += 1;
        }
        self.failed += usize::from(has_failed);
        self.recent.push_back(Recent { at: now, has_failed, jobs });
        let is_outage = self.recent.len() >= REQUESTS
            && self.jobs.len() >= JOBS
            && self.failed * 100 >= self.recent.len() * FAILED_PERCENT;
        if is_outage {
            *self = Self::new(self.window);
        }
        is_outage
    }

    /// Forgets what is older than the window.
    fn forget(&mut self, now: Instant) {
        let old = self.recent.iter().take_while(|recent| now - recent.at > self.window).count();
        for old in self.recent.drain(..old) {
            self.failed -= usize::from(old.has_failed);
            for job in old.jobs {
                if let Some(count) = self.jobs.get_mut(&job) {
                    *count -= 1;
                    if *count == 0 {
                        self.jobs.remove(&job);
                    }
                }
            }
        }
    }
}

impl Open {
    fn postpone(&mut self, now: Instant, first_wait: Duration) -> BreakerChange {
        self.wait = (self.wait * 2).min(first_wait * LONGEST_WAIT);
        self.next_probe = now + self.wait;
        self.probe = Probe::Waiting;
        BreakerChange::StillOpen
    }
}

/// A job's id in eight bytes: thousands are kept.
fn fingerprint(job: &JobId) -> u64 {
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> CircuitBreaker {
        CircuitBreaker::new(30 * SECOND, 5 * SECOND)
    }

    fn job(number: usize) -> [JobId; 1] {
        [JobId::parse(&format!("job-{number}")).unwrap()]
    }

    /// Ends `requests` of `jobs` at `now`; true if it opened.
    fn end(breaker: &mut CircuitBreaker, requests: usize, jobs: usize, sign: HealthSign, now: Instant) -> bool {
        (0..requests)
            .any(|number| breaker.record(RequestRole::Normal, sign, &job(number % jobs), now) == BreakerChange::Opened)
    }

    fn opened(now: Instant) -> CircuitBreaker {
        let mut breaker = breaker();
        assert!(end(&mut breaker, 20, 5, HealthSign::Unhealthy, now));
        breaker
    }

    #[test]
    fn twenty_requests_of_five_jobs_that_failed_open_it() {
        let now = Instant::now();
        assert!(!end(&mut breaker(), 19, 5, HealthSign::Unhealthy, now), "too few requests");
        assert!(!end(&mut breaker(), 100, 4, HealthSign::Unhealthy, now), "too few jobs");
        assert!(end(&mut breaker(), 20, 5, HealthSign::Unhealthy, now));
    }

    #[test]
    fn one_in_four_that_went_well_keeps_it_closed() {
        let (now, mut breaker) = (Instant::now(), breaker());
        end(&mut breaker, 10, 5, HealthSign::Healthy, now);
        assert!(!end(&mut breaker, 39, 5, HealthSign::Unhealthy, now));
        assert!(end(&mut breaker, 1, 5, HealthSign::Unhealthy, now), "40 of 50");
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (now, mut breaker) = (Instant::now(), breaker());
        end(&mut breaker, 19, 5, HealthSign::Unhealthy, now);
        assert!(!end(&mut breaker, 19, 5, HealthSign::Unhealthy, now + 31 * SECOND));
        let OutageDetector { recent, failed, jobs, .. } = &breaker.outages;
        assert_eq!((recent.len(), *failed, jobs.len()), (19, 19, 5));
    }

    #[test]
    fn only_one_probe_goes_when_it_is_due() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.held_until(now + 4 * SECOND), Some(now + 5 * SECOND));
        let due = now + 5 * SECOND;
        assert_eq!(breaker.held_until(due), None);
        assert_eq!(breaker.admit(due), RequestRole::Probe);
        assert_eq!(breaker.held_until(due), Some(due + 5 * SECOND));
        assert!(breaker.held_until(due + 20 * SECOND).is_some(), "it is still in flight");
    }

    #[test]
    fn probes_that_fail_come_after_growing_waits() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert_eq!(breaker.next_probe(), Some(now + seconds * SECOND));
            now += seconds * SECOND;
            let pass = breaker.admit(now);
            assert_eq!(breaker.record(pass, HealthSign::Unhealthy, &job(1), now), BreakerChange::StillOpen);
        }
    }

    #[test]
    fn a_probe_that_succeeds_closes_it_and_what_was_sent_before_does_not() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.record(RequestRole::Normal, HealthSign::Healthy, &job(1), now), BreakerChange::None);
        let pass = breaker.admit(now + 5 * SECOND);
        assert_eq!(breaker.record(pass, HealthSign::Healthy, &job(1), now + 6 * SECOND), BreakerChange::Closed);
        assert_eq!(breaker.held_until(now + 6 * SECOND), None);
        assert!(!end(&mut breaker, 19, 5, HealthSign::Unhealthy, now + 6 * SECOND), "it counts anew");
    }

    #[test]
    fn a_probe_that_goes_away_without_an_answer_lets_the_next_one_go() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let due = now + 5 * SECOND;
        let pass = breaker.admit(due);
        breaker.abandon(pass, due + SECOND);
        assert_eq!(breaker.held_until(due + SECOND), None);
    }

    #[test]
    fn a_token_endpoint_that_is_away_counts_and_fails_the_probe() {
        let (now, mut breaker) = (Instant::now(), breaker());
        let turns: Vec<BreakerChange> = (0..20).map(|number| breaker.record_no_token(&job(number), now)).collect();
        assert_eq!(turns.last(), Some(&BreakerChange::Opened));
        let due = now + 5 * SECOND;
        assert_eq!(breaker.record_no_token(&job(1), due), BreakerChange::StillOpen);
        assert_eq!(breaker.record_no_token(&job(2), due), BreakerChange::None, "all that waited for it fail at once");
        assert_eq!(breaker.next_probe(), Some(due + 10 * SECOND));
    }
}
