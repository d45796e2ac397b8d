//! Conversion between AMQP messages and [`Message`].

use std::collections::BTreeMap;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::headers;
use crate::{message::QueueError, topology};
use genfleet_job::{
    job_headers::PRODUCER,
    message::{HeaderValue, Headers, MAX_HEADER_BYTES, Message, header_bytes},
};

/// The delivery mode of persistent messages.
const PERSISTENT: u8 = 2;

/// Converts a delivery. The second value is how often it was returned to the queue before.
pub(super) fn from_delivery(prefix: &str, delivery: lapin::message::Delivery) -> (Message, u32) {
    let table = delivery.properties.headers().as_ref();
    let delivery_count = table.map_or(0, |table| headers::delivery_count(table, delivery.redelivered));
    let ours = topology::is_ours(prefix, delivery.exchange.as_str());
    (with_trusted_headers(delivery, ours), delivery_count)
}

/// Converts a delivery with its trusted headers. The headers of workers are trusted if only a worker can have published
/// the message (`is_ours`).
pub(super) fn with_trusted_headers(delivery: lapin::message::Delivery, ours: bool) -> Message {
    let properties = &delivery.properties;
    let mut headers = properties.headers().as_ref().map(|table| headers::read_trusted(table, ours)).unwrap_or_default();
    // The broker accepts only publications whose `user_id` is the user of their connection. Workers do not set it.
    if let Some(user) = properties.user_id().as_ref().filter(|_| !ours) {
        headers.insert(PRODUCER.to_owned(), user.as_str().into());
    }
    Message {
        message_id: text(properties.message_id().as_ref()),
        correlation_id: text(properties.correlation_id().as_ref()),
        reply_to: text(properties.reply_to().as_ref()),
        timestamp: *properties.timestamp(),
        content_type: text(properties.content_type().as_ref()),
        headers,
        body: delivery.data.into(),
    }
}

fn text(short: Option<&ShortString>) -> Option<String> {
    short.map(|short| short.as_str().to_owned())
}

/// Creates the properties of a publication. Refuses headers above the limit: a frame that is too large would close the
/// connection at every attempt.
pub(super) fn properties(message: &Message) -> Result<BasicProperties, QueueError> {
    let bytes = header_bytes(&message.headers);
    if bytes > MAX_HEADER_BYTES {
        return Err(QueueError::Broker(format!(
            "{bytes} bytes of headers are more than the {MAX_HEADER_BYTES} allowed"
        )));
    }
    let mut properties =
        BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(table(&message.headers)?);
    if let Some(id) = &message.message_id {
        properties = properties.with_message_id(short(id)?);
    }
    if let Some(id) = &message.correlation_id {
        properties = properties.with_correlation_id(short(id)?);
    }
    if let Some(queue) = &message.reply_to {
        properties = properties.with_reply_to(short(queue)?);
    }
    if let Some(content_type) = &message.content_type {
        properties = properties.with_content_type(short(content_type)?);
    }
    if let Some(seconds) = message.timestamp {
        properties = properties.with_timestamp(seconds);
    }
    Ok(properties)
}

/// Creates a short string. lapin's other constructor panics if the text is too long.
pub(super) fn short(text: &str) -> Result<ShortString, QueueError> {
    ShortString::try_new(text).map_err(|error| QueueError::Broker(error.to_string()))
}

