//! The gate of a CDN that all its requests share: they wait for it, and it learns from their answers. While it is closed, the
//! process holds the jobs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use genfleet_core::{
    clock::SharedClock,
    error::{ErrorClass, HELD_SPREAD, JobError},
    genesys::{GenesysClient, WorkerHold},
    job::{JobId, Kind},
};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    gate::{Gate, GateRefusal, GateStep, LONG_PAUSE},
    provider::{Hold, Provider, THROTTLED},
    purge::{RefusalCause, RequestContext},
};

/// A [`Gate`], and everybody who waits for it.
pub(super) struct SharedGate<P> {
    provider: Arc<P>,
    /// Holds the kind.
    genesys: GenesysClient,
    clock: SharedClock,
    gate: Mutex<Gate>,
    /// Counts the changes of the gate.
    changes: watch::Sender<u64>,
}

impl<P: Provider> SharedGate<P> {
    pub(super) fn new(provider: Arc<P>, genesys: GenesysClient, clock: SharedClock, gate: Gate) -> Self {
        Self { provider, genesys, clock, gate: Mutex::new(gate), changes: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a hold has to be probed because no job probes it. Announces the end of a pause meanwhile.
    pub(super) async fn wait_until_trial_due(&self) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let (trial, pause_ends) = {
                let gate = self.lock();
                (gate.trial_due(), gate.active_pause(Instant::now()).map(|(until, _)| until))
            };
            tokio::select! {
                // The sender lives in `self`.
                _ = changes.changed() => {}
                () = sleep_until(pause_ends) => self.announce(),
                () = sleep_until(trial) => return,
            }
        }
    }

    /// Puts the next probe off, because a trial is made now.
    pub(super) fn put_off_probe(&self) {
        self.lock().put_off_probe(Instant::now());
    }

    /// Begins or prolongs a pause.
    pub(super) fn pause(&self, wait: Duration, why: &str) {
        self.lock().pause(Instant::now(), wait, why);
        self.announce();
        warn!(cdn = P::NAME, seconds = wait.as_secs(), why, "throttled: nothing is purged until then");
    }

    /// Tells everybody who waits, and the process, that the gate changed.
    pub(super) fn announce(&self) {
        self.genesys.set_worker_hold(Kind::CdnPurge, self.hold());
        self.changes.send_modify(|count| *count += 1);
    }

    fn hold(&self) -> Option<WorkerHold> {
        let gate = self.lock();
        if let Some(on) = gate.active_hold() {
            return Some(WorkerHold {
                reason: on.hold.name(),
                why: self.with_remedy(on.hold, &on.why),
                next_look: on.next_probe,
                is_pause: on.hold == Hold::Unavailable,
                closes_intake: true,
            });
        }
        let now = Instant::now();
        let (until, why) = gate.active_pause(now)?;
        let closes_intake = until - now > LONG_PAUSE;
        Some(WorkerHold { reason: THROTTLED, why: why.to_owned(), next_look: until, is_pause: true, closes_intake })
    }

    /// Ends the hold, if there is one.
    pub(super) fn release(&self) {
        if self.lock().release() {
            info!(cdn = P::NAME, "the hold is over");
            self.announce();
        }
    }

    /// Begins a hold, and returns the error of the jobs.
    pub(super) fn begin_hold(
        &self,
        hold: Hold,
        why: &str,
        status: Option<u16>,
        request_id: Option<String>,
    ) -> (RefusalCause, JobError) {
        let is_new = self.lock().active_hold().is_none();
        let next_probe = self.lock().begin_hold(Instant::now(), hold, why);
        if is_new {
            warn!(cdn = P::NAME, brake = hold.name(), why, "purges are on hold: jobs wait in the queue");
        }
        if hold != Hold::Unavailable {
            self.provider.forget_credentials();
        }
        self.announce();
        let error = self.hold_error(next_probe, hold.code(), self.with_remedy(hold, why));
        (RefusalCause::Other, JobError { status, request_id, ..error })
    }

    /// Records that a request of `jobs` failed. If the CDN counts as unavailable now, or still does after this probe,
    /// returns the error of the jobs, which are held.
    pub(super) fn record_failure(&self, is_probe: bool, jobs: &[JobId], why: &str) -> Option<(RefusalCause, JobError)> {
        let is_unavailable = {
            let mut gate = self.lock();
            match gate.active_hold() {
                Some(on) if on.hold == Hold::Unavailable && !is_probe => {
                    // It was sent before the others failed.
                    let message = self.with_remedy(on.hold, &on.why);
                    return Some((RefusalCause::Other, self.hold_error(on.next_probe, on.hold.code(), message)));
                }
                Some(on) => on.hold == Hold::Unavailable,
                None => gate.record(true, jobs, Instant::now()),
            }
        };
        is_unavailable.then(|| self.begin_hold(Hold::Unavailable, why, None, None))
    }

    /// Records that the CDN answered a request of `jobs`, whatever it said.
    pub(super) fn record_answer(&self, jobs: &[JobId]) {
        let hold = self.lock().active_hold().map(|on| on.hold);
        match hold {
            Some(Hold::Unavailable) => self.release(),
            Some(_) => {}
            None => {
                self.lock().record(false, jobs, Instant::now());
            }
        }
    }

    /// Waits until a request may be sent; takes the right to send it where `takes`. True if it is a probe.
    pub(super) async fn admit(&self, context: &RequestContext, takes: bool) -> Result<bool, JobError> {
        let mut changes = self.changes.subscribe();
        loop {
            if context.stop.is_cancelled() {
                return Err(JobError::interrupted());
            }
            changes.mark_unchanged();
            let (step, is_probe) = {
                let mut gate = self.lock();
                let step = if takes { gate.take(Instant::now()) } else { gate.next_step(Instant::now()) };
                (step, takes && gate.active_hold().is_some())
            };
            match step {
                GateStep::Send => {
                    if is_probe {
                        self.announce();
                    }
                    return Ok(is_probe);
                }
                GateStep::Refused(until, why) => return Err(self.refusal(until, &why)),
                GateStep::WaitUntil(until) => tokio::select! {
                    biased;
                    () = context.stop.cancelled() => {}
                    _ = changes.changed() => {}
                    () = tokio::time::sleep_until(until) => {}
                },
            }
        }
    }

    /// The error of a job that waits in the queue.
    fn refusal(&self, until: Instant, refusal: &GateRefusal) -> JobError {
        match refusal {
            GateRefusal::Held(hold, why) => self.hold_error(until, hold.code(), self.with_remedy(*hold, why)),
            GateRefusal::Paused(why) => self.hold_error(until, "throttled", why.clone()),
        }
    }

    fn with_remedy(&self, hold: Hold, why: &str) -> String {
        format!("{why}; {}", self.provider.remedy(hold))
    }

    fn hold_error(&self, until: Instant, code: &'static str, message: String) -> JobError {
        JobError::new(ErrorClass::Held { until: self.time_of(until), spread: HELD_SPREAD }, code, message)
    }

    /// Turns an instant into a time of day.
    fn time_of(&self, instant: Instant) -> Timestamp {
        let ahead = SignedDuration::try_from(instant.saturating_duration_since(Instant::now()));
        self.clock.now().checked_add(ahead.unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
