//! Varnish: `PURGE` for a path and `BAN` for a wildcard, sent to every server, authorised by the site's ACL. What these
//! methods do is in the site's VCL; docs/CDN.md has one.

use std::sync::Arc;

use hyper::{
    HeaderMap, Method,
    header::{HOST, HeaderName, HeaderValue},
};
use url::Url;

use super::{
    provider::{CdnAnswer, CdnRequest, Hold, Provider, UNAVAILABLE_REMEDY, Verdict, at, encode_path, judge_status},
    purge::Capacity,
};
use crate::progress::PurgeStatus;

const PURGE: &str = "PURGE {path}";
const BAN: &str = "BAN {path}";
/// The header with the regular expression that a ban applies to the URLs in the cache.
const BAN_REGEX: HeaderName = HeaderName::from_static("x-ban-regex");
/// A path that no site has: purging it shows whether the ACL lets us.
const TRIAL: &str = "/genfleet-doctor-checks-the-acl";

/// The Varnish servers of a site.
#[derive(Clone, Debug)]
pub(crate) struct Varnish {
    pub(crate) servers: Arc<[Url]>,
    /// The values of the header `Host`; where there are none, the server's own name is sent.
    pub(crate) hosts: Arc<[String]>,
}

impl Varnish {
    /// A request for `path` to each server, as each host.
    fn requests_to_all_servers(&self, path: &str) -> Vec<CdnRequest> {
        let hosts: Vec<Option<&String>> =
            if self.hosts.is_empty() { vec![None] } else { self.hosts.iter().map(Some).collect() };
        let request = |server: &Url, host: Option<&String>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host.and_then(|host| HeaderValue::try_from(host).ok()) {
                headers.insert(HOST, host);
            }
            let encoded = encode_path(path);
            let (method, endpoint) = match encoded.strip_suffix('*') {
                None => ("PURGE", PURGE),
                Some(prefix) => {
                    // Of what encoding leaves, only the dot means something else in a regular expression.
                    let regex = format!("^{}", prefix.replace('.', "[.]"));
                    headers.extend(HeaderValue::try_from(regex).ok().map(|regex| (BAN_REGEX, regex)));
                    ("BAN", BAN)
                }
            };
            let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
            CdnRequest { headers, ..CdnRequest::new(method, endpoint, at(server, &encoded), []) }
        };
        self.servers.iter().flat_map(|server| hosts.iter().map(move |host| request(server, *host))).collect()
    }
}

impl Provider for Varnish {
    const NAME: &'static str = "Varnish";

    fn capacity(&self) -> Capacity {
        Capacity::of(1)
    }

    fn refuses(_: &str) -> Option<String> {
        None
    }

    fn requests(&self, paths: &[Arc<str>]) -> Vec<CdnRequest> {
        paths.iter().flat_map(|path| self.requests_to_all_servers(path)).collect()
    }

    fn trials(&self) -> Vec<CdnRequest> {
        self.requests_to_all_servers(TRIAL)
    }

    async fn authorise(&self, request: CdnRequest) -> Result<CdnRequest, String> {
        Ok(request)
    }

    fn judge(&self, answer: &CdnAnswer) -> Verdict {
        let id = answer.header("x-varnish");
        let why = format!("Varnish answered {}", answer.status);
        match answer.status {
            200 => Verdict::Purged { status: PurgeStatus::Code(200), id },
            401 | 403 | 405 => Verdict::Held { hold: Hold::Forbidden, why, id },
            // The VCL hands the method to the origin, which does not know it.
            501 => {
                let why = format!("{why}: its VCL does not know PURGE and BAN");
                Verdict::Held { hold: Hold::Forbidden, why, id }
            }
            _ => judge_status(Self::NAME, answer).unwrap_or(Verdict::Refused { why, id }),
        }
    }

    fn remedy(&self, hold: Hold) -> String {
        if hold == Hold::Unavailable {
            return UNAVAILABLE_REMEDY.to_owned();
        }
        "let the ACL of the VCL permit the addresses of the workers, and let it answer PURGE and BAN (docs/CDN.md has an example)"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::provider::testing::{answer, paths},
        *,
    };

    fn varnish(hosts: &[&str]) -> Varnish {
        let servers = ["http://v1:6081", "http://v2:6081"].map(|url| Url::parse(url).unwrap()).into();
        Varnish { servers, hosts: hosts.iter().map(|host| (*host).to_owned()).collect() }
    }

    fn lines(varnish: &Varnish, path: &str) -> Vec<String> {
        let header = |request: &CdnRequest, name: &HeaderName| {
            request.headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let line = |request: CdnRequest| {
            let (host, regex) = (header(&request, &HOST), header(&request, &BAN_REGEX));
            format!("{} {} {host} {regex}", request.method, request.url)
        };
        varnish.requests(&paths(&[path])).into_iter().map(line).collect()
    }

    #[test]
    fn every_server_purges_the_path_of_every_host() {
        assert_eq!(
            lines(&varnish(&["a.example", "b.example"]), "/é"),
            [
                "PURGE http://v1:6081/%C3%A9 a.example ",
                "PURGE http://v1:6081/%C3%A9 b.example ",
                "PURGE http://v2:6081/%C3%A9 a.example ",
                "PURGE http://v2:6081/%C3%A9 b.example ",
            ]
        );
        assert_eq!(lines(&varnish(&[]), "/x"), ["PURGE http://v1:6081/x  ", "PURGE http://v2:6081/x  "]);
    }

    #[test]
    fn a_wildcard_is_a_ban_by_a_regular_expression() {
        for (path, regex) in [("/dir/*", "^/dir/"), ("/*", "^/"), ("/a.b*", "^/a[.]b"), ("/(x)+*", "^/%28x%29%2B")] {
            let line = &lines(&varnish(&["a.example"]), path)[0];
            assert_eq!(*line, format!("BAN http://v1:6081{} a.example {regex}", encode_path(path)));
        }
    }

    #[test]
    fn only_200_purges_and_the_acl_holds() {
        let judge = |status| varnish(&[]).judge(&answer(status, "<html>"));
        assert!(matches!(judge(200), Verdict::Purged { status: PurgeStatus::Code(200), .. }));
        for status in [401, 403, 405, 501] {
            assert!(matches!(judge(status), Verdict::Held { hold: Hold::Forbidden, .. }), "{status}");
        }
        assert!(matches!(judge(404), Verdict::Refused { .. }));
        assert!(matches!(judge(503), Verdict::Throttled { .. }));
        assert!(matches!(judge(502), Verdict::Failing { .. }));
        assert!(matches!(judge(301), Verdict::Failing { code: "unexpected_response", .. }));
    }
}
