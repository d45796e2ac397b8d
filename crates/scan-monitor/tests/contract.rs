//! That the published schemas of `file.scan` and `media.scan` and their worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, some, texts, unstated_rules_can_be_broken, uuid};
use genfleet_scan_monitor::{MediaScan, ScanMonitor};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<ScanMonitor>(places());
}

#[test]
fn schema_and_worker_agree_on_media() {
    agree::<MediaScan>(media_places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<ScanMonitor>(witnesses());
    let link = json!({ "/payload/source/url": "ftp://files.example/report.pdf" });
    unstated_rules_can_be_broken::<MediaScan>([witnesses(), vec![link]].concat());
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

fn media_places() -> Places {
    let ids = || texts(prop_oneof!["[!-~]{0,4}", "[.]{0,3}", some(&["a b", "é", "3f2504e0", "<a@b>", "..x"])].boxed());
    let long = (16_300_usize..16_400).prop_map(|bytes| json!({ "note": "x".repeat(bytes) }));
    let email = json!({ "conversationId": "c", "messageId": "m", "attachmentId": "a" });
    let source = |name: &str, value: Value| Just(json!({ name: value })).boxed();
    let sources = prop_oneof![
        source("document", json!({ "documentId": "d" })),
        source("email", email.clone()),
        source("url", json!("https://a.example/")),
        Just(json!({ "messageId": "m", "conversationId": "c", "url": null })).boxed(),
        Just(json!({ "messageId": "m" })).boxed(),
        Just(json!({ "email": email, "document": { "documentId": "d" } })).boxed(),
    ];
    vec![
        ("/payload/source", sources.boxed()),
        (
            "/payload/source/url",
            texts(some(&["https://a.example/x?y", "http://a.example", "a.example", "ftp://a", ""])),
        ),
        ("/payload/source/conversationId", ids()),
        ("/payload/source/message/mediaId", ids()),
        ("/payload/source/document/documentId", ids()),
        ("/payload/sha256", texts("[0-9a-fA-F]{63,65}|[0-9a-g]{64}".boxed())),
        ("/payload/maxBytes", anything().boxed()),
        ("/payload/onThreat", texts(some(&["none", "flag", "tag", "disconnect", "delete", "Flag", ""]))),
        ("/payload/onThreat", Just(Value::Null).boxed()),
        ("/payload/participantId", ids()),
        ("/payload/participantId", Just(Value::Null).boxed()),
        ("/payload/metadata", long.boxed()),
    ]
}
