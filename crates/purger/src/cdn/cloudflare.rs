//! Cloudflare: `POST /client/v4/zones/{zone}/purge_cache` with files, prefixes or hosts, authorised by an API token.

use std::sync::Arc;

use genfleet_core::options::ConfigError;
use hyper::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;
use serde_json::{Value, json};
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
pub(crate) const TOKEN: &str = "CLOUDFLARE_API_TOKEN";
/// The address where none is given.
pub(crate) const ADDRESS: &str = "https://api.cloudflare.com";
const ENDPOINT: &str = "/client/v4/zones/{zone}/purge_cache";
const TRIAL: &str = "/client/v4/user/tokens/verify";
/// Files, prefixes or hosts in one request, at most.
const MAX_ENTRIES: usize = 100;
/// Cloudflare's codes for a token that it does not know, or that has not the form of one.
const BAD_TOKEN: [i64; 6] = [1000, 6003, 6111, 9103, 9109, 10000];
/// Its codes for a zone that it does not find.
const BAD_ZONE: [i64; 3] = [1001, 7000, 7003];

/// A zone at Cloudflare, and the hosts whose paths are purged there.
#[derive(Clone, Debug)]
pub(crate) struct Cloudflare {
    pub(crate) base: Url,
    pub(crate) zone: Arc<str>,
    pub(crate) hosts: Arc<[String]>,
    pub(crate) token: ApiToken,
}

/// The frame of every answer.
#[derive(Deserialize)]
struct Envelope {
    success: bool,
    #[serde(default)]
    errors: Option<Vec<Fault>>,
    #[serde(default)]
    result: Option<Value>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// How a path is purged.
enum Purge<'a> {
    File(&'a str),
    /// A folder, without the `/*` at its end.
    Prefix(&'a str),
    Everything,
}

impl<'a> Purge<'a> {
    /// `None` for a wildcard that Cloudflare does not know.
    fn of(path: &'a str) -> Option<Self> {
        match path.strip_suffix('*') {
            None => Some(Self::File(path)),
            Some("/") => Some(Self::Everything),
            Some(folder) => folder.strip_suffix('/').map(Self::Prefix),
        }
    }
}

impl Cloudflare {
    fn purge_url(&self) -> Url {
        at(&self.base, &format!("/client/v4/zones/{}/purge_cache", encode_path(&self.zone)))
    }

    /// Requests for all `entries`, which are `member`s of the body.
    fn of_entries(&self, member: &str, entries: &[String]) -> Vec<CdnRequest> {
        let request = |entries: &[String]| CdnRequest {
            body: json!({ member: entries }).to_string().into(),
            ..CdnRequest::new(Method::POST, ENDPOINT, self.purge_url(), [(CONTENT_TYPE, JSON), (ACCEPT, JSON)])
        };
        entries.chunks(MAX_ENTRIES).map(request).collect()
    }

    /// Finds mistakes in the settings that show without a request.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.token.header(BEARER).map(drop)
    }
}

const BEARER: &str = "Bearer ";

impl Provider for Cloudflare {
    const NAME: &'static str = "Cloudflare";

    fn capacity(&self) -> Capacity {
        Capacity::of((MAX_ENTRIES / self.hosts.len().max(1)).max(1))
    }

    fn refuses(path: &str) -> Option<String> {
        Purge::of(path).is_none().then(|| {
            "Cloudflare purges whole folders only: let the path end in /*, or name the files one by one".to_owned()
        })
    }

    fn requests(&self, paths: &[Arc<str>]) -> Vec<CdnRequest> {
        let (mut files, mut prefixes, mut hosts) = (Vec::new(), Vec::new(), Vec::new());
        for purge in paths.iter().filter_map(|path| Purge::of(path)) {
            for host in self.hosts.iter() {
                match purge {
                    Purge::File(path) => files.push(format!("https://{host}{}", encode_path(path))),
                    Purge::Prefix(folder) => prefixes.push(format!("{host}{}", encode_path(folder))),
                    Purge::Everything => hosts.push(host.clone()),
                }
            }
        }
        [("files", files), ("prefixes", prefixes), ("hosts", hosts)]
            .iter()
            .flat_map(|(member, entries)| self.of_entries(member, entries))
            .collect()
    }

    fn trials(&self) -> Vec<CdnRequest> {
        vec![CdnRequest::new(Method::GET, TRIAL, at(&self.base, TRIAL), [(ACCEPT, JSON)])]
    }

    async fn authorise(&self, mut request: CdnRequest) -> Result<CdnRequest, String> {
        let token = self.token.header(BEARER).map_err(|error| error.to_string())?;
        request.headers.insert(AUTHORIZATION, token);
        Ok(request)
    }

    fn judge(&self, answer: &CdnAnswer) -> Verdict {
        // The id by which Cloudflare's support finds a request.
        let id = answer.header("cf-ray");
        let Ok(envelope) = serde_json::from_slice::<Envelope>(&answer.body) else {
            // Without its envelope only a pause is believed.
            return judge_status(Self::NAME, answer).unwrap_or_else(|| unexpected(Self::NAME, answer));
        };
        if envelope.success && answer.status == 200 {
            let id = envelope.result.as_ref().and_then(|result| result["id"].as_str()).map(str::to_owned);
            return Verdict::Purged { status: PurgeStatus::Code(200), id };
        }
        let faults = envelope.errors.unwrap_or_default();
        let messages = faults.iter().map(|fault| format!("{} ({})", fault.message, fault.code)).collect::<Vec<_>>();
        let why = format!("Cloudflare answered {}: {}", answer.status, messages.join("; "));
        let is_any = |codes: &[i64]| faults.iter().any(|fault| codes.contains(&fault.code));
        match answer.status {
            401 => return Verdict::Held { hold: Hold::Credentials, why, id },
            403 => return Verdict::Held { hold: Hold::Forbidden, why, id },
            // An answer with status 200 can be a failure; its codes show which.
            200 => {}
            _ => {
                if let Some(verdict) = judge_status(Self::NAME, answer) {
                    return verdict;
                }
            }
        }
        if is_any(&BAD_TOKEN) {
            return Verdict::Held { hold: Hold::Credentials, why, id };
        }
        if is_any(&BAD_ZONE) || answer.status == 404 {
            return Verdict::Held { hold: Hold::Forbidden, why, id };
        }
        Verdict::Refused { why, id }
    }

