//! The messages that this process settled a moment ago. AMQP confirms no acknowledgement: one that was written shortly
//! before its session was lost may never have reached the queue. Its message then comes again, although all that
//! followed from it is durable. Where it comes to this process, it is acknowledged once more and not handed over.
//!
//! A message is known by the number that each of our own publications into a lane carries ([`COPY`]): it is unlike any
//! other. What a producer published has no such number and is known by all of its content, and then only if the broker
//! says that it was delivered before and a session was lost since it was settled. A second message with the same content
//! is not mistaken for it where this process gave it back unsettled ([`Recent::given_back`]) or lost it with its session
//! ([`Recent::session_lost`]). What is left: a producer publishes the very same bytes and properties again within
//! minutes, and *another* process loses that delivery. Whoever reads events or replies cannot tell the two messages apart
//! either.

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

/// A number that makes a publication of ours unlike any other.
pub(crate) const COPY: &str = "genfleet-copy";

/// An acknowledgement this much older than the loss of its session was worked off: twice the time in which a silent
/// connection is ended.
const UNCERTAIN: Duration = Duration::from_secs(60);
/// A message that does not come again within this time is forgotten.
const KEPT: Duration = Duration::from_secs(300);
/// Bytes of a body that are looked at, from either end.
const HASHED: usize = 32 * 1024;
/// Messages remembered at most, about 0.6 MB.
const MOST: usize = 8192;

/// What a message is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    hash: u128,
    /// It carries a number of ours.
    is_numbered: bool,
}

/// A hold on a delivery that came: see [`Recent::hold`].
#[derive(Clone, Copy, Debug)]
pub struct RecentDelivery {
    identity: Identity,
    /// The number of sessions that were lost before.
    losses: u64,
    /// It may have been settled before: the broker delivered it before, and this process left none that is alike.
    may_be_settled: bool,
}

