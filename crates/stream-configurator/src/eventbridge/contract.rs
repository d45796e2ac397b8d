//! The contract of `eventbridge.configure` jobs beyond the shape of their types. The rules themselves are in
//! [`payload`](super::payload) and [`render`](super::render).

use genfleet_core::contract::{
    ContractTerms, ErrorCode, UnstatedRule,
    pattern::{BLANKS, CONTROLS},
};
use serde_json::{Map, Value, json};

use crate::field::MOST_NAMES;

/// The codes in addition to those of each directive with the sample event.
const UNSTATED: [UnstatedRule; 14] = [
    UnstatedRule {
        at: "/payload/rules",
        rule: "All lists of the payload have at most 10,000 entries together.",
        message: "together",
    },
    UnstatedRule {
        at: "/payload",
        rule: "The configuration has at most 512,000 bytes as it is sent.",
        message: "at most 512000 are taken",
    },
    UnstatedRule {
        at: "/payload/rules/*/name",
        rule: "No two rules have the same name.",
        message: "is the name of the rule",
    },
    UnstatedRule {
        at: "/payload/rules/*/conditions/*",
        rule: "A field has one condition, or one gte and one lte that is not below it.",
        message: "(/payload/rules/",
    },
    UnstatedRule {
        at: "/payload/rules/*/conditions/*/field",
        rule: "No field of a condition lies inside the field of another condition of its rule.",
        message: "lies inside or around",
    },
    UnstatedRule {
        at: "/payload/rules/*/transformations/*/targetField",
        rule: "No target is another one of its rule, or lies inside one; transformations and mappings share one namespace.",
        message: "clashes with the target",
    },
    UnstatedRule {
        at: "/payload/rules/*/attributeMappings/*/target",
        rule: "The same for mappings.",
        message: "clashes with the target",
    },
    UnstatedRule {
        at: "/payload/rules/*/transformations/*",
        rule: "With sampleEvent, every transformation finds its field in it, and a value that fits.",
        message: "in sampleEvent",
    },
    UnstatedRule {
        at: "/payload/rules/*/transformations/*",
        rule: "With sampleEvent, every transformation finds all names of its field.",
        message: "sampleEvent has no",
    },
    UnstatedRule {
        at: "/payload/rules/*/attributeMappings/*",
        rule: "With sampleEvent, every mapping finds its attribute in it.",
        message: "sampleEvent has no",
    },
    UnstatedRule {
        at: "/payload/sampleEvent",
        rule: "What the rules make of sampleEvent has at most 4 MiB as JSON.",
        message: "at most 4194304 are made",
    },
    UnstatedRule {
        at: "/payload/rules/*",
        rule: "As AWS takes them: an event pattern has at most 2,048 characters, an input transformer at most 100 paths, its \
            template at most 8,192 characters.",
        message: "AWS takes",
    },
    UnstatedRule {
        at: "/payload/rules/*/transformations/*/sourceField",
        rule: "A path in AWS has at most 256 characters.",
        message: "in AWS, which takes 256",
    },
    UnstatedRule {
        at: "/payload/rules/*/attributeMappings/*/source",
        rule: "The same for the paths of mappings.",
        message: "in AWS, which takes 256",
    },
];

const CODES: [ErrorCode; 6] = [
    ErrorCode::new("integration_ambiguous", "Several integrations have the name."),
    ErrorCode::new("source_taken", "An integration of another name has the same account, region and suffix."),
    ErrorCode::new("source_identity_changed", "The integration of this name has another account, region or suffix."),
    ErrorCode::new(
        "integration_limit_reached",
        "The organisation has as many integrations of this type as it may have.",
    ),
    ErrorCode::new("integration_error", "The integration reports ERROR: the message has the platform's reason."),
    ErrorCode::new("not_active", "The integration did not report the state that is wanted in time. As a cause only."),
];

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({
            "name": "genfleet-load-{run}-{number}",
            "awsAccountId": "123456789012",
            "awsAccountRegion": "us-east-1",
            "eventSourceSuffix": "load-{run}-{number}",
            "topics": ["v2.detail.events.conversation.{id}.user.end"],
        }),
        rules: rules(),
        unstated: UNSTATED.to_vec(),
        codes: CODES.to_vec(),
        error_members: Map::from_iter([
            (
                "integrationId".to_owned(),
                json!({ "type": "string", "description": "eventbridge.configure: the integration, if it is known." }),
            ),
            ("conflicts".to_owned(), json!({ "type": "integer", "description": "How often somebody else was first." })),
        ]),
    }
}

