//! Deliveries that are suspected of killing processes (SPEC 5.5). Pure, except for the memory of suspects that this
//! process survived.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use genfleet_job::{
    JobId,
    message::{Lane, Message},
};

/// Delivery count from which on a delivery is suspicious.
const SUSPICIOUS_COUNT: u32 = 3;

/// A process that lost a session within this time attributes no delivery count to a crash.
pub(crate) const SESSION_LOST_LATELY: Duration = Duration::from_secs(60);

/// Time for which a suspect runs alone at first. It is short because most crashes happen at once, and other suspects
/// wait meanwhile.
const ALONE: Duration = Duration::from_secs(1);
/// Factor by which that time grows with each further suspicion, so that what kills later is found in the end.
const ALONE_LONGER: u32 = 8;

/// Time that a suspect runs on its own before it goes back to the other started jobs; `suspected` counts how often it
/// was suspected.
pub(crate) fn time_alone(suspected: u32) -> Duration {
    ALONE.saturating_mul(ALONE_LONGER.saturating_pow(suspected.saturating_sub(1)))
}

/// Verdict on a delivery before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SuspectVerdict {
    /// Run it.
    Run,
    /// Move it, without running it, to the suspects.
    Isolate,
    /// Return it to its lane with a count of 0: the count says nothing.
    ResetCount,
    /// End it as `crash_loop`: it killed processes three times on its own.
    CrashLoop,
}

/// Judges a delivery by how often it came back. `survived`: this process ran this suspect before. `sessions_lost`: this
/// process, and so most likely others, lost a session a moment ago, which returns all deliveries although no process
/// died.
pub(crate) fn judge(lane: Lane, delivery_count: u32, survived: bool, sessions_lost: bool) -> SuspectVerdict {
    match lane {
        _ if delivery_count >= SUSPICIOUS_COUNT && sessions_lost => SuspectVerdict::ResetCount,
        Lane::Jobs | Lane::Resume if delivery_count >= SUSPICIOUS_COUNT => SuspectVerdict::Isolate,
        Lane::Suspect if delivery_count > 0 && survived => SuspectVerdict::ResetCount,
        Lane::Suspect if delivery_count >= SUSPICIOUS_COUNT => SuspectVerdict::CrashLoop,
        Lane::Jobs | Lane::Resume | Lane::Suspect => SuspectVerdict::Run,
    }
}

/// Suspects that this process ran lately and survived.
#[derive(Debug, Default)]
pub(crate) struct SurvivedSuspects(Mutex<VecDeque<JobId>>);

impl SurvivedSuspects {
    /// Number of suspects remembered. They run one at a time, so a few would do.
    const REMEMBERED: usize = 256;

    /// Returns true if this process ran `message` before.
    pub(crate) fn contains(&self, message: &Message) -> bool {
        self.lock().contains(&JobId::derive(&message.body, message.timestamp))
    }

    /// Notes that this process ran `message` and survived.
    pub(crate) fn insert(&self, message: &Message) {
        let key = JobId::derive(&message.body, message.timestamp);
        let mut known = self.lock();
        if !known.contains(&key) {
            known.truncate(Self::REMEMBERED - 1);
            known.push_front(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<JobId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_on_every_lane_and_count() {
        for (lane, delivery_count, survived, sessions_lost, verdict) in [
            (Lane::Jobs, 0, false, false, SuspectVerdict::Run),
            (Lane::Jobs, 2, false, false, SuspectVerdict::Run),
            (Lane::Jobs, 2, false, true, SuspectVerdict::Run),
            (Lane::Jobs, 3, false, false, SuspectVerdict::Isolate),
            (Lane::Jobs, 3, false, true, SuspectVerdict::ResetCount),
            (Lane::Resume, 3, true, false, SuspectVerdict::Isolate),
            (Lane::Suspect, 0, false, false, SuspectVerdict::Run),
            (Lane::Suspect, 0, true, false, SuspectVerdict::Run),
            (Lane::Suspect, 2, false, false, SuspectVerdict::Run),
            (Lane::Suspect, 1, true, false, SuspectVerdict::ResetCount),
            (Lane::Suspect, 3, true, false, SuspectVerdict::ResetCount),
            (Lane::Suspect, 3, false, false, SuspectVerdict::CrashLoop),
            (Lane::Suspect, 3, false, true, SuspectVerdict::ResetCount),
        ] {
            let judged = judge(lane, delivery_count, survived, sessions_lost);
            assert_eq!(judged, verdict, "{lane} {delivery_count} {survived} {sessions_lost}");
        }
    }

    #[test]
    fn a_suspect_runs_alone_for_longer_each_time() {
        assert_eq!([0, 1, 2, 3].map(|times| time_alone(times).as_secs()), [1, 1, 8, 64]);
        assert!(time_alone(u32::MAX) > Duration::from_secs(3600));
    }

    #[test]
    fn a_suspect_that_was_survived_is_known() {
        let survived = SurvivedSuspects::default();
        let message = Message { body: "{}".into(), ..Message::default() };
        assert!(!survived.contains(&message));
        survived.insert(&message);
        survived.insert(&message);
        assert!(survived.contains(&message));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let survived = SurvivedSuspects::default();
        for n in 0..5_000_u64 {
            survived.insert(&Message { timestamp: Some(n), ..Message::default() });
        }
        assert_eq!(survived.lock().len(), SurvivedSuspects::REMEMBERED);
    }
}
