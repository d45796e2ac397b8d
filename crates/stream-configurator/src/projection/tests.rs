use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The tutorial's sample event.
fn sample() -> Value {
    json!({
        "conversation": {"id": "conv-123", "metadata": {"source": "web", "timestamp": "2024-01-15T10:00:00Z"}},
        "participants": [{"id": "agent-456", "wrapup": {"code": 7}}, {"id": "agent-789", "wrapup": {"code": null}}],
        "attributes": {"tenantId": "tenant-789", "none": null, "priority": "high"},
        "metrics": {"duration": 45},
        "nobody": [],
    })
}

fn payload(transformations: &Value, mappings: &Value, sample: &Value) -> Payload {
    let payload = json!({
        "transformations": transformations, "attributeMappings": mappings, "sampleEvent": sample,
    });
    serde_json::from_value(payload).unwrap()
}

fn project(transformations: &Value, mappings: &Value) -> Projection {
    let payload = payload(transformations, mappings, &sample());
    assert_eq!(violations(payload.directives(), &sample()), []);
    Projection::of(&payload).unwrap()
}

#[test]
fn every_directive_puts_what_it_makes_at_its_target() {
    let transformations = json!([
        {"sourceField": "conversation.id", "targetField": "convId", "type": "direct"},
        {"sourceField": "participants", "targetField": "agents.ids", "type": "extract", "path": "[].id"},
        {"sourceField": "participants", "targetField": "agents.codes", "type": "extract", "path": "[].wrapup.code"},
        {"sourceField": "nobody", "targetField": "none", "type": "extract", "path": "[].id"},
        {"sourceField": "conversation.metadata.timestamp", "targetField": "eventTime", "type": "transform", "format": "iso8601"},
    ]);
    let mappings = json!([
        {"source": "attributes.tenantId", "target": "custom.tenant"},
        {"source": "attributes.none", "target": "custom.none"},
        {"source": "participants.1.id", "target": "custom.second"},
        {"source": "metrics", "target": "metrics"},
    ]);
    let projected = project(&transformations, &mappings);
    assert_eq!(
        projected.event,
        json!({
            "convId": "conv-123",
            "agents": {"ids": ["agent-456", "agent-789"], "codes": [7, null]},
            "none": [],
            "eventTime": "2024-01-15T10:00:00Z",
            "custom": {"tenant": "tenant-789", "none": null, "second": "agent-789"},
            "metrics": {"duration": 45},
        })
    );
    assert!((projected.success_rate - 1.0).abs() < f64::EPSILON);
}

#[test]
fn what_does_not_resolve_or_fit_is_told_at_the_directive() {
    let table = [
        (json!({"sourceField": "metadata.timestamp", "type": "direct"}), "has no \"metadata.timestamp\""),
        (json!({"sourceField": "conversation.id.x", "type": "direct"}), "has no"),
        (json!({"sourceField": "Conversation", "type": "direct"}), "has no"),
        (json!({"sourceField": "nothing", "type": "extract", "path": "[].id"}), "has no"),
        (json!({"sourceField": "conversation", "type": "extract", "path": "[].id"}), "no list"),
        (json!({"sourceField": "attributes.none", "type": "extract", "path": "[].id"}), "no list"),
        (json!({"sourceField": "participants", "type": "extract", "path": "[].name"}), "entry 0"),
        (json!({"sourceField": "participants", "type": "extract", "path": "[].wrapup.code.x"}), "entry 0"),
        (json!({"sourceField": "conversation.id", "type": "transform", "format": "iso8601"}), "no time"),
        (json!({"sourceField": "metrics.duration", "type": "transform", "format": "iso8601"}), "no time"),
        (json!({"sourceField": "attributes.none", "type": "transform", "format": "iso8601"}), "no time"),
    ];
    for (mut directive, details) in table {
        directive["targetField"] = "t".into();
        let payload = payload(&json!([directive.clone()]), &json!([]), &sample());
        let violations = violations(payload.directives(), &sample());
        assert_eq!(violations.len(), 1, "{directive}");
        assert_eq!(violations[0].pointer, "/payload/transformations/0");
        assert!(violations[0].message.contains(details), "{directive}: {}", violations[0].message);
    }
}

#[test]
fn a_sample_that_is_no_object_resolves_nothing() {
    for sample in [json!([]), json!("event"), json!(1), json!(true)] {
        let payload = payload(&json!([]), &json!([{"source": "a", "target": "b"}]), &sample);
        assert_eq!(violations(payload.directives(), &sample).len(), 1, "{sample}");
    }
}

