//! The state and the report of a job. Pure.

use std::time::Duration;

use genfleet_core::hash;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    api::{ScanId, ScanStatus},
    payload::Payload,
};

/// The state of a started job, which is empty until a scan was ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ScanState {
    /// The scan of the job.
    pub(crate) scan: Option<Scan>,
}

/// The serialized form of a scan.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    scan_id: Option<String>,
    /// The time of the order, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    ordered_at: Option<String>,
    polls: u32,
    initiation_ms: u64,
}

/// An ordered scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The platform's id of the scan.
    pub(crate) id: ScanId,
    /// Time of the answer to the order.
    pub ordered_at: Timestamp,
    /// Duration of ordering, including the wait for the budget.
    pub initiation: Duration,
    /// Number of polls.
    pub polls: u32,
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanVerdict {
    /// There is no verdict yet.
    Pending,
    /// The file was scanned, with a known result.
    Completed,
    /// The file was scanned, with a result that this version does not know.
    Unknown,
    /// The scan failed, so the content of the file is unknown.
    Failed,
}

/// The report of a scan.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScanReport {
    /// The file.
    file_id: String,
    /// The platform's id of the scan.
    scan_id: String,
    /// Scan engine as in the job.
    scan_engine: String,
    /// The platform's last status: `completed`, `failed` or another word.
    status: Option<String>,
    /// The platform's result, e.g. `clean` or `malware`.
    result: Option<String>,
    /// True if the platform put the file into quarantine.
    quarantined: Option<bool>,
    /// Quarantine action as in the job.
    quarantine_action: String,
    /// True if malware was found; null if that is unknown, which is not the same as false.
    threat_detected: Option<bool>,
    /// Number of polls.
    polls: u32,
    /// Time of the order.
    #[schemars(extend("format" = "date-time"))]
    initiated_at: String,
    /// Milliseconds that ordering took, including the wait for the API's limits.
    initiation_ms: u64,
    /// Milliseconds from ordering the scan to the verdict.
    total_latency_ms: u64,
    /// Metadata as in the job.
    metadata: Option<Map<String, Value>>,
    /// SHA-256 over the canonical JSON of `fileId`, `scanId`, `status`, `result` and `quarantined`; null without a
    /// verdict.
    compliance_hash: Option<String>,
}

impl TryFrom<Written> for ScanState {
    type Error = String;

    /// Parses the state. An incomplete scan is an error: it cannot be polled, and must not be ordered again.
    fn try_from(written: Written) -> Result<Self, String> {
        let Written { scan_id, ordered_at, polls, initiation_ms } = written;
        let Some(id) = scan_id else { return Ok(Self::default()) };
        let id = ScanId::try_from(id)?;
        let ordered_at = ordered_at.ok_or("orderedAt is missing")?;
        let ordered_at = ordered_at.parse().map_err(|error| format!("orderedAt: {error}"))?;
        let scan = Scan { id, ordered_at, initiation: Duration::from_millis(initiation_ms), polls };
        Ok(Self { scan: Some(scan) })
    }
}

impl From<ScanState> for Written {
    fn from(state: ScanState) -> Self {
        let Some(scan) = state.scan else { return Self::default() };
        Self {
            scan_id: Some(scan.id.as_str().to_owned()),
            ordered_at: Some(scan.ordered_at.to_string()),
            polls: scan.polls,
            initiation_ms: millis(scan.initiation),
        }
    }
}

impl From<&Scan> for ScanState {
    fn from(scan: &Scan) -> Self {
        Self { scan: Some(scan.clone()) }
    }
}

impl Scan {
    /// Returns the time since the order.
    pub(crate) fn age(&self, now: Timestamp) -> Duration {
        // Another machine's clock may be ahead.
        Duration::try_from(now.duration_since(self.ordered_at)).unwrap_or_default()
    }

