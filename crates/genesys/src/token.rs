//! The token of the process: its lifetime, the time of its replacement, and the meaning of the token endpoint's
//! answers.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::{
    answer_body::{error_details, error_sentence},
    classify::{self, RetryAfterHeader, StatusClass},
};

/// A token is replaced this long before its end, or a tenth of its life if that is less.
const EARLY: Duration = Duration::from_secs(60);
/// The wait after a replacement failed while the old token is still good.
const AGAIN: Duration = Duration::from_secs(5);
/// The platform's default lifetime, if the answer contains none.
const DEFAULT_LIFE: f64 = 86_400.0;
/// Maximum lifetime, so that times can be added. Longer ones are cut.
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 86_400);

#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// `Bearer …`, marked sensitive, so that debug output does not show it.
    pub bearer: HeaderValue,
    /// Counts tokens: an answer about an earlier one says nothing about this one.
    pub number: u64,
    replace_at: Instant,
    expires_at: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct TokenSlot {
    current: Option<Token>,
    stored: u64,
    not_again_before: Option<Instant>,
}

impl TokenSlot {
    pub(crate) fn good(&self, now: Instant) -> Option<&Token> {
        self.current.as_ref().filter(|token| now < token.expires_at)
    }

    /// Returns true if a new one is due, though this one is still good.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let due = self.good(now).is_some_and(|token| now >= token.replace_at);
        due && self.not_again_before.is_none_or(|again| now >= again)
    }

    pub(crate) fn store(&mut self, grant: TokenGrant, now: Instant) {
        self.stored += 1;
        let life = grant.life.clamp(Duration::from_secs(1), LONGEST_LIFE);
        let replace_at = now + life - EARLY.min(life / 10);
        self.current = Some(Token { bearer: grant.bearer, number: self.stored, replace_at, expires_at: now + life });
        self.not_again_before = None;
    }

    /// Records that no new token was given, for a reason that is not ours.
    pub(crate) fn note_failure(&mut self, now: Instant) {
        self.not_again_before = Some(now + AGAIN);
    }

    /// Forgets the token `number`, which the API refused, unless a newer one is there already.
    pub(crate) fn forget(&mut self, number: u64) {
        self.current.take_if(|token| token.number == number);
    }
}

/// A token from the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct TokenGrant {
    /// `Bearer …`, marked sensitive.
    pub(crate) bearer: HeaderValue,
    pub(crate) life: Duration,
}

/// The meaning of the token endpoint's answer.
#[derive(Debug)]
pub(crate) enum TokenResponse {
    Granted(TokenGrant),
    /// It refuses the request, maybe for the scopes we asked for: 400, or any answer with `invalid_scope`.
    RefusedWithScope(String),
    Throttled,
    /// It does not answer properly now.
    Away,
    Refused(String),
}

#[derive(Deserialize)]
struct Body {
    access_token: String,
    #[serde(default)]
    expires_in: Value,
}

impl Body {
    /// Reads a number, also if it is written as text; the default if there is none.
    fn life(&self) -> Duration {
        let seconds = match &self.expires_in {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let seconds = seconds.filter(|seconds: &f64| *seconds >= 0.0).unwrap_or(DEFAULT_LIFE);
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFE).min(LONGEST_LIFE)
    }
}

/// Reads an answer of the token endpoint. Its throttling comes as a 400, and an answer without a token that waiting
/// does not change is a matter of the configuration.
pub(crate) fn read_response(status: u16, retry_after: RetryAfterHeader, body: &[u8]) -> TokenResponse {
    let details = error_details(body);
    match classify::status_class(status) {
        StatusClass::Success => read_grant(body),
        StatusClass::Throttled => TokenResponse::Throttled,
        StatusClass::Overloaded if retry_after == RetryAfterHeader::Present => TokenResponse::Throttled,
        StatusClass::Overloaded | StatusClass::Unavailable => TokenResponse::Away,
        StatusClass::Rejected if mentions(&details, "rate limit exceeded") => TokenResponse::Throttled,
        StatusClass::Rejected | StatusClass::Unauthorized | StatusClass::Forbidden
            if mentions(&details, "invalid_scope") || status == 400 && !mentions(&details, "invalid_client") =>
        {
            TokenResponse::RefusedWithScope(format!("{status} {}", error_sentence(&details)))
        }
        StatusClass::Rejected
        | StatusClass::Unauthorized
        | StatusClass::Forbidden
        | StatusClass::NotFound
        | StatusClass::Conflict
        | StatusClass::Unexpected => TokenResponse::Refused(format!("{status} {}", error_sentence(&details))),
    }
}

fn mentions(details: &Map<String, Value>, what: &str) -> bool {
    details.values().filter_map(Value::as_str).any(|text| text.to_ascii_lowercase().contains(what))
}