    fn remedy(&self, hold: Hold) -> String {
        match hold {
            Hold::Credentials => format!("set {TOKEN} (or {TOKEN}_FILE) to a valid API token"),
            Hold::Forbidden => format!(
                "give the API token the permission Zone > Cache Purge for the zone {} and check --cdn-zone",
                self.zone
            ),
            Hold::Unavailable => UNAVAILABLE_REMEDY.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::provider::testing::{answer, paths},
        *,
    };

    fn cloudflare(hosts: &[&str]) -> Cloudflare {
        Cloudflare {
            base: Url::parse(ADDRESS).unwrap(),
            zone: "0123456789abcdef0123456789abcdef".into(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            token: ApiToken::Variable(TOKEN),
        }
    }

    fn bodies(cloudflare: &Cloudflare, written: &[&str]) -> Vec<Value> {
        let requests = cloudflare.requests(&paths(written));
        requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
    }

    #[test]
    fn files_folders_and_everything_go_in_requests_of_their_own() {
        let found = bodies(&cloudflare(&["a.example", "b.example"]), &["/é.css", "/img/*", "/*", "/x/y"]);
        assert_eq!(
            found,
            [
                json!({"files": ["https://a.example/%C3%A9.css", "https://b.example/%C3%A9.css",
                    "https://a.example/x/y", "https://b.example/x/y"]}),
                json!({"prefixes": ["a.example/img", "b.example/img"]}),
                json!({"hosts": ["a.example", "b.example"]}),
            ]
        );
        let request = cloudflare(&["a.example"]).requests(&paths(&["/x"])).remove(0);
        let url = "https://api.cloudflare.com/client/v4/zones/0123456789abcdef0123456789abcdef/purge_cache";
        assert_eq!((request.method, request.url.as_str()), (Method::POST, url));
    }

    #[test]
    fn hosts_count_towards_the_hundred_of_a_request() {
        assert_eq!(cloudflare(&["a"]).capacity(), Capacity::of(100));
        assert_eq!(cloudflare(&["a", "b", "c"]).capacity(), Capacity::of(33));
        let hosts: Vec<String> = (0..150).map(|n| format!("h{n}.example")).collect();
        let many = cloudflare(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(many.capacity(), Capacity::of(1));
        let sizes: Vec<_> = bodies(&many, &["/x"]).iter().map(|body| body["files"].as_array().unwrap().len()).collect();
        assert_eq!(sizes, [100, 50]);
    }

    #[test]
    fn a_wildcard_within_a_segment_is_refused_with_what_to_write() {
        assert!(Cloudflare::refuses("/a*").is_some_and(|why| why.contains("/*")));
        for fine in ["/a", "/a/*", "/*"] {
            assert_eq!(Cloudflare::refuses(fine), None);
        }
    }

    fn judge(status: u16, body: &str) -> Verdict {
        cloudflare(&["a.example"]).judge(&answer(status, body))
    }

    fn failed(code: i64) -> String {
        json!({"success": false, "errors": [{"code": code, "message": "no"}], "result": null}).to_string()
    }

    #[test]
    fn only_success_true_purges() {
        let purged = Verdict::Purged { status: PurgeStatus::Code(200), id: Some("z1".to_owned()) };
        assert_eq!(judge(200, r#"{"success":true,"errors":[],"messages":[],"result":{"id":"z1"}}"#), purged);
        assert!(matches!(judge(200, &failed(1012)), Verdict::Refused { .. }));
        assert!(matches!(judge(200, "<html>"), Verdict::Failing { code: "unexpected_response", .. }));
        assert!(matches!(judge(200, r#"{"result":{"id":"z1"}}"#), Verdict::Failing { .. }));
    }

    #[test]
    fn what_an_operator_has_to_mend_holds_and_what_a_producer_has_to_mend_does_not() {
        for (status, code, hold) in [
            (401, 10000, Hold::Credentials),
            (403, 10000, Hold::Forbidden),
            (400, 6003, Hold::Credentials),
            (200, 10000, Hold::Credentials),
            (404, 7003, Hold::Forbidden),
        ] {
            let verdict = judge(status, &failed(code));
            assert!(matches!(&verdict, Verdict::Held { hold: found, .. } if *found == hold), "{status}: {verdict:?}");
        }
        assert!(matches!(judge(400, &failed(1012)), Verdict::Refused { why, .. } if why.contains("no (1012)")));
        // A page of a proxy says nothing about the token.
        assert!(matches!(judge(403, "<html>"), Verdict::Failing { code: "unexpected_response", .. }));
    }

    #[test]
    fn a_limit_is_a_pause_and_a_failure_of_the_server_is_tried_again() {
        let later = CdnAnswer { retry_after: Some(Duration::from_secs(60)), ..answer(429, &failed(10429)) };
        let verdict = cloudflare(&["a.example"]).judge(&later);
        assert!(matches!(verdict, Verdict::Throttled { wait, .. } if wait.as_secs() == 60));
        assert!(matches!(judge(500, &failed(1)), Verdict::Failing { code: "api_unavailable", .. }));
    }
}