    /// Creates the report; `status` is the platform's last status.
    pub(crate) fn report(&self, payload: &Payload, status: Option<&ScanStatus>, now: Timestamp) -> ScanReport {
        ScanReport {
            file_id: payload.file_id.clone(),
            scan_id: self.id.as_str().to_owned(),
            scan_engine: payload.scan_engine.clone(),
            status: status.map(|status| status.status.clone()),
            result: status.and_then(|status| status.result.clone()),
            quarantined: status.and_then(|status| status.quarantined),
            quarantine_action: payload.quarantine_action.clone(),
            threat_detected: status.and_then(ScanStatus::threat_detected),
            polls: self.polls,
            initiated_at: self.ordered_at.to_string(),
            initiation_ms: millis(self.initiation),
            total_latency_ms: millis(self.initiation + self.age(now)),
            metadata: payload.metadata.clone(),
            compliance_hash: status.and_then(|status| self.compliance_hash(&payload.file_id, status)),
        }
    }

    /// Computes the SHA-256 of the verdict as canonical JSON. `None` without a verdict.
    fn compliance_hash(&self, file_id: &str, status: &ScanStatus) -> Option<String> {
        let verdict = json!({"fileId": file_id, "scanId": self.id.as_str(), "status": status.status,
            "result": status.result, "quarantined": status.quarantined});
        (status.verdict() != ScanVerdict::Pending).then(|| hash::sha256(hash::canonical(&verdict)))
    }
}

/// The only result that means that nothing was found.
const CLEAN: &str = "clean";
/// Results that mean that malware was found, in any case.
const THREATS: [&str; 12] = [
    "malware",
    "malicious",
    "infected",
    "virus",
    "trojan",
    "worm",
    "ransomware",
    "spyware",
    "phishing",
    "threat",
    "harmful",
    "quarantined",
];

impl ScanStatus {
    /// Returns the verdict for this status.
    pub(crate) fn verdict(&self) -> ScanVerdict {
        match (self.status.as_str(), self.threat_detected()) {
            ("completed", Some(_)) => ScanVerdict::Completed,
            ("completed", None) => ScanVerdict::Unknown,
            ("failed", _) => ScanVerdict::Failed,
            _ => ScanVerdict::Pending,
        }
    }

    /// Returns true if malware was found. Only a completed scan with the exact word means that nothing was found.
    pub(crate) fn threat_detected(&self) -> Option<bool> {
        let result = self.result.as_deref();
        let is_threat = |word: &str| THREATS.iter().any(|threat| threat.eq_ignore_ascii_case(word.trim()));
        if self.quarantined == Some(true) || result.is_some_and(is_threat) {
            return Some(true);
        }
        (self.status == "completed" && result == Some(CLEAN)).then_some(false)
    }
}