fn read_grant(body: &[u8]) -> TokenResponse {
    let Ok(body) = serde_json::from_slice::<Body>(body) else {
        return TokenResponse::Refused("its answer holds no access_token: is this the token endpoint?".to_owned());
    };
    match HeaderValue::from_str(&format!("Bearer {}", body.access_token)) {
        Ok(mut bearer) if !body.access_token.is_empty() => {
            bearer.set_sensitive(true);
            TokenResponse::Granted(TokenGrant { bearer, life: body.life() })
        }
        Ok(_) | Err(_) => TokenResponse::Refused("its access_token cannot be sent in a header".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(seconds: u64, now: Instant) -> TokenSlot {
        let body = format!(r#"{{"access_token":"secret-token","expires_in":{seconds}}}"#);
        let TokenResponse::Granted(grant) = read_response(200, RetryAfterHeader::Absent, body.as_bytes()) else {
            panic!("no token")
        };
        let mut slot = TokenSlot::default();
        slot.store(grant, now);
        slot
    }

    #[test]
    fn a_token_is_replaced_a_minute_early_or_a_tenth_of_its_life() {
        let now = Instant::now();
        for (life, due) in [(86_400, 86_340), (600, 540), (100, 90), (10, 9)] {
            let slot = slot(life, now);
            let at = |seconds| now + Duration::from_secs(seconds);
            assert!(!slot.is_due(at(due - 1)) && slot.is_due(at(due)), "{life}");
            assert!(slot.good(at(life - 1)).is_some() && slot.good(at(life)).is_none(), "{life}");
        }
    }

    #[test]
    fn a_failed_replacement_is_not_repeated_at_once() {
        let now = Instant::now();
        let mut slot = slot(600, now);
        let due = now + Duration::from_secs(550);
        slot.note_failure(due);
        assert!(!slot.is_due(due) && slot.is_due(due + AGAIN));
    }

    #[test]
    fn a_refused_token_is_forgotten_unless_a_newer_one_is_there() {
        let now = Instant::now();
        let mut slot = slot(600, now);
        let number = slot.good(now).unwrap().number;
        slot.forget(number + 1);
        assert!(slot.good(now).is_some());
        slot.forget(number);
        assert!(slot.good(now).is_none());
    }

    #[test]
    fn the_token_endpoints_answers_are_told_apart() {
        let answer =
            |status, body: &str| format!("{:?}", read_response(status, RetryAfterHeader::Absent, body.as_bytes()));
        let throttled = r#"{"error":"invalid_request","error_description":"Rate limit exceeded; wait"}"#;
        assert_eq!(answer(400, throttled), "Throttled");
        assert_eq!(answer(400, r#"{"error":"invalid_request","description":"rate limit exceeded;"}"#), "Throttled");
        assert_eq!(answer(429, ""), "Throttled");
        for (status, body) in [
            (400, r#"{"error":"invalid_scope"}"#),
            (401, r#"{"error":"invalid_scope"}"#),
            (400, r#"{"error":"invalid_request","error_description":"The scope cannot be granted"}"#),
            (400, r#"{"error":"unauthorized_client"}"#),
            (400, ""),
        ] {
            assert!(answer(status, body).starts_with("RefusedWithScope"), "{status} {body}");
        }
        assert_eq!(answer(503, ""), "Away");
        assert_eq!(answer(408, ""), "Away");
        assert!(matches!(read_response(503, RetryAfterHeader::Present, b""), TokenResponse::Throttled));
        for (status, body) in [(400, r#"{"error":"invalid_client"}"#), (401, ""), (404, ""), (501, ""), (302, "")] {
            assert!(answer(status, body).starts_with("Refused"), "{status}");
        }
        assert!(answer(200, "<html>sign in</html>").starts_with("Refused"));
        assert!(answer(200, r#"{"access_token":"a\nb"}"#).starts_with("Refused"));
    }

    #[test]
    fn a_token_is_taken_however_its_life_is_written() {
        let lives = ["3600", "3599.5", r#""3600""#, "0", "-5", "null", "true", r#""soon""#, "1e30"].map(|written| {
            let body = format!(r#"{{"access_token":"t","expires_in":{written}}}"#);
            let TokenResponse::Granted(grant) = read_response(200, RetryAfterHeader::Absent, body.as_bytes()) else {
                panic!("{written}")
            };
            grant.life.as_millis()
        });
        let longest = LONGEST_LIFE.as_millis();
        let day = 86_400_000;
        assert_eq!(lives, [3_600_000, 3_599_500, 3_600_000, 0, day, day, day, day, longest]);
    }

    #[test]
    fn no_debug_output_holds_the_token() {
        let slot = slot(600, Instant::now());
        let response = read_response(200, RetryAfterHeader::Absent, br#"{"access_token":"secret-token"}"#);
        assert!(!format!("{slot:?} {response:?}").contains("secret-token"));
    }
}
