//! The messages that this process has settled recently. AMQP does not confirm acknowledgements: one that was written
//! shortly before its session was lost may not have reached the broker. The broker then redelivers the message,
//! although everything that follows from it is durable. If it is redelivered to this process, it is acknowledged again
//! and not handed over.
//!
//! A message that a worker published into a lane is identified by a unique number in a header ([`COPY`]). A producer's
//! message has no such number. It is identified by its content, and only if the broker says that it was delivered
//! before and a session was lost since it was settled. A second message with the same content is not mistaken for it if
//! this process gave it back unsettled ([`Recent::record_given_back`]) or lost it with its session ([`Recent::record_session_loss`]).
//! One case remains: a producer publishes the same bytes and properties again within minutes, and *another* process
//! loses that delivery. In events and replies, too, such messages cannot be distinguished.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::Instant;

use genfleet_job::trace_context::{TRACEPARENT, TRACESTATE};

/// The header with the unique number of a worker's publication.
pub(crate) const COPY: &str = "genfleet-copy";

/// An acknowledgement that was written this long before the loss of its session has certainly reached the broker: twice
/// the time after which a silent connection is closed.
const UNCERTAIN: Duration = Duration::from_secs(60);
/// A message that is not redelivered within this time is forgotten.
const KEPT: Duration = Duration::from_secs(300);
/// Number of bytes that are hashed at each end of a body.
const HASHED: usize = 32 * 1024;
/// Maximum number of messages that are remembered, about 2 MB.
const MOST: usize = 8192;

/// The identity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    hash: u128,
    /// True if it is computed from a worker's number.
    is_numbered: bool,
}

/// A delivery that is not settled yet: see [`Recent::hold`].
#[derive(Clone, Copy, Debug)]
pub struct RecentDelivery {
    identity: Identity,
    /// Number of sessions that were lost before it arrived.
    losses: u64,
    /// True if it may have been settled before: the broker has delivered it before, and this process expects no
    /// unsettled message with the same identity.
    may_be_settled: bool,
}

/// The history of an identity in this process.
#[derive(Debug, Default)]
struct History {
    /// Number of settlements.
    settled: u32,
    /// Time of the last settlement.
    settled_at: Option<Instant>,
    /// True if the acknowledgement of a settlement may be lost with its session.
    is_uncertain: bool,
    /// Number of deliveries of this session that are not settled.
    held: u32,
    /// Number of deliveries that were given back or lost unsettled, and have not been redelivered.
    left: u32,
    /// Time at which the last of these was given back or lost.
    left_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Settled,
    Left,
}

/// The recently settled messages; see the module.
#[derive(Debug, Default)]
pub struct Recent {
    hashers: [RandomState; 2],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// All events, oldest first. They are forgotten in this order.
    events: VecDeque<(Instant, Identity, Event)>,
    histories: HashMap<Identity, History>,
    losses: u64,
    lost_at: Option<Instant>,
}