#[test]
fn the_success_rate_is_the_share_of_directives_that_resolved() {
    let mappings = json!([
        {"source": "metrics.duration", "target": "a"},
        {"source": "x", "target": "b"},
        {"source": "y", "target": "c"},
        {"source": "metrics.none", "target": "d"},
    ]);
    let rate = |mappings: &Value| Projection::of(&payload(&json!([]), mappings, &sample())).unwrap().success_rate;
    assert!((rate(&mappings) - 0.25).abs() < f64::EPSILON);
    assert!((rate(&json!([])) - 1.0).abs() < f64::EPSILON);
    let without = serde_json::from_value(json!({"attributeMappings": mappings})).unwrap();
    assert_eq!(Projection::of(&without), None);
}

#[test]
fn above_64_kib_the_sha_256_is_told() {
    // {"a":"…"} is 8 bytes longer than its text.
    let projected = |length: usize| {
        let sample = json!({"big": "x".repeat(length)});
        Projection::of(&payload(&json!([]), &json!([{"source": "big", "target": "a"}]), &sample)).unwrap().event
    };
    assert_eq!(projected(MAX_TOLD_BYTES - 8)["a"].as_str().map(str::len), Some(MAX_TOLD_BYTES - 8));
    let details = projected(MAX_TOLD_BYTES - 7);
    assert!(details.as_str().is_some_and(|hex| hex.len() == 64), "{details}");
}

#[test]
fn the_same_large_part_named_very_often_is_told_as_its_sha_256() {
    let mappings: Vec<Value> = (0..200).map(|n| json!({"source": "big", "target": format!("t{n}")})).collect();
    let sample = json!({"big": vec!["x".repeat(100); 1_000]});
    let details = Projection::of(&payload(&json!([]), &mappings.into(), &sample)).unwrap().event;
    assert!(details.is_string(), "{details}");
}

proptest! {
    #[test]
    fn a_mapping_moves_a_value_from_its_source_to_its_target(
        source in prop::collection::vec("[a-z]{1,6}", 1..10),
        target in prop::collection::vec("[a-z]{1,6}", 1..10),
        value in any::<i64>(),
    ) {
        let sample = source.iter().rev().fold(json!(value), |inner, name| json!({ name.as_str(): inner }));
        let expected = target.iter().rev().fold(json!(value), |inner, name| json!({ name.as_str(): inner }));
        let mapping = json!([{"source": source.join("."), "target": target.join(".")}]);
        let payload = payload(&json!([]), &mapping, &sample);
        prop_assert_eq!(violations(payload.directives(), &sample), vec![]);
        prop_assert_eq!(Projection::of(&payload).unwrap().event, expected);
    }

    #[test]
    fn extract_takes_one_value_out_of_each_entry_or_names_the_first_without(
        there in prop::collection::vec(any::<bool>(), 0..20), path in prop::collection::vec("[a-z]{1,6}", 1..5),
    ) {
        let entry = |there: &bool| {
            let inner = if *there { json!(1) } else { json!({}) };
            let last = path.last().map(String::as_str).unwrap_or_default();
            let innermost = if *there { json!({ last: inner }) } else { inner };
            path.iter().rev().skip(1).fold(innermost, |inner, name| json!({ name.as_str(): inner }))
        };
        let sample = json!({"list": there.iter().map(entry).collect::<Vec<_>>()});
        let extract = json!([
            {"sourceField": "list", "targetField": "t", "type": "extract", "path": format!("[].{}", path.join("."))},
        ]);
        let payload = payload(&extract, &json!([]), &sample);
        let found = violations(payload.directives(), &sample);
        match there.iter().position(|there| !there) {
            None => {
                prop_assert_eq!(found, vec![]);
                prop_assert_eq!(Projection::of(&payload).unwrap().event, json!({"t": vec![1; there.len()]}));
            }
            Some(first) => {
                prop_assert_eq!(found.len(), 1);
                let names_it = found[0].message.starts_with(&format!("entry {first} of"));
                prop_assert!(names_it, "{}", found[0].message);
            }
        }
    }

    #[test]
    fn any_directive_on_any_sample_is_judged(
        source in any::<String>(), target in any::<String>(), path in any::<Option<String>>(),
        kind in prop::sample::select(vec!["direct", "extract", "transform", "other"]),
    ) {
        let directive = json!([
            {"sourceField": source, "targetField": target, "type": kind, "path": path, "format": "iso8601"},
        ]);
        let payload = payload(&directive, &json!([]), &json!({"a": [{"b": "2024-01-15T10:00:00Z"}]}));
        let _ = payload.violations();
        prop_assert!(Projection::of(&payload).is_some());
    }
}