fn examples() -> Vec<Value> {
    let least = json!({
        "awsAccountId": "123456789012",
        "awsAccountRegion": "eu-central-1",
        "eventSourceSuffix": "crm",
        "topics": ["v2.detail.events.conversation.{id}.user.end"],
    });
    let most = json!({
        "name": "CRM events",
        "awsAccountId": "123456789012",
        "awsAccountRegion": "eu-central-1",
        "eventSourceSuffix": "crm-long-calls",
        "topics": ["v2.detail.events.conversation.{id}.user.end", "v2.detail.events.conversation.{id}.acw"],
        "notes": "owned by the CRM team",
        "enabled": true,
        "onConflict": "fail",
        "version": 3,
        "rules": [{
            "name": "long-calls",
            "topics": ["v2.detail.events.conversation.{id}.user.end"],
            "conditions": [
                { "field": "mediaType", "operator": "in", "value": ["VOICE", "CALLBACK"] },
                { "field": "metrics.duration", "operator": "gte", "value": 600 },
                { "field": "metrics.duration", "operator": "lte", "value": 7200 },
            ],
            "transformations": [
                { "sourceField": "conversationId", "targetField": "conversation.id", "type": "direct" },
                { "sourceField": "participants", "targetField": "agents", "type": "extract", "path": "[].userId" },
            ],
            "attributeMappings": [{ "source": "mediaType", "target": "medium" }],
        }],
        "sampleEvent": {
            "conversationId": "c-1",
            "participants": [{ "userId": "u-1" }, { "userId": "u-2" }],
            "mediaType": "VOICE",
            "metrics": { "duration": 900 },
        },
    });
    vec![json!({ "payload": least }), json!({ "id": "eventbridge-7", "payload": most })]
}

fn rules() -> Value {
    let topic = json!({ "pattern": "^v2\\.[a-z0-9.{}-]+$" });
    let name = "[A-Za-z0-9_-]+";
    let source = json!({ "pattern": format!("^{name}(\\.{name})*$") });
    let free = format!("[^.{BLANKS}]+");
    let target = json!({ "pattern": format!("^{free}(\\.{free}){{0,{}}}$", MOST_NAMES - 1) });
    let inside = "[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*";
    json!({
        "properties": {
            "name": { "pattern": format!("^[^{BLANKS}{CONTROLS}]([^{CONTROLS}]*[^{BLANKS}{CONTROLS}])?$") },
            "topics": { "items": topic },
            "rules": { "items": { "properties": {
                "topics": { "items": topic },
                "conditions": { "items": { "properties": { "field": field() }, "allOf": operators() } },
                "transformations": { "items": {
                    "properties": {
                        "sourceField": source,
                        "targetField": target,
                        "path": { "pattern": format!("^\\[\\](\\.{inside})+$") },
                        "type": { "not": { "const": "transform" } },
                    },
                    "allOf": [{
                        "if": { "required": ["type"], "properties": { "type": { "const": "extract" } } },
                        "then": { "required": ["path"], "properties": { "path": { "type": "string" } } },
                    }],
                } },
                "attributeMappings": { "items": { "properties": { "source": source, "target": target } } },
            } } },
        },
    })
}

/// Matches names that neither begin with `$` nor are numbers.
fn field() -> Value {
    let first = format!("[^.$0-9{BLANKS}]");
    let rest = format!("[^.{BLANKS}]*");
    let name = format!("({first}{rest}|[0-9]+[^.0-9{BLANKS}]{rest})");
    json!({ "pattern": format!("^{name}(\\.{name})*$") })
}

fn operators() -> [Value; 4] {
    let value_of = |operators: &[&str], value: Value| {
        json!({
            "if": { "required": ["operator"], "properties": { "operator": { "enum": operators } } },
            "then": { "properties": { "value": value } },
        })
    };
    let leaf = json!({ "type": ["string", "number", "boolean", "null"] });
    [
        value_of(&["eq"], leaf.clone()),
        value_of(&["neq"], json!({ "type": ["string", "number"] })),
        value_of(&["in"], json!({ "type": "array", "minItems": 1, "items": leaf })),
        value_of(
            &["gte", "lte"],
            json!({ "type": "number", "minimum": -5_000_000_000_i64, "maximum": 5_000_000_000_i64 }),
        ),
    ]
}