impl Recent {
    /// Computes the identity of `delivery`. Its number counts only if it came from an exchange of the workers (`ours`).
    pub(crate) fn identity(&self, delivery: &Delivery, ours: bool) -> Identity {
        let headers = delivery.properties.headers().as_ref();
        let number = headers.filter(|_| ours).and_then(copy);
        let hash = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            match number {
                Some(number) => number.hash(&mut hasher),
                None => hash_content(delivery, &mut hasher),
            }
            hasher.finish()
        };
        let [high, low] = &self.hashers;
        Identity { hash: u128::from(hash(high)) << 64 | u128::from(hash(low)), is_numbered: number.is_some() }
    }

    /// Records that a delivery has arrived. It is held until it is settled or given back.
    pub(crate) fn hold(&self, identity: Identity, redelivered: bool) -> RecentDelivery {
        let mut state = self.lock();
        let losses = state.losses;
        if identity.is_numbered {
            return RecentDelivery { identity, losses, may_be_settled: true };
        }
        let history = state.histories.entry(identity).or_default();
        history.held += 1;
        let may_be_settled = redelivered && history.left == 0;
        history.left -= u32::from(redelivered && history.left > 0);
        RecentDelivery { identity, losses, may_be_settled }
    }

    /// For tests of other crates: records a delivery with this body, and with the number of a worker if there is one.
    #[cfg(any(test, feature = "testing"))]
    pub fn record_delivery(&self, body: &[u8], number: Option<i64>, redelivered: bool) -> RecentDelivery {
        let mut delivery = Delivery::mock(1, "g.work".into(), "k".into(), redelivered, body.to_vec());
        let mut headers = FieldTable::default();
        if let Some(number) = number {
            headers.insert(COPY.into(), AMQPValue::LongLongInt(number));
        }
        delivery.properties = lapin::BasicProperties::default().with_headers(headers);
        self.hold(self.identity(&delivery, true), redelivered)
    }

    /// Records that everything that follows from this message is durable. Called before its acknowledgement is written.
    pub fn record_settled(&self, held: &RecentDelivery, now: Instant) {
        let mut state = self.lock();
        state.release(held);
        let history = state.histories.entry(held.identity).or_default();
        history.settled += 1;
        history.settled_at = Some(now);
        state.remember(held.identity, Event::Settled, now);
    }

    /// Returns true if a held message was settled before, and only its acknowledgement was lost.
    pub fn was_settled(&self, held: &RecentDelivery, now: Instant) -> bool {
        let mut state = self.lock();
        state.forget_before(now.checked_sub(KEPT));
        let history = state.histories.get(&held.identity).filter(|history| history.settled > 0);
        history.is_some_and(|history| held.identity.is_numbered || (held.may_be_settled && history.is_uncertain))
    }

    /// Records that the acknowledgement of a settled message could not be written.
    pub(crate) fn record_unacknowledged(&self, held: &RecentDelivery) {
        if let Some(history) = self.lock().histories.get_mut(&held.identity) {
            history.is_uncertain = true;
        }
    }

    /// Records that a held message was not settled. The broker redelivers it to this or another process.
    pub fn record_given_back(&self, held: &RecentDelivery, now: Instant) {
        let mut state = self.lock();
        if state.release(held) {
            state.leave(held.identity, 1, now);
        }
    }

    /// Records that the session of all deliveries so far is lost.
    pub fn record_session_loss(&self, now: Instant) {
        let mut state = self.lock();
        let mut held = Vec::new();
        for (identity, history) in &mut state.histories {
            history.is_uncertain |= history.settled_at.is_some_and(|at| now <= at + UNCERTAIN);
            match std::mem::take(&mut history.held) {
                0 => {}
                count => held.push((*identity, count)),
            }
        }
        for (identity, count) in held {
            state.leave(identity, count, now);
        }
        state.losses += 1;
        state.lost_at = Some(now);
    }

    /// Returns true if a session was lost within the last `time`.
    pub fn lost_within(&self, time: Duration, now: Instant) -> bool {
        self.lock().lost_at.is_some_and(|lost| now < lost + time)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends the hold on a delivery. Returns false if it was not counted: it has a number, or its session is lost.
    fn release(&mut self, held: &RecentDelivery) -> bool {
        if held.identity.is_numbered || held.losses != self.losses {
            return false;
        }
        if let Some(history) = self.histories.get_mut(&held.identity) {
            history.held = history.held.saturating_sub(1);
        }
        true
    }

    fn leave(&mut self, identity: Identity, count: u32, now: Instant) {
        let history = self.histories.entry(identity).or_default();
        history.left += count;
        history.left_at = Some(now);
        self.remember(identity, Event::Left, now);
    }

    fn remember(&mut self, identity: Identity, event: Event, now: Instant) {
        self.forget_before(now.checked_sub(KEPT));
        // Before it is added: one event more would double the memory.
        while self.events.len() >= MOST {
            self.forget_oldest();
        }
        self.events.push_back((now, identity, event));
    }

    fn forget_before(&mut self, time: Option<Instant>) {
        while time.is_some_and(|time| self.events.front().is_some_and(|(at, ..)| *at < time)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, identity, event)) = self.events.pop_front() else { return };
        let Entry::Occupied(mut entry) = self.histories.entry(identity) else { return };
        let history = entry.get_mut();
        match event {
            Event::Settled => history.settled -= 1,
            Event::Left if history.left_at <= Some(at) => history.left = 0,
            Event::Left => {}
        }
        if history.settled + history.left + history.held == 0 {
            entry.remove();
        }
    }
}

fn copy(headers: &FieldTable) -> Option<i64> {
    match headers.inner().get(COPY) {
        Some(AMQPValue::LongLongInt(number)) => Some(*number),
        _ => None,
    }
}

/// Hashes the content of a producer's message, without the broker's headers, which change with every redelivery. Of a
/// long body only the two ends are hashed.
fn hash_content(delivery: &Delivery, hasher: &mut impl Hasher) {
    let properties = &delivery.properties;
    delivery.exchange.as_str().hash(hasher);
    // A producer may publish a message with a wrong key again with the correct one.
    delivery.routing_key.as_str().hash(hasher);
    for text in [properties.message_id(), properties.correlation_id(), properties.reply_to()] {
        text.as_ref().map(ShortString::as_str).hash(hasher);
    }
    properties.timestamp().hash(hasher);
    for name in [TRACEPARENT, TRACESTATE] {
        if let Some(AMQPValue::LongString(text)) =
            properties.headers().as_ref().and_then(|table| table.inner().get(name))
        {
            text.as_bytes().hash(hasher);
        }
    }
    let body = &delivery.data;
    body.len().hash(hasher);
    body[..body.len().min(HASHED)].hash(hasher);
    body[body.len().saturating_sub(HASHED)..].hash(hasher);
}

#[cfg(test)]
mod tests {
    use lapin::BasicProperties;

    use super::*;

    fn delivery(body: &str, number: Option<i64>) -> Delivery {
        let mut delivery = Delivery::mock(1, "g.work".into(), "cdn.purge".into(), true, body.into());
        let mut headers = FieldTable::default();
        if let Some(number) = number {
            headers.insert(COPY.into(), AMQPValue::LongLongInt(number));
        }
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(fastrand::i64(..)));
        delivery.properties = BasicProperties::default().with_message_id("m".into()).with_headers(headers);
        delivery
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A process that handles messages, which are identified by their content.
    struct Process(Recent, Instant);

