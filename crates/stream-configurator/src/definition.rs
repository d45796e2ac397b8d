//! The definition to send: its canonical JSON, its length and fingerprint, and the comparison with the registered one.
//! Pure.

use genfleet_core::hash;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::payload::{AttributeMapping, Configuration, Filter, Payload, Transformation};

/// Maximum length of a definition as JSON, in bytes.
pub(crate) const MAX_BYTES: usize = 262_144;
const EVENT_STREAM_TYPE: &str = "aws-eventbridge";

/// The definition that is registered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    pub(crate) id: String,
    /// The JSON to send, with members in alphabetical order.
    pub(crate) body: Value,
    /// The length of the body in bytes.
    pub(crate) bytes: usize,
    /// The SHA-256 of the body, in hexadecimal.
    pub(crate) sha256: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    id: &'a str,
    event_stream_type: &'static str,
    configuration: &'a Configuration,
    filters: &'a [Filter],
    transformations: &'a [Transformation],
    attribute_mappings: &'a [AttributeMapping],
}

impl Definition {
    /// Creates the definition that `payload` requests.
    pub(crate) fn of(payload: &Payload) -> Self {
        let body = Body {
            id: &payload.source_id,
            event_stream_type: EVENT_STREAM_TYPE,
            configuration: &payload.configuration,
            filters: &payload.filters,
            transformations: &payload.transformations,
            attribute_mappings: &payload.attribute_mappings,
        };
        // Cannot fail: all members are texts, lists and JSON values.
        let mut body = serde_json::to_value(body).unwrap_or_default();
        body.sort_all_objects();
        let written = body.to_string();
        Self { id: payload.source_id.clone(), body, bytes: written.len(), sha256: hash::sha256(written) }
    }

    /// Returns true if `registered` is this definition. Further members of the API are ignored.
    pub(crate) fn is(&self, registered: &Value) -> bool {
        let same = |(name, value): (&String, &Value)| registered.get(name).is_some_and(|there| is_same(value, there));
        self.body.as_object().is_some_and(|members| members.iter().all(same))
    }
}

/// Returns true if two values are equal. Numbers are compared by value, and a null member equals a missing one.
pub(crate) fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let mut names = ours.keys().chain(theirs.keys());
            names.all(|name| is_same(member(ours, name), member(theirs, name)))
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(one, other)| is_same(one, other))
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() != other.is_f64() => one.as_f64() == other.as_f64(),
        (one, other) => one == other,
    }
}

fn member<'a>(members: &'a Map<String, Value>, name: &str) -> &'a Value {
    static NOT_THERE: Value = Value::Null;
    members.get(name).unwrap_or(&NOT_THERE)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn payload() -> Payload {
        serde_json::from_value(json!({
            "sourceId": "orders",
            "configuration": {
                "awsAccountId": "123456789012", "region": "us-east-1",
                "roleArn": "arn:aws:iam::123456789012:role/genesys",
            },
            "filters": [{"eventType": "e", "conditions": [{"field": "f", "operator": "eq", "value": {"b": 1, "a": 2}}]}],
            "transformations": [{"sourceField": "s", "targetField": "t", "type": "direct", "path": null}],
            "etag": "\"7\"", "sampleEvent": {"s": 1}, "onConflict": "fail",
        }))
        .unwrap()
    }

    #[test]
    fn what_is_sent_is_the_definition_alone_in_canonical_form() {
        let sent = r#"{"attributeMappings":[],"configuration":{"awsAccountId":"123456789012","region":"us-east-1","roleArn":"arn:aws:iam::123456789012:role/genesys"},"eventStreamType":"aws-eventbridge","filters":[{"conditions":[{"field":"f","operator":"eq","value":{"a":2,"b":1}}],"eventType":"e"}],"id":"orders","transformations":[{"sourceField":"s","targetField":"t","type":"direct"}]}"#;
        let definition = Definition::of(&payload());
        assert_eq!(definition.body.to_string(), sent);
        assert_eq!(definition.bytes, sent.len());
        assert_eq!(definition.sha256, "d85ddd6061d72b5cd69212e541205b28ac4eeceb708adffc552deba971df3cc3");
    }

    #[test]
    fn the_same_definition_is_known_whatever_the_api_tells_beside_it() {
        let definition = Definition::of(&payload());
        let mut there = definition.body.clone();
        there["version"] = 7.into();
        there["transformations"][0]["path"] = Value::Null;
        there["filters"][0]["conditions"][0]["value"]["a"] = json!(2.0);
        assert!(definition.is(&there));
    }

    #[test]
    fn another_definition_is_not_taken_for_the_same() {
        let definition = Definition::of(&payload());
        let same = definition.body.clone();
        let change = |pointer: &str, value: Value| {
            let mut other = same.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            other
        };
        for other in [
            change("/id", json!("other")),
            change("/configuration/region", json!("eu-west-1")),
            change("/filters/0/conditions", json!([])),
            change("/filters/0/conditions/0/value", json!({"a": 2, "b": 1, "c": 3})),
            change("/filters/0/conditions/0/value/a", json!("2")),
            change(
                "/transformations/0",
                json!({"sourceField": "s", "targetField": "t", "type": "direct", "path": "[].x"}),
            ),
            change("/attributeMappings", json!([{"source": "s", "target": "u"}])),
            change("/attributeMappings", Value::Null),
            json!({}),
            json!([]),
            Value::Null,
        ] {
            assert!(!definition.is(&other), "{other}");
        }
    }
}
