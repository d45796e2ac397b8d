//! The origin of a dead letter: who published it, why it was dead-lettered, and which of its headers can be trusted.

use jiff::Timestamp;
use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value};

use super::{guard::MARK, headers::defect};
use crate::{
    dead_letters::{DeadLetterQueue, Death},
    topology,
};
use genfleet_job::Kind;

/// The broker's header with how often and why it dead-lettered a message, the latest first.
const DEATHS: &str = "x-death";

/// The origin of a message.
pub(super) struct Origin {
    /// True if no producer can have set its headers.
    pub(super) is_ours: bool,
    /// See [`StoredMessage::is_foreign`](crate::dead_letters::StoredMessage::is_foreign).
    pub(super) is_foreign: bool,
    /// The broker's reason, if the broker dead-lettered it.
    pub(super) death: Option<Death>,
}

/// Finds the origin of a message. A dead letter that a worker published never has the header `x-death`, because workers
/// do not copy it. In other messages a producer may have set it. The broker (3.10) then looks for an entry with the
/// same queue and reason, increments its count and leaves the rest unchanged: only queue and reason come from the
/// broker.
pub(super) fn origin(prefix: &str, queue: DeadLetterQueue, delivery: &Delivery) -> Origin {
    let exchange = delivery.exchange.as_str();
    let dead = topology::dead_exchange(prefix);
    let headers = delivery.properties.headers().as_ref();
    let (is_ours, death) = match latest_death(headers).filter(|_| exchange == dead) {
        Some(death) => (topology::holds_ours(prefix, &death.queue), Some(death)),
        None if exchange != dead => (topology::is_ours(prefix, exchange), None),
        None => (!has_deaths(headers) && defect(&delivery.properties).is_none(), None),
    };
    let is_foreign = match (queue, &death) {
        (DeadLetterQueue::Dead(kind), Some(death)) => {
            !topology::is_lane_of(prefix, &death.queue, kind) || !has_key_of(delivery, kind)
        }
        (DeadLetterQueue::Dead(kind), None) if !is_ours => {
            kind.is_internal() || exchange == dead && !has_key_of(delivery, kind)
        }
        (DeadLetterQueue::Dead(_) | DeadLetterQueue::Unknown | DeadLetterQueue::Unrouted, _) => false,
    };
    Origin { is_ours, is_foreign, death }
}

/// Returns true if the message was published with the routing key of this kind. Producers have rights to routing keys,
/// and the broker also dead-letters with the keys in `CC` and `BCC`.
fn has_key_of(delivery: &Delivery, kind: Kind) -> bool {
    topology::kind_of_key(delivery.routing_key.as_str()) == Some(kind)
}

fn has_deaths(headers: Option<&FieldTable>) -> bool {
    headers.is_some_and(|headers| headers.inner().contains_key(DEATHS))
}

fn latest_death(headers: Option<&FieldTable>) -> Option<Death> {
    let Some(AMQPValue::FieldArray(deaths)) = headers?.inner().get(DEATHS) else { return None };
    let Some(AMQPValue::FieldTable(latest)) = deaths.as_slice().first() else { return None };
    let field = |name: &str| latest.inner().get(name);
    let text = |name: &str| field(name).map(|value| to_json(value).as_str().unwrap_or_default().to_owned());
    let time = match field("time") {
        Some(AMQPValue::Timestamp(seconds)) => timestamp(*seconds),
        _ => None,
    };
    Some(Death { reason: text("reason")?, queue: text("queue").unwrap_or_default(), time })
}

/// Returns all headers except the guard's, as JSON.
pub(super) fn headers_as_json(table: Option<&FieldTable>) -> Map<String, Value> {
    let mut headers = table.map(object).unwrap_or_default();
    headers.shift_remove(MARK);
    headers
}

fn object(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), to_json(value))).collect()
}

fn to_json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(it) => (*it).into(),
        AMQPValue::ShortShortInt(it) => (*it).into(),
        AMQPValue::ShortShortUInt(it) => (*it).into(),
        AMQPValue::ShortInt(it) => (*it).into(),
        AMQPValue::ShortUInt(it) => (*it).into(),
        AMQPValue::LongInt(it) => (*it).into(),
        AMQPValue::LongUInt(it) => (*it).into(),
        AMQPValue::LongLongInt(it) => (*it).into(),
        AMQPValue::Float(it) => f64::from(*it).into(),
        AMQPValue::Double(it) => (*it).into(),
        AMQPValue::DecimalValue(it) => format!("{it:?}").into(),
        AMQPValue::Timestamp(it) => timestamp(*it).map_or_else(|| (*it).into(), |time| time.to_string().into()),
        AMQPValue::ShortString(it) => it.as_str().into(),
        AMQPValue::LongString(it) => String::from_utf8_lossy(it.as_bytes()).into(),
        AMQPValue::ByteArray(it) => String::from_utf8_lossy(it.as_slice()).into(),
        AMQPValue::FieldArray(it) => it.as_slice().iter().map(to_json).collect(),
        AMQPValue::FieldTable(it) => object(it).into(),
        AMQPValue::Void => Value::Null,
    }
}

