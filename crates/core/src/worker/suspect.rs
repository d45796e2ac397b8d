//! Which deliveries are suspected of killing processes (SPEC 5.5). Pure, but for the memory of what this
//! process has survived.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use crate::{
    job::JobId,
    queue::{Lane, Message},
};

/// Returns from which on a delivery is no ordinary one.
pub const SUSPICIOUS_RETURNS: u32 = 3;

/// What to do with a delivery before looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Work it.
    Run,
    /// Move it, unrun, to the suspects.
    Suspect,
    /// It came back, but this process outlived its last run: let its count begin at 0.
    StartOver,
    /// It killed processes three times on its own: `crash_loop`.
    Convict,
}

/// The verdict on a delivery that came back `returns` times; `outlived`: this process was handed it before.
pub fn judge(lane: Lane, returns: u32, outlived: bool) -> Verdict {
    match lane {
        Lane::Jobs | Lane::Resume if returns >= SUSPICIOUS_RETURNS => Verdict::Suspect,
        Lane::Suspect if returns > 0 && outlived => Verdict::StartOver,
        Lane::Suspect if returns >= SUSPICIOUS_RETURNS => Verdict::Convict,
        Lane::Jobs | Lane::Resume | Lane::Suspect => Verdict::Run,
    }
}

/// The suspects this process was handed lately.
#[derive(Debug, Default)]
pub struct Outlived {
    known: Mutex<(HashSet<JobId>, VecDeque<JobId>)>,
}

impl Outlived {
    /// Suspects remembered at once: they are worked one at a time, so a few would do.
    const REMEMBERED: usize = 1024;

    /// Notes that this process was handed `message`; true where it was handed it before.
    pub fn note(&self, message: &Message) -> bool {
        let key = JobId::derived(&message.body, message.timestamp);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, order) = &mut *known;
        if !keys.insert(key.clone()) {
            return true;
        }
        order.push_back(key);
        if order.len() > Self::REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            keys.remove(&oldest);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_on_every_lane_and_count() {
        for (lane, returns, outlived, verdict) in [
            (Lane::Jobs, 0, false, Verdict::Run),
            (Lane::Jobs, 2, false, Verdict::Run),
            (Lane::Jobs, 3, false, Verdict::Suspect),
            (Lane::Resume, 3, true, Verdict::Suspect),
            (Lane::Suspect, 0, false, Verdict::Run),
            (Lane::Suspect, 0, true, Verdict::Run),
            (Lane::Suspect, 2, false, Verdict::Run),
            (Lane::Suspect, 1, true, Verdict::StartOver),
            (Lane::Suspect, 3, true, Verdict::StartOver),
            (Lane::Suspect, 3, false, Verdict::Convict),
        ] {
            assert_eq!(judge(lane, returns, outlived), verdict, "{lane} {returns} {outlived}");
        }
    }

    #[test]
    fn a_suspect_handed_over_twice_is_known() {
        let outlived = Outlived::default();
        let message = Message { body: "{}".into(), ..Message::default() };
        assert!(!outlived.note(&message));
        assert!(outlived.note(&message));
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
