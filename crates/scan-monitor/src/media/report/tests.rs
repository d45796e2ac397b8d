use serde_json::json;

use super::*;
use crate::media::engine::EngineVersion;

fn file(result: ScanResult) -> ScannedFile {
    let threat = (result == ScanResult::Malware).then(|| "Eicar".to_owned());
    ScannedFile {
        name: Some(format!("{}.txt", result.as_str())),
        media_type: Some("text/plain".to_owned()),
        bytes: Some(68),
        sha256: Some("00".repeat(32)),
        result,
        threat,
        warning: None,
    }
}

fn findings(results: &[ScanResult]) -> Findings {
    let passed = PassedTest { version: EngineVersion::read("ClamAV 1.4.6"), limits_told: true };
    let engine = EngineReport::new("clamd", &passed);
    Findings { files: results.iter().copied().map(file).collect(), engine, fetch_ms: 3, scan_ms: 4 }
}

fn payload(source: &Value) -> MediaPayload {
    serde_json::from_value(json!({"source": source, "participantId": "p"})).unwrap()
}

fn report(findings: &Findings, source: &Value) -> Value {
    serde_json::to_value(findings.report(&payload(source), OnThreat::None)).unwrap()
}

#[test]
fn the_worst_file_counts_and_only_clean_and_malware_say_whether_there_is_a_threat() {
    use ScanResult::{Clean, Encrypted, Malware, TooLarge, Unscannable};
    let whole = || json!({"messageId": "m", "conversationId": "c"});
    for (results, worst, threat) in [
        (vec![Clean, Malware, Unscannable], "malware", json!(true)),
        (vec![Clean, Encrypted, Unscannable, TooLarge], "unscannable", json!(null)),
        (vec![Encrypted, TooLarge], "encrypted", json!(null)),
        (vec![Clean, TooLarge], "too_large", json!(null)),
        (vec![Clean, Clean], "clean", json!(false)),
        (vec![], "nothing", json!(null)),
    ] {
        let report = report(&findings(&results), &whole());
        assert_eq!((&report["result"], &report["threatDetected"]), (&json!(worst), &threat), "{results:?}");
        assert_eq!(report["items"].as_array().unwrap().len(), results.len());
    }
}

#[test]
fn a_report_says_what_is_known_and_no_key_of_a_link() {
    let told = report(&findings(&[ScanResult::Clean]), &json!({"url": "https://a.example/x?signature=hush#y"}));
    let mut expected = json!({
        "source": {"url": "https://a.example/x"}, "mediaType": "text/plain", "bytes": 68, "sha256": "00".repeat(32),
        "engine": {"name": "clamd", "version": "ClamAV 1.4.6", "limitsTold": true}, "result": "clean",
        "threat": null, "threatDetected": false, "action": "none", "fetchMs": 3, "scanMs": 4, "metadata": null,
        "warnings": [],
    });
    let hashed = json!({
        "source": expected["source"], "engine": expected["engine"], "result": "clean", "threat": null, "bytes": 68,
        "sha256": expected["sha256"], "items": null,
    });
    expected["complianceHash"] = hash::sha256(hash::canonical(&hashed)).into();
    assert_eq!(told, expected);
}

#[test]
fn what_an_engine_did_not_prove_is_warned_about() {
    let mut findings = findings(&[ScanResult::Clean]);
    findings.engine.limits_told = false;
    let source = || json!({"url": "https://a.example/x"});
    let warnings = |findings: &Findings| report(findings, &source())["warnings"].to_string();
    assert!(warnings(&findings).contains("does not tell its limits"));
    findings.engine.name = "stand-in".to_owned();
    assert!(warnings(&findings).contains("stand-in"));
}

#[test]
fn a_verdict_that_is_none_says_what_to_do() {
    let mut file = file(ScanResult::Clean);
    file.judge(Verdict::TooLarge);
    assert_eq!(file.result, ScanResult::TooLarge);
    assert!(file.warning.is_some_and(|warning| warning.contains("StreamMaxLength")));
}

#[test]
fn the_state_is_read_back() {
    let state = MediaState { waiting_since: None, findings: Some(findings(&[ScanResult::Malware])) };
    let written = serde_json::to_value(&state).unwrap();
    assert_eq!(serde_json::from_value::<MediaState>(written).unwrap(), state);
    assert_eq!(serde_json::from_value::<MediaState>(json!({})).unwrap(), MediaState::default());
}
