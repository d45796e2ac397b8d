//! Every rule of SPEC 3.8 as a worker applies it: through the schema and the rules, from a job's bytes.

use genfleet_core::{
    handler::JobHandler,
    job::Kind,
    worker::{JobRules, validate_job},
};
use serde_json::json;

use super::*;
use crate::EventbridgeConfigurator;

fn payload() -> Value {
    json!({
        "name": "CRM",
        "awsAccountId": "123456789012",
        "awsAccountRegion": "eu-central-1",
        "eventSourceSuffix": "crm",
        "topics": ["v2.detail.events.conversation.{id}.user.end", "v2.routing.queues.{id}.users"],
        "notes": "by hand",
        "enabled": false,
        "onConflict": "fail",
        "version": 3,
        "rules": [
            {
                "name": "calls",
                "topics": ["v2.routing.queues.{id}.users"],
                "conditions": [
                    {"field": "media.type", "operator": "in", "value": ["VOICE"]},
                    {"field": "duration", "operator": "gte", "value": 30},
                ],
                "transformations": [
                    {"sourceField": "id", "targetField": "conversation.id", "type": "direct"},
                    {"sourceField": "participants", "targetField": "agents", "type": "extract", "path": "[].id"},
                ],
                "attributeMappings": [{"source": "media.type", "target": "medium"}],
            },
            {"name": "all"},
        ],
        "sampleEvent": {"id": "c", "participants": [{"id": "p"}], "media": {"type": "VOICE"}},
    })
}

fn pointers(rules: &JobRules, payload: &Value) -> Vec<String> {
    let body = json!({ "payload": payload }).to_string();
    match validate_job::<EventbridgeConfigurator>(rules, &(), body.as_bytes(), None, None) {
        Ok(_) => Vec::new(),
        Err(rejection) => {
            assert_eq!(rejection.code, "invalid_job");
            rejection.violations.into_iter().map(|one| one.pointer.replace("/payload", "")).collect()
        }
    }
}

fn rules() -> JobRules {
    JobRules::new::<<EventbridgeConfigurator as JobHandler>::Payload>(Kind::EventbridgeConfigure, |_| vec![])
}

/// The payload with one place changed; a member that is not there is put there.
fn with(pointer: &str, value: &Value) -> Value {
    let mut changed = payload();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    match changed.pointer_mut(pointer) {
        Some(place) => *place = value.clone(),
        None => changed.pointer_mut(parent).unwrap()[member] = value.clone(),
    }
    changed
}

#[test]
fn what_keeps_every_rule_passes() {
    let rules = rules();
    assert_eq!(pointers(&rules, &payload()), Vec::<String>::new());
    let good = [
        ("/name", json!(null)),
        ("/name", json!("é ✓")),
        ("/awsAccountRegion", json!("us-gov-west-1")),
        ("/eventSourceSuffix", json!("A-Z.a_9".repeat(9))),
        ("/topics", json!(["v2.{a}-b.9", "v2.{a}-b.9"])),
        ("/notes", json!("")),
        ("/enabled", json!(null)),
        ("/onConflict", json!("overwrite")),
        ("/version", json!(0)),
        ("/version", json!(3.0)),
        ("/rules", json!([])),
        ("/rules", json!(null)),
        ("/rules/1/topics", json!(null)),
        ("/rules/0/conditions/0/field", json!("1a.$b".replace('$', ""))),
        ("/rules/0/conditions/1/value", json!(5_000_000_000_i64)),
        ("/rules/0/attributeMappings/0/target", json!("medium[0] é".replace(' ', ""))),
        ("/sampleEvent", json!(null)),
    ];
    for (pointer, value) in good {
        assert_eq!(pointers(&rules, &with(pointer, &value)), Vec::<String>::new(), "{pointer}: {value}");
    }
    let least = ["awsAccountId", "awsAccountRegion", "eventSourceSuffix", "topics"];
    let mut plain = payload();
    plain.as_object_mut().unwrap().retain(|name, _| least.contains(&name.as_str()));
    assert_eq!(pointers(&rules, &plain), Vec::<String>::new());
    for required in least {
        let mut without = plain.clone();
        without.as_object_mut().unwrap().remove(required);
        assert_eq!(pointers(&rules, &without), [format!("/{required}")]);
    }
}

