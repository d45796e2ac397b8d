//! Rendered patterns against a matcher that is written from the documentation of `EventBridge` alone, and the bounds.

use genfleet_core::job::Violation;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn payload(rule: &Value) -> Payload {
    serde_json::from_value(json!({
        "awsAccountId": "123456789012", "awsAccountRegion": "us-east-1", "eventSourceSuffix": "crm",
        "topics": ["v2.a.{id}", "v2.b"], "rules": [rule],
    }))
    .unwrap()
}

fn made(rule: &Value) -> AwsRule {
    let payload = payload(rule);
    assert_eq!(super::violations("/payload/rules/0", &payload.rules[0], &payload), []);
    AwsRule::of(&payload.rules[0], &payload, &event_source("o-1", "crm"))
}

fn found(rule: &Value) -> Vec<Violation> {
    let payload = payload(rule);
    super::violations("/payload/rules/0", &payload.rules[0], &payload)
}

fn pointers(rule: &Value) -> Vec<String> {
    found(rule).into_iter().map(|one| one.pointer.replace("/payload/rules/0", "")).collect()
}

fn condition(field: &str, operator: &str, value: impl Into<Value>) -> Value {
    json!({"field": field, "operator": operator, "value": value.into()})
}

/// The event that Genesys Cloud sends with this body.
fn event(body: &Value) -> Value {
    json!({
        "version": "0", "id": "e", "detail-type": "v2.a.{id}", "source": "aws.partner/genesys.com/cloud/o-1/crm",
        "account": "123456789012", "region": "us-east-1", "resources": [],
        "detail": {"topicName": "v2.a.1", "eventBody": body},
    })
}

/// Returns true if an event matches a pattern: every member of the pattern, and any entry of the list at a member.
fn matches(pattern: &Value, event: Option<&Value>) -> bool {
    match (pattern, event) {
        (Value::Object(members), Some(Value::Array(entries))) => {
            entries.iter().any(|entry| matches(&Value::Object(members.clone()), Some(entry)))
        }
        (Value::Object(members), event) => {
            members.iter().all(|(name, inner)| matches(inner, event.and_then(|event| event.get(name))))
        }
        (Value::Array(any), Some(Value::Array(entries))) => {
            entries.iter().any(|entry| any.iter().any(|one| fits(one, entry)))
        }
        (Value::Array(any), Some(value)) => any.iter().any(|one| fits(one, value)),
        _ => false,
    }
}

fn fits(one: &Value, value: &Value) -> bool {
    if let Some(excluded) = one.get("anything-but").and_then(Value::as_array) {
        return !value.is_object() && !excluded.contains(value);
    }
    if let Some(bounds) = one.get("numeric").and_then(Value::as_array) {
        let Some(number) = value.as_f64() else { return false };
        return bounds.chunks(2).all(|pair| {
            let bound = pair[1].as_f64().unwrap();
            match pair[0].as_str().unwrap() {
                ">=" => number >= bound,
                "<=" => number <= bound,
                "=" => (number - bound).abs() < f64::EPSILON,
                other => panic!("{other}"),
            }
        });
    }
    one == value
}

#[test]
fn each_operator_is_what_the_contract_says() {
    let table = [
        (vec![condition("a", "eq", "x")], json!({"a": ["x"]})),
        (vec![condition("a", "eq", Value::Null)], json!({"a": [null]})),
        (vec![condition("a.b", "neq", 1)], json!({"a": {"b": [{"anything-but": [1]}]}})),
        (vec![condition("a", "in", json!(["x", 1, null]))], json!({"a": ["x", 1, null]})),
        (vec![condition("a", "gte", 30)], json!({"a": [{"numeric": [">=", 30]}]})),
        (vec![condition("a", "lte", -1.5)], json!({"a": [{"numeric": ["<=", -1.5]}]})),
        (vec![condition("a", "lte", 60), condition("a", "gte", 30)], json!({"a": [{"numeric": [">=", 30, "<=", 60]}]})),
        (vec![condition("a", "lte", 3), condition("a", "gte", 3.0)], json!({"a": [{"numeric": ["=", 3.0]}]})),
        (
            vec![condition("a.b", "eq", 1), condition("a.c", "eq", 2), condition("d", "eq", true)],
            json!({"a": {"b": [1], "c": [2]}, "d": [true]}),
        ),
    ];
    for (conditions, body) in table {
        let made = made(&json!({"name": "r", "conditions": conditions}));
        assert_eq!(made.event_pattern["detail"], json!({ "eventBody": body }), "{conditions:?}");
    }
}

#[test]
fn a_rule_takes_the_events_of_its_topics_or_of_the_jobs() {
    let all = made(&json!({"name": "r"}));
    let source = json!(["aws.partner/genesys.com/cloud/o-1/crm"]);
    assert_eq!(all.event_pattern["source"], source);
    assert_eq!(all.event_pattern["detail-type"], json!(["v2.a.{id}", "v2.b"]));
    assert_eq!((all.event_pattern.len(), all.input_transformer), (2, None));
    let own = made(&json!({"name": "r", "topics": ["v2.b", "v2.b"]}));
    assert_eq!(own.event_pattern["detail-type"], json!(["v2.b"]));
}

