//! The contract of `media.scan` jobs beyond the shape of their types.

use genfleet_core::contract::{ContractTerms, ErrorCode, UnstatedRule};
use serde_json::{Map, Value, json};

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({
            "source": { "message": {
                "conversationId": "{uuid}", "communicationId": "{uuid}", "mediaId": "{uuid}",
            }},
            "onThreat": "none",
        }),
        rules: rules(),
        unstated: vec![
            UnstatedRule {
                at: "/payload/metadata",
                rule: "metadata has at most 16,384 bytes as JSON without blanks.",
                message: "bytes of JSON",
            },
            UnstatedRule {
                at: "/payload/source/url",
                rule: "url is an absolute link that begins with https:// (http:// for hosts that the workers' --media-allow names), without user and password.",
                message: "must",
            },
        ],
        codes: codes(),
        error_members: Map::new(),
    }
}

fn codes() -> Vec<ErrorCode> {
    vec![
        ErrorCode::new(
            "action_failed",
            "Malware was found, and what the job asked for in that case could not be done; the verdict is in the report.",
        ),
        ErrorCode::new(
            "content_changed",
            "The file has another SHA-256 than the job names; the verdict is in the report.",
        ),
        ErrorCode::new("media_invalid", "The platform says that the medium is invalid."),
        ErrorCode::new("attachment_not_found", "The e-mail has no such attachment."),
        ErrorCode::new(
            "address_refused",
            "The link, or one that it redirects to, is to a host that is not in --media-hosts, to an address that is not public, or not https.",
        ),
        ErrorCode::new("link_refused", "The host of the link refused it for good."),
        ErrorCode::new("link_expired", "The link was dead; as a cause: a new link was dead, too."),
        ErrorCode::new("media_not_ready", "The file was not there within the workers' --settle-timeout. Only a cause."),
        ErrorCode::new("media_unavailable", "The host of the link did not answer, failed or broke off. Only a cause."),
        ErrorCode::new("engine_failed", "The engine gave no verdict. Only a cause."),
    ]
}

/// Returns the schema of the source, of which there must be exactly one, and the members that the actions need.
fn rules() -> Value {
    const SOURCES: [&str; 6] = ["message", "messageId", "conversationId", "email", "document", "url"];
    let has = |member: &str| json!({ "required": [member], "properties": { member: { "not": { "type": "null" } } } });
    let only = |members: &[&str]| {
        let of = |wanted: bool| SOURCES.into_iter().filter(move |name| members.contains(name) == wanted);
        let others: Vec<Value> = of(false).map(has).collect();
        let members: Vec<Value> = of(true).map(has).collect();
        json!({ "allOf": members, "not": { "anyOf": others } })
    };
    let from = |members: &[&str]| {
        let any: Vec<Value> = members.iter().map(|member| has(member)).collect();
        json!({ "properties": { "source": { "anyOf": any } } })
    };
    let actions = |members: &[&str], actions: Value| json!({ "if": from(members), "then": { "properties": { "onThreat": { "enum": actions } } } });
    let conversation = ["message", "messageId", "email"];
    let flags = json!({ "allOf": [
        from(&conversation), { "properties": { "onThreat": { "enum": ["flag", null] } } },
    ] });
    json!({
        "properties": { "source": { "oneOf": [
            only(&["message"]), only(&["messageId", "conversationId"]), only(&["email"]), only(&["document"]),
            only(&["url"]),
        ]}},
        "allOf": [
            actions(&conversation, json!(["none", "flag", "tag", "disconnect", null])),
            actions(&["document"], json!(["none", "delete", null])),
            actions(&["url"], json!(["none", null])),
            { "if": flags, "then": {
                "required": ["participantId"], "properties": { "participantId": { "not": { "type": "null" } } },
            } },
            { "if": from(&["messageId"]), "then": { "properties": { "sha256": { "type": "null" } } } },
        ],
    })
}

fn examples() -> Vec<Value> {
    let (conversation, participant) = ("6b1f0c9e-52f3-4d6f-9d3a-0c7f7a1e2b3c", "0f8fad5b-d9cb-469f-a165-70867728950e");
    let medium = json!({
        "payload": {
            "source": { "message": {
                "conversationId": conversation,
                "communicationId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
                "mediaId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            }},
            "participantId": participant,
        },
    });
    let message = json!({
        "id": "message-1042",
        "payload": {
            "source": { "conversationId": conversation, "messageId": "b7a1c2d3-0000-4000-8000-000000000001" },
            "onThreat": "disconnect",
            "maxBytes": 10_485_760,
            "metadata": { "case": 7 },
        },
    });
    let document = json!({
        "payload": {
            "source": { "document": { "documentId": "a1b2c3d4-e5f6-7890-abcd-ef1234567890" } },
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "onThreat": "delete",
        },
    });
    let link = json!({
        "id": "report-7",
        "payload": {
            "source": { "url": "https://example-bucket.s3.eu-west-1.amazonaws.com/report.pdf" },
            "onThreat": "none",
            "maxBytes": 1_048_576,
            "metadata": { "case": 7 },
        },
    });
    vec![medium, message, document, link]
}