fn timestamp(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lapin::BasicProperties;
    use serde_json::json;

    use super::*;

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
        fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect::<BTreeMap<_, _>>().into()
    }

    fn delivery(exchange: &str, headers: &[(&str, AMQPValue)]) -> Delivery {
        let mut delivery = Delivery::mock(1, exchange.into(), "cdn.purge".into(), false, b"{}".to_vec());
        delivery.properties = BasicProperties::default().with_headers(table(headers));
        delivery
    }

    fn death(reason: &str, queue: &str) -> AMQPValue {
        let fields = [
            ("reason", long(reason)),
            ("queue", long(queue)),
            ("exchange", long("g.work")),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("count", AMQPValue::LongLongInt(1)),
        ];
        AMQPValue::FieldTable(table(&fields))
    }

    fn deaths(all: &[AMQPValue]) -> AMQPValue {
        AMQPValue::FieldArray(all.to_vec().into())
    }

    const PURGES: DeadLetterQueue = DeadLetterQueue::Dead(Kind::CdnPurge);
    const HOOKS: DeadLetterQueue = DeadLetterQueue::Dead(Kind::WebhookDeliver);

    /// On `shelf`, given up by the broker in `queue`, published with `key`: ours, and foreign.
    fn of_the_broker(held_in: DeadLetterQueue, queue: &str, key: &str) -> (bool, bool) {
        let mut delivery = delivery("g.dead", &[("x-death", deaths(&[death("expired", queue)]))]);
        delivery.routing_key = key.into();
        let origin = origin("g", held_in, &delivery);
        assert_eq!(origin.death.unwrap().queue, queue);
        (origin.is_ours, origin.is_foreign)
    }

    #[test]
    fn a_dead_letter_of_ours_is_believed() {
        let origin = origin("g", HOOKS, &delivery("g.dead", &[("genfleet-reason", long("rejected"))]));
        assert!(origin.is_ours && !origin.is_foreign && origin.death.is_none());
    }

    #[test]
    fn the_latest_death_is_told_and_no_headers_are_believed_that_came_through_the_producers_door() {
        let both = deaths(&[death("delivery_limit", "g.jobs.cdn.purge"), death("expired", "g.delay.01")]);
        let from_door = origin("g", PURGES, &delivery("g.dead", &[("x-death", both)]));
        assert!(!from_door.is_ours && !from_door.is_foreign, "whatever exchange is written there");
        let told = from_door.death.unwrap();
        assert_eq!((told.reason.as_str(), told.queue.as_str()), ("delivery_limit", "g.jobs.cdn.purge"));
        assert_eq!(told.time.unwrap().as_second(), 1_700_000_000);
        assert_eq!(of_the_broker(PURGES, "g.resume.cdn.purge", "0.1.cdn.purge.resume"), (true, false));
        assert_eq!(of_the_broker(PURGES, "g.suspect.cdn.purge", "cdn.purge.suspect"), (true, false));
        assert_eq!(of_the_broker(HOOKS, "g.jobs.webhook.deliver", "webhook.deliver"), (true, false));
    }

    #[test]
    fn what_the_broker_put_on_the_shelf_of_another_kind_is_foreign() {
        assert_eq!(of_the_broker(HOOKS, "g.jobs.cdn.purge", "cdn.purge"), (false, true), "CC: x.webhook.deliver");
        assert_eq!(of_the_broker(HOOKS, "g.jobs.cdn.purge", "webhook.deliver"), (false, true), "CC: cdn.purge");
        let other = DeadLetterQueue::Dead(Kind::FileScan);
        assert_eq!(of_the_broker(other, "g.jobs.file.scan", "cdn.purge"), (false, true), "CC: file.scan");
        assert_eq!(of_the_broker(other, "g.jobs.file.scan", "x.file.scan"), (false, true));
        assert_eq!(of_the_broker(other, "other.jobs.file.scan", "file.scan"), (false, true));
        assert_eq!(of_the_broker(PURGES, "g.jobs.cdn.purge", "cdn.purge"), (false, false), "its own copy");
    }

    #[test]
    fn what_cannot_be_told_from_a_producers_is_none_of_ours() {
        let defective = [(MARK, long("malformed"))];
        for headers in [&[("x-death", long("no list"))][..], &[("x-death", deaths(&[]))], &defective] {
            let of = |queue| origin("g", queue, &delivery("g.dead", headers));
            assert!(!of(HOOKS).is_ours && of(HOOKS).is_foreign, "{headers:?}");
            assert!(!of(PURGES).is_ours && !of(PURGES).is_foreign, "{headers:?}");
            assert!(of(DeadLetterQueue::Dead(Kind::FileScan)).is_foreign, "its key is another's: {headers:?}");
        }
        let by_hand = |queue| origin("g", queue, &delivery("", &[])).is_foreign;
        assert!(by_hand(HOOKS) && !by_hand(PURGES));
    }

    #[test]
    fn a_producers_own_account_of_deaths_is_not_believed() {
        let forged = deaths(&[death("delivery_limit", "g.jobs.cdn.purge")]);
        let origin = origin("g", DeadLetterQueue::Unrouted, &delivery("g.jobs", &[("x-death", forged)]));
        assert!(!origin.is_ours && origin.death.is_none());
    }

    #[test]
    fn everything_that_came_is_shown() {
        let all = [
            ("array", AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), long("a")].into())),
            ("bytes", AMQPValue::LongString(b"\xff".to_vec().into())),
            ("table", AMQPValue::FieldTable(table(&[("t", AMQPValue::Boolean(true))]))),
            ("time", AMQPValue::Timestamp(0)),
            ("void", AMQPValue::Void),
        ];
        let expected = json!({
            "array": [1, "a"], "bytes": "\u{fffd}", "table": {"t": true}, "time": "1970-01-01T00:00:00Z", "void": null,
        });
        assert_eq!(Value::from(headers_as_json(Some(&table(&all)))), expected);
    }
}
