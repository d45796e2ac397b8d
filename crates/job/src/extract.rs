//! Fields that can be read from a body that is no valid job: its id and its webhook. Nothing else of it is
//! deserialized.

use std::fmt;

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor},
};

use super::{JobId, MAX_BODY_BYTES, text};

/// Extracts the id from the body, even if the body is cut off or invalid. Without one, uses the message id, or else
/// derives an id from the message. Of a body above the limit, only as much is read as a job may have.
pub fn extract_id(body: &[u8], message_id: Option<&str>, timestamp: Option<u64>) -> JobId {
    let mut given = None;
    let json = text::strip_mark(&body[..body.len().min(MAX_BODY_BYTES)]).unwrap_or_default();
    // Fails in a body that is cut off after its id, which is known by then.
    let _ = TopLevelId(&mut given).deserialize(&mut serde_json::Deserializer::from_slice(json));
    given
        .as_deref()
        .and_then(JobId::parse)
        .or_else(|| message_id.and_then(JobId::parse))
        .unwrap_or_else(|| JobId::derive(body, timestamp))
}

/// The URL of the webhook that `body` names, even if the job is invalid.
pub fn extract_webhook(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct WithWebhook {
        webhook: Option<WebhookUrl>,
    }
    #[derive(Deserialize)]
    struct WebhookUrl {
        url: String,
    }
    let json = text::strip_mark(body).ok().filter(|_| body.len() <= MAX_BODY_BYTES)?;
    serde_json::from_slice::<WithWebhook>(json).ok()?.webhook.map(|webhook| webhook.url)
}

/// Reads the member `id` of an object.
struct TopLevelId<'a>(&'a mut Option<String>);

impl<'de> DeserializeSeed<'de> for TopLevelId<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TopLevelId<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(ShortText(name)) = map.next_key()? {
            if name.as_deref() == Some("id") {
                // Fails if it is no string.
                *self.0 = map.next_value::<ShortText>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A string; `None` if it is longer than an id may be.
struct ShortText(Option<String>);

impl<'de> Deserialize<'de> for ShortText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ShortTextVisitor)
    }
}

struct ShortTextVisitor;

impl Visitor<'_> for ShortTextVisitor {
    type Value = ShortText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ShortText, E> {
        Ok(ShortText((text.len() <= JobId::LONGEST).then(|| text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_string_and_anything_else_is_ignored() {
        for other in ["null", "true", "-1", "1", "1.5", "{\"a\":[1]}", "[[1],{}]"] {
            let body = format!("{{\"payload\":{{\"id\":\"inner\"}},\"id\":{other}}}");
            assert_eq!(extract_id(body.as_bytes(), Some("m"), None).as_str(), "m", "{body}");
        }
        let body = "\u{feff}{\"payload\":{\"id\":\"inner\"},\"\\u0069d\":\"o\\u0077n\",\"x\":[";
        assert_eq!(extract_id(body.as_bytes(), Some("m"), None).as_str(), "own");
    }

    #[test]
    fn of_a_body_that_is_too_large_the_beginning_is_read() {
        let body = |before: usize| {
            format!("{{\"a\":\"{}\",\"id\":\"own\",\"b\":[", "x".repeat(before)) + &"0,".repeat(MAX_BODY_BYTES)
        };
        assert_eq!(extract_id(body(1000).as_bytes(), Some("m"), None).as_str(), "own");
        assert_eq!(extract_id(body(MAX_BODY_BYTES).as_bytes(), Some("m"), None).as_str(), "m");
        assert_eq!(extract_webhook(body(0).as_bytes()), None);
        let derived = |more: usize| extract_id("x".repeat(MAX_BODY_BYTES + more).as_bytes(), None, None);
        assert_ne!(derived(1), derived(2));
        assert_eq!(derived(1), derived(1));
    }

    #[test]
    fn a_webhook_is_read_from_a_job_that_is_refused_but_not_from_garbage() {
        for (body, url) in [
            (r#"{"payload":7,"colour":1,"webhook":{"url":"https://a.example","x":1}}"#, Some("https://a.example")),
            (r#"{"webhook":{"url":7}}"#, None),
            (r#"{"webhook":null}"#, None),
            (r#"{"payload":{}}"#, None),
            (r#"{"webhook":{"url":"https://a.example"}"#, None),
            ("[]", None),
        ] {
            assert_eq!(extract_webhook(body.as_bytes()).as_deref(), url, "{body}");
        }
    }

    #[test]
    fn a_redelivery_keeps_its_id_and_another_message_gets_another() {
        let id = |body: &[u8], message_id, timestamp| extract_id(body, message_id, timestamp);
        assert_eq!(id(b"{}", None, Some(1)), id(b"{}", None, Some(1)));
        assert_ne!(id(b"{}", None, Some(1)), id(b"{}", None, Some(2)));
        assert_ne!(id(b"{}", None, None), id(b"{} ", None, None));
        assert_eq!(id(b"{}", Some("m"), None).as_str(), "m");
        assert_eq!(id(br#"{"id":"own"}"#, Some("m"), None).as_str(), "own");
        assert_eq!(id(b"{}", Some("not valid"), None), id(b"{}", None, None));
    }
}