fn table(headers: &Headers) -> Result<FieldTable, QueueError> {
    let value = |value: &HeaderValue| match value {
        HeaderValue::Number(number) => AMQPValue::LongLongInt(*number),
        HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
    };
    let values = headers.iter().map(|(name, header)| Ok((short(name)?, value(header))));
    Ok(values.collect::<Result<BTreeMap<_, _>, QueueError>>()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::message::Delivery;

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn delivery(exchange: &str, redelivered: bool, headers: &[(&str, AMQPValue)]) -> Delivery {
        let table: BTreeMap<_, _> = headers.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let mut delivery = Delivery::mock(1, exchange.into(), "cdn.purge".into(), redelivered, b"{}".to_vec());
        delivery.properties = BasicProperties::default().with_headers(table.into());
        delivery
    }

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(text.into())
    }

    #[test]
    fn our_headers_count_only_from_where_producers_cannot_write() {
        let headers = [("genfleet-attempts", AMQPValue::LongInt(2)), ("traceparent", long(TRACEPARENT))];
        let (forged, _) = from_delivery("g", delivery("g.jobs", false, &headers));
        assert_eq!(forged.headers, Headers::from([("traceparent".to_owned(), TRACEPARENT.into())]));
        for exchange in ["g.work", "g.delay.03"] {
            let (ours, _) = from_delivery("g", delivery(exchange, false, &headers));
            assert_eq!(ours.headers.get("genfleet-attempts"), Some(&HeaderValue::Number(2)), "{exchange}");
            assert_eq!(ours.headers.len(), 2);
        }
    }

    #[test]
    fn what_the_broker_or_a_producer_put_there_is_not_taken() {
        let theirs = [
            ("x-death", AMQPValue::FieldArray(Vec::new().into())),
            ("CC", long("a")),
            ("custom", long("b")),
            ("genfleet-x", AMQPValue::Void),
        ];
        let mut delivery = delivery("g.work", false, &theirs);
        delivery.properties = delivery.properties.with_expiration("5".into()).with_priority(3).with_user_id("u".into());
        let (message, delivery_count) = from_delivery("g", delivery);
        assert_eq!(message, Message { body: b"{}".as_slice().into(), ..Message::default() });
        assert_eq!(delivery_count, 0);
    }

    #[test]
    fn who_published_a_job_is_what_the_broker_checked_and_goes_along() {
        let forged = [("genfleet-producer", long("somebody-else"))];
        let by = |exchange: &str, user: Option<&str>| {
            let mut delivery = delivery(exchange, false, &forged);
            if let Some(user) = user {
                delivery.properties = delivery.properties.with_user_id(user.into());
            }
            from_delivery("g", delivery).0.headers.get("genfleet-producer").cloned()
        };
        assert_eq!(by("g.jobs", Some("crm")), Some("crm".into()));
        assert_eq!(by("g.jobs", None), None, "a header says nothing there");
        for exchange in ["g.work", "g.delay.03"] {
            assert_eq!(by(exchange, None), Some("somebody-else".into()), "we carried it on");
            assert_eq!(by(exchange, Some("worker")), Some("somebody-else".into()));
        }
    }

    #[test]
    fn returns_are_counted_by_the_broker_alone() {
        let count = [("x-delivery-count", AMQPValue::LongLongInt(4))];
        assert_eq!(from_delivery("g", delivery("g.jobs", true, &count)).1, 4);
        assert_eq!(from_delivery("g", delivery("g.jobs", false, &count)).1, 0, "copied from a shelf");
        assert_eq!(from_delivery("g", delivery("g.jobs", true, &[])).1, 0);
        assert_eq!(from_delivery("g", delivery("g.jobs", true, &[("x-delivery-count", AMQPValue::LongInt(-1))])).1, 0);
    }

    #[test]
    fn a_message_goes_as_it_came() {
        let message = Message {
            body: b"{}".as_slice().into(),
            message_id: Some("m".to_owned()),
            correlation_id: Some("c".to_owned()),
            reply_to: Some("r".to_owned()),
            timestamp: Some(1_700_000_000),
            content_type: Some("application/json".to_owned()),
            headers: Headers::from([
                ("genfleet-attempts".to_owned(), 2_i64.into()),
                ("traceparent".to_owned(), TRACEPARENT.into()),
                ("tracestate".to_owned(), "x=y".into()),
            ]),
        };
        let properties = properties(&message).unwrap();
        assert_eq!(*properties.delivery_mode(), Some(2));
        let mut delivery = delivery("g.work", false, &[]);
        delivery.properties = properties;
        assert_eq!(from_delivery("g", delivery).0, message);
    }

    #[test]
    fn what_would_close_the_connection_is_refused() {
        let long = Message { message_id: Some("x".repeat(256)), ..Message::default() };
        let heavy = Message {
            headers: Headers::from([("genfleet-state".to_owned(), "x".repeat(70_000).into())]),
            ..Message::default()
        };
        assert!(properties(&long).is_err() && properties(&heavy).is_err());
    }
}
