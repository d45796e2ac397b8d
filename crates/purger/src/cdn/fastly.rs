//! Fastly: `POST /purge/{host/path}` for each path and host, authorised by an API token.

use std::sync::Arc;

use genfleet_core::options::ConfigError;
use hyper::{Method, header::ACCEPT};
use serde_json::Value;
use url::Url;

use super::{
    provider::{
        CdnAnswer, CdnRequest, Hold, JSON, Provider, UNAVAILABLE_REMEDY, Verdict, at, encode_path, judge_status,
        unexpected,
    },
    purge::Capacity,
    token::ApiToken,
};
use crate::progress::PurgeStatus;

/// The variable that holds the API token.
pub(crate) const TOKEN: &str = "FASTLY_API_TOKEN";
/// The address where none is given.
pub(crate) const ADDRESS: &str = "https://api.fastly.com";
const KEY: &str = "fastly-key";
const ENDPOINT: &str = "/purge/{url}";
const TRIAL: &str = "/tokens/self";

/// The hosts that are served by Fastly.
#[derive(Clone, Debug)]
pub(crate) struct Fastly {
    pub(crate) base: Url,
    pub(crate) hosts: Arc<[String]>,
    pub(crate) token: ApiToken,
}

impl Fastly {
    /// Finds mistakes in the settings that show without a request.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.token.header("").map(drop)
    }

    fn request(&self, method: Method, endpoint: &'static str, path: &str) -> CdnRequest {
        CdnRequest::new(method, endpoint, at(&self.base, path), [(ACCEPT, JSON)])
    }

    fn judge_body(answer: &CdnAnswer, is_success: impl Fn(&Value) -> Option<Verdict>) -> Verdict {
        let Ok(body @ Value::Object(_)) = serde_json::from_slice::<Value>(&answer.body) else {
            return judge_status(Self::NAME, answer).unwrap_or_else(|| unexpected(Self::NAME, answer));
        };
        if answer.status == 200 {
            return is_success(&body).unwrap_or_else(|| unexpected(Self::NAME, answer));
        }
        let message =
            ["msg", "detail"].iter().filter_map(|member| body[*member].as_str()).collect::<Vec<_>>().join(": ");
        let why = format!("Fastly answered {}: {message}", answer.status);
        let id = answer.header("fastly-trace");
        match answer.status {
            401 => Verdict::Held { hold: Hold::Credentials, why, id },
            403 => Verdict::Held { hold: Hold::Forbidden, why, id },
            _ => judge_status(Self::NAME, answer).unwrap_or(Verdict::Refused { why, id }),
        }
    }
}

impl Provider for Fastly {
    const NAME: &'static str = "Fastly";

    fn capacity(&self) -> Capacity {
        Capacity::of(1)
    }

    fn refuses(path: &str) -> Option<String> {
        path.ends_with('*').then(|| {
            "Fastly purges single URLs only: name the files one by one, or purge by surrogate key at Fastly itself"
                .to_owned()
        })
    }

    fn requests(&self, paths: &[Arc<str>]) -> Vec<CdnRequest> {
        let of = |path: &Arc<str>| {
            let path = encode_path(path);
            let at_host = move |host: &String| self.request(Method::POST, ENDPOINT, &format!("/purge/{host}{path}"));
            self.hosts.iter().map(at_host).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    fn trials(&self) -> Vec<CdnRequest> {
        vec![self.request(Method::GET, TRIAL, TRIAL)]
    }

    async fn authorise(&self, mut request: CdnRequest) -> Result<CdnRequest, String> {
        let token = self.token.header("").map_err(|error| error.to_string())?;
        request.headers.insert(KEY, token);
        Ok(request)
    }

    fn judge(&self, answer: &CdnAnswer) -> Verdict {
        Self::judge_body(answer, |body| {
            let id = body["id"].as_str().map(str::to_owned);
            let word = body["status"].as_str().filter(|word| *word == "ok")?;
            Some(Verdict::Purged { status: PurgeStatus::Word(word.to_owned()), id })
        })
    }

    fn judge_trial(&self, answer: &CdnAnswer) -> Verdict {
        Self::judge_body(answer, |body| {
            let id = body["id"].as_str()?.to_owned();
            Some(Verdict::Purged { status: PurgeStatus::Code(200), id: Some(id) })
        })
    }

    fn remedy(&self, hold: Hold) -> String {
        match hold {
            Hold::Credentials => format!("set {TOKEN} (or {TOKEN}_FILE) to a valid API token"),
            Hold::Forbidden => {
                "give the API token the scope purge_select and the service of these hosts, and check --cdn-hosts"
                    .to_owned()
            }
            Hold::Unavailable => UNAVAILABLE_REMEDY.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::provider::testing::{answer, paths},
        *,
    };

    fn fastly() -> Fastly {
        let hosts = ["a.example", "b.example"].map(str::to_owned).into();
        Fastly { base: Url::parse(ADDRESS).unwrap(), hosts, token: ApiToken::Variable(TOKEN) }
    }

    #[test]
    fn every_host_gets_a_request_of_its_own() {
        let urls: Vec<_> = fastly().requests(&paths(&["/é/x.css"])).into_iter().map(|request| request.url).collect();
        let expected = ["a", "b"].map(|host| format!("https://api.fastly.com/purge/{host}.example/%C3%A9/x.css"));
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_wildcard_is_purged() {
        for path in ["/a*", "/a/*", "/*"] {
            assert!(Fastly::refuses(path).is_some(), "{path}");
        }
        assert_eq!(Fastly::refuses("/a"), None);
    }

    #[test]
    fn only_ok_purges() {
        let judge = |status, body| fastly().judge(&answer(status, body));
        let purged = Verdict::Purged { status: PurgeStatus::Word("ok".to_owned()), id: Some("108-1".to_owned()) };
        assert_eq!(judge(200, r#"{"status":"ok","id":"108-1"}"#), purged);
        for (status, body) in [(200, "{}"), (200, "OK"), (403, "<html>"), (404, "")] {
            assert!(matches!(judge(status, body), Verdict::Failing { code: "unexpected_response", .. }), "{status}");
        }
        let msg = r#"{"msg":"no","detail":"because"}"#;
        assert!(matches!(judge(401, msg), Verdict::Held { hold: Hold::Credentials, .. }));
        assert!(matches!(judge(403, msg), Verdict::Held { hold: Hold::Forbidden, .. }));
        assert!(matches!(judge(400, msg), Verdict::Refused { why, .. } if why.contains("no: because")));
        assert!(matches!(judge(429, msg), Verdict::Throttled { .. }));
        assert!(matches!(judge(500, msg), Verdict::Failing { code: "api_unavailable", .. }));
    }
}
