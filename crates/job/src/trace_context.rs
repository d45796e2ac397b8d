//! The position of a job in a trace (W3C Trace Context, SPEC 1): read from its headers, and passed on to the API, the
//! event and the webhooks. If spans are exported, the context of our own span is passed on, a child of the producer's;
//! if not, the producer's context, unchanged. A job without a context gets none.
//!
//! A message that goes back to the queue keeps the producer's context, so that all attempts are siblings.

use crate::message::{HeaderValue, Headers};

/// The header with the trace and the span.
pub const TRACEPARENT: &str = "traceparent";
/// The header with the data of tracing systems.
pub const TRACESTATE: &str = "tracestate";

/// The longest state that must be passed on (W3C).
const LONGEST_TRACESTATE: usize = 512;
/// The length of the part that all versions have.
const LENGTH: usize = 55;

/// A trace context as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// Parses `traceparent` and `tracestate`. `None` if the former is invalid; an invalid state is dropped.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let state = state.filter(|text| is_tracestate(text)).map(str::to_owned);
        is_traceparent(parent).then(|| Self { parent: parent.to_owned(), state })
    }

    /// Reads the context from a message's headers.
    pub fn read(headers: &Headers) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(HeaderValue::as_str);
        Self::parse(text(TRACEPARENT)?, text(TRACESTATE))
    }

    /// The headers of a message for this context.
    pub fn headers(&self) -> Headers {
        self.pairs().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    /// The names and values of these headers.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [(TRACEPARENT, Some(self.traceparent())), (TRACESTATE, self.tracestate())]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }

    /// `traceparent`.
    pub fn traceparent(&self) -> &str {
        &self.parent
    }

    /// `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The trace id, as 32 hex digits.
    pub fn trace_id(&self) -> &str {
        &self.parent[3..35]
    }

    /// The span id, as 16 hex digits.
    pub fn span_id(&self) -> &str {
        &self.parent[36..52]
    }

    /// Returns true if the spans of the trace are kept.
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.parent[53..LENGTH], 16).is_ok_and(|flags| flags & 1 == 1)
    }
}

/// Checks `<version>-<trace>-<parent>-<flags>` in lower-case hex, with no id of zeros only. Later versions may append
/// more.
fn is_traceparent(text: &str) -> bool {
    let Some((known, more)) = text.split_at_checked(LENGTH) else { return false };
    let parts: Vec<_> = known.split('-').collect();
    let &[version, trace, parent, flags] = parts.as_slice() else { return false };
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let hex = |part: &str, digits| part.len() == digits && part.bytes().all(digit);
    let id = |part: &str, digits| hex(part, digits) && part.bytes().any(|byte| byte != b'0');
    let whole = more.is_empty() || (version != "00" && is_more(more));
    whole && hex(version, 2) && version != "ff" && id(trace, 32) && id(parent, 16) && hex(flags, 2)
}

fn is_more(text: &str) -> bool {
    text.starts_with('-') && text.len() <= LONGEST_TRACESTATE && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Checks that the state fits into an HTTP header.
fn is_tracestate(text: &str) -> bool {
    (1..=LONGEST_TRACESTATE).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parsed(parent: &str) -> Option<TraceContext> {
        TraceContext::parse(parent, None)
    }

    #[test]
    fn a_trace_context_is_read_and_written_as_it_came() {
        let headers =
            Headers::from([(TRACEPARENT.to_owned(), PARENT.into()), (TRACESTATE.to_owned(), "a=b,c=d".into())]);
        let place = TraceContext::read(&headers).unwrap();
        assert_eq!(place.headers(), headers);
        assert_eq!(place.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(place.span_id(), "b7ad6b7169203331");
        assert!(place.is_sampled());
        assert!(!parsed(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
        assert!(parsed(&PARENT.replace("-01", "-03")).unwrap().is_sampled());
    }

    #[test]
    fn what_is_no_trace_context_is_taken_for_none() {
        let wrong = [
            "",
            "00-1-2-01",
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replacen("00", "0g", 1),
            &PARENT.replace('-', "_"),
            &format!("{PARENT}-more"),
            &format!("{PARENT} "),
            &format!(" {PARENT}"),
            &PARENT[..LENGTH - 1],
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &PARENT.replace("-01", "-0x"),
            &"ä".repeat(40),
            &"x".repeat(60_000),
        ];
        for wrong in wrong {
            assert_eq!(parsed(wrong), None, "{wrong:.80}");
        }
    }

    #[test]
    fn a_version_to_come_may_say_more() {
        let (later, more) = (PARENT.replacen("00", "01", 1), format!("{}-more", PARENT.replacen("00", "cc", 1)));
        assert_eq!(parsed(&later).unwrap().traceparent(), later);
        assert_eq!(parsed(&more).unwrap().traceparent(), more);
        assert_eq!(parsed(&format!("{later}more")), None);
        assert_eq!(parsed(&format!("{later}-more\r\nhost: b")), None);
    }

    #[test]
    fn a_trace_state_is_taken_up_to_512_bytes_of_what_fits_in_a_header() {
        let state = |text: &str| TraceContext::parse(PARENT, Some(text)).unwrap().state;
        assert_eq!(state(&"x".repeat(512)), Some("x".repeat(512)));
        for wrong in [&"x".repeat(513), "", "a=b\r\nhost: c", "a=\u{e9}"] {
            assert_eq!(state(wrong), None, "{wrong:.80}");
        }
        let alone = Headers::from([(TRACESTATE.to_owned(), "a=b".into())]);
        assert_eq!(TraceContext::read(&alone), None, "a state without its parent says nothing");
    }
}
