//! That the published schema of `file.scan` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, some, texts, unstated_rules_can_be_broken, uuid};
use genfleet_scan_monitor::ScanMonitor;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<ScanMonitor>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<ScanMonitor>(witnesses());
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses() -> Vec<Value> {
    vec![json!({ "/payload/metadata": { "note": "x".repeat(17_000) } })]
}

fn places() -> Places {
    let metadata = prop::collection::btree_map("[a-z]{0,3}", anything(), 0..3)
        .prop_map(|members| Value::Object(members.into_iter().collect()));
    let long = (16_300_usize..16_400).prop_map(|bytes| json!({ "note": "x".repeat(bytes) }));
    vec![
        ("/payload/fileId", texts(uuid())),
        ("/payload/scanEngine", texts(some(&["standard", "deep", "archive", "default", "Deep", ""]))),
        (
            "/payload/quarantineAction",
            texts(some(&["auto_quarantine", "notify_and_hold", "allow_with_flag", "delete"])),
        ),
        ("/payload/metadata", prop_oneof![3 => metadata, 1 => long].boxed()),
    ]
}
