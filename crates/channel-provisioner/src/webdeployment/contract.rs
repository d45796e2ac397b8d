//! The contract of `webdeployment.provision` jobs beyond the shape of their types. The rules themselves are
//! in [`payload`](super::payload).

use genfleet_core::contract::{ContractTerms, ErrorCode, UnstatedRule};
use serde_json::{Map, Value, json};

use crate::contract::hosts;

const UNSTATED: [UnstatedRule; 6] = [
    UnstatedRule {
        at: "/payload/allowedDomains/*",
        rule: "A domain is a valid host name of at most 253 characters, after IDNA where it is not ASCII.",
        message: "no valid host name",
    },
    UnstatedRule {
        at: "/payload/allowedDomains/*",
        rule: "A domain that is not ASCII does not become an IP address by IDNA.",
        message: "IP addresses are not allowed",
    },
    UnstatedRule {
        at: "/payload/allowedDomains",
        rule: "allowedDomains has at most 500,000 bytes as JSON.",
        message: "the platform takes at most",
    },
    UnstatedRule {
        at: "/payload/configuration/document",
        rule: "The document has at most 500,000 bytes as JSON.",
        message: "the platform takes at most",
    },
    UnstatedRule {
        at: "/payload/configuration/document/customI18nLabels",
        rule: "allowedDomains, languages and customI18nLabels have at most 10,000 entries together.",
        message: "together",
    },
    UnstatedRule {
        at: "/payload/configuration/document/languages",
        rule: "The same, where languages is the list that is too long.",
        message: "together",
    },
];

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({
            "name": "genfleet-load-{run}-{number}", "flowId": "{uuid}", "allowedDomains": ["genfleet.example"],
            "configuration": { "document": { "languages": ["en-us"], "defaultLanguage": "en-us" } },
        }),
        rules: rules(),
        unstated: UNSTATED.to_vec(),
        codes: vec![
            ErrorCode::new("flow_not_found", "There is no such flow, or it is deleted."),
            ErrorCode::new("flow_wrong_type", "The flow is no inbound message flow."),
            ErrorCode::new("flow_not_published", "The flow has no published version."),
            ErrorCode::new("queue_not_found", "There is no such routing queue."),
            ErrorCode::new("name_taken", "A deployment has that name, or another job is making one of it."),
            ErrorCode::new(
                "deployment_limit_reached",
                "The organisation may have no further deployment or configuration.",
            ),
            ErrorCode::new("deployment_not_found", "There is no deployment to update."),
            ErrorCode::new("deployment_error", "The platform puts the deployment into the status Error. It stays."),
            ErrorCode::new(
                "configuration_not_found",
                "There is no such configuration, or no such published version of it.",
            ),
            ErrorCode::new("configuration_error", "The platform puts the configuration into the status Error."),
            ErrorCode::new(
                "not_active",
                "The deployment, or its configuration, is there and not active yet. Only a cause.",
            ),
        ],
        error_members: error_members(),
    }
}

fn error_members() -> Map<String, Value> {
    let configuration = "webdeployment.provision: the configuration that this job made.";
    let rolled_back = "vni.provision, webdeployment.provision: whether what the job made was removed again.";
    Map::from_iter([
        ("configurationId".to_owned(), json!({ "type": "string", "description": configuration })),
        ("rolledBack".to_owned(), json!({ "type": "boolean", "description": rolled_back })),
    ])
}

fn examples() -> Vec<Value> {
    let flow = "0b9a8c7d-6e5f-4a3b-9c2d-1e0f9a8b7c6d";
    let least = json!({
        "name": "Support",
        "flowId": flow,
        "allowAllDomains": true,
        "configuration": { "id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301" },
    });
    let most = json!({
        "name": "Web shop",
        "flowId": flow,
        "queueId": "6f1c2d3e-4a5b-4c6d-8e7f-901a2b3c4d5e",
        "allowedDomains": ["shop.example", "www.shop.example", "bücher.example"],
        "configuration": { "document": {
            "languages": ["en-us", "de"],
            "defaultLanguage": "en-us",
            "customI18nLabels": [{
                "language": "en-us",
                "localizedLabels": [{ "key": "MessengerHomeHeaderTitle", "value": "How can we help?" }],
            }],
            "messenger": {
                "enabled": true,
                "launcherButton": { "visibility": "On" },
                "styles": { "primaryColor": "#2A60C8" },
            },
            "position": { "alignment": "Right", "sideSpace": 20, "bottomSpace": 20 },
        } },
        "description": "Messenger of the web shop",
        "status": "Active",
        "onExisting": "update",
        "verifyEdge": true,
        "rollback": true,
    });
    vec![json!({ "payload": least }), json!({ "id": "deployment-web-shop", "payload": most })]
}

fn rules() -> Value {
    let absent = || json!({ "type": "null" });
    json!({
        "properties": {
            "allowedDomains": { "items": hosts::bare_host() },
            "configuration": {
                "anyOf": [
                    { "required": ["id"], "properties": { "id": { "type": "string" }, "document": absent() } },
                    { "required": ["document"], "properties": { "document": { "type": "object" }, "version": absent() } },
                ],
                "properties": { "document": {
                    "if": {
                        "required": ["messenger"],
                        "properties": { "messenger": {
                            "type": "object", "required": ["enabled"], "properties": { "enabled": { "const": true } },
                        } },
                    },
                    "then": {
                        "required": ["languages", "defaultLanguage"],
                        "properties": { "languages": { "type": "array", "minItems": 1 }, "defaultLanguage": { "type": "string" } },
                    },
                } },
            },
        },
        "anyOf": [
            { "required": ["allowAllDomains"], "properties": { "allowAllDomains": { "const": true }, "allowedDomains": absent() } },
            {
                "required": ["allowedDomains"],
                "properties": { "allowedDomains": { "type": "array" }, "allowAllDomains": { "enum": [false, Value::Null] } },
            },
        ],
    })
}
