//! What the other side must not make us tell: our secrets, which an answer may quote, be it in a page that shows the
//! request's headers. Taken out of an answer as it arrives, before anything reads it, so that no event, dead letter or log
//! can hold them.

use std::borrow::Cow;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use reqwest::header::HeaderValue;
use serde_json::Value;
use url::form_urlencoded;

use crate::genesys::transport::{NoAnswer, Received};

const REDACTED: &str = "[redacted]";
/// A shorter secret could be a part of any word: it is looked for only behind what announces it.
const SHORTEST: usize = 6;

/// Secrets, in all forms in which they may come back.
#[derive(Default)]
pub struct Redactor {
    /// The longest first: one may be a part of another.
    forms: Vec<String>,
}

impl Redactor {
    /// Also looks for a client's id and secret, together as HTTP Basic.
    #[must_use]
    pub fn basic(self, id: &str, secret: &str) -> Self {
        let pair = BASE64_STANDARD.encode(format!("{id}:{secret}"));
        self.secret(secret).with([format!("Basic {pair}"), pair])
    }

    /// Also looks for a token; `header` is how it is sent.
    #[must_use]
    pub fn bearer(self, header: &HeaderValue) -> Self {
        let Ok(sent) = header.to_str() else { return self };
        self.secret(sent.strip_prefix("Bearer ").unwrap_or(sent)).with([sent.to_owned()])
    }

    fn secret(self, secret: &str) -> Self {
        if secret.len() < SHORTEST {
            return self;
        }
        let encoded = (0..3).flat_map(|shift| in_base64(secret, shift));
        self.with([secret.to_owned()].into_iter().chain(encoded))
    }

    fn with(mut self, forms: impl IntoIterator<Item = String>) -> Self {
        self.forms.extend(forms.into_iter().flat_map(|form| {
            let percent: String = form_urlencoded::byte_serialize(form.as_bytes()).collect();
            let spaced = percent.replace('+', "%20");
            [lower_escapes(&percent), lower_escapes(&spaced), percent, spaced, form]
        }));
        self.forms.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        self.forms.dedup();
        self
    }

    /// `text` without them.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for form in &self.forms {
            if text.contains(form.as_str()) {
                text = Cow::Owned(text.replace(form.as_str(), REDACTED));
            }
        }
        text
    }

    /// What came back, without them.
    pub fn exchange(&self, exchange: Result<Received, NoAnswer>) -> Result<Received, NoAnswer> {
        match exchange {
            Ok(received) => Ok(self.received(received)),
            Err(NoAnswer { why, message, cause }) => {
                let [message, cause] = [message, cause].map(|text| self.text(&text).into_owned());
                Err(NoAnswer { why, message, cause })
            }
        }
    }

    fn received(&self, mut received: Received) -> Received {
        for value in received.headers.values_mut() {
            let redacted = value.to_str().ok().map(|text| self.text(text));
            if let Some(Cow::Owned(text)) = redacted {
                *value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(REDACTED));
            }
        }
        if let Some(body) = self.body(&received.body) {
            received.body = body.into();
        }
        received
    }

    /// The body without them; `None` where it holds none. Of JSON only the texts are changed.
    fn body(&self, body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        let redacted = self.text(&text);
        let may_be_escaped = text.contains('\\');
        if matches!(redacted, Cow::Borrowed(_)) && !may_be_escaped {
            return None;
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(mut json) => self.json(&mut json).then(|| json.to_string()),
            Err(_) => match redacted {
                Cow::Borrowed(_) => None,
                Cow::Owned(redacted) => Some(redacted),
            },
        }
    }

    /// Whether there was any.
    fn json(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.text(text) {
                Cow::Borrowed(_) => false,
                Cow::Owned(redacted) => {
                    *text = redacted;
                    true
                }
            },
            Value::Array(items) => items.iter_mut().filter_map(|item| self.json(item).then_some(())).count() > 0,
            Value::Object(members) => {
                let found = members.values_mut().filter_map(|member| self.json(member).then_some(())).count() > 0;
                let named: Vec<String> =
                    members.keys().filter(|name| matches!(self.text(name), Cow::Owned(_))).cloned().collect();
                for name in &named {
                    let value = members.remove(name).unwrap_or_default();
                    members.insert(self.text(name).into_owned(), value);
                }
                found || !named.is_empty()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
}

/// What of a text in base64 stands for `secret` alone, where `shift` bytes beyond a multiple of three come before it.
fn in_base64(secret: &str, shift: usize) -> [String; 2] {
    let bytes = [&[0; 2][..shift], secret.as_bytes()].concat();
    let end = bytes.len() * 8 / 6;
    let begin = (shift * 8).div_ceil(6);
    [BASE64_STANDARD_NO_PAD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)]
        .map(|encoded| encoded.get(begin..end).unwrap_or(&encoded).to_owned())
}