#[test]
fn what_breaks_a_rule_is_told_at_its_place() {
    let rules = rules();
    let condition = "/rules/0/conditions/0";
    let table = [
        ("/name", json!(""), "/name"),
        ("/name", json!(" CRM"), "/name"),
        ("/name", json!("a\u{7}b"), "/name"),
        ("/name", json!("x".repeat(129)), "/name"),
        ("/awsAccountId", json!("12345678901"), "/awsAccountId"),
        ("/awsAccountId", json!(123_456_789_012_i64), "/awsAccountId"),
        ("/awsAccountRegion", json!("moon-1"), "/awsAccountRegion"),
        ("/eventSourceSuffix", json!(""), "/eventSourceSuffix"),
        ("/eventSourceSuffix", json!("a/b"), "/eventSourceSuffix"),
        ("/eventSourceSuffix", json!("x".repeat(65)), "/eventSourceSuffix"),
        ("/topics", json!([]), "/topics"),
        ("/topics/1", json!("v1.a"), "/topics/1"),
        ("/topics/1", json!("v2."), "/topics/1"),
        ("/topics/1", json!("v2.A"), "/topics/1"),
        ("/topics/1", json!("v2.a\n"), "/topics/1"),
        ("/topics/1", json!(2), "/topics/1"),
        ("/enabled", json!("yes"), "/enabled"),
        ("/onConflict", json!("Fail"), "/onConflict"),
        ("/version", json!(-1), "/version"),
        ("/version", json!(1.5), "/version"),
        ("/roleArn", json!("arn"), "/roleArn"),
        ("/rules/0/name", json!("a b"), "/rules/0/name"),
        ("/rules/1/name", json!("calls"), "/rules/1/name"),
        ("/rules/1/name", json!("x".repeat(65)), "/rules/1/name"),
        ("/rules/0/topics", json!([]), "/rules/0/topics"),
        ("/rules/0/topics/0", json!("v2"), "/rules/0/topics/0"),
        ("/rules/0/sources", json!([]), "/rules/0/sources"),
        ("/rules/0/conditions/0/field", json!("participants.0"), "/rules/0/conditions/0/field"),
        (condition, json!({"field": "f", "operator": "like", "value": 1}), "/rules/0/conditions/0/operator"),
        (
            condition,
            json!({"field": "f", "operator": "gte", "value": "2026-11-20T12:00:00Z"}),
            "/rules/0/conditions/0/value",
        ),
        (condition, json!({"field": "duration", "operator": "eq", "value": 1}), "/rules/0/conditions/1"),
        (
            "/rules/0/transformations/0",
            json!({"sourceField": "id", "targetField": "t", "type": "transform", "format": "iso8601"}),
            "/rules/0/transformations/0/type",
        ),
        (
            "/rules/0/transformations/1",
            json!({"sourceField": "participants", "targetField": "agents", "type": "extract"}),
            "/rules/0/transformations/1/path",
        ),
        ("/rules/0/attributeMappings/0/target", json!("agents.x"), "/rules/0/attributeMappings/0/target"),
        ("/rules/0/attributeMappings/0/source", json!("a b"), "/rules/0/attributeMappings/0/source"),
        ("/rules/0/attributeMappings/0/source", json!("nothing"), "/rules/0/attributeMappings/0"),
    ];
    for (pointer, value, place) in table {
        assert_eq!(pointers(&rules, &with(pointer, &value)), [place], "{pointer}: {value}");
    }
}

#[test]
fn a_transform_names_the_remedy_and_a_time_is_told_to_be_none() {
    let rules = rules();
    let messages = |payload: &Value| {
        let body = json!({ "payload": payload }).to_string();
        let rejection = validate_job::<EventbridgeConfigurator>(&rules, &(), body.as_bytes(), None, None);
        rejection.unwrap_err().violations.iter().map(|one| one.message.clone()).collect::<String>()
    };
    let transform = json!({"sourceField": "id", "targetField": "t", "type": "transform", "format": "iso8601"});
    assert!(messages(&with("/rules/0/transformations/0", &transform)).contains("use type direct"));
    let time = json!({"field": "f", "operator": "lte", "value": "2026-11-20T12:00:00Z"});
    assert!(messages(&with("/rules/0/conditions/0", &time)).contains("compares numbers only, not times"));
}

#[test]
fn a_configuration_of_more_than_512000_bytes_is_refused() {
    let rules = rules();
    let notes = |letters: usize| with("/notes", &json!("x".repeat(letters)));
    let fitting = 512_000 - serde_json::from_value::<Payload>(notes(0)).unwrap().least_bytes();
    assert_eq!(pointers(&rules, &notes(fitting)), Vec::<String>::new());
    assert_eq!(pointers(&rules, &notes(fitting + 1)), [""]);
}
