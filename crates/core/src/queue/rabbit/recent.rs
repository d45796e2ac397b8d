//! The messages that this process settled a moment ago. AMQP confirms no acknowledgement: one that was written shortly
//! before its session was lost may never have reached the queue. Its message then comes again, although all that
//! followed from it is durable. Where it comes to this process, it is acknowledged once more and not handed over.
//!
//! A message is known by the number that each of our own publications into a lane carries ([`COPY`]): it is unlike any
//! other. What a producer published has no such number and is known by all of its content, and then only if the broker
//! says that it was delivered before and a session was lost since it was settled. A second message with the same content
//! that this process held unsettled at that time is not mistaken for it ([`Recent::forget`]). What is left: a producer
//! publishes the very same bytes and properties again within minutes, and *another* process loses that delivery. Whoever
//! reads events or replies cannot tell the two messages apart either.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::Instant;

use crate::trace::{TRACEPARENT, TRACESTATE};

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

/// How often a message was settled.
#[derive(Debug, Default)]
struct Times {
    count: u32,
    /// Its acknowledgement may be lost: its session ended after it was written, or before.
    is_uncertain: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    hashers: [RandomState; 2],
    settled: Mutex<Settled>,
}

#[derive(Debug, Default)]
struct Settled {
    order: VecDeque<(Instant, Identity)>,
    times: HashMap<Identity, Times>,
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

    /// All that follows from this message is durable; its acknowledgement is about to be written.
    pub(crate) fn settled(&self, identity: Identity, now: Instant) {
        let mut settled = self.lock();
        settled.order.push_back((now, identity));
        settled.times.entry(identity).or_default().count += 1;
        settled.forget_before(now.checked_sub(KEPT));
        while settled.order.len() > MOST {
            settled.forget_oldest();
        }
    }

    /// Whether a message that comes now was settled before, and only its acknowledgement was lost.
    pub(crate) fn was_settled(&self, identity: Identity, redelivered: bool, now: Instant) -> bool {
        let mut settled = self.lock();
        settled.forget_before(now.checked_sub(KEPT));
        let known = settled.times.get(&identity);
        known.is_some_and(|times| identity.is_numbered || (redelivered && times.is_uncertain))
    }

    /// The acknowledgement of a settled message could not be written.
    pub(crate) fn unacknowledged(&self, identity: Identity) {
        if let Some(times) = self.lock().times.get_mut(&identity) {
            times.is_uncertain = true;
        }
    }

    /// A message like this was not settled, and comes again.
    pub(crate) fn forget(&self, identity: Identity) {
        if !identity.is_numbered {
            let mut settled = self.lock();
            if settled.times.remove(&identity).is_some() {
                settled.order.retain(|(_, known)| *known != identity);
            }
        }
    }

    /// The session of all deliveries so far is lost.
    pub(crate) fn session_lost(&self, now: Instant) {
        let mut settled = self.lock();
        settled.forget_before(now.checked_sub(UNCERTAIN));
        settled.times.values_mut().for_each(|times| times.is_uncertain = true);
        settled.lost_at = Some(now);
    }

    /// Whether a session was lost within the last `time`.
    pub(crate) fn lost_within(&self, time: Duration, now: Instant) -> bool {
        self.lock().lost_at.is_some_and(|lost| now < lost + time)
    }

    fn lock(&self) -> MutexGuard<'_, Settled> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settled {
    fn forget_before(&mut self, time: Option<Instant>) {
        while time.is_some_and(|time| self.order.front().is_some_and(|(at, _)| *at < time)) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((_, identity)) = self.order.pop_front() else { return };
        if let Some(times) = self.times.get_mut(&identity) {
            times.count -= 1;
            if times.count == 0 {
                self.times.remove(&identity);
            }
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

    #[test]
    fn what_was_settled_is_known_after_a_loss_whatever_its_returns_and_nothing_else_is() {
        let (recent, now) = (Recent::default(), Instant::now());
        let identity = |body| recent.identity(&delivery(body, None), true);
        recent.settled(identity("a"), now);
        assert!(!recent.was_settled(identity("a"), true, now), "no session was lost: it is another message");
        recent.session_lost(now);
        assert!(recent.was_settled(identity("a"), true, now));
        assert!(!recent.was_settled(identity("a"), false, now), "never delivered before: another message");
        assert!(!recent.was_settled(identity("b"), true, now));
    }

    #[test]
    fn what_was_settled_after_the_loss_is_not_taken_for_another_message_that_comes_again() {
        let (recent, now) = (Recent::default(), Instant::now());
        let identity = recent.identity(&delivery("a", None), true);
        recent.session_lost(now);
        recent.settled(identity, now);
        assert!(!recent.was_settled(identity, true, now), "another process lost one that is alike: it is to be run");
        recent.unacknowledged(identity);
        assert!(recent.was_settled(identity, true, now), "its own acknowledgement was lost");
    }

    #[test]
    fn a_number_of_ours_is_enough_and_a_forged_one_is_none() {
        let (recent, now) = (Recent::default(), Instant::now());
        recent.settled(recent.identity(&delivery("a", Some(7)), true), now);
        assert!(recent.was_settled(recent.identity(&delivery("a", Some(7)), true), false, now));
        assert!(!recent.was_settled(recent.identity(&delivery("a", Some(8)), true), true, now));
        assert!(!recent.was_settled(recent.identity(&delivery("a", Some(7)), false), true, now));
    }

    #[test]
    fn the_same_sent_again_by_the_right_key_is_another_message() {
        let (recent, now) = (Recent::default(), Instant::now());
        let identity = |key: &str| {
            let mut delivery = delivery("a", None);
            delivery.routing_key = key.into();
            recent.identity(&delivery, false)
        };
        recent.settled(identity("cdn.prune"), now);
        recent.session_lost(now);
        assert!(recent.was_settled(identity("cdn.prune"), true, now));
        assert!(!recent.was_settled(identity("cdn.purge"), true, now));
    }

    #[test]
    fn one_that_is_alike_and_was_not_settled_is_not_taken_for_the_settled_one() {
        let (recent, now) = (Recent::default(), Instant::now());
        let identity = recent.identity(&delivery("a", None), true);
        recent.settled(identity, now);
        recent.session_lost(now);
        recent.forget(identity);
        assert!(!recent.was_settled(identity, true, now));
    }

    #[test]
    fn what_was_settled_long_before_the_loss_or_does_not_come_for_long_is_forgotten() {
        let (recent, now) = (Recent::default(), Instant::now());
        let [old, new] = ["old", "new"].map(|body| recent.identity(&delivery(body, None), true));
        recent.settled(old, now);
        recent.settled(new, now + seconds(50));
        recent.session_lost(now + seconds(70));
        assert!(!recent.was_settled(old, true, now + seconds(71)));
        assert!(recent.was_settled(new, true, now + seconds(71)));
        assert!(!recent.was_settled(new, true, now + seconds(351)));
        assert!(recent.lost_within(seconds(60), now + seconds(129)));
        assert!(!recent.lost_within(seconds(60), now + seconds(130)));
    }

    #[test]
    fn memory_is_bounded() {
        let (recent, now) = (Recent::default(), Instant::now());
        for number in 0..20_000 {
            recent.settled(recent.identity(&delivery("a", Some(number)), true), now);
        }
        let settled = recent.lock();
        assert_eq!((settled.order.len(), settled.times.len()), (MOST, MOST));
    }
}
