//! The contract of `file.scan` jobs beyond the shape of their types.

use genfleet_core::contract::{ContractTerms, ErrorCode, UnstatedRule};
use serde_json::{Map, Value, json};

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({ "fileId": "{uuid}", "scanEngine": "standard", "quarantineAction": "notify_and_hold" }),
        rules: Value::Null,
        unstated: vec![UnstatedRule {
            at: "/payload/metadata",
            rule: "metadata has at most 16,384 bytes as JSON without blanks.",
            message: "bytes of JSON",
        }],
        codes: vec![
            ErrorCode::new("scan_not_found", "The API lost the scan (404)."),
            ErrorCode::new("scan_timed_out", "There was no verdict within the workers' --scan-timeout."),
            ErrorCode::new(
                "scan_failed",
                "The scan failed, or completed without a verdict that is known here: it is not known whether the file is clean.",
            ),
        ],
        error_members: Map::new(),
    }
}

fn examples() -> Vec<Value> {
    let file = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
    let plain = json!({
        "payload": { "fileId": file, "scanEngine": "standard", "quarantineAction": "auto_quarantine" },
    });
    let with_all = json!({
        "id": "attachment-1042",
        "payload": {
            "fileId": file,
            "scanEngine": "deep",
            "quarantineAction": "notify_and_hold",
            "metadata": { "conversationId": "c-1042", "uploadedBy": "customer" },
        },
    });
    vec![plain, with_all]
}