    impl Process {
        fn new() -> Self {
            Self(Recent::default(), Instant::now())
        }

        fn receive(&self, body: &str, redelivered: bool) -> RecentDelivery {
            self.0.hold(self.0.identity(&delivery(body, None), true), redelivered)
        }

        fn settle(&self, body: &str) -> RecentDelivery {
            let held = self.receive(body, false);
            self.0.record_settled(&held, self.1);
            held
        }

        /// Returns true if a delivery that arrives now counts as settled.
        fn was_settled(&self, body: &str, redelivered: bool) -> bool {
            let held = self.receive(body, redelivered);
            let was_settled = self.0.was_settled(&held, self.1);
            self.0.record_settled(&held, self.1);
            was_settled
        }
    }

    #[test]
    fn a_settled_message_is_recognised_after_a_loss_and_no_other_message_is() {
        let process = Process::new();
        process.settle("a");
        assert!(!process.was_settled("a", true), "no session was lost: it is another message");
        process.0.record_session_loss(process.1);
        assert!(process.was_settled("a", true));
        assert!(!process.was_settled("a", false), "never delivered before: another message");
        assert!(!process.was_settled("b", true));
    }

    #[test]
    fn a_message_that_was_settled_after_the_loss_is_not_mistaken_for_another_one() {
        let process = Process::new();
        process.0.record_session_loss(process.1);
        let held = process.settle("a");
        assert!(!process.was_settled("a", true), "another process lost an equal message: it has to run");
        process.0.record_unacknowledged(&held);
        assert!(process.was_settled("a", true), "its own acknowledgement was lost");
    }

    #[test]
    fn the_number_of_a_worker_suffices_and_a_forged_one_does_not_count() {
        let (recent, now) = (Recent::default(), Instant::now());
        let receive = |number, ours| recent.hold(recent.identity(&delivery("a", Some(number)), ours), false);
        recent.record_settled(&receive(7, true), now);
        assert!(recent.was_settled(&receive(7, true), now));
        assert!(!recent.was_settled(&receive(8, true), now));
        assert!(!recent.was_settled(&receive(7, false), now));
    }

    #[test]
    fn the_same_message_with_the_correct_key_is_another_message() {
        let (recent, now) = (Recent::default(), Instant::now());
        let receive = |key: &str| {
            let mut delivery = delivery("a", None);
            delivery.routing_key = key.into();
            recent.hold(recent.identity(&delivery, false), true)
        };
        recent.record_settled(&receive("cdn.prune"), now);
        recent.record_session_loss(now);
        assert!(recent.was_settled(&receive("cdn.prune"), now));
        assert!(!recent.was_settled(&receive("cdn.purge"), now));
    }

    #[test]
    fn a_message_that_was_held_when_the_session_was_lost_is_not_mistaken_for_a_settled_one() {
        let process = Process::new();
        process.settle("a");
        let held = process.receive("a", false);
        process.0.record_session_loss(process.1);
        process.0.record_given_back(&held, process.1);
        assert!(!process.was_settled("a", true), "one of the two redelivered messages has to run");
        assert!(process.was_settled("a", true), "only one: the other one was settled");
    }

    #[test]
    fn a_message_that_was_given_back_is_not_mistaken_for_one_that_was_settled_afterwards() {
        let process = Process::new();
        process.0.record_given_back(&process.receive("a", false), process.1);
        process.settle("a");
        process.0.record_session_loss(process.1);
        assert!(!process.was_settled("a", true));
        assert!(process.was_settled("a", true), "the one that was given back has been redelivered");
    }

    #[test]
    fn a_message_that_was_settled_long_before_the_loss_or_long_ago_is_forgotten() {
        let mut process = Process::new();
        let start = process.1;
        process.settle("old");
        process.1 = start + seconds(50);
        process.settle("new");
        process.0.record_session_loss(start + seconds(70));
        let held = process.receive("new", true);
        assert!(process.0.was_settled(&held, start + seconds(71)));
        assert!(!process.0.was_settled(&process.receive("old", true), start + seconds(71)));
        assert!(!process.0.was_settled(&held, start + seconds(351)));
        assert!(process.0.lost_within(seconds(60), start + seconds(129)));
        assert!(!process.0.lost_within(seconds(60), start + seconds(130)));
    }

    #[test]
    fn memory_is_bounded() {
        let (recent, now) = (Recent::default(), Instant::now());
        for number in 0..20_000 {
            let numbered = recent.hold(recent.identity(&delivery("a", Some(number)), true), false);
            recent.record_settled(&numbered, now);
            let plain = recent.hold(recent.identity(&delivery(&number.to_string(), None), true), false);
            recent.record_given_back(&plain, now);
        }
        let state = recent.lock();
        assert_eq!((state.events.len(), state.histories.len()), (MOST, MOST));
        assert!(state.events.capacity() < 2 * MOST, "{}", state.events.capacity());
    }
}