/// `%2B` as `%2b`.
fn lower_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escape, rest) = part.split_at(part.len().min(2));
        lower.push('%');
        lower.push_str(&escape.to_ascii_lowercase());
        lower.push_str(rest);
    }
    lower
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "tok-Zk9+/x y~42";
    const SECRET: &str = "s3cr3t/hush+hush";

    fn redactor() -> Redactor {
        Redactor::default().basic("the-id", SECRET).bearer(&HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap())
    }

    /// Parts of the secrets that no answer may hold in any form.
    fn assert_hushed(text: &str) {
        let redacted = redactor().text(text).into_owned();
        assert!(redacted.contains(REDACTED), "{text} → {redacted}");
        for part in ["Zk9", "42", "s3cr3t", "hush"] {
            assert!(!redacted.contains(part), "{text} → {redacted}");
        }
    }

    #[test]
    fn a_secret_is_taken_out_in_every_form() {
        assert_hushed(&format!("Authorization: Bearer {TOKEN}"));
        assert_hushed(&format!("{SECRET}{SECRET}"));
        assert_hushed("client_secret=s3cr3t%2Fhush%2Bhush&x");
        assert_hushed("client_secret=s3cr3t%2fhush%2bhush");
        assert_hushed("tok-Zk9%2B%2Fx+y%7E42");
        assert_hushed("tok-Zk9%2B%2Fx%20y%7E42");
        let pair = BASE64_STANDARD.encode(format!("the-id:{SECRET}"));
        assert_eq!(redactor().text(&format!("Basic {pair}")), REDACTED);
        assert_eq!(redactor().text(&form_urlencoded::byte_serialize(pair.as_bytes()).collect::<String>()), REDACTED);
    }

    #[test]
    fn a_secret_is_taken_out_of_base64_wherever_it_begins() {
        for secret in [TOKEN, SECRET] {
            for before in ["", "a", "ab", "the-id:", "Authorization: Bearer "] {
                for after in ["", "z", "\r\n"] {
                    let whole = format!("{before}{secret}{after}");
                    for encoded in [BASE64_STANDARD.encode(&whole), BASE64_URL_SAFE_NO_PAD.encode(&whole)] {
                        let redacted = redactor().text(&encoded).into_owned();
                        let left: usize = redacted.split(REDACTED).map(str::len).sum();
                        assert!(redacted.contains(REDACTED), "{whole}: {redacted}");
                        // What is left belongs to what is around it, but for two bits at either end.
                        let around = (before.len() + after.len()) * 4 / 3 + 6;
                        assert!(left <= around, "{whole}: {redacted}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_short_secret_is_taken_out_where_it_is_announced_and_words_stay_whole() {
        let redactor = Redactor::default().basic("id", "et").bearer(&HeaderValue::from_static("Bearer t1"));
        assert_eq!(redactor.text("Bearer t1 is not at1 et al"), "[redacted] is not at1 et al");
        assert_eq!(redactor.text(&format!("Basic {}", BASE64_STANDARD.encode("id:et"))), REDACTED);
    }

    #[test]
    fn an_answer_keeps_its_form_and_loses_what_it_quotes() {
        let quoted =
            json!({"message": format!("bad: Bearer {TOKEN}"), "errors": [{"sent": {SECRET: [SECRET]}}], "n": 1});
        let escaped = quoted.to_string().replace('/', "\\/");
        for body in [quoted.to_string(), escaped] {
            let headers = [("x-request-id", TOKEN), ("etag", "\"7\"")];
            let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            let received = Received { status: 400, headers: headers.into_iter().collect(), body: body.into() };
            let received = redactor().exchange(Ok(received)).unwrap();
            let told: Value = serde_json::from_slice(&received.body).unwrap();
            let expected = json!({"message": "bad: [redacted]", "errors": [{"sent": {REDACTED: [REDACTED]}}], "n": 1});
            assert_eq!(told, expected);
            assert_eq!(
                (&received.headers["x-request-id"], &received.headers["etag"]),
                (&REDACTED.parse().unwrap(), &"\"7\"".parse().unwrap())
            );
        }
    }

    #[test]
    fn an_answer_that_quotes_nothing_is_left_as_it_is() {
        let body = r#"{"b": 12345678901234567890123, "a":"\u00e4 \\ ", "a": 1}"#;
        let received = Received { status: 200, headers: [].into_iter().collect(), body: body.into() };
        assert_eq!(redactor().exchange(Ok(received)).unwrap().body, body);
    }
}
