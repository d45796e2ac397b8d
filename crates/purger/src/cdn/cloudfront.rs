//! Amazon CloudFront: `POST /2020-05-31/distribution/{id}/invalidation` with XML, signed with Signature Version 4. Errors are
//! identified by their code, never by the status.

use std::{fmt::Write, sync::Arc, time::Duration};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningParams, SigningSettings, sign},
    sign::v4,
};
use genfleet_core::clock::SharedClock;
use hyper::{
    Method,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use url::Url;
use uuid::Uuid;

use self::credentials::CredentialChain;
use super::{
    provider::{
        CdnAnswer, CdnRequest, Hold, Provider, UNAVAILABLE_REMEDY, Verdict, at, encode_path, judge_status, unexpected,
    },
    purge::Capacity,
};
use crate::progress::PurgeStatus;

pub(crate) mod credentials;
mod profile;
mod xml;

use self::xml::{element, escape};

/// The address where none is given.
pub(crate) const ADDRESS: &str = "https://cloudfront.amazonaws.com";
const ENDPOINT: &str = "/2020-05-31/distribution/{id}/invalidation";
const NAMESPACE: &str = "http://cloudfront.amazonaws.com/doc/2020-05-31/";
/// CloudFront is a global service: its requests are signed for this region.
const REGION: &str = "us-east-1";
const SERVICE: &str = "cloudfront";
/// Paths in progress of a distribution, at most, and wildcards among them.
const CAPACITY: Capacity = Capacity { paths: 3000, wildcards: 15 };
/// The wait until invalidations in progress have ended.
const IN_PROGRESS_WAIT: Duration = Duration::from_secs(30);
/// The wait after `Throttling`.
const THROTTLED_WAIT: Duration = Duration::from_secs(5);

/// The consequence of an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CodeClass {
    Throttled(Duration),
    Credentials,
    Forbidden,
    Content,
    Failing,
}

/// First row that holds a code. Others are judged by the status.
const CODES: [(&[&str], CodeClass); 6] = [
    (&["TooManyInvalidationsInProgress"], CodeClass::Throttled(IN_PROGRESS_WAIT)),
    (
        &[
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
        ],
        CodeClass::Throttled(THROTTLED_WAIT),
    ),
    (
        &[
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ],
        CodeClass::Credentials,
    ),
    (&["AccessDenied", "AccessDeniedException", "NoSuchDistribution", "OptInRequired"], CodeClass::Forbidden),
    (
        &[
            "BatchTooLarge",
            "InconsistentQuantities",
            "InvalidArgument",
            "MalformedInput",
            "MalformedXML",
            "MissingBody",
        ],
        CodeClass::Content,
    ),
    (&["InternalError", "InternalFailure", "InternalServiceError", "RequestTimeout"], CodeClass::Failing),
];

/// A distribution.
#[derive(Clone, Debug)]
pub(crate) struct CloudFront {
    pub(crate) base: Url,
    pub(crate) distribution: Arc<str>,
    pub(crate) credentials: CredentialChain,
    pub(crate) clock: SharedClock,
}

impl CloudFront {
    fn url(&self) -> Url {
        at(&self.base, &format!("/2020-05-31/distribution/{}/invalidation", encode_path(&self.distribution)))
    }
}

/// Writes the body. `reference` is new for each request: the same reference with the same paths would be answered with the
/// earlier invalidation, and nothing would be purged.
fn batch(paths: &[Arc<str>], reference: Uuid) -> String {
    let mut items = String::new();
    for path in paths {
        let _ = write!(items, "<Path>{}</Path>", escape(&encode_path(path)));
    }
    let quantity = paths.len();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<InvalidationBatch xmlns=\"{NAMESPACE}\"><Paths><Quantity>{quantity}\
         </Quantity><Items>{items}</Items></Paths><CallerReference>{reference}</CallerReference></InvalidationBatch>"
    )
}

/// Adds the headers of Signature Version 4.
fn sign_request(mut request: CdnRequest, credentials: &Credentials, clock: &SharedClock) -> Result<CdnRequest, String> {
    let wrong = |error: &dyn std::error::Error| format!("the request cannot be signed: {error}");
    let identity = credentials.clone().into();
    let parameters: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name(SERVICE)
        .time(clock.now().into())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| wrong(&error))?
        .into();
    let headers = request.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let method = request.method.as_str();
    let signable = SignableRequest::new(method, request.url.as_str(), headers, SignableBody::Bytes(&request.body))
        .map_err(|error| wrong(&error))?;
    let (instructions, _) = sign(signable, &parameters).map_err(|error| wrong(&error))?.into_parts();
    let added: Vec<(String, String)> =
        instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in added {
        let name = HeaderName::try_from(name).map_err(|error| wrong(&error))?;
        let mut value = HeaderValue::try_from(value).map_err(|error| wrong(&error))?;
        value.set_sensitive(true);
        request.headers.insert(name, value);
    }
    Ok(request)
}

