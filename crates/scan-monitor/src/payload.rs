//! The payload of a job, and the rules that no schema can state. Pure: the API decides whether a file exists.
//!
//! The two choices are parsed as text, and a missing member as an empty one. The schema checks their values, and a
//! payload that violates it can still be parsed, so that all violations are reported at once.

use genfleet_core::job::Violation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The platform's actions for a file with a finding.
pub(crate) const QUARANTINE_ACTIONS: [&str; 3] = ["auto_quarantine", "notify_and_hold", "allow_with_flag"];
/// Maximum length of the metadata, in bytes of JSON.
pub(crate) const MAX_METADATA_BYTES: usize = 16 * 1024;

/// A file to scan for viruses.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Payload {
    /// The file, by its UUID.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"), extend("x-rule" = "must be a UUID, in 36 characters, e.g. 3f2504e0-4f89-41d3-9a0c-0305e82c3301"))]
    pub file_id: String,
    /// Depth of the scan. The platform's engines are `default` (up to 30 s), `enhanced` (60 s) and
    /// `archive_parser` (45 s); it chooses by its own configuration, so this is reported, not sent.
    #[schemars(extend("enum" = ["standard", "deep", "archive"]))]
    pub scan_engine: String,
    /// Action for a file with a finding.
    #[schemars(extend("enum" = ["auto_quarantine", "notify_and_hold", "allow_with_flag"]))]
    pub quarantine_action: String,
    /// Any data of the sender, at most 16 KiB of JSON. It is copied into the report, and not sent to the API.
    pub metadata: Option<Map<String, Value>>,
}

impl Payload {
    /// Checks the rules that a schema cannot state.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let bytes =
            self.metadata.as_ref().and_then(|metadata| serde_json::to_vec(metadata).ok()).map_or(0, |it| it.len());
        let details = || format!("must be at most {MAX_METADATA_BYTES} bytes of JSON, found {bytes}");
        (bytes > MAX_METADATA_BYTES).then(|| Violation::new("/payload/metadata", details())).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, time::Duration};

    use genfleet_core::{
        job::Kind,
        worker::{JobRules, validate_job},
    };
    use serde_json::json;

    use super::*;
    use crate::{ScanMonitor, ScanMonitorOptions};

    const FILE: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";

    fn good() -> Value {
        json!({"fileId": FILE, "scanEngine": "standard", "quarantineAction": "auto_quarantine"})
    }

    /// The good payload with some members changed, or taken out if they are `null`.
    fn with(changes: &Value) -> Value {
        let mut payload = good();
        for (name, value) in changes.as_object().unwrap() {
            payload[name] = value.clone();
        }
        payload
    }

    fn options() -> ScanMonitorOptions {
        ScanMonitorOptions {
            poll_interval: Duration::from_secs(5),
            scan_timeout: Duration::from_secs(120),
            unrecorded_orders: NonZeroU16::MIN,
            security_webhook_url: None,
        }
    }

    fn refused(payload: &Value) -> Vec<(String, String)> {
        let body = json!({"id": "scan-1", "payload": payload}).to_string();
        let rules = JobRules::new::<Payload>(Kind::FileScan, |_| vec![]);
        match validate_job::<ScanMonitor>(&rules, &options(), body.as_bytes(), None, None) {
            Ok(_) => Vec::new(),
            Err(rejection) => rejection.violations.into_iter().map(|one| (one.pointer, one.message)).collect(),
        }
    }

    fn filler(bytes: usize) -> Value {
        json!({"note": "x".repeat(bytes - r#"{"note":""}"#.len())})
    }

    #[test]
    fn good_jobs_pass() {
        for changes in [
            json!({}),
            json!({"fileId": "A1B2C3D4-E5F6-1890-ABCD-EF1234567890"}),
            json!({"fileId": "00000000-0000-0000-0000-000000000000"}),
            json!({"scanEngine": "deep"}),
            json!({"scanEngine": "archive"}),
            json!({"quarantineAction": "notify_and_hold"}),
            json!({"quarantineAction": "allow_with_flag"}),
            json!({"metadata": {}}),
            json!({"metadata": null}),
            json!({"metadata": {"conversation": {"id": 1, "tags": ["a", null, 1.5]}}}),
            json!({"metadata": filler(MAX_METADATA_BYTES)}),
        ] {
            assert_eq!(refused(&with(&changes)), [], "{changes}");
        }
    }

    #[test]
    fn a_bad_job_is_told_what_is_wrong_and_where() {
        let table = [
            (json!({"fileId": "a1b2c3d4"}), "/payload/fileId", "must be a UUID"),
            (json!({"fileId": format!("{FILE}\n")}), "/payload/fileId", "must be a UUID"),
            (json!({"fileId": FILE.replace('-', "")}), "/payload/fileId", "must be a UUID"),
            (json!({"fileId": format!("{{{FILE}}}")}), "/payload/fileId", "must be a UUID"),
            (json!({"fileId": "../../a1b2c3d4-e5f6-7890-abcd-ef1234567890"}), "/payload/fileId", "must be a UUID"),
            (json!({"fileId": 7}), "/payload/fileId", "must be a string, found"),
            (json!({"scanEngine": "default"}), "/payload/scanEngine", "archive"),
            (json!({"scanEngine": "Standard"}), "/payload/scanEngine", "standard"),
            (json!({"scanEngine": null}), "/payload/scanEngine", "must be a string, found"),
            (json!({"quarantineAction": "delete"}), "/payload/quarantineAction", "notify_and_hold"),
            (json!({"metadata": "text"}), "/payload/metadata", "must be an object, found"),
            (json!({"metadata": [1]}), "/payload/metadata", "must be an object, found"),
            (
                json!({"metadata": filler(MAX_METADATA_BYTES + 1)}),
                "/payload/metadata",
                "16384 bytes of JSON, found 16385",
            ),
            (json!({"metadata": {"note": "é".repeat(8192)}}), "/payload/metadata", "16384 bytes"),
            (json!({"scanTimeout": 5}), "/payload/scanTimeout", "unknown field"),
        ];
        for (changes, pointer, message) in table {
            let found = refused(&with(&changes));
            assert!(!found.is_empty(), "{changes}");
            assert!(found.iter().all(|(at, _)| at == pointer), "{changes}: {found:?}");
            assert!(found.iter().any(|(_, details)| details.contains(message)), "{changes}: {found:?}");
        }
    }

    #[test]
    fn missing_members_are_told_where_they_should_be() {
        let pointers: Vec<String> = refused(&json!({})).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers, ["/payload/fileId", "/payload/scanEngine", "/payload/quarantineAction"]);
        let no_id = json!({"scanEngine": "deep", "quarantineAction": "notify_and_hold", "metadata": filler(20_000)});
        let pointers: Vec<String> = refused(&no_id).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers, ["/payload/fileId", "/payload/metadata"], "what is missing hides nothing");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let payload =
            json!({"fileId": 7, "scanEngine": "fast", "quarantineAction": "", "metadata": filler(20_000), "x": 1});
        let mut pointers: Vec<String> = refused(&payload).into_iter().map(|(pointer, _)| pointer).collect();
        pointers.sort_unstable();
        pointers.dedup();
        let expected =
            ["fileId", "metadata", "quarantineAction", "scanEngine", "x"].map(|name| format!("/payload/{name}"));
        assert_eq!(pointers, expected);
    }
}
