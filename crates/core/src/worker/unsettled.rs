//! Results of attempts whose message could not be settled because its session was lost meanwhile. The message is in the
//! queue again. If it comes to this process, it is settled with that result instead of running again; if it goes to
//! another process, it runs there as after a crash, and the result here is forgotten after a while. Nobody waits for
//! either.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use genfleet_job::{JobId, message::Message};

/// Time that a result is kept: longer than most outages of a broker.
const KEPT: Duration = Duration::from_secs(900);
/// Number of results kept. Only jobs that were in flight when a session was lost are among them.
const MOST: usize = 1024;

/// Unsettled results of one kind.
#[derive(Debug)]
pub(crate) struct Unsettled<R>(Mutex<VecDeque<Kept<R>>>);

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
    /// Keeps the result of an attempt on `message` until that is redelivered.
    pub(crate) fn keep(&self, id: &JobId, message: Message, result: &Arc<R>, now: Instant) {
        let mut kept = self.lock(now);
        kept.push_back(Kept { at: now, id: id.clone(), message, result: Arc::clone(result) });
        if kept.len() > MOST {
            kept.pop_front();
        }
    }

    /// Returns true if a result of this very message is kept.
    pub(crate) fn has(&self, id: &JobId, message: &Message, now: Instant) -> bool {
        self.lock(now).iter().any(|kept| kept.is_of(id, message))
    }

    /// Takes the newest result of this very message.
    pub(crate) fn take(&self, id: &JobId, message: &Message, now: Instant) -> Option<Arc<R>> {
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
