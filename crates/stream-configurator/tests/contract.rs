//! That the published schema of `stream.configure` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, entries, lists, some, texts, time, unstated_rules_can_be_broken};
use genfleet_stream_configurator::StreamConfigurator;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<StreamConfigurator>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<StreamConfigurator>(witnesses());
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses() -> Vec<Value> {
    vec![
        json!({ "/payload/configuration/awsAccountId": "210987654321" }),
        json!({ "/payload/transformations": [{ "sourceField": "id", "targetField": "medium.x", "type": "direct" },
                { "sourceField": "id", "targetField": "medium", "type": "direct" }] }),
        json!({ "/payload/attributeMappings": [{ "source": "id", "target": "agents" }] }),
        json!({ "/payload/transformations": [{ "sourceField": "id", "targetField": "t", "type": "transform", "format": "iso8601" }] }),
        json!({ "/payload/transformations": [{ "sourceField": "ids", "targetField": "t", "type": "direct" }] }),
        json!({ "/payload/attributeMappings": [{ "source": "ids", "target": "t" }] }),
        json!({ "/payload/filters": [{ "eventType": "e".repeat(262_200), "conditions": [] }] }),
        json!({ "/payload/transformations": entries(5_000, &|n| json!({ "sourceField": "id", "targetField": format!("t{n}"), "type": "direct" })),
                "/payload/attributeMappings": entries(5_000, &|n| json!({ "source": "id", "target": format!("m{n}") })) }),
        json!({ "/payload/sampleEvent/big": "x".repeat(500_000), "/payload/attributeMappings":
                entries(9, &|n| json!({ "source": "big", "target": format!("m{n}") })) }),
    ]
}

fn field() -> BoxedStrategy<String> {
    let deep = (30_usize..35).prop_map(|names| vec!["a"; names].join("."));
    prop_oneof![4 => "[a-c\\[\\]0]{0,2}([. \u{85}\u{feff}\u{a0}é]?[a-c0]){0,3}[.]?", 1 => deep].boxed()
}

fn places() -> Places {
    let operator = some(&["eq", "neq", "in", "gte", "lte", "IN", ""]);
    let value = prop_oneof![texts(time()), anything(), lists(anything().boxed(), 2)];
    let condition = (field(), operator, value)
        .prop_map(|(field, operator, value)| json!({ "field": field, "operator": operator, "value": value }));
    let filter = prop::collection::vec(condition, 0..3)
        .prop_map(|conditions| json!({ "eventType": "e", "conditions": conditions }));
    let path = prop_oneof![Just(Value::Null), texts("\\[\\](\\.[a-b\\[ \u{85}]{0,2}){0,3}|[a.\\[\\]]{0,4}")];
    let format = select(vec![Value::Null, json!("iso8601"), json!("epoch"), json!(1)]);
    let kinds = some(&["direct", "extract", "transform", "copy"]);
    let source = prop_oneof![field(), some(&["id", "participants", "ended", "channel"])];
    let transformation = (source.clone(), field(), kinds, path, format).prop_map(|(from, to, kind, path, format)| {
        let mut all = json!({ "sourceField": from, "targetField": to, "type": kind, "path": path, "format": format });
        // Half of the time a member that is null is not there instead.
        if to.len() % 2 == 0 {
            all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        }
        all
    });
    let mapping = (source, field()).prop_map(|(source, target)| json!({ "source": source, "target": target }));
    vec![
        ("/payload/sourceId", texts("[A-Za-z0-9._-]{0,4}[ /é]?|\\.{1,3}|[a-z]{127,130}")),
        ("/payload/configuration/awsAccountId", texts("123456789012|[0-9]{11,13}|[a-z]{12}|[０-９]{12}")),
        (
            "/payload/configuration/roleArn",
            texts(
                "arn:aws(-cn|-us-gov)?:iam::(123456789012|[0-9]{12}):(role|user)/([a-z !]{0,4}/){0,2}[A-Za-z0-9+=,.@_ -]{0,66}",
            ),
        ),
        (
            "/payload/configuration/region",
            texts("(us|eu|eusc|a|abc)(-gov|-iso|-de)?-(north|east|centralwest|central|southeast)-?[0-9]{0,3}"),
        ),
        ("/payload/filters", lists(filter.boxed(), 2)),
        ("/payload/transformations", lists(transformation.boxed(), 3)),
        ("/payload/attributeMappings", lists(mapping.boxed(), 3)),
        ("/payload/etag", texts("[ -~]{0,4}|\"[a-z]\"[\n é]?|[a-z]{1023,1026}")),
        ("/payload/sampleEvent", anything().boxed()),
        ("/payload/onConflict", texts("overwrite|fail|Fail|")),
    ]
}
