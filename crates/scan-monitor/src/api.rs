//! The typed API calls of `file.scan`. The callers decide what an answer means for a job.

use genfleet_core::{
    genesys::{ApiError, ApiRequest, Caller, GenesysClient},
    handler::JobContext,
    job::Kind,
};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The scopes that these calls need.
pub(crate) const SCOPES: &[&str] = &["files:read", "files:write", "webhooks:write", "platform:read"];

const SCANS: &str = "/api/v2/files/{fileId}/scans";
const SCAN: &str = "/api/v2/files/{fileId}/scans/{scanId}";
const WEBHOOKS: &str = "/api/v2/platform/webhooks/webhooks";
/// The statuses of a successful registration.
const REGISTERED: &[u16] = &[200, 201, 202, 204];
/// Maximum length of an id, which is part of a header and of every path.
const MAX_ID_BYTES: usize = 256;
/// Maximum length of a word in an answer, which is copied into the event.
const MAX_WORD_BYTES: usize = 256;

/// The platform's id of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ScanId(String);

impl ScanId {
    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ScanId {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, &'static str> {
        // By the URL standard, segments of dots lead to a parent folder.
        let names_one = (1..=MAX_ID_BYTES).contains(&id.len()) && id != "." && id != "..";
        if names_one { Ok(Self(id)) } else { Err("the id of a scan has 1 to 256 bytes and is no dot") }
    }
}

/// The platform's status of a scan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ReadStatus")]
pub(crate) struct ScanStatus {
    /// `completed`, `failed`, or another word while the scan runs.
    pub status: String,
    /// `clean`, `malware`, …
    pub result: Option<String>,
    /// True if the file was put into quarantine.
    pub quarantined: Option<bool>,
}

/// The status as received, before it is checked.
#[derive(Deserialize)]
struct ReadStatus {
    status: String,
    result: Option<String>,
    quarantined: Option<bool>,
}

impl TryFrom<ReadStatus> for ScanStatus {
    type Error = &'static str;

    fn try_from(read: ReadStatus) -> Result<Self, &'static str> {
        let ReadStatus { status, result, quarantined } = read;
        let words = [Some(&status), result.as_ref()].into_iter().flatten();
        if words.map(String::len).max() > Some(MAX_WORD_BYTES) {
            return Err("a status and a result are words: 256 bytes at most");
        }
        Ok(Self { status, result, quarantined })
    }
}

#[derive(Deserialize)]
struct Ordered {
    id: ScanId,
}

/// Orders a scan of a file. There is no way to look up whether one was ordered before: if the answer is lost,
/// the error is [`Ambiguous`](genfleet_core::error::ErrorClass::Ambiguous), and ordering again makes a second scan.
pub(crate) async fn order(job: &JobContext, file_id: &str) -> Result<ScanId, ApiError> {
    let request = ApiRequest::post(SCANS).ids(&[file_id]).json(&json!({}));
    Ok(job.send(request.expect_member("fileId", file_id)).await?.json::<Ordered>()?.id)
}

/// Reads the status of a scan, without retries, because the next poll follows anyway.
pub(crate) async fn poll(job: &JobContext, file_id: &str, scan: &ScanId) -> Result<ScanStatus, ApiError> {
    let request = ApiRequest::get(SCAN).ids(&[file_id, scan.as_str()]);
    let request = request.expect_member("id", scan.as_str()).expect_member("fileId", file_id);
    job.send(request.without_retries()).await?.json()
}

/// Registers `url` for every verdict on files with this quarantine action. The request belongs to no job: a failure
/// uses no attempt, and a 403 holds no jobs.
pub(crate) async fn register(
    client: &GenesysClient,
    action: &str,
    url: &Url,
    stop: &CancellationToken,
) -> Result<(), ApiError> {
    let webhook = json!({
        "name": format!("genfleet-scan-sync-{action}"),
        "enabled": true,
        "type": "webhook",
        "description": "Synchronizes Genesys Cloud file scan results with external SIEM",
        "eventFilters": [{"event": "files:scan:completed", "filter": {"quarantineAction": action}}],
        "url": url.as_str(),
        "headers": {"X-Security-Source": "GenesysCloud", "Content-Type": "application/json"},
    });
    let caller = Caller { kind: Kind::FileScan, jobs: &[], traces: &[], stop, lease: None };
    match client.send(ApiRequest::post(WEBHOOKS).expect(REGISTERED).allow_empty_body().json(&webhook), &caller).await {
        // It already exists: another process registered it, or this one before a restart.
        Err(error) if error.status == Some(409) => Ok(()),
        sent => sent.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_status_is_words_and_what_else_is_said_is_passed_over() {
        let read = |json: &str| serde_json::from_str::<ScanStatus>(json);
        let status = read(r#"{"id":"x","status":"pending","result":null,"progress":{"percent":50}}"#).unwrap();
        assert_eq!(status, ScanStatus { status: "pending".into(), result: None, quarantined: None });
        let long = format!(r#"{{"status":"completed","result":"{}"}}"#, "x".repeat(257));
        for no_status in ["{}", "[]", r#"{"status":7}"#, r#"{"status":"completed","quarantined":"no"}"#, &long] {
            assert!(read(no_status).is_err(), "{no_status}");
        }
    }

    #[test]
    fn an_id_is_one_segment_of_a_path() {
        for id in ["8a1f-x_y~z.1", "a/../b?c#d é"] {
            assert!(ScanId::try_from(id.to_owned()).is_ok(), "{id}");
        }
        for none in ["", ".", "..", &"x".repeat(257)] {
            assert!(ScanId::try_from(none.to_owned()).is_err(), "{none}");
        }
    }
}