/// What happened here to the messages of one identity.
#[derive(Debug, Default)]
struct Known {
    /// Settlements that are remembered.
    settled: u32,
    /// When the last of them was.
    settled_at: Option<Instant>,
    /// The acknowledgement of one of them may be lost: its session ended after it was written, or before.
    is_uncertain: bool,
    /// Deliveries of this session that are not settled.
    held: u32,
    /// Deliveries that were given back or lost unsettled and have not come again.
    left: u32,
    /// When the last of them was.
    left_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learned {
    Settled,
    Left,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Recent {
    hashers: [RandomState; 2],
    settled: Mutex<Settled>,
}

#[derive(Debug, Default)]
struct Settled {
    /// When what is known was learned: it is forgotten in this order.
    order: VecDeque<(Instant, Identity, Learned)>,
    known: HashMap<Identity, Known>,
    losses: u64,
    lost_at: Option<Instant>,
}

impl Recent {
    /// What `delivery` is known by; its number counts only where it came by an exchange of `ours`.
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

    /// A delivery came: it is held until it is settled or given back.
    pub(crate) fn hold(&self, identity: Identity, redelivered: bool) -> RecentDelivery {
        let mut settled = self.lock();
        let losses = settled.losses;
        if identity.is_numbered {
            return RecentDelivery { identity, losses, may_be_settled: true };
        }
        let known = settled.known.entry(identity).or_default();
        known.held += 1;
        let may_be_settled = redelivered && known.left == 0;
        known.left -= u32::from(redelivered && known.left > 0);
        RecentDelivery { identity, losses, may_be_settled }
    }

    /// For tests of other crates: a delivery with this body came to a lane, with a number of ours if it has one.
    #[cfg(any(test, feature = "testing"))]
    pub fn came(&self, body: &[u8], number: Option<i64>, redelivered: bool) -> RecentDelivery {
        let mut delivery = Delivery::mock(1, "g.work".into(), "k".into(), redelivered, body.to_vec());
        let mut headers = FieldTable::default();
        if let Some(number) = number {
            headers.insert(COPY.into(), AMQPValue::LongLongInt(number));
        }
        delivery.properties = lapin::BasicProperties::default().with_headers(headers);
        self.hold(self.identity(&delivery, true), redelivered)
    }

    /// All that follows from this message is durable; its acknowledgement is about to be written.
    pub fn settled(&self, held: &RecentDelivery, now: Instant) {
        let mut settled = self.lock();
        settled.release(held);
        let known = settled.known.entry(held.identity).or_default();
        known.settled += 1;
        known.settled_at = Some(now);
        settled.learn(held.identity, Learned::Settled, now);
    }

    /// Whether a message that is held was settled before, and only its acknowledgement was lost.
    pub fn was_settled(&self, held: &RecentDelivery, now: Instant) -> bool {
        let mut settled = self.lock();
        settled.forget_before(now.checked_sub(KEPT));
        let known = settled.known.get(&held.identity).filter(|known| known.settled > 0);
        known.is_some_and(|known| held.identity.is_numbered || (held.may_be_settled && known.is_uncertain))
    }

    /// The acknowledgement of a settled message could not be written.
    pub fn unacknowledged(&self, held: &RecentDelivery) {
        if let Some(known) = self.lock().known.get_mut(&held.identity) {
            known.is_uncertain = true;
        }
    }

    /// A held message was not settled, and comes again, here or elsewhere.
    pub fn given_back(&self, held: &RecentDelivery, now: Instant) {
        let mut settled = self.lock();
        if settled.release(held) {
            settled.keep(held.identity, 1, now);
        }
    }

    /// The session of all deliveries so far is lost.
    pub fn session_lost(&self, now: Instant) {
        let mut settled = self.lock();
        let mut held = Vec::new();
        for (identity, known) in &mut settled.known {
            known.is_uncertain |= known.settled_at.is_some_and(|at| now <= at + UNCERTAIN);
            match std::mem::take(&mut known.held) {
                0 => {}
                count => held.push((*identity, count)),
            }
        }
        for (identity, count) in held {
            settled.keep(identity, count, now);
        }
        settled.losses += 1;
        settled.lost_at = Some(now);
    }

    /// Whether a session was lost within the last `time`.
    pub fn lost_within(&self, time: Duration, now: Instant) -> bool {
        self.lock().lost_at.is_some_and(|lost| now < lost + time)
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settled {
    /// Whether it was held until now: without a number, and its session is not lost.
    fn release(&mut self, held: &RecentDelivery) -> bool {
        if held.identity.is_numbered || held.losses != self.losses {
            return false;
        }
        if let Some(known) = self.known.get_mut(&held.identity) {
            known.held = known.held.saturating_sub(1);
        }
        true
    }

    fn keep(&mut self, identity: Identity, count: u32, now: Instant) {
        let known = self.known.entry(identity).or_default();
        known.left += count;
        known.left_at = Some(now);
        self.learn(identity, Learned::Left, now);
    }

    fn learn(&mut self, identity: Identity, learned: Learned, now: Instant) {
        self.order.push_back((now, identity, learned));
        self.forget_before(now.checked_sub(KEPT));
        while self.order.len() > MOST {
            self.forget_oldest();
        }
    }

    fn forget_before(&mut self, time: Option<Instant>) {
        while time.is_some_and(|time| self.order.front().is_some_and(|(at, ..)| *at < time)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((at, identity, learned)) = self.order.pop_front() else { return };
        let Entry::Occupied(mut entry) = self.known.entry(identity) else { return };
        let known = entry.get_mut();
        match learned {
            Learned::Settled => known.settled -= 1,
            Learned::Left if known.left_at <= Some(at) => known.left = 0,
            Learned::Left => {}
        }
        if known.settled + known.left + known.held == 0 {
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

/// All that makes two messages of producers one: not the broker's own headers, which change with every return. Of a long
/// body its two ends.
fn hash_content(delivery: &Delivery, hasher: &mut impl Hasher) {
    let properties = &delivery.properties;
    delivery.exchange.as_str().hash(hasher);
    // What came by the key of no kind may be sent again by the right one.
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

    /// What becomes of messages here, by their content.
    struct Here(Recent, Instant);

    impl Here {
        fn new() -> Self {
            Self(Recent::default(), Instant::now())
        }

        fn comes(&self, body: &str, redelivered: bool) -> RecentDelivery {
            self.0.hold(self.0.identity(&delivery(body, None), true), redelivered)
        }

        fn settles(&self, body: &str) -> RecentDelivery {
            let held = self.comes(body, false);
            self.0.settled(&held, self.1);
            held
        }

        /// Whether one that comes now counts as settled.
        fn was_settled(&self, body: &str, redelivered: bool) -> bool {
            let held = self.comes(body, redelivered);
            let was_settled = self.0.was_settled(&held, self.1);
            self.0.settled(&held, self.1);
            was_settled
        }
    }

    #[test]
    fn what_was_settled_is_known_after_a_loss_whatever_its_returns_and_nothing_else_is() {
        let here = Here::new();
        here.settles("a");
        assert!(!here.was_settled("a", true), "no session was lost: it is another message");
        here.0.session_lost(here.1);
        assert!(here.was_settled("a", true));
        assert!(!here.was_settled("a", false), "never delivered before: another message");
        assert!(!here.was_settled("b", true));
    }

    #[test]
    fn what_was_settled_after_the_loss_is_not_taken_for_another_message_that_comes_again() {
        let here = Here::new();
        here.0.session_lost(here.1);
        let held = here.settles("a");
        assert!(!here.was_settled("a", true), "another process lost one that is alike: it is to be run");
        here.0.unacknowledged(&held);
        assert!(here.was_settled("a", true), "its own acknowledgement was lost");
    }

    #[test]
    fn a_number_of_ours_is_enough_and_a_forged_one_is_none() {
        let (recent, now) = (Recent::default(), Instant::now());
        let comes = |number, ours| recent.hold(recent.identity(&delivery("a", Some(number)), ours), false);
        recent.settled(&comes(7, true), now);
        assert!(recent.was_settled(&comes(7, true), now));
        assert!(!recent.was_settled(&comes(8, true), now));
        assert!(!recent.was_settled(&comes(7, false), now));
    }

    #[test]
    fn the_same_sent_again_by_the_right_key_is_another_message() {
        let (recent, now) = (Recent::default(), Instant::now());
        let comes = |key: &str| {
            let mut delivery = delivery("a", None);
            delivery.routing_key = key.into();
            recent.hold(recent.identity(&delivery, false), true)
        };
        recent.settled(&comes("cdn.prune"), now);
        recent.session_lost(now);
        assert!(recent.was_settled(&comes("cdn.prune"), now));
        assert!(!recent.was_settled(&comes("cdn.purge"), now));
    }

    #[test]
    fn one_that_was_held_when_the_session_was_lost_is_not_taken_for_the_settled_one() {
        let here = Here::new();
        here.settles("a");
        let held = here.comes("a", false);
        here.0.session_lost(here.1);
        here.0.given_back(&held, here.1);
        assert!(!here.was_settled("a", true), "one of the two that come is to be run");
        assert!(here.was_settled("a", true), "and one only: the other one was settled");
    }

    #[test]
    fn one_that_was_given_back_is_not_taken_for_the_one_that_is_settled_then() {
        let here = Here::new();
        here.0.given_back(&here.comes("a", false), here.1);
        here.settles("a");
        here.0.session_lost(here.1);
        assert!(!here.was_settled("a", true));
        assert!(here.was_settled("a", true), "it has come again");
    }

    #[test]
    fn what_was_settled_long_before_the_loss_or_does_not_come_for_long_is_forgotten() {
        let mut here = Here::new();
        let start = here.1;
        here.settles("old");
        here.1 = start + seconds(50);
        here.settles("new");
        here.0.session_lost(start + seconds(70));
        let held = here.comes("new", true);
        assert!(here.0.was_settled(&held, start + seconds(71)));
        assert!(!here.0.was_settled(&here.comes("old", true), start + seconds(71)));
        assert!(!here.0.was_settled(&held, start + seconds(351)));
        assert!(here.0.lost_within(seconds(60), start + seconds(129)));
        assert!(!here.0.lost_within(seconds(60), start + seconds(130)));
    }

    #[test]
    fn memory_is_bounded() {
        let (recent, now) = (Recent::default(), Instant::now());
        for number in 0..20_000 {
            let numbered = recent.hold(recent.identity(&delivery("a", Some(number)), true), false);
            recent.settled(&numbered, now);
            let plain = recent.hold(recent.identity(&delivery(&number.to_string(), None), true), false);
            recent.given_back(&plain, now);
        }
        let settled = recent.lock();
        assert_eq!((settled.order.len(), settled.known.len()), (MOST, MOST));
    }
}