#[test]
fn a_pattern_takes_the_events_that_meet_its_conditions_and_no_others() {
    let rule = json!({"name": "r", "conditions": [
        condition("mediaType", "in", json!(["VOICE", "CHAT"])),
        condition("metrics.duration", "gte", 30),
        condition("metrics.duration", "lte", 60),
        condition("queue.name", "neq", "test"),
    ]});
    let pattern = Value::Object(made(&rule).event_pattern);
    let good = json!({"mediaType": "CHAT", "metrics": {"duration": 60}, "queue": {"name": "sales"}});
    assert!(matches(&pattern, Some(&event(&good))));
    for (pointer, value) in [
        ("/mediaType", json!("EMAIL")),
        ("/metrics/duration", json!(61)),
        ("/metrics/duration", json!("45")),
        ("/metrics", json!({})),
        ("/queue/name", json!("test")),
    ] {
        let mut other = good.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert!(!matches(&pattern, Some(&event(&other))), "{other}");
    }
    let mut elsewhere = event(&good);
    elsewhere["source"] = json!("aws.partner/genesys.com/cloud/o-2/crm");
    assert!(!matches(&pattern, Some(&elsewhere)));
}

#[test]
fn what_no_pattern_can_say_is_told_at_its_place() {
    let table = [
        (vec![condition("a", "gte", "2026-11-20T12:00:00Z")], "/conditions/0/value"),
        (vec![condition("a", "lte", "30")], "/conditions/0/value"),
        (vec![condition("a", "gte", 5.1e9)], "/conditions/0/value"),
        (vec![condition("a", "eq", json!({}))], "/conditions/0/value"),
        (vec![condition("a", "neq", true)], "/conditions/0/value"),
        (vec![condition("a", "in", json!([[1]]))], "/conditions/0/value"),
        (vec![condition("a", "in", json!([]))], "/conditions/0/value"),
        (vec![condition("a.0.b", "eq", 1)], "/conditions/0/field"),
        (vec![condition("$or", "eq", 1)], "/conditions/0/field"),
        (vec![condition("a..b", "eq", 1)], "/conditions/0/field"),
        (vec![condition("a", "eq", 1), condition("a", "eq", 2)], "/conditions/1"),
        (vec![condition("b", "eq", 1), condition("a", "eq", 1), condition("a", "gte", 2)], "/conditions/2"),
        (vec![condition("a", "gte", 1), condition("a", "gte", 2)], "/conditions/1"),
        (vec![condition("a", "gte", 2), condition("a", "lte", 1)], "/conditions/1"),
        (vec![condition("a", "eq", 1), condition("a.b", "eq", 2)], "/conditions/1/field"),
        (vec![condition("a.b", "eq", 1), condition("a", "eq", 2)], "/conditions/1/field"),
    ];
    for (conditions, pointer) in table {
        assert_eq!(pointers(&json!({"name": "r", "conditions": conditions})), [pointer], "{conditions:?}");
    }
}

