//! That the published schema of `webdeployment.provision` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, entries, lists, some, texts, unstated_rules_can_be_broken, uuid};
use genfleet_channel_provisioner::{WebDeploymentOptions, WebDeploymentPayload, WebDeploymentProvisioner};
use genfleet_core::{
    job::Kind,
    worker::{JobRules, validate_job},
};
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<WebDeploymentProvisioner>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    let label = json!({"language": "en-us"});
    unstated_rules_can_be_broken::<WebDeploymentProvisioner>(vec![
        json!({ "/payload/allowedDomains": ["xn--a.example"] }),
        json!({ "/payload/allowedDomains": ["127.0.0.１"] }),
        json!({ "/payload/allowedDomains": entries(9_000, &|n| json!(format!("d{n}.{}.example", "a".repeat(50)))) }),
        json!({ "/payload/configuration/document/messenger": {"enabled": true, "x": "y".repeat(500_000)} }),
        json!({
            "/payload/allowedDomains": entries(9_998, &|n| json!(format!("d{n}.example"))),
            "/payload/configuration/document/customI18nLabels": [label],
        }),
        json!({ "/payload/allowedDomains": entries(9_999, &|n| json!(format!("d{n}.example"))) }),
    ]);
}

#[test]
fn each_broken_rule_is_told_at_its_place() {
    let document = |change: Value| {
        let mut document = json!({"languages": ["en-us"], "defaultLanguage": "en-us", "messenger": {"enabled": true}});
        document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"configuration": {"document": document}})
    };
    let table = [
        (json!({}), vec![]),
        (json!({"name": ""}), vec!["name"]),
        (json!({"name": "x".repeat(129)}), vec!["name"]),
        (json!({"flowId": null}), vec!["flowId"]),
        (json!({"flowId": "flow", "queueId": "queue"}), vec!["flowId", "queueId"]),
        (json!({"allowedDomains": null}), vec!["allowedDomains"]),
        (json!({"allowedDomains": []}), vec!["allowedDomains"]),
        (json!({"allowedDomains": null, "allowAllDomains": false}), vec!["allowedDomains"]),
        (json!({"allowAllDomains": true}), vec!["allowAllDomains"]),
        (json!({"allowedDomains": null, "allowAllDomains": true}), vec![]),
        (
            json!({"allowedDomains": ["https://a.example", "a.example:443", "a.example", "a.example/x", "*.a.example", "A.example"]}),
            vec!["allowedDomains/0", "allowedDomains/1", "allowedDomains/3", "allowedDomains/4"],
        ),
        (json!({"configuration": {}}), vec!["configuration/document"]),
        (json!({"configuration": {"id": "c"}}), vec!["configuration/id"]),
        (
            json!({"configuration": {"id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "version": "DRAFT"}}),
            vec!["configuration/version"],
        ),
        (
            json!({"configuration": {"id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "version": 3}}),
            vec!["configuration/version"],
        ),
        (
            json!({"configuration": {"id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "version": "3", "document": {}}}),
            vec!["configuration/document"],
        ),
        (document(json!({"status": "Active"})), vec!["configuration/document/status"]),
        (
            document(json!({"id": "c", "dateCreated": "x"})),
            vec!["configuration/document/id", "configuration/document/dateCreated"],
        ),
        (
            document(json!({"languages": null, "defaultLanguage": null})),
            vec!["configuration/document/languages", "configuration/document/defaultLanguage"],
        ),
        (document(json!({"languages": null, "defaultLanguage": null, "messenger": {"enabled": false}})), vec![]),
        (json!({"status": "Pending"}), vec!["status"]),
        (json!({"onExisting": "replace"}), vec!["onExisting"]),
        (json!({"queue": 1}), vec!["queue"]),
    ];
    for (change, expected) in table {
        let mut payload = json!({
            "name": "Shop", "flowId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "allowedDomains": ["shop.example"],
            "configuration": {"document": {"languages": ["en-us"], "defaultLanguage": "en-us", "messenger": {"enabled": true}}},
        });
        payload.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let mut expected: Vec<String> = expected.iter().map(|place| format!("/payload/{place}")).collect();
        let mut told = violations(&payload);
        expected.sort();
        told.sort();
        assert_eq!(told, expected, "{change}");
    }
}

fn violations(payload: &Value) -> Vec<String> {
    let rules = JobRules::new::<WebDeploymentPayload>(Kind::WebDeploymentProvision, |_| vec![]);
    let options = WebDeploymentOptions { edge_timeout: std::time::Duration::ZERO };
    let body = json!({"id": "job-1", "payload": payload}).to_string();
    match validate_job::<WebDeploymentProvisioner>(&rules, &options, body.as_bytes(), None, None) {
        Ok(_) => Vec::new(),
        Err(rejection) => rejection.violations.into_iter().map(|one| one.pointer).collect(),
    }
}

fn host() -> BoxedStrategy<String> {
    let label = prop_oneof![
        5 => "[a-zA-Z0-9]([a-zA-Z0-9-]{0,4}[a-z0-9])?",
        2 => "[a-z0-9_é１。\u{ad}ß-]{0,4}",
        1 => some(&["xn--bcher-kva", "xn--a", "0x1f", "0xg", "127", "bücher", "a--b", "١"]),
        1 => "[a-z]{62,65}",
    ];
    let host = prop::collection::vec(label, 1..5).prop_map(|labels| labels.join("."));
    let start = some(&["", "", "", "", "", "https://", "//", "user@", "*.", " ", "["]);
    let end = some(&["", "", "", "", "", ":443", "/", "/a", "?", "#", ".", " "]);
    (start, host, end).prop_map(|(start, host, end)| format!("{start}{host}{end}")).boxed()
}

fn places() -> Places {
    let tri = || select(vec![json!(true), json!(false), Value::Null]).boxed();
    let messenger =
        select(vec![json!({"enabled": true}), json!({"enabled": false}), json!({}), json!([]), Value::Null]);
    let documents = select(vec![json!({}), json!({"name": "x"}), json!({"messenger": {"enabled": true}}), Value::Null]);
    vec![
        ("/payload/name", texts("[a-zé ]{0,3}|é{127,129}")),
        ("/payload/flowId", texts(uuid())),
        ("/payload/queueId", texts(uuid())),
        ("/payload/allowedDomains", lists(texts(host()), 2)),
        ("/payload/allowAllDomains", tri()),
        ("/payload/configuration/id", texts(uuid())),
        ("/payload/configuration/version", texts("[0-9]{0,10}|DRAFT")),
        ("/payload/configuration/document", documents.boxed()),
        ("/payload/configuration/document/messenger", messenger.boxed()),
        ("/payload/configuration/document/languages", lists(texts("[a-z]{2}"), 2)),
        ("/payload/configuration/document/defaultLanguage", anything().boxed()),
        ("/payload/status", texts(some(&["Active", "Inactive", "active", "Pending", ""]))),
        ("/payload/onExisting", texts(some(&["fail", "update", "Update", ""]))),
        ("/payload/deploymentId", texts(uuid())),
        ("/payload/supportedContentId", texts(uuid())),
        ("/payload/verifyEdge", tri()),
        ("/payload/rollback", tri()),
    ]
}
