//! A message for tests, with bytes and maps.

use std::collections::BTreeMap;

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;

/// A message that was read from a queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// The body as it was published.
    pub body: Vec<u8>,
    /// All AMQP properties, headers included.
    pub properties: BasicProperties,
    /// The exchange to which it was last published.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// True if the broker has delivered it before.
    pub redelivered: bool,
}

impl Message {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self {
            body: delivery.data.clone(),
            properties: delivery.properties.clone(),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
        }
    }

    /// Parses the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", String::from_utf8_lossy(&self.body)))
    }

    /// Returns the headers as a map; byte strings become text.
    pub fn headers(&self) -> BTreeMap<String, Value> {
        self.properties.headers().as_ref().map(plain_table).unwrap_or_default()
    }

    /// Returns a header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers().get(name).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

fn plain_table(table: &FieldTable) -> BTreeMap<String, Value> {
    let fields = table.inner().iter();
    fields.map(|(name, value)| (name.to_string(), plain(value))).collect()
}

fn plain(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(it) => (*it).into(),
        AMQPValue::ShortShortInt(it) => (*it).into(),
        AMQPValue::ShortShortUInt(it) => (*it).into(),
        AMQPValue::ShortInt(it) => (*it).into(),
        AMQPValue::ShortUInt(it) => (*it).into(),
        AMQPValue::LongInt(it) => (*it).into(),
        AMQPValue::LongUInt(it) => (*it).into(),
        AMQPValue::LongLongInt(it) => (*it).into(),
        AMQPValue::Timestamp(it) => (*it).into(),
        AMQPValue::Float(it) => f64::from(*it).into(),
        AMQPValue::Double(it) => (*it).into(),
        AMQPValue::DecimalValue(it) => format!("{it:?}").into(),
        AMQPValue::ShortString(it) => it.as_str().into(),
        AMQPValue::LongString(it) => it.to_string().into(),
        AMQPValue::ByteArray(it) => String::from_utf8_lossy(it.as_slice()).into(),
        AMQPValue::FieldArray(it) => it.as_slice().iter().map(plain).collect(),
        AMQPValue::FieldTable(it) => plain_table(it).into_iter().collect(),
        AMQPValue::Void => Value::Null,
    }
}