#[test]
fn directives_are_paths_and_a_template_with_nested_targets() {
    let made = made(&json!({"name": "r",
        "transformations": [
            {"sourceField": "a.b", "targetField": "x.y", "type": "direct"},
            {"sourceField": "list.0.name", "targetField": "x.z", "type": "direct"},
            {"sourceField": "participants", "targetField": "ids", "type": "extract", "path": "[].user.id"},
        ],
        "attributeMappings": [{"source": "c", "target": "a\"<v0>"}],
    }))
    .input_transformer
    .unwrap();
    let paths = json!({
        "v0": "$.detail.eventBody.a.b", "v1": "$.detail.eventBody.list[0].name",
        "v2": "$.detail.eventBody.participants[*].user.id", "v3": "$.detail.eventBody.c",
    });
    assert_eq!(Value::Object(made.input_paths_map), paths);
    // No name begins a variable.
    assert_eq!(made.input_template, r#"{"a\"\u003cv0\u003e":<v3>,"ids":<v2>,"x":{"y":<v0>,"z":<v1>}}"#);
}

#[test]
fn what_no_transformer_can_do_is_told_at_its_place() {
    let table = [
        (
            json!({"sourceField": "a", "targetField": "t", "type": "transform", "format": "iso8601"}),
            "/transformations/0/type",
        ),
        (json!({"sourceField": "a", "targetField": "t", "type": "transform"}), "/transformations/0/type"),
        (json!({"sourceField": "é", "targetField": "t", "type": "direct"}), "/transformations/0/sourceField"),
        (json!({"sourceField": "a[]", "targetField": "t", "type": "direct"}), "/transformations/0/sourceField"),
        (json!({"sourceField": "a", "targetField": "t", "type": "extract", "path": "[].0"}), "/transformations/0/path"),
        (
            json!({"sourceField": "a".repeat(238), "targetField": "t", "type": "direct"}),
            "/transformations/0/sourceField",
        ),
    ];
    for (transformation, pointer) in table {
        assert_eq!(pointers(&json!({"name": "r", "transformations": [transformation]})), [pointer], "{transformation}");
    }
    let longest = json!({"sourceField": "a".repeat(237), "targetField": "t", "type": "direct"});
    assert_eq!(pointers(&json!({"name": "r", "transformations": [longest]})), Vec::<String>::new());
}

#[test]
fn bounds_are_those_of_the_contract() {
    let mapping = |n: usize, target: &str| json!({"source": format!("a{n}"), "target": format!("{target}{n}")});
    let mappings = |count: usize, target: &str| (0..count).map(|n| mapping(n, target)).collect::<Vec<_>>();
    assert_eq!(pointers(&json!({"name": "r", "attributeMappings": mappings(100, "t")})), Vec::<String>::new());
    let message = |rule: &Value| {
        let found = found(rule);
        assert_eq!((found.len(), found[0].pointer.as_str()), (1, "/payload/rules/0"), "{found:?}");
        found[0].message.clone()
    };
    assert!(message(&json!({"name": "r", "attributeMappings": mappings(101, "t")})).contains("101 paths"));
    let long = "t".repeat(100);
    assert!(message(&json!({"name": "r", "attributeMappings": mappings(80, &long)})).contains("AWS takes 8192"));
    let of_length =
        |characters: usize| json!({"name": "r", "conditions": [condition("a", "eq", "é".repeat(characters))]});
    let bare = Value::Object(made(&of_length(0)).event_pattern).to_string().chars().count();
    let room = MAX_PATTERN - bare - (SOME_ORGANIZATION.len() - "o-1".len());
    assert_eq!(pointers(&of_length(room)), Vec::<String>::new());
    assert!(message(&of_length(room + 1)).contains("the event pattern has 2049 characters; AWS takes 2048"));
}

/// Returns true if a value meets a condition, as the contract says it.
fn meets(value: Option<&Value>, condition: &Value) -> bool {
    let wanted = &condition["value"];
    let Some(value) = value else { return false };
    match condition["operator"].as_str().unwrap() {
        "eq" => value == wanted,
        "neq" => value != wanted,
        "in" => wanted.as_array().unwrap().contains(value),
        "gte" => value.as_f64().is_some_and(|number| number >= wanted.as_f64().unwrap()),
        _ => value.as_f64().is_some_and(|number| number <= wanted.as_f64().unwrap()),
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![(0..4_i64).prop_map(Value::from), "[x-z]".prop_map(Value::from), Just(json!(true)), Just(Value::Null)]
}

fn conditions() -> impl Strategy<Value = Vec<Value>> {
    let operator = prop_oneof![
        leaf().prop_map(|value| json!({"operator": "eq", "value": value})),
        prop_oneof![Just(json!(1)), Just(json!("x"))].prop_map(|value| json!({"operator": "neq", "value": value})),
        prop::collection::vec(leaf(), 1..3).prop_map(|value| json!({"operator": "in", "value": value})),
        (0..4_i64).prop_map(|value| json!({"operator": "gte", "value": value})),
        (0..4_i64).prop_map(|value| json!({"operator": "lte", "value": value})),
    ];
    let field = prop_oneof![Just("a"), Just("b.c"), Just("b.d"), Just("e.f.g")];
    let one = (field, operator).prop_map(|(field, mut one)| {
        one["field"] = field.into();
        one
    });
    prop::collection::vec(one, 0..5)
}

fn body() -> impl Strategy<Value = Value> {
    let maybe = || prop::option::of(leaf());
    (maybe(), maybe(), maybe(), maybe()).prop_map(|(a, c, d, g)| {
        let mut body = json!({"b": {}, "e": {"f": {}}});
        for (pointer, name, value) in [("", "a", a), ("/b", "c", c), ("/b", "d", d), ("/e/f", "g", g)] {
            if let Some(value) = value {
                body.pointer_mut(pointer).unwrap()[name] = value;
            }
        }
        body
    })
}

proptest! {
    #[test]
    fn a_pattern_without_violations_takes_exactly_what_meets_all_conditions(conditions in conditions(), body in body()) {
        let rule = json!({"name": "r", "conditions": conditions});
        prop_assume!(found(&rule).is_empty());
        let pattern = Value::Object(made(&rule).event_pattern);
        let field = |one: &Value| FieldPath::parse(one["field"].as_str().unwrap()).unwrap().resolve(&body).cloned();
        let expected = conditions.iter().all(|one| meets(field(one).as_ref(), one));
        prop_assert_eq!(matches(&pattern, Some(&event(&body))), expected, "{}", pattern);
    }
}
