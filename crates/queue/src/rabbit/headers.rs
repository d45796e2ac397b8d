//! The trusted headers of a delivery: the trace context from anyone, and the headers that workers set. They are copied
//! into every later publication of the job, so their size is limited here.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use super::{guard::MARK, recent::COPY};
use crate::defect::MessageDefect;
use genfleet_job::{
    message::{HeaderValue, Headers, MAX_HEADER_BYTES, enqueued::ENQUEUED_MS, header_bytes},
    trace_context::{self, TraceContext},
};

/// The broker's header with the number of returns to the queue.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Prefix of the headers that workers set. They are trusted in messages from exchanges to which only workers write.
const OURS: &str = "genfleet-";

/// Reads the number of returns. A message that was copied by hand may have an old number, so it counts only if the
/// broker marks the message as redelivered.
pub(super) fn delivery_count(headers: &FieldTable, redelivered: bool) -> u32 {
    let count = headers.inner().get(DELIVERY_COUNT).and_then(header).and_then(|value| value.as_i64());
    if redelivered { count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0) } else { 0 }
}

/// Reads the defect that the guard found. A mark with another value was set by a producer.
pub(super) fn defect(properties: &BasicProperties) -> Option<MessageDefect> {
    match properties.headers().as_ref()?.inner().get(MARK)? {
        AMQPValue::LongString(word) => Some(MessageDefect::of(word.as_bytes()).unwrap_or(MessageDefect::Malformed)),
        _ => Some(MessageDefect::Malformed),
    }
}

/// Returns the trusted headers: the trace context, the time of enqueueing and, if only a worker can have published the
/// message (`is_ours`), all headers with the prefix of workers except the number of the copy. Never more than the
/// maximum size.
pub(super) fn read_trusted(headers: &FieldTable, ours: bool) -> Headers {
    let (mut taken, values) = (Headers::new(), headers.inner());
    let ours = |name: &str| ours && name.starts_with(OURS) && ![COPY, ENQUEUED_MS].contains(&name);
    for (name, value) in values.iter().filter(|(name, _)| ours(name.as_str())) {
        taken.extend(header(value).map(|value| (name.as_str().to_owned(), value)));
    }
    if let Some(ms) = values.get(ENQUEUED_MS).and_then(header).and_then(|value| value.as_i64()) {
        taken.insert(ENQUEUED_MS.to_owned(), ms.into());
    }
    let text = |name: &str| match values.get(name).and_then(header) {
        Some(HeaderValue::Text(text)) => Some(text),
        Some(HeaderValue::Number(_)) | None => None,
    };
    let parent = text(trace_context::TRACEPARENT).unwrap_or_default();
    let place = TraceContext::parse(&parent, text(trace_context::TRACESTATE).as_deref());
    taken.extend(place.iter().flat_map(TraceContext::pairs).map(|(name, value)| (name.to_owned(), value.into())));
    limit_size(taken)
}

/// Drops the longest headers until the size is within the limit. Workers never publish more, but others with access to
/// their exchanges could: such a job could be neither moved nor dead-lettered, and would be redelivered for ever.
fn limit_size(mut headers: Headers) -> Headers {
    while header_bytes(&headers) > MAX_HEADER_BYTES {
        let length = |value: &HeaderValue| value.as_str().map_or(0, str::len);
        let longest = headers.iter().max_by_key(|(name, value)| name.len() + length(value));
        let Some(name) = longest.map(|(name, _)| name.clone()) else { break };
        tracing::warn!(header = name, "not taken: all headers of a message are at most {MAX_HEADER_BYTES} bytes");
        headers.remove(&name);
    }
    headers
}

fn header(value: &AMQPValue) -> Option<HeaderValue> {
    let number = match value {
        AMQPValue::LongString(text) => {
            return Some(HeaderValue::Text(String::from_utf8_lossy(text.as_bytes()).into_owned()));
        }
        AMQPValue::ShortString(text) => return Some(HeaderValue::Text(text.as_str().to_owned())),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => *number,
        AMQPValue::Timestamp(seconds) => i64::try_from(*seconds).ok()?,
        AMQPValue::Boolean(_)
        | AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::Void => return None,
    };
    Some(HeaderValue::Number(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn taken(ours: bool, headers: &[(&str, &str)]) -> Headers {
        let value = |text: &str| AMQPValue::LongString(text.into());
        let table: BTreeMap<_, _> = headers.iter().map(|(name, text)| ((*name).into(), value(text))).collect();
        read_trusted(&table.into(), ours)
    }

    #[test]
    fn only_a_trace_context_is_taken_for_one_and_with_its_state_from_anyone() {
        let came = [("traceparent", PARENT), ("tracestate", "a=b"), ("baggage", "c=d")];
        let both = [("traceparent".to_owned(), PARENT.into()), ("tracestate".to_owned(), "a=b".into())];
        assert_eq!(taken(false, &came), Headers::from(both));
        let wrong = taken(false, &[("traceparent", "00-1-2-01"), ("tracestate", "a=b")]);
        assert_eq!(wrong, Headers::new(), "and a state without its parent says nothing");
    }

    #[test]
    fn a_producer_may_say_when_it_enqueued_and_only_by_a_number() {
        let told = |value: &str| taken(false, &[("genfleet-enqueued-ms", value), ("genfleet-attempts", "7")]);
        let ms = Headers::from([("genfleet-enqueued-ms".to_owned(), HeaderValue::Number(1_800_000_000_123))]);
        assert_eq!(told("1800000000123"), ms);
        assert_eq!(told("yesterday"), Headers::new());
        assert_eq!(taken(true, &[("genfleet-enqueued-ms", &"9".repeat(70_000))]), Headers::new());
    }

    #[test]
    fn what_is_taken_can_be_published_whatever_came() {
        let (long, longer) = ("x".repeat(40_000), "x".repeat(50_000));
        let came = [
            ("genfleet-attempts", "3"),
            ("genfleet-error", &long),
            ("genfleet-state", &longer),
            ("traceparent", PARENT),
        ];
        let taken = taken(true, &came);
        assert!(header_bytes(&taken) <= MAX_HEADER_BYTES);
        let names: Vec<_> = taken.keys().map(String::as_str).collect();
        assert_eq!(names, ["genfleet-attempts", "genfleet-error", "traceparent"], "the longest goes");
    }

    #[test]
    fn every_whole_number_is_a_number_and_bad_utf8_is_mended() {
        let numbers = [
            AMQPValue::ShortShortInt(7),
            AMQPValue::ShortShortUInt(7),
            AMQPValue::ShortInt(7),
            AMQPValue::ShortUInt(7),
        ];
        for value in numbers.into_iter().chain([
            AMQPValue::LongInt(7),
            AMQPValue::LongUInt(7),
            AMQPValue::LongLongInt(7),
            AMQPValue::Timestamp(7),
        ]) {
            assert_eq!(header(&value), Some(HeaderValue::Number(7)), "{value:?}");
        }
        assert_eq!(
            header(&AMQPValue::LongString(b"a\xff".to_vec().into())),
            Some(HeaderValue::Text("a\u{fffd}".to_owned()))
        );
    }
}
