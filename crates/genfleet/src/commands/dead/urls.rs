//! Removes webhook URLs from payloads, because a path or a query can contain a secret, and operators share the output.
//! The URLs are found in the text, so that this also works for bytes that are not JSON; all other bytes stay as they
//! were sent.

use std::ops::Range;

use genfleet_core::webhook::Receiver;
use serde_json::Value;

/// The member with a URL: `/webhook/url` of a job, `/payload/url` of a webhook delivery.
const MEMBER: &[u8] = br#""url""#;
const REDACTED: &str = "[redacted]";

/// Reduces every URL in `body` to scheme and host.
pub(super) fn redact(body: &[u8]) -> Vec<u8> {
    let (mut redacted, mut rest) = (Vec::with_capacity(body.len()), body);
    while let Some(at) = rest.windows(MEMBER.len()).position(|window| window == MEMBER) {
        let (before, after) = rest.split_at(at + MEMBER.len());
        redacted.extend_from_slice(before);
        rest = after;
        if let Some(value) = text_value(after) {
            redacted.extend_from_slice(&after[..value.start]);
            redacted.extend_from_slice(redact_url(&after[value.clone()]).to_string().as_bytes());
            rest = &after[value.end..];
        }
    }
    redacted.extend_from_slice(rest);
    redacted
}

/// Finds the string after a member's name, with its quotation marks. A string without an end reaches to the end of the
/// text.
fn text_value(after: &[u8]) -> Option<Range<usize>> {
    let next = |from: usize| after[from..].iter().position(|byte| !byte.is_ascii_whitespace()).map(|skip| from + skip);
    let colon = next(0).filter(|at| after[*at] == b':')?;
    let start = next(colon + 1).filter(|at| after[*at] == b'"')?;
    let mut at = start + 1;
    while at < after.len() && after[at] != b'"' {
        at += if after[at] == b'\\' { 2 } else { 1 };
    }
    Some(start..(at + 1).min(after.len()))
}

fn redact_url(written: &[u8]) -> Value {
    let receiver = serde_json::from_slice::<String>(written).ok().and_then(|url| Receiver::parse(&url).ok());
    receiver.map_or_else(|| REDACTED.into(), |receiver| receiver.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_reduced_to_scheme_and_host_and_nothing_else_is_changed() {
        for (body, shown) in [
            (
                r#"{"webhook": {"url" : "https://a.example:8443/T0/hush?k=hush"}, "id":"a"}"#,
                r#"{"webhook": {"url" : "https://a.example:8443"}, "id":"a"}"#,
            ),
            (
                r#"{"payload":{"url":"https:\/\/a.example\/hush\"hush","url":"http://b/hush"}}"#,
                r#"{"payload":{"url":"https://a.example","url":"http://b"}}"#,
            ),
            (r#"{"url":"https://me:hush@a.example/"}"#, r#"{"url":"[redacted]"}"#),
            (r#"{"url":"hush.example/hush"}"#, r#"{"url":"[redacted]"}"#),
            (r#"{"webhook":{"url":"https://a.example/hush"#, r#"{"webhook":{"url":"[redacted]""#),
            (r#"{"webhook":{"url":"https://a.example/hush\"#, r#"{"webhook":{"url":"[redacted]""#),
            (r#"{"url":7,"u":"url","url""#, r#"{"url":7,"u":"url","url""#),
            (r#"{"paths":["https://a.example/shown"]}"#, r#"{"paths":["https://a.example/shown"]}"#),
        ] {
            assert_eq!(String::from_utf8(redact(body.as_bytes())).unwrap(), shown);
        }
        assert_eq!(redact(b"\xff{\"url\":\"https://a/hush\"}\0"), b"\xff{\"url\":\"https://a\"}\0");
    }
}
