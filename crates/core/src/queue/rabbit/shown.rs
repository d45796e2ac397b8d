//! A message of a shelf as it is shown: everything that came with it, and what of that can be believed.

use jiff::Timestamp;
use lapin::{
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value};

use super::{convert, guard::MARK};
use crate::queue::{Message, shelf::Death, topology};

/// The broker's own account of how often and why it gave a message up, the latest first.
const DEATHS: &str = "x-death";

/// Where a message came from.
pub(super) struct Origin {
    /// No producer can have set its headers.
    pub(super) is_ours: bool,
    /// It was the broker that gave it up.
    pub(super) death: Option<Death>,
}

/// A dead letter that we published never carries an account of the broker's, since none goes along with what we
/// publish. Elsewhere a producer may have written one.
pub(super) fn origin(prefix: &str, delivery: &Delivery) -> Origin {
    let exchange = delivery.exchange.as_str();
    let dead = topology::route(prefix, &crate::queue::Destination::Dead { kind: String::new() }).0;
    if exchange != dead {
        return Origin { is_ours: topology::is_ours(prefix, exchange), death: None };
    }
    match latest_death(delivery.properties.headers().as_ref()) {
        Some((death, exchange)) => Origin { is_ours: topology::is_ours(prefix, &exchange), death: Some(death) },
        None => Origin { is_ours: true, death: None },
    }
}

/// The latest death, and the exchange by which the message had come to the queue it died in.
fn latest_death(headers: Option<&FieldTable>) -> Option<(Death, String)> {
    let Some(AMQPValue::FieldArray(deaths)) = headers?.inner().get(DEATHS) else { return None };
    let Some(AMQPValue::FieldTable(latest)) = deaths.as_slice().first() else { return None };
    let field = |name: &str| latest.inner().get(name);
    let text = |name: &str| field(name).map(|value| shown(value).as_str().unwrap_or_default().to_owned());
    let time = match field("time") {
        Some(AMQPValue::Timestamp(seconds)) => timestamp(*seconds),
        _ => None,
    };
    let death = Death { reason: text("reason")?, queue: text("queue").unwrap_or_default(), time };
    Some((death, text("exchange").unwrap_or_default()))
}

/// The message, with the headers that count.
pub(super) fn message(delivery: Delivery, is_ours: bool) -> Message {
    convert::taken(delivery, is_ours)
}

/// All headers, but for the guard's own.
pub(super) fn headers(table: Option<&FieldTable>) -> Map<String, Value> {
    let mut shown = table.map(object).unwrap_or_default();
    shown.shift_remove(MARK);
    shown
}

fn object(table: &FieldTable) -> Map<String, Value> {
    table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), shown(value))).collect()
}

fn shown(value: &AMQPValue) -> Value {
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
        AMQPValue::FieldArray(it) => it.as_slice().iter().map(shown).collect(),
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

    fn death(reason: &str, exchange: &str) -> AMQPValue {
        let fields = [
            ("reason", long(reason)),
            ("queue", long("g.jobs.cdn.purge")),
            ("exchange", long(exchange)),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("count", AMQPValue::LongLongInt(1)),
        ];
        AMQPValue::FieldTable(table(&fields))
    }

    fn deaths(all: &[AMQPValue]) -> AMQPValue {
        AMQPValue::FieldArray(all.to_vec().into())
    }

    #[test]
    fn a_dead_letter_of_ours_is_believed() {
        let origin = origin("g", &delivery("g.dead", &[("genfleet-reason", long("rejected"))]));
        assert!(origin.is_ours && origin.death.is_none());
    }

    #[test]
    fn the_latest_death_is_told_and_a_producers_headers_are_not_believed_through_it() {
        let both = deaths(&[death("delivery_limit", "g.jobs"), death("expired", "g.delay.01")]);
        let from_door = origin("g", &delivery("g.dead", &[("x-death", both)]));
        assert!(!from_door.is_ours);
        let told = from_door.death.unwrap();
        assert_eq!((told.reason.as_str(), told.queue.as_str()), ("delivery_limit", "g.jobs.cdn.purge"));
        assert_eq!(told.time.unwrap().as_second(), 1_700_000_000);
        assert!(origin("g", &delivery("g.dead", &[("x-death", deaths(&[death("expired", "g.work")]))])).is_ours);
    }

    #[test]
    fn a_producers_own_account_of_deaths_is_not_believed() {
        let forged = deaths(&[death("delivery_limit", "g.work")]);
        let origin = origin("g", &delivery("g.jobs", &[("x-death", forged)]));
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
        assert_eq!(Value::from(headers(Some(&table(&all)))), expected);
    }
}
