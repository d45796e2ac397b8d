//! The interface to a CDN other than Genesys Cloud's: the requests that purge paths there, and what an answer
//! means. Pure, apart from [`Provider::authorise`]. [`super::hosted`] sends.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method,
    header::{HeaderName, HeaderValue},
};
use url::Url;

use super::purge::Capacity;
use crate::progress::PurgeStatus;

/// A request that purges something, without credentials.
#[derive(Clone, Debug)]
pub(crate) struct CdnRequest {
    pub(crate) method: Method,
    /// The path's template, for metrics and the audit.
    pub(crate) endpoint: &'static str,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl CdnRequest {
    /// Makes a request without a body.
    pub(crate) fn new(
        method: Method,
        endpoint: &'static str,
        url: Url,
        headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Self {
        Self { method, endpoint, url, headers: headers.into_iter().collect(), body: Bytes::new() }
    }
}

/// The value of headers that name JSON.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer of a CDN, or of something before it.
#[derive(Clone, Debug)]
pub(crate) struct CdnAnswer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The wait that it asks for.
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

impl CdnAnswer {
    /// Returns the text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }
}

/// The meaning of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The paths are being purged.
    Purged { status: PurgeStatus, id: Option<String> },
    /// Later, after this wait: nothing is wrong with the request. Uses up no retry and no attempt.
    Throttled { wait: Duration, why: String },
    /// Nothing can be purged until the cause is removed.
    Held { hold: Hold, why: String, id: Option<String> },
    /// The CDN refuses the content: one of the paths, or their number.
    Refused { why: String, id: Option<String> },
    /// A retry may succeed.
    Failing { code: &'static str, why: String },
}

/// The cause for which nothing can be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// The CDN does not know who asks.
    Credentials,
    /// It knows, and forbids it; or there is no such distribution or zone.
    Forbidden,
    /// It does not answer, or fails. It ends by itself; only an operator can end the others.
    Unavailable,
}

/// The name of the pause that a CDN asks for, which `genfleet_gate_state` shows.
pub(crate) const THROTTLED: &str = "cdn_throttled";
/// What to do about a CDN that does not answer.
pub(crate) const UNAVAILABLE_REMEDY: &str = "see whether it has an outage, and whether it can be reached from here";

impl Hold {
    pub(crate) const ALL: [Self; 3] = [Self::Credentials, Self::Forbidden, Self::Unavailable];

    /// The name that `/readyz` shows.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Credentials => "cdn_credentials",
            Self::Forbidden => "cdn_forbidden",
            Self::Unavailable => "cdn_unavailable",
        }
    }

    /// The code in events.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "api_unavailable",
        }
    }
}

/// A CDN that is asked by requests of its own.
pub(crate) trait Provider: Clone + Send + Sync + 'static {
    /// The name for people.
    const NAME: &'static str;

    /// Returns what one request takes.
    fn capacity(&self) -> Capacity;

    /// Says why `path` cannot be purged there, and what can; `None` where it can.
    fn refuses(path: &str) -> Option<String>;

    /// Returns the requests that purge `paths`; all of them have to succeed. Each may be sent again as it is.
    fn requests(&self, paths: &[Arc<str>]) -> Vec<CdnRequest>;

    /// Returns requests that show whether purges would be accepted, and purge nothing.
    fn trials(&self) -> Vec<CdnRequest>;

    /// Adds the credentials, which are read again each time because they may have changed. An error says what is missing.
    fn authorise(&self, request: CdnRequest) -> impl Future<Output = Result<CdnRequest, String>> + Send;

    /// Drops credentials that were refused, so that they are read anew.
    fn forget_credentials(&self) {}

    /// Says what the answer to one of [`requests`](Self::requests) means.
    fn judge(&self, answer: &CdnAnswer) -> Verdict;

    /// Says what the answer to one of [`trials`](Self::trials) means; what is right is told as [`Verdict::Purged`].
    fn judge_trial(&self, answer: &CdnAnswer) -> Verdict {
        self.judge(answer)
    }

    /// Says what to do about a hold.
    fn remedy(&self, hold: Hold) -> String;
}

