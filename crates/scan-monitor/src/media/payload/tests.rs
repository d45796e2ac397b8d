use std::time::Duration;

use clap::Parser;
use genfleet_core::{
    job::Kind,
    worker::{JobRules, validate_job},
};
use serde_json::json;

use super::*;
use crate::{MediaScan, media::options::MediaScanOptions};

#[derive(Debug, Parser)]
struct Settings {
    #[command(flatten)]
    own: MediaScanOptions,
}

fn refused(payload: &Value) -> Vec<(String, String)> {
    let rules = JobRules::new::<MediaPayload>(Kind::MediaScan, |_| Vec::new());
    let Settings { own } = Settings::parse_from(["scan-monitor"]);
    let body = json!({"id": "m", "payload": payload}).to_string();
    match validate_job::<MediaScan>(&rules, &own, body.as_bytes(), None, None) {
        Ok(_) => Vec::new(),
        Err(rejection) => rejection.violations.into_iter().map(|one| (one.pointer, one.message)).collect(),
    }
}

fn message() -> Value {
    json!({"message": {"conversationId": "c", "communicationId": "m", "mediaId": "3f2504e0"}})
}

fn email() -> Value {
    json!({"email": {"conversationId": "c", "messageId": "<a@b>", "attachmentId": "t"}})
}

fn payload(source: &Value, others: &Value) -> Value {
    let mut payload = json!({"source": source});
    for (name, value) in others.as_object().unwrap() {
        payload[name] = value.clone();
    }
    payload
}

#[test]
fn what_the_contract_names_is_accepted() {
    let whole = json!({"messageId": "m", "conversationId": "c"});
    let document = json!({"document": {"documentId": "d"}});
    let url = json!({"url": "https://a.s3.amazonaws.com/x?y=z"});
    for (source, others) in [
        (message(), json!({"participantId": "p"})),
        (message(), json!({"onThreat": "none"})),
        (message(), json!({"onThreat": "tag", "sha256": "A".repeat(64)})),
        (whole.clone(), json!({"onThreat": "disconnect", "maxBytes": 1})),
        (whole, json!({"participantId": "p", "metadata": {"a": [1]}})),
        (email(), json!({"onThreat": "flag", "participantId": "p"})),
        (document.clone(), json!({})),
        (document, json!({"onThreat": "delete", "sha256": null, "participantId": null})),
        (url.clone(), json!({"onThreat": null})),
        (url, json!({"onThreat": "none"})),
    ] {
        let payload = payload(&source, &others);
        assert_eq!(refused(&payload), [], "{payload}");
    }
}

#[test]
fn a_rule_that_is_broken_is_told_where() {
    let url = json!({"url": "https://a.example/x"});
    let document = json!({"document": {"documentId": "d"}});
    let whole = json!({"messageId": "m", "conversationId": "c"});
    let table = [
        (json!({}), json!({}), "/payload/source"),
        (json!({"document": {"documentId": "d"}, "url": "https://a.example"}), json!({}), "/payload/source"),
        (json!({"messageId": "m"}), json!({"onThreat": "none"}), "/payload/source/conversationId"),
        (json!({"conversationId": "m"}), json!({"onThreat": "none"}), "/payload/source/messageId"),
        (json!({"document": {}}), json!({}), "/payload/source/document/documentId"),
        (json!({"document": {"documentId": ".."}}), json!({}), "/payload/source/document/documentId"),
        (json!({"document": {"documentId": "a b"}}), json!({}), "/payload/source/document/documentId"),
        (json!({"url": "ftp://a.example"}), json!({}), "/payload/source/url"),
        (json!({"url": "/x"}), json!({}), "/payload/source/url"),
        (json!({"url": "https://me:hush@a.example/"}), json!({}), "/payload/source/url"),
        (json!({"file": "x"}), json!({}), "/payload/source/file"),
        (message(), json!({}), "/payload/participantId"),
        (email(), json!({"onThreat": "flag"}), "/payload/participantId"),
        (message(), json!({"participantId": ""}), "/payload/participantId"),
        (message(), json!({"onThreat": "delete"}), "/payload/onThreat"),
        (url.clone(), json!({"onThreat": "flag", "participantId": "p"}), "/payload/onThreat"),
        (url.clone(), json!({"onThreat": "delete"}), "/payload/onThreat"),
        (document.clone(), json!({"onThreat": "tag"}), "/payload/onThreat"),
        (document.clone(), json!({"onThreat": "disconnect"}), "/payload/onThreat"),
        (url.clone(), json!({"onThreat": "quarantine"}), "/payload/onThreat"),
        (whole, json!({"onThreat": "none", "sha256": "a".repeat(64)}), "/payload/sha256"),
        (url.clone(), json!({"sha256": "a".repeat(63)}), "/payload/sha256"),
        (url.clone(), json!({"maxBytes": 0}), "/payload/maxBytes"),
        (url.clone(), json!({"metadata": {"x": "y".repeat(16 * 1024)}}), "/payload/metadata"),
        (url, json!({"scanEngine": "clamd"}), "/payload/scanEngine"),
    ];
    for (source, others, pointer) in table {
        let payload = payload(&source, &others);
        let found = refused(&payload);
        assert!(!found.is_empty(), "{payload}");
        assert!(found.iter().any(|(at, _)| at == pointer), "{payload}: {found:?}");
        assert!(found.iter().all(|(at, _)| at == pointer || at == "/payload/source"), "{payload}: {found:?}");
    }
    assert!(refused(&json!({})).iter().any(|(at, _)| at == "/payload/source"));
}

#[test]
fn the_action_is_flag_for_conversations_and_none_elsewhere_unless_the_job_says() {
    let read = |payload: Value| serde_json::from_value::<MediaPayload>(payload).unwrap().on_threat();
    assert_eq!(read(json!({"source": message()})), OnThreat::Flag);
    assert_eq!(read(json!({"source": email()})), OnThreat::Flag);
    assert_eq!(read(json!({"source": {"url": "https://a.example"}})), OnThreat::None);
    assert_eq!(read(json!({"source": {"document": {"documentId": "d"}}})), OnThreat::None);
    assert_eq!(read(json!({"source": message(), "onThreat": "tag"})), OnThreat::Tag);
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let Settings { own } = Settings::parse_from(["scan-monitor"]);
    assert_eq!((own.scanner_concurrency, own.scan_max_bytes), (8, 26_214_400));
    assert_eq!(own.scanner_max_age, Duration::from_secs(7 * 86_400));
    assert_eq!(own.scanner_address.to_string(), "unix:/run/clamav/clamd.ctl");
    assert_eq!(own.scanner, None);
}
