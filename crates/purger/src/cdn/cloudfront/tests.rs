//! Signatures, bodies and answers of CloudFront.

use genfleet_core::clock::Clock;
use hyper::HeaderMap;
use jiff::Timestamp;

use super::{
    super::provider::testing::{answer, paths},
    *,
};

const ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "AQoDYXdzEJr//session+token==";

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }
}

fn cloudfront() -> CloudFront {
    genfleet_core::telemetry::http::install_tls();
    let clock: SharedClock = Arc::new(Noon);
    let credentials = CredentialChain::new(clock.clone()).unwrap();
    CloudFront { base: Url::parse(ADDRESS).unwrap(), distribution: "E1EXAMPLE".into(), credentials, clock }
}

/// As botocore 1.44 signs the same requests.
#[test]
fn signatures_are_those_of_amazons_own_client() {
    let request = |url: &str, method: Method, body: &'static str| {
        let xml = (CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        let headers = HeaderMap::from_iter((!body.is_empty()).then_some(xml));
        CdnRequest { method, endpoint: ENDPOINT, url: url.parse().unwrap(), headers, body: body.into() }
    };
    let post = "https://cloudfront.amazonaws.com/2020-05-31/distribution/E1EXAMPLE/invalidation";
    let get = "http://127.0.0.1:8480/2020-05-31/distribution/E1EXAMPLE/invalidation?MaxItems=1";
    for (token, url, method, body, headers, signature) in [
        (
            None,
            post,
            Method::POST,
            "<a>/x</a>",
            "content-type;host;x-amz-date",
            "352a148ca73abbadf9a1afa269774313f8aa3789db7b4a695b758fa61c61d24c",
        ),
        (
            None,
            get,
            Method::GET,
            "",
            "host;x-amz-date",
            "ac35de5db9dab16862b77446207620325d3870bd418245315863cc5b72b6bb76",
        ),
        (
            Some(TOKEN),
            post,
            Method::POST,
            "<a>/x</a>",
            "content-type;host;x-amz-date;x-amz-security-token",
            "476532da46326ed011ea7959f6c5c30680ee04f407ed54cae0c93f1164c05181",
        ),
        (
            Some(TOKEN),
            get,
            Method::GET,
            "",
            "host;x-amz-date;x-amz-security-token",
            "201d3cad57bc9b30fc2a1170ac4431612740f9e5863d8f30ec378883c01f8d0c",
        ),
    ] {
        let credentials = Credentials::new(ID, KEY, token.map(str::to_owned), None, "test");
        let clock: SharedClock = Arc::new(Noon);
        let signed = sign_request(request(url, method, body), &credentials, &clock).unwrap();
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential={ID}/20261130/us-east-1/cloudfront/aws4_request, SignedHeaders={headers}, Signature={signature}"
        );
        assert_eq!(signed.headers["authorization"], expected);
        assert_eq!(signed.headers["x-amz-date"], "20261130T120000Z");
        assert!(!format!("{signed:?}").contains(signature) && !format!("{signed:?}").contains(TOKEN), "{signed:?}");
    }
}

#[test]
fn the_body_lists_the_paths_and_has_a_reference_of_its_own() {
    let bodies: Vec<String> = (0..2)
        .map(|_| {
            let request = cloudfront().requests(&paths(&["/é&/x.js", "/img/*"])).remove(0);
            String::from_utf8(request.body.to_vec()).unwrap()
        })
        .collect();
    for body in &bodies {
        assert_eq!(element(body, "Quantity").as_deref(), Some("2"));
        assert!(body.contains("<Items><Path>/%C3%A9%26/x.js</Path><Path>/img/*</Path></Items>"), "{body}");
        assert!(body.contains("xmlns=\"http://cloudfront.amazonaws.com/doc/2020-05-31/\""), "{body}");
        assert!(element(body, "CallerReference").unwrap().parse::<Uuid>().is_ok());
    }
    assert_ne!(bodies[0], bodies[1], "the same paths are purged again");
    let url = "https://cloudfront.amazonaws.com/2020-05-31/distribution/E1EXAMPLE/invalidation";
    assert_eq!(cloudfront().requests(&paths(&["/a"]))[0].url.as_str(), url);
}

fn error(status: u16, code: &str) -> CdnAnswer {
    answer(
        status,
        &format!(
            "<?xml version=\"1.0\"?>\n<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>it says</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        ),
    )
}

#[test]
fn an_accepted_invalidation_is_told_by_its_id_and_its_status() {
    let body = "<?xml version=\"1.0\"?>\n<Invalidation xmlns=\"x\"><Id>I2J0</Id><Status>InProgress</Status>\
                <CreateTime>2026-11-30T12:00:00Z</CreateTime></Invalidation>";
    let purged = Verdict::Purged { status: PurgeStatus::Word("InProgress".into()), id: Some("I2J0".into()) };
    assert_eq!(cloudfront().judge(&answer(201, body)), purged);
    for other in [answer(200, body), answer(201, "<html>"), answer(201, ""), answer(403, "<html>"), answer(404, "")] {
        assert!(
            matches!(cloudfront().judge(&other), Verdict::Failing { code: "unexpected_response", .. }),
            "{other:?}"
        );
    }
}

#[test]
fn errors_are_read_from_their_code_and_never_from_the_status() {
    let judge = |status, code: &str| cloudfront().judge(&error(status, code));
    let wait = |verdict| match verdict {
        Verdict::Throttled { wait, .. } => wait.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(judge(400, "TooManyInvalidationsInProgress")), 30);
    for (status, code) in [(400, "Throttling"), (503, "ServiceUnavailable"), (429, "TooManyRequestsException")] {
        assert_eq!(wait(judge(status, code)), 5, "{code}");
    }
    for (status, code) in
        [(413, "BatchTooLarge"), (400, "InvalidArgument"), (400, "MissingBody"), (400, "SomethingNew")]
    {
        let verdict = judge(status, code);
        assert!(matches!(&verdict, Verdict::Refused { why, id } if why.contains(code) && id.as_deref() == Some("r-1")));
    }
    for (status, code, hold) in [
        (404, "NoSuchDistribution", Hold::Forbidden),
        (403, "AccessDenied", Hold::Forbidden),
        (403, "SomethingNew", Hold::Forbidden),
        (403, "SignatureDoesNotMatch", Hold::Credentials),
        (403, "InvalidClientTokenId", Hold::Credentials),
        (400, "ExpiredToken", Hold::Credentials),
    ] {
        let verdict = judge(status, code);
        assert!(matches!(&verdict, Verdict::Held { hold: found, .. } if *found == hold), "{code}: {verdict:?}");
        assert!(!cloudfront().remedy(hold).is_empty());
    }
    assert!(matches!(judge(500, "InternalError"), Verdict::Failing { code: "api_unavailable", .. }));
    assert!(matches!(judge(500, "SomethingNew"), Verdict::Failing { code: "api_unavailable", .. }));
}

#[test]
fn a_list_of_invalidations_shows_that_the_credentials_are_good() {
    let list = "<InvalidationList xmlns=\"x\"><Marker></Marker><Quantity>0</Quantity></InvalidationList>";
    assert!(matches!(cloudfront().judge_trial(&answer(200, list)), Verdict::Purged { .. }));
    assert!(matches!(cloudfront().judge_trial(&error(403, "AccessDenied")), Verdict::Held { .. }));
}
