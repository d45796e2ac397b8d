//! The contract of `channel.provision` jobs beyond the shape of their types. The rules themselves are
//! in [`payload`](crate::payload), [`email`](crate::email), [`domain`](crate::domain) and [`csp`](crate::csp).

use genfleet_core::contract::{ContractTerms, ErrorCode, UnstatedRule, pattern::UUID};
use serde_json::{Map, Value, json};

pub(crate) mod hosts;
mod policy;

const UNSTATED: [UnstatedRule; 9] = [
    UnstatedRule {
        at: "/payload/security/allowedDomains",
        rule: "cspHeaders and allowedDomains have at most 10,000 entries together.",
        message: "together",
    },
    UnstatedRule {
        at: "/payload/maxConcurrentSessions",
        rule: "maxConcurrentSessions is at most what the worker's --max-concurrent-sessions says, 500 by default.",
        message: "must be at most",
    },
    UnstatedRule {
        at: "/payload/routingEmail",
        rule: "The domain of routingEmail is a valid host name, after IDNA where it is not ASCII.",
        message: "no valid domain",
    },
    UnstatedRule {
        at: "/payload/routingEmail",
        rule: "An IPv6 address in the brackets of routingEmail is one.",
        message: "no IP address",
    },
    UnstatedRule {
        at: "/payload/routingEmail",
        rule: "routingEmail has at most 64 characters before the @, quotes included.",
        message: "at most 64 characters",
    },
    UnstatedRule {
        at: "/payload/routingEmail",
        rule: "routingEmail has at most 254 characters after IDNA.",
        message: "at most 254 characters",
    },
    UnstatedRule {
        at: "/payload/security/allowedDomains/*",
        rule: "A domain is a valid host name of at most 253 characters, after IDNA where it is not ASCII.",
        message: "no valid host name",
    },
    UnstatedRule {
        at: "/payload/security/allowedDomains/*",
        rule: "A domain that is not ASCII does not become an IP address by IDNA.",
        message: "IP addresses are not allowed",
    },
    UnstatedRule {
        at: "/payload/security/cspHeaders/*",
        rule: "A host in a directive has at most 253 characters.",
        message: "it has no valid host",
    },
];

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({
            "name": "genfleet-load-{run}-{number}", "queueId": "{uuid}", "routingEmail": "load@genfleet.example",
            "security": { "allowedDomains": ["genfleet.example"] },
        }),
        rules: rules(),
        unstated: UNSTATED.to_vec(),
        codes: vec![
            ErrorCode::new("queue_not_found", "There is no such routing queue."),
            ErrorCode::new("license_limit_reached", "All licences for channels are taken."),
        ],
        error_members: Map::new(),
    }
}

fn examples() -> Vec<Value> {
    let queue = "6f1c2d3e-4a5b-4c6d-8e7f-901a2b3c4d5e";
    let least = json!({
        "queueId": queue,
        "routingEmail": "webchat@shop.example",
        "security": { "allowedDomains": ["shop.example"] },
    });
    let most = json!({
        "name": "Web shop",
        "queueId": queue,
        "routingEmail": "webchat@shop.example",
        "maxConcurrentSessions": 150,
        "enabled": true,
        "security": {
            "cspHeaders": ["default-src https:", "script-src https: 'self'", "frame-ancestors https://shop.example"],
            "xssPrevention": true,
            "sanitizeHtml": true,
            "allowedDomains": ["shop.example", "https://www.shop.example:8443", "bücher.example"],
        },
    });
    vec![json!({ "payload": least }), json!({ "id": "channel-web-shop", "payload": most })]
}

fn rules() -> Value {
    json!({
        "properties": {
            "queueId": { "pattern": UUID },
            "routingEmail": hosts::email(),
            "security": { "properties": {
                "cspHeaders": policy::headers(),
                "xssPrevention": { "enum": [true, Value::Null] },
                "allowedDomains": { "items": hosts::domain() },
            } },
        },
    })
}

/// Matches `word` in any mixture of cases.
fn any_case(word: &str) -> String {
    let either = |each: char| match (each.to_ascii_lowercase(), each.to_ascii_uppercase()) {
        (lower, upper) if lower != upper => format!("[{lower}{upper}]"),
        (same, _) => same.to_string(),
    };
    word.chars().map(either).collect()
}
