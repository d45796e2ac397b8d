//! Which deliveries are suspected of killing processes (SPEC 5.5). Pure, but for the memory of what this
//! process has survived.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use genfleet_job::{
    JobId,
    message::{Lane, Message},
};

/// Returns from which on a delivery is no ordinary one.
pub const SUSPICIOUS_RETURNS: u32 = 3;

/// A process that lost a session so lately puts no return down to a death.
pub const SESSION_LOST_LATELY: Duration = Duration::from_secs(60);

/// How long a suspect runs on its own, the first time. Most of those that kill do so at once; and the others wait.
const ALONE: Duration = Duration::from_secs(1);
/// How much longer, each time it is suspected again: what kills later is found in the end.
const ALONE_LONGER: u32 = 8;

/// How long a suspect runs on its own that was suspected so often: then it goes on among the other begun jobs.
pub fn time_alone(suspected: u32) -> Duration {
    ALONE.saturating_mul(ALONE_LONGER.saturating_pow(suspected.saturating_sub(1)))
}

/// What to do with a delivery before looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Work it.
    Run,
    /// Move it, unrun, to the suspects.
    Suspect,
    /// Its count says nothing: it stays in its lane, and the count begins at 0.
    StartOver,
    /// It killed processes three times on its own: `crash_loop`.
    Convict,
}

/// The verdict on a delivery that came back `returns` times; `outlived`: this process ran this suspect before;
/// `sessions_lost`: this process lost a session a moment ago, and so did others, most likely. That returns all that was
/// handed over, and no process died.
pub fn judge(lane: Lane, delivery_count: u32, outlived: bool, sessions_lost: bool) -> Verdict {
    match lane {
        _ if delivery_count >= SUSPICIOUS_RETURNS && sessions_lost => Verdict::StartOver,
        Lane::Jobs | Lane::Resume if delivery_count >= SUSPICIOUS_RETURNS => Verdict::Suspect,
        Lane::Suspect if delivery_count > 0 && outlived => Verdict::StartOver,
        Lane::Suspect if delivery_count >= SUSPICIOUS_RETURNS => Verdict::Convict,
        Lane::Jobs | Lane::Resume | Lane::Suspect => Verdict::Run,
    }
}

/// The suspects this process ran lately, and outlived.
#[derive(Debug, Default)]
pub struct Outlived {
    known: Mutex<(HashSet<JobId>, VecDeque<JobId>)>,
}

impl Outlived {
    /// Suspects remembered at once: they are worked one at a time, so a few would do.
    const REMEMBERED: usize = 1024;

    /// Whether this process ran `message` before.
    pub fn has(&self, message: &Message) -> bool {
        let key = JobId::derived(&message.body, message.timestamp);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&key)
    }

    /// Notes that this process ran `message` and lives.
    pub fn note(&self, message: &Message) {
        let key = JobId::derived(&message.body, message.timestamp);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, order) = &mut *known;
        if !keys.insert(key.clone()) {
            return;
        }
        order.push_back(key);
        if order.len() > Self::REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            keys.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_on_every_lane_and_count() {
        for (lane, delivery_count, outlived, sessions_lost, verdict) in [
            (Lane::Jobs, 0, false, false, Verdict::Run),
            (Lane::Jobs, 2, false, false, Verdict::Run),
            (Lane::Jobs, 2, false, true, Verdict::Run),
            (Lane::Jobs, 3, false, false, Verdict::Suspect),
            (Lane::Jobs, 3, false, true, Verdict::StartOver),
            (Lane::Resume, 3, true, false, Verdict::Suspect),
            (Lane::Suspect, 0, false, false, Verdict::Run),
            (Lane::Suspect, 0, true, false, Verdict::Run),
            (Lane::Suspect, 2, false, false, Verdict::Run),
            (Lane::Suspect, 1, true, false, Verdict::StartOver),
            (Lane::Suspect, 3, true, false, Verdict::StartOver),
            (Lane::Suspect, 3, false, false, Verdict::Convict),
            (Lane::Suspect, 3, false, true, Verdict::StartOver),
        ] {
            let judged = judge(lane, delivery_count, outlived, sessions_lost);
            assert_eq!(judged, verdict, "{lane} {delivery_count} {outlived} {sessions_lost}");
        }
    }

    #[test]
    fn a_suspect_runs_alone_for_longer_each_time() {
        assert_eq!([0, 1, 2, 3].map(|times| time_alone(times).as_secs()), [1, 1, 8, 64]);
        assert!(time_alone(u32::MAX) > Duration::from_secs(3600));
    }

    #[test]
    fn a_suspect_that_was_outlived_is_known() {
        let outlived = Outlived::default();
        let message = Message { body: "{}".into(), ..Message::default() };
        assert!(!outlived.has(&message));
        outlived.note(&message);
        outlived.note(&message);
        assert!(outlived.has(&message));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let outlived = Outlived::default();
        for n in 0..5_000_u64 {
            outlived.note(&Message { timestamp: Some(n), ..Message::default() });
        }
        assert_eq!(outlived.known.lock().unwrap().0.len(), Outlived::REMEMBERED);
    }
}
