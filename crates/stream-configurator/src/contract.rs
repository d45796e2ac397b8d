//! The contract of `stream.configure` jobs beyond the shape of their types. The rules themselves are
//! in [`payload`](crate::payload).

use genfleet_core::contract::{
    ContractTerms, UnstatedRule,
    pattern::{BLANKS, TIME},
};
use serde_json::{Map, Value, json};

use crate::field::MOST_NAMES;

/// The codes in addition to those of each directive with the sample event.
const UNSTATED: [UnstatedRule; 9] = [
    UnstatedRule {
        at: "/payload/attributeMappings",
        rule: "filters, their conditions, transformations and attributeMappings have at most 10,000 entries together.",
        message: "together",
    },
    UnstatedRule {
        at: "/payload/sampleEvent",
        rule: "What transformations and mappings make of sampleEvent has at most 4 MiB as JSON.",
        message: "at most 4194304 are made",
    },
    UnstatedRule {
        at: "/payload/configuration/roleArn",
        rule: "roleArn names a role of awsAccountId.",
        message: "is a role of account",
    },
    UnstatedRule {
        at: "/payload/transformations/*/targetField",
        rule: "No target is another one, or lies inside one; transformations and mappings share one namespace.",
        message: "clashes with the target",
    },
    UnstatedRule {
        at: "/payload/attributeMappings/*/target",
        rule: "The same for mappings.",
        message: "clashes with the target",
    },
    UnstatedRule {
        at: "/payload/transformations/*",
        rule: "With sampleEvent, every transformation finds its field in it, and a value that fits.",
        message: "in sampleEvent",
    },
    UnstatedRule {
        at: "/payload/transformations/*",
        rule: "With sampleEvent, every transformation finds all names of its field.",
        message: "sampleEvent has no",
    },
    UnstatedRule {
        at: "/payload/attributeMappings/*",
        rule: "With sampleEvent, every mapping finds its attribute in it.",
        message: "sampleEvent has no",
    },
    UnstatedRule {
        at: "/payload",
        rule: "The definition has at most 262,144 bytes as it is sent.",
        message: "at most 262144 are taken",
    },
];

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({
            "sourceId": "genfleet-load-{run}-{number}",
            "configuration": {
                "awsAccountId": "123456789012", "roleArn": "arn:aws:iam::123456789012:role/genfleet-load",
                "region": "us-east-1",
            },
            "filters": [{ "eventType": "conversation.created", "conditions": [] }],
        }),
        rules: rules(),
        unstated: UNSTATED.to_vec(),
        codes: Vec::new(),
        error_members: Map::from_iter([(
            "conflicts".to_owned(),
            json!({ "type": "integer", "description": "stream.configure: how often somebody else was first." }),
        )]),
    }
}

fn examples() -> Vec<Value> {
    let configuration = json!({
        "awsAccountId": "123456789012",
        "roleArn": "arn:aws:iam::123456789012:role/genesys-events",
        "region": "eu-central-1",
    });
    let least = json!({
        "sourceId": "conversations",
        "configuration": configuration,
        "filters": [{ "eventType": "conversation.created", "conditions": [] }],
    });
    let most = json!({
        "sourceId": "long-conversations",
        "configuration": configuration,
        "filters": [{
            "eventType": "conversation.ended",
            "conditions": [
                { "field": "metrics.duration", "operator": "gte", "value": 600 },
                { "field": "channel", "operator": "in", "value": ["web", "voice"] },
            ],
        }],
        "transformations": [
            { "sourceField": "id", "targetField": "conversation.id", "type": "direct" },
            { "sourceField": "participants", "targetField": "agents", "type": "extract", "path": "[].userId" },
            { "sourceField": "ended", "targetField": "conversation.ended", "type": "transform", "format": "iso8601" },
        ],
        "attributeMappings": [{ "source": "channel", "target": "medium" }],
        "sampleEvent": {
            "id": "c-1",
            "participants": [{ "userId": "u-1" }, { "userId": "u-2" }],
            "ended": "2026-11-20T12:00:00Z",
            "channel": "web",
        },
        "onConflict": "fail",
    });
    vec![json!({ "payload": least }), json!({ "id": "stream-7", "payload": most })]
}

fn rules() -> Value {
    let name = format!("[^.{BLANKS}]+");
    let source = json!({ "pattern": format!("^{name}(\\.{name})*$") });
    let target = json!({ "pattern": format!("^{name}(\\.{name}){{0,{}}}$", MOST_NAMES - 1) });
    let inside = format!("[^.{BLANKS}\\[\\]]+");
    json!({
        "properties": {
            "sourceId": { "not": { "enum": [".", ".."] } },
            "filters": { "items": { "properties": { "conditions": { "items": {
                "properties": { "field": source },
                "allOf": operators(),
            } } } } },
            "transformations": { "items": {
                "properties": {
                    "sourceField": source,
                    "targetField": target,
                    "path": { "pattern": format!("^\\[\\](\\.{inside})+$") },
                },
                "allOf": [needs("extract", "path"), needs("transform", "format")],
            } },
            "attributeMappings": { "items": { "properties": { "source": source, "target": target } } },
        },
    })
}

fn operators() -> [Value; 2] {
    let value_of = |operators: &[&str], value: Value| {
        json!({
            "if": { "required": ["operator"], "properties": { "operator": { "enum": operators } } },
            "then": { "properties": { "value": value } },
        })
    };
    let time = json!({ "type": "string", "format": "date-time", "pattern": TIME });
    [
        value_of(&["in"], json!({ "type": "array", "minItems": 1 })),
        value_of(&["gte", "lte"], json!({ "anyOf": [{ "type": "number" }, time] })),
    ]
}

fn needs(kind: &str, member: &str) -> Value {
    json!({
        "if": { "required": ["type"], "properties": { "type": { "const": kind } } },
        "then": { "required": [member], "properties": { member: { "type": "string" } } },
    })
}