/// Converts a duration to whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_status(status: &str, result: Option<&str>, quarantined: Option<bool>) -> ScanStatus {
        ScanStatus { status: status.to_owned(), result: result.map(str::to_owned), quarantined }
    }

    fn scan() -> Scan {
        let id = ScanId::try_from("scan-7".to_owned()).unwrap();
        Scan {
            id,
            ordered_at: "2026-11-20T12:00:00Z".parse().unwrap(),
            initiation: Duration::from_millis(40),
            polls: 3,
        }
    }

    fn payload() -> Payload {
        serde_json::from_value(json!({"fileId": "f", "scanEngine": "deep", "quarantineAction": "allow_with_flag"}))
            .unwrap()
    }

    #[test]
    fn a_threat_is_a_word_for_it_or_a_quarantined_file_and_only_the_word_clean_of_a_completed_scan_is_clean() {
        let table = [
            ("completed", Some("clean"), Some(false), ScanVerdict::Completed, Some(false)),
            ("completed", None, None, ScanVerdict::Unknown, None),
            ("completed", None, Some(false), ScanVerdict::Unknown, None),
            ("completed", None, Some(true), ScanVerdict::Completed, Some(true)),
            ("completed", Some(""), Some(false), ScanVerdict::Unknown, None),
            ("completed", Some("Clean"), Some(false), ScanVerdict::Unknown, None),
            ("completed", Some("clean "), None, ScanVerdict::Unknown, None),
            ("completed", Some("unclean"), None, ScanVerdict::Unknown, None),
            ("completed", Some("suspicious"), Some(false), ScanVerdict::Unknown, None),
            ("completed", Some("error"), Some(false), ScanVerdict::Unknown, None),
            ("completed", Some("MALWARE"), Some(false), ScanVerdict::Completed, Some(true)),
            ("completed", Some("Infected"), None, ScanVerdict::Completed, Some(true)),
            ("failed", Some("Malware"), None, ScanVerdict::Failed, Some(true)),
            ("completed", Some("malware"), Some(false), ScanVerdict::Completed, Some(true)),
            ("completed", Some("clean"), Some(true), ScanVerdict::Completed, Some(true)),
            ("failed", Some("clean"), Some(false), ScanVerdict::Failed, None),
            ("failed", None, None, ScanVerdict::Failed, None),
            ("failed", Some("malware"), None, ScanVerdict::Failed, Some(true)),
            ("failed", None, Some(true), ScanVerdict::Failed, Some(true)),
            ("pending", None, None, ScanVerdict::Pending, None),
            ("pending", Some("malware"), None, ScanVerdict::Pending, Some(true)),
            ("Completed", None, None, ScanVerdict::Pending, None),
        ];
        for (status, result, quarantined, verdict, threat) in table {
            let status = scan_status(status, result, quarantined);
            assert_eq!((status.verdict(), status.threat_detected()), (verdict, threat), "{status:?}");
        }
    }

    #[test]
    fn the_compliance_hash_is_of_sorted_members_and_does_not_know_the_time() {
        let clean = scan_status("completed", Some("clean"), Some(false));
        let at = |time: &str| scan().report(&payload(), Some(&clean), time.parse().unwrap()).compliance_hash;
        let canonical = r#"{"fileId":"f","quarantined":false,"result":"clean","scanId":"scan-7","status":"completed"}"#;
        let expected = hash::sha256(canonical);
        assert_eq!(at("2026-11-20T12:00:08Z"), Some(expected.clone()));
        assert_eq!(at("2026-11-21T12:00:08Z"), Some(expected));
    }

    #[test]
    fn a_report_says_what_is_known_and_null_where_nothing_is() {
        let now = "2026-11-20T12:00:08Z".parse().unwrap();
        let message = serde_json::to_value(scan().report(&payload(), None, now)).unwrap();
        let expected = json!({
            "fileId": "f", "scanId": "scan-7", "scanEngine": "deep", "status": null, "result": null,
            "quarantined": null, "quarantineAction": "allow_with_flag", "threatDetected": null, "polls": 3,
            "initiatedAt": "2026-11-20T12:00:00Z", "initiationMs": 40, "totalLatencyMs": 8040, "metadata": null,
            "complianceHash": null,
        });
        assert_eq!(message, expected);
    }

    #[test]
    fn the_state_begins_with_what_the_contract_names() {
        let written = serde_json::to_value(ScanState::from(&scan())).unwrap();
        let expected = json!({"scanId": "scan-7", "orderedAt": "2026-11-20T12:00:00Z", "polls": 3, "initiationMs": 40});
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_value::<ScanState>(written).unwrap(), ScanState::from(&scan()));
        assert_eq!(serde_json::from_value::<ScanState>(json!({})).unwrap(), ScanState::default());
    }

    #[test]
    fn a_state_that_cannot_be_read_is_no_reason_to_order_again() {
        for unreadable in [
            json!({"scanId": "s"}),
            json!({"scanId": 7, "orderedAt": "2026-11-20T12:00:00Z"}),
            json!({"scanId": "", "orderedAt": "2026-11-20T12:00:00Z"}),
            json!({"scanId": "s", "orderedAt": "today"}),
            json!({"scanId": "s", "orderedAt": "2026-11-20T12:00:00Z", "polls": "many"}),
        ] {
            assert!(serde_json::from_value::<ScanState>(unreadable.clone()).is_err(), "{unreadable}");
        }
        let newer = json!({"scanId": "s", "orderedAt": "2026-11-20T12:00:00Z", "polls": 1, "priority": "high"});
        assert!(serde_json::from_value::<ScanState>(newer).unwrap().scan.is_some(), "state changes by optional fields");
    }
}
