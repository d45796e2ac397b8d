//! That the published schema of `eventbridge.configure` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, entries, lists, some, texts, time, unstated_rules_can_be_broken};
use genfleet_stream_configurator::EventbridgeConfigurator;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<EventbridgeConfigurator>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<EventbridgeConfigurator>(witnesses());
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses() -> Vec<Value> {
    let mapping = |source: &str, target: &str| json!({ "source": source, "target": target });
    let direct = |source: &str, target: &str| json!({ "sourceField": source, "targetField": target, "type": "direct" });
    let eq = |field: &str| json!({ "field": field, "operator": "eq", "value": 1 });
    let rule = "/payload/rules/0";
    let at = |member: &str| format!("{rule}/{member}");
    vec![
        json!({ "/payload/topics": entries(9_990, &|n| json!(format!("v2.{n}"))),
                "/payload/rules": entries(20, &|n| json!({ "name": format!("r{n}") })) }),
        json!({ "/payload/notes": "n".repeat(512_000) }),
        json!({ "/payload/rules": [{ "name": "a" }, { "name": "a" }] }),
        json!({ at("conditions"): [eq("a"), eq("a")] }),
        json!({ at("conditions"): [eq("a"), eq("a.b")] }),
        json!({ at("transformations"): [direct("conversationId", "medium")], 
                at("attributeMappings"): [mapping("mediaType", "medium.x")] }),
        json!({ at("transformations"): [direct("conversationId", "a"), direct("conversationId", "a.b")] }),
        json!({ at("transformations"): [{ "sourceField": "conversationId", "targetField": "t", "type": "extract", "path": "[].a" }] }),
        json!({ at("transformations"): [direct("nothing", "t")] }),
        json!({ at("attributeMappings"): [mapping("nothing", "t")] }),
        json!({ "/payload/sampleEvent/big": "x".repeat(500_000),
                at("attributeMappings"): entries(9, &|n| mapping("big", &format!("m{n}"))) }),
        json!({ at("attributeMappings"): entries(101, &|n| mapping("mediaType", &format!("m{n}"))) }),
        json!({ format!("/payload/sampleEvent/{}", "s".repeat(250)): 1, at("transformations"): [direct(&"s".repeat(250), "t")] }),
        json!({ format!("/payload/sampleEvent/{}", "s".repeat(250)): 1, at("attributeMappings"): [mapping(&"s".repeat(250), "t")] }),
    ]
}

fn field() -> BoxedStrategy<String> {
    let deep = (30_usize..35).prop_map(|names| vec!["a"; names].join("."));
    prop_oneof![4 => "[a-c\\[\\]0$]{0,2}([. \u{85}\u{a0}é_-]?[a-c0]){0,3}[.]?", 1 => deep].boxed()
}

fn places() -> Places {
    let operator = some(&["eq", "neq", "in", "gte", "lte", "IN", ""]);
    let value = prop_oneof![texts(time()), anything(), lists(anything().boxed(), 2)];
    let condition = (field(), operator, value)
        .prop_map(|(field, operator, value)| json!({ "field": field, "operator": operator, "value": value }));
    let path = prop_oneof![Just(Value::Null), texts("\\[\\](\\.[a-b\\[0 \u{85}]{0,2}){0,3}|[a.\\[\\]]{0,4}")];
    let format = select(vec![Value::Null, json!("iso8601"), json!("epoch"), json!(1)]);
    let kinds = some(&["direct", "extract", "transform", "copy"]);
    let source = prop_oneof![field(), some(&["conversationId", "participants", "mediaType"])];
    let transformation = (source.clone(), field(), kinds, path, format).prop_map(|(from, to, kind, path, format)| {
        let mut all = json!({ "sourceField": from, "targetField": to, "type": kind, "path": path, "format": format });
        // Half of the time a member that is null is not there instead.
        if to.len() % 2 == 0 {
            all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        all
    });
    let mapping = (source, field()).prop_map(|(source, target)| json!({ "source": source, "target": target }));
    let topic = || texts("v2\\.[a-c0{}.-]{0,3}|v[0-9]\\.[A-Ca]{0,2}|v2.é|v2\\.a\n");
    let rule = (
        some(&["a", "b", "", "a b", "A.z_-9"]),
        lists(topic(), 2),
        lists(condition.boxed(), 2),
        lists(transformation.boxed(), 2),
        lists(mapping.boxed(), 2),
    );
    let rule = rule.prop_map(|(name, topics, conditions, transformations, mappings)| {
        json!({
            "name": name, "topics": topics, "conditions": conditions, "transformations": transformations,
            "attributeMappings": mappings,
        })
    });
    vec![
        ("/payload/name", texts("[a-c \u{a0}\u{7}é]{0,4}|[a-z]{127,130}")),
        ("/payload/awsAccountId", texts("123456789012|[0-9]{11,13}|[a-z]{12}|[０-９]{12}")),
        (
            "/payload/awsAccountRegion",
            texts("(us|eu|eusc|a|abc)(-gov|-iso|-de)?-(north|east|centralwest|central|southeast)-?[0-9]{0,3}"),
        ),
        ("/payload/eventSourceSuffix", texts("[A-Za-z0-9._-]{0,4}[ /é]?|[a-z]{63,66}")),
        ("/payload/topics", lists(topic(), 3)),
        ("/payload/enabled", anything().boxed()),
        ("/payload/version", anything().boxed()),
        ("/payload/onConflict", texts("overwrite|fail|Fail|")),
        ("/payload/rules", lists(rule.boxed(), 2)),
        ("/payload/sampleEvent", anything().boxed()),
    ]
}
