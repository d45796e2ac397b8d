//! How attempts ended whose message could not be settled, because the session it came by was lost meanwhile. The message
//! is in the queue again. Should it come to this process, it is settled with that result instead of running again;
//! should it come to another process, it runs there as after a crash, and the result here is forgotten after a while.
//! Nobody waits for either.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::audited::Audited;
use genfleet_job::{JobId, message::Message};

/// A result is kept for this time: longer than most outages of a broker.
const KEPT: Duration = Duration::from_secs(900);
/// Results kept at most. Only what was in flight when a session was lost is among them.
const MOST: usize = 1024;

/// The results of one kind. See the module.
#[derive(Debug)]
pub struct Unsettled<R = Audited>(Mutex<VecDeque<Kept<R>>>);

#[derive(Debug)]
struct Kept<R> {
    at: Instant,
    id: JobId,
    message: Message,
    result: Arc<R>,
}

impl<R> Default for Unsettled<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Unsettled<R> {
    /// Keeps how an attempt on `message` ended, for when it comes again.
    pub fn keep(&self, id: &JobId, message: Message, result: &Arc<R>, now: Instant) {
        let mut kept = self.lock(now);
        kept.push_back(Kept { at: now, id: id.clone(), message, result: Arc::clone(result) });
        if kept.len() > MOST {
            kept.pop_front();
        }
    }

    /// Whether a result of this very message is kept.
    pub fn has(&self, id: &JobId, message: &Message, now: Instant) -> bool {
        self.lock(now).iter().any(|kept| kept.is_of(id, message))
    }

    /// Takes the newest result of this very message, if one is kept.
    pub fn take(&self, id: &JobId, message: &Message, now: Instant) -> Option<Arc<R>> {
        let mut kept = self.lock(now);
        let at = kept.iter().rposition(|kept| kept.is_of(id, message))?;
        kept.remove(at).map(|kept| kept.result)
    }

    fn lock(&self, now: Instant) -> MutexGuard<'_, VecDeque<Kept<R>>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.front().is_some_and(|oldest| oldest.at + KEPT < now) {
            kept.pop_front();
        }
        kept
    }
}

impl<R> Kept<R> {
    fn is_of(&self, id: &JobId, message: &Message) -> bool {
        self.id == *id && self.message == *message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: &str) -> JobId {
        JobId::parse(id).unwrap()
    }

    fn message(body: &str) -> Message {
        Message { body: body.to_owned().into(), ..Message::default() }
    }

    #[test]
    fn a_result_is_of_one_message_and_taken_once() {
        let (unsettled, now) = (Unsettled::default(), Instant::now());
        unsettled.keep(&id("a"), message("1"), &Arc::new("done"), now);
        assert!(!unsettled.has(&id("a"), &message("2"), now) && !unsettled.has(&id("b"), &message("1"), now));
        assert!(unsettled.has(&id("a"), &message("1"), now));
        assert_eq!(unsettled.take(&id("a"), &message("1"), now).as_deref(), Some(&"done"));
        assert_eq!(unsettled.take(&id("a"), &message("1"), now), None);
    }

    #[test]
    fn results_are_forgotten_after_a_while_and_their_number_is_bounded() {
        let (unsettled, now) = (Unsettled::default(), Instant::now());
        for number in 0..2000 {
            unsettled.keep(&id(&number.to_string()), message("1"), &Arc::new(number), now);
        }
        assert_eq!(unsettled.lock(now).len(), MOST);
        assert!(!unsettled.has(&id("0"), &message("1"), now) && unsettled.has(&id("1999"), &message("1"), now));
        assert_eq!(unsettled.lock(now + KEPT + Duration::from_secs(1)).len(), 0);
    }
}
