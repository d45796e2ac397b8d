//! What can be read of a body that is no job: its id, its webhook. Nothing is made of the rest.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{JobId, MAX_BODY_BYTES, text};

/// The id in the body, also of a body that breaks off or breaks rules; else the message id; else derived. Nothing is
/// made of the rest of the body, and of one that is too large only as much is read as a job may have.
pub fn readable_id(body: &[u8], message_id: Option<&str>, timestamp: Option<u64>) -> JobId {
    let found: RefCell<Option<String>> = RefCell::new(None);
    let json = text::unmarked(&body[..body.len().min(MAX_BODY_BYTES)]).unwrap_or_default();
    // A body that breaks off after its id fails here, and has told its id before it did.
    let _ = TopLevelId { found: &found }.deserialize(&mut serde_json::Deserializer::from_slice(json));
    let given = found.into_inner();
    given
        .as_deref()
        .and_then(JobId::parse)
        .or_else(|| message_id.and_then(JobId::parse))
        .unwrap_or_else(|| JobId::derived(body, timestamp))
}

/// The URL that `body` names for its events, where one can be read: also of a job that is refused.
pub fn readable_webhook(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Readable {
        webhook: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        url: String,
    }
    let json = text::unmarked(body).ok().filter(|_| body.len() <= MAX_BODY_BYTES)?;
    serde_json::from_slice::<Readable>(json).ok()?.webhook.map(|named| named.url)
}

struct TopLevelId<'a> {
    found: &'a RefCell<Option<String>>,
}

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
        while let Some(Name(is_id)) = map.next_key()? {
            if is_id {
                *self.found.borrow_mut() = map.next_value::<Text>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Whether a member is the id.
struct Name(bool);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ShortText).map(|name| Self(name.0.as_deref() == Some("id")))
    }
}

/// A text that an id may be; nothing is made of anything else.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShortText)
    }
}

struct ShortText;

impl<'de> Visitor<'de> for ShortText {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Some(text.to_owned()).filter(|text| text.len() <= JobId::LONGEST)))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_unit<E: Error>(self) -> Result<Text, E> {
        Ok(Text(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Text, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_text_and_nothing_is_made_of_anything_else() {
        for other in ["null", "true", "-1", "1", "1.5", "{\"a\":[1]}", "[[1],{}]"] {
            let body = format!("{{\"payload\":{{\"id\":\"inner\"}},\"id\":{other}}}");
            assert_eq!(readable_id(body.as_bytes(), Some("m"), None).as_str(), "m", "{body}");
        }
        let body = "\u{feff}{\"payload\":{\"id\":\"inner\"},\"\\u0069d\":\"o\\u0077n\",\"x\":[";
        assert_eq!(readable_id(body.as_bytes(), Some("m"), None).as_str(), "own");
    }

    #[test]
    fn of_a_body_that_is_too_large_the_beginning_is_read() {
        let body = |before: usize| {
            format!("{{\"a\":\"{}\",\"id\":\"own\",\"b\":[", "x".repeat(before)) + &"0,".repeat(MAX_BODY_BYTES)
        };
        assert_eq!(readable_id(body(1000).as_bytes(), Some("m"), None).as_str(), "own");
        assert_eq!(readable_id(body(MAX_BODY_BYTES).as_bytes(), Some("m"), None).as_str(), "m");
        assert_eq!(readable_webhook(body(0).as_bytes()), None);
        let derived = |more: usize| readable_id("x".repeat(MAX_BODY_BYTES + more).as_bytes(), None, None);
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
            assert_eq!(readable_webhook(body.as_bytes()).as_deref(), url, "{body}");
        }
    }

    #[test]
    fn a_redelivery_keeps_its_id_and_another_message_gets_another() {
        let id = |body: &[u8], message_id, timestamp| readable_id(body, message_id, timestamp);
        assert_eq!(id(b"{}", None, Some(1)), id(b"{}", None, Some(1)));
        assert_ne!(id(b"{}", None, Some(1)), id(b"{}", None, Some(2)));
        assert_ne!(id(b"{}", None, None), id(b"{} ", None, None));
        assert_eq!(id(b"{}", Some("m"), None).as_str(), "m");
        assert_eq!(id(br#"{"id":"own"}"#, Some("m"), None).as_str(), "own");
        assert_eq!(id(b"{}", Some("not valid"), None), id(b"{}", None, None));
    }
}