impl Provider for CloudFront {
    const NAME: &'static str = "CloudFront";

    fn capacity(&self) -> Capacity {
        CAPACITY
    }

    fn refuses(_: &str) -> Option<String> {
        None
    }

    fn requests(&self, paths: &[Arc<str>]) -> Vec<CdnRequest> {
        let xml = HeaderValue::from_static("application/xml");
        let body = batch(paths, Uuid::new_v4()).into();
        vec![CdnRequest { body, ..CdnRequest::new(Method::POST, ENDPOINT, self.url(), [(CONTENT_TYPE, xml)]) }]
    }

    /// Lists invalidations, which needs a permission of its own: `cloudfront:ListInvalidations`.
    fn trials(&self) -> Vec<CdnRequest> {
        let mut url = self.url();
        url.set_query(Some("MaxItems=1"));
        vec![CdnRequest::new(Method::GET, ENDPOINT, url, [])]
    }

    async fn authorise(&self, request: CdnRequest) -> Result<CdnRequest, String> {
        let credentials = self.credentials.get().await?;
        sign_request(request, &credentials, &self.clock)
    }

    fn forget_credentials(&self) {
        self.credentials.forget();
    }

    fn judge(&self, answer: &CdnAnswer) -> Verdict {
        let body = String::from_utf8_lossy(&answer.body);
        if answer.status == 201 && element(&body, "Invalidation").is_some() {
            let status = element(&body, "Status").map_or(PurgeStatus::Code(201), PurgeStatus::Word);
            return Verdict::Purged { status, id: element(&body, "Id") };
        }
        let error = element(&body, "Error").filter(|_| !(200..400).contains(&answer.status));
        let Some((code, error)) = error.and_then(|error| Some((element(&error, "Code")?, error))) else {
            // Without a code only a pause is believed.
            return judge_status(Self::NAME, answer).unwrap_or_else(|| unexpected(Self::NAME, answer));
        };
        let id = element(&body, "RequestId").or_else(|| answer.header("x-amzn-requestid"));
        // Of a signature that does not match, the further lines are the whole request.
        let message = element(&error, "Message").unwrap_or_default();
        let message = message.lines().next().unwrap_or_default();
        let why = format!("CloudFront answered {} {code}: {message}", answer.status);
        let class = CODES.iter().find(|(codes, _)| codes.contains(&code.as_str())).map(|(_, class)| *class);
        match class {
            Some(CodeClass::Throttled(wait)) => Verdict::Throttled { wait: answer.retry_after.unwrap_or(wait), why },
            Some(CodeClass::Credentials) => Verdict::Held { hold: Hold::Credentials, why, id },
            Some(CodeClass::Forbidden) => Verdict::Held { hold: Hold::Forbidden, why, id },
            Some(CodeClass::Content) => Verdict::Refused { why, id },
            Some(CodeClass::Failing) => Verdict::Failing { code: "api_unavailable", why },
            // Codes that are not known here.
            None => match answer.status {
                401 | 403 => Verdict::Held { hold: Hold::Forbidden, why, id },
                _ => judge_status(Self::NAME, answer).unwrap_or(Verdict::Refused { why, id }),
            },
        }
    }

    fn judge_trial(&self, answer: &CdnAnswer) -> Verdict {
        if answer.status == 200 && element(&String::from_utf8_lossy(&answer.body), "InvalidationList").is_some() {
            return Verdict::Purged { status: PurgeStatus::Code(200), id: None };
        }
        self.judge(answer)
    }

    fn remedy(&self, hold: Hold) -> String {
        match hold {
            Hold::Credentials => "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role or profile in their \
                                   place, and this machine's clock"
                .to_owned(),
            Hold::Forbidden => format!(
                "permit cloudfront:CreateInvalidation on the distribution {} (docs/CDN.md has the policy) and check \
                 --cdn-distribution",
                self.distribution
            ),
            Hold::Unavailable => UNAVAILABLE_REMEDY.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