/// The wait after a 429 or 503 that names none.
const PAUSE: Duration = Duration::from_secs(10);

/// Says what a status means that is the same for all providers: a failure of the server, a pause, or of neither.
pub(crate) fn judge_status(name: &str, answer: &CdnAnswer) -> Option<Verdict> {
    let status = answer.status;
    match status {
        429 | 503 => {
            let wait = answer.retry_after.unwrap_or(PAUSE);
            Some(Verdict::Throttled { wait, why: format!("{name} answered {status}: later") })
        }
        408 | 500..=599 => Some(Verdict::Failing { code: "api_unavailable", why: format!("{name} answered {status}") }),
        100..=399 => Some(unexpected(name, answer)),
        _ => None,
    }
}

/// An answer that the provider would not give: a proxy or gateway between may have written it. It ends no job.
pub(crate) fn unexpected(name: &str, answer: &CdnAnswer) -> Verdict {
    let why = format!(
        "the answer ({}) has not the form that {name} promises: see whether a proxy or another server answers in its place",
        answer.status
    );
    Verdict::Failing { code: "unexpected_response", why }
}

/// Percent-encodes a path: everything but unreserved characters, `/`, `%` and `*`.
pub(crate) fn encode_path(path: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/%*".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
        }
    }
    encoded
}

/// Puts an encoded path behind scheme, host and port of `base`.
pub(crate) fn at(base: &Url, encoded_path: &str) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.set_path(encoded_path);
    url
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn answer(status: u16, body: &str) -> CdnAnswer {
        CdnAnswer {
            status,
            headers: HeaderMap::new(),
            retry_after: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    pub(crate) fn paths(written: &[&str]) -> Vec<Arc<str>> {
        written.iter().copied().map(Arc::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{testing::answer, *};

    #[test]
    fn everything_but_unreserved_characters_slash_percent_and_star_is_encoded() {
        for (path, encoded) in [
            ("/a-b._~c/D9*", "/a-b._~c/D9*"),
            ("/a%20b", "/a%20b"),
            ("/é", "/%C3%A9"),
            ("/a\"b\\c'<>&", "/a%22b%5Cc%27%3C%3E%26"),
            ("/a+b:c@d=e;f,g!$()[]|^`{}", "/a%2Bb%3Ac%40d%3De%3Bf%2Cg%21%24%28%29%5B%5D%7C%5E%60%7B%7D"),
        ] {
            assert_eq!(encode_path(path), encoded);
        }
    }

    #[test]
    fn a_url_takes_an_encoded_path_as_it_is() {
        let base = Url::parse("http://127.0.0.1:6081/ignored?also").unwrap();
        for path in ["/a//b/%2F%c3*", "/...", "/a/.hidden/~x", "/%252e%252e/a"] {
            assert_eq!(at(&base, path).as_str(), format!("http://127.0.0.1:6081{path}"));
        }
    }

    #[test]
    fn a_pause_keeps_its_time_and_a_page_of_a_proxy_purges_nothing() {
        let later = CdnAnswer { retry_after: Some(Duration::from_secs(7)), ..answer(429, "") };
        assert!(matches!(judge_status("X", &later), Some(Verdict::Throttled { wait, .. }) if wait.as_secs() == 7));
        assert!(matches!(judge_status("X", &answer(503, "")), Some(Verdict::Throttled { wait: PAUSE, .. })));
        assert!(matches!(judge_status("X", &answer(502, "")), Some(Verdict::Failing { code: "api_unavailable", .. })));
        assert!(matches!(
            judge_status("X", &answer(302, "")),
            Some(Verdict::Failing { code: "unexpected_response", .. })
        ));
        assert_eq!(judge_status("X", &answer(404, "")), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_plain_ascii_and_decodes_to_the_path(path in "/[^%?#\\s]{0,40}") {
            let encoded = encode_path(&path);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%*".contains(&byte)));
            let mut bytes = Vec::new();
            let mut rest = encoded.as_bytes();
            while let Some((first, tail)) = rest.split_first() {
                if *first == b'%' {
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                    rest = &tail[2..];
                } else {
                    bytes.push(*first);
                    rest = tail;
                }
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), path);
        }
    }
}
