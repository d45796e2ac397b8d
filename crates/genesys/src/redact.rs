//! Redaction: an answer may quote our secrets, for example in a page that shows the request's headers. They are cut out
//! of an answer as it arrives, before anything reads it, so that no event, dead letter or log can contain them, however
//! they are escaped: the text is searched as it is and with its escapes decoded ([`Layer`]).

use std::{borrow::Cow, iter, ops::Range};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use memchr::memmem::Finder;
use reqwest::header::HeaderValue;
use serde_json::Value;

use self::layer::Layer;
use crate::http_transport::{HttpResponse, TransportError};

mod layer;

const REDACTED: &str = "[redacted]";
/// Minimum length of a secret that is found alone. A shorter one could be a part of any word, and is only found
/// together with `Basic` or `Bearer`.
const SHORTEST: usize = 6;

/// The forms of the secrets in a [`Layer`]. Making one costs far more than a search: it is made once per token.
#[derive(Default)]
pub(crate) struct Redactor {
    forms: Vec<Finder<'static>>,
}

impl Redactor {
    /// Adds a client's secret, alone and with its id as HTTP Basic.
    #[must_use]
    pub(crate) fn basic(self, id: &str, secret: &str) -> Self {
        let pair = BASE64_STANDARD.encode(format!("{id}:{secret}"));
        self.secret(secret).with(&format!("Basic {pair}")).with(&pair)
    }

    /// Adds a token by the header that it is sent in.
    #[must_use]
    pub(crate) fn bearer(self, header: &HeaderValue) -> Self {
        let Ok(sent) = header.to_str() else { return self };
        self.secret(sent.strip_prefix("Bearer ").unwrap_or(sent)).with(sent)
    }

    fn secret(self, secret: &str) -> Self {
        if secret.len() < SHORTEST {
            return self;
        }
        let encoded = (0..3).flat_map(|shift| in_base64(secret, shift));
        encoded.fold(self.with(secret), |this, form| this.with(&form))
    }

    /// Adds `form`, also as it reads in a deeper layer if it looks as if it had escapes itself.
    fn with(mut self, form: &str) -> Self {
        let layers = layers(form.as_bytes()).map(|layer| layer.bytes);
        let long = layers.enumerate().filter(|(depth, bytes)| *depth == 0 || bytes.len() >= SHORTEST);
        for (_, bytes) in long {
            if !bytes.is_empty() && self.forms.iter().all(|known| known.needle() != bytes) {
                self.forms.push(Finder::new(&bytes).into_owned());
            }
        }
        self
    }

    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.places(text.as_bytes());
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut redacted, mut end) = (String::new(), 0);
        for place in found {
            redacted.push_str(&text[end..place.start]);
            redacted.push_str(REDACTED);
            end = place.end;
        }
        redacted.push_str(&text[end..]);
        Cow::Owned(redacted)
    }

    /// Finds the secrets in `text`, in order; those that overlap are one place.
    fn places(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if layer::is_only_layer(text) {
            found.extend(self.occurrences(text));
        } else {
            for layer in layers(text) {
                found.extend(self.occurrences(&layer.bytes).map(|place| layer.origin(place)));
            }
        }
        found.sort_unstable_by_key(|place| (place.start, place.end));
        found.dedup_by(|next, place| {
            let overlaps = next.start < place.end;
            if overlaps {
                place.end = place.end.max(next.end);
            }
            overlaps
        });
        found
    }

    fn occurrences<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
        self.forms.iter().flat_map(|form| form.find_iter(text).map(|begin| begin..begin + form.needle().len()))
    }

    pub(crate) fn exchange(
        &self,
        exchange: Result<HttpResponse, TransportError>,
    ) -> Result<HttpResponse, TransportError> {
        match exchange {
            Ok(received) => Ok(self.redact_response(received)),
            Err(TransportError { failure, message, cause }) => {
                let [message, cause] = [message, cause].map(|text| self.text(&text).into_owned());
                Err(TransportError { failure, message, cause })
            }
        }
    }

    fn redact_response(&self, mut received: HttpResponse) -> HttpResponse {
        for value in received.headers.values_mut() {
            let redacted = match self.text(&String::from_utf8_lossy(value.as_bytes())) {
                Cow::Borrowed(_) => continue,
                Cow::Owned(text) => HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(REDACTED)),
            };
            *value = redacted;
        }
        if let Some(body) = self.body(&received.body) {
            received.body = body.into();
        }
        received
    }

    /// Redacts a body; `None` if it contains no secret. Of JSON only the values and names are changed.
    fn body(&self, body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        let redacted = self.text(&text);
        let is_quoted = matches!(redacted, Cow::Owned(_));
        // The raw JSON has one level of escapes more than the texts in it.
        if !is_quoted && !text.contains('\\') {
            return None;
        }
        match serde_json::from_str::<Value>(&text) {
            // A member may be there twice, of which only one is parsed: the other must not stay, either.
            Ok(mut json) => (self.json(&mut json) || is_quoted).then(|| json.to_string()),
            Err(_) => is_quoted.then(|| redacted.into_owned()),
        }
    }

    /// Redacts a JSON value. True if it contained a secret.
    fn json(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.text(text) {
                Cow::Borrowed(_) => false,
                Cow::Owned(redacted) => {
                    *text = redacted;
                    true
                }
            },
            Value::Number(number) => {
                let is_quoted = matches!(self.text(&number.to_string()), Cow::Owned(_));
                if is_quoted {
                    *value = REDACTED.into();
                }
                is_quoted
            }
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
            Value::Null | Value::Bool(_) => false,
        }
    }
}

/// Lists `text` as it is, with its escapes decoded, with theirs decoded, and so on.
fn layers(text: &[u8]) -> impl Iterator<Item = Layer> {
    iter::successors(Some(Layer::of(text)), Layer::decode).take(layer::MOST + 1)
}

/// Encodes `secret` as a part of a longer text in base64, if `shift` bytes beyond a multiple of three come before it.
fn in_base64(secret: &str, shift: usize) -> [String; 2] {
    let bytes = [&[0; 2][..shift], secret.as_bytes()].concat();
    let end = bytes.len() * 8 / 6;
    let begin = (shift * 8).div_ceil(6);
    [BASE64_STANDARD_NO_PAD.encode(&bytes), BASE64_URL_SAFE_NO_PAD.encode(&bytes)]
        .map(|encoded| encoded.get(begin..end).unwrap_or(&encoded).to_owned())
}

#[cfg(test)]
mod tests;
