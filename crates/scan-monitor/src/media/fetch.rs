//! Opens the link to a file: only to listed hosts at permitted addresses, with few redirects, each of which is checked
//! again. No request contains a token.

use std::time::Duration;

use bytes::Bytes;
use genfleet_core::{
    genesys::GenesysClient,
    handler::JobContext,
    options::ConfigError,
    outside::{OutsideAnswer, OutsideClient, OutsideError, OutsideRequest},
};
use hyper::Method;
use url::Url;

use super::options::{MediaHost, MediaScanOptions};

const MOST_REDIRECTS: usize = 3;

/// Opens links.
#[derive(Debug)]
pub(crate) struct Fetcher {
    client: OutsideClient,
    hosts: Vec<MediaHost>,
}

/// A file whose bytes have not been read yet.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The length in bytes, if the host reports it.
    pub length: Option<u64>,
    /// The media type, as the host reports it.
    pub media_type: Option<String>,
    response: OutsideAnswer,
    host: String,
}

/// The reason why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FetchError {
    /// The link, or the target of a redirect, may not be opened.
    Refused(String),
    /// The link has expired, or its file no longer exists.
    Dead(String),
    /// The host refuses the request permanently.
    Rejected(String),
    /// The time of the attempt is over.
    Interrupted,
    /// The host does not answer, or fails, with the wait that it requests.
    Unavailable(String, Duration),
}

impl Fetcher {
    /// Creates a client for the hosts in `options`, for the organisation of `genesys`.
    pub(crate) fn new(options: &MediaScanOptions, genesys: &GenesysClient) -> Result<Self, ConfigError> {
        Ok(Self {
            client: OutsideClient::new("--media-allow", &options.media_allow, genesys.authorities())?,
            hosts: options.hosts(&genesys.addresses().environment),
        })
    }

    /// Opens `link`. Messages contain only the host of a link, because path and query may be a secret key.
    pub(crate) async fn open(&self, job: &JobContext, mut link: Url) -> Result<OpenFile, FetchError> {
        for _ in 0..=MOST_REDIRECTS {
            let host = link.host_str().unwrap_or_default().to_owned();
            if !link.host().is_some_and(|found| self.hosts.iter().any(|listed| listed.matches(&found))) {
                let why =
                    format!("files are not fetched from {host}; where it may be trusted, add it to --media-hosts");
                return Err(FetchError::Refused(why));
            }
            let request = OutsideRequest::new(Method::GET, "a file", link.clone());
            let response = job.send_outside(&self.client, request).await.map_err(|error| failure(&host, error))?;
            match response.status {
                200 => {
                    let media_type = response.headers.get("content-type").and_then(|value| value.to_str().ok());
                    let media_type = media_type.map(|text| text.chars().take(256).collect());
                    let length = response.headers.get("content-length").and_then(|value| value.to_str().ok());
                    let length = length.and_then(|length| length.parse().ok());
                    return Ok(OpenFile { length, media_type, response, host });
                }
                301 | 302 | 303 | 307 | 308 => link = target(&link, &host, &response)?,
                _ => return Err(refusal(&host, &response, job)),
            }
        }
        Err(FetchError::Refused(format!("the link redirects more than {MOST_REDIRECTS} times")))
    }
}

impl OpenFile {
    /// Reads the next bytes; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        self.response.chunk().await.map_err(|error| failure(&self.host, error))
    }
}

/// The target of a redirect.
fn target(link: &Url, host: &str, response: &OutsideAnswer) -> Result<Url, FetchError> {
    let location = response.headers.get("location").and_then(|value| value.to_str().ok());
    location.and_then(|location| link.join(location).ok()).ok_or_else(|| {
        FetchError::Rejected(format!("{host} redirects ({}) to nowhere that can be read", response.status))
    })
}

fn refusal(host: &str, response: &OutsideAnswer, job: &JobContext) -> FetchError {
    let status = response.status;
    match status {
        403 | 404 | 410 => FetchError::Dead(format!("{host} answers {status}: the link is over, or the file is gone")),
        408 | 425 | 429 | 500..=599 => {
            let wait = response.retry_after(job.now()).unwrap_or_default();
            FetchError::Unavailable(format!("{host} answers {status}"), wait)
        }
        _ => FetchError::Rejected(format!("{host} answers {status} to the link")),
    }
}

fn failure(host: &str, error: OutsideError) -> FetchError {
    match error {
        OutsideError::Refused(why) => FetchError::Refused(why),
        OutsideError::Interrupted => FetchError::Interrupted,
        OutsideError::Failed(_, why) => FetchError::Unavailable(format!("{host}: {why}"), Duration::ZERO),
    }
}
