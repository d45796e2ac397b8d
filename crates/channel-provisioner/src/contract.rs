//! What upstream systems are told of `channel.provision` jobs beyond the shape of their types. The rules themselves are
//! in [`payload`](crate::payload), [`email`](crate::email), [`domain`](crate::domain) and [`csp`](crate::csp).

use genfleet_core::contract::{Terms, Unstated, code::Code, pattern::UUID};
use serde_json::{Map, Value, json};

mod hosts;
mod policy;

const UNSTATED: [Unstated; 9] = [
    Unstated {
        at: "/payload/security/allowedDomains",
        rule: "cspHeaders and allowedDomains have at most 10,000 entries together.",
        told: "together",
    },
    Unstated {
        at: "/payload/maxConcurrentSessions",
        rule: "maxConcurrentSessions is at most what the worker's --max-concurrent-sessions says, 500 by default.",
        told: "must be at most",
    },
    Unstated {
        at: "/payload/routingEmail",
        rule: "The domain of routingEmail is a valid host name, after IDNA where it is not ASCII.",
        told: "no valid domain",
    },
    Unstated {
        at: "/payload/routingEmail",
        rule: "An IPv6 address in the brackets of routingEmail is one.",
        told: "no IP address",
    },
    Unstated {
        at: "/payload/routingEmail",
        rule: "routingEmail has at most 64 characters before the @, quotes included.",
        told: "at most 64 characters",
    },
    Unstated {
        at: "/payload/routingEmail",
        rule: "routingEmail has at most 254 characters after IDNA.",
        told: "at most 254 characters",
    },
    Unstated {
        at: "/payload/security/allowedDomains/*",
        rule: "A domain is a valid host name of at most 253 characters, after IDNA where it is not ASCII.",
        told: "no valid host name",
    },
    Unstated {
        at: "/payload/security/allowedDomains/*",
        rule: "A domain that is not ASCII does not become an IP address by IDNA.",
        told: "IP addresses are not allowed",
    },
    Unstated {
        at: "/payload/security/cspHeaders/*",
        rule: "A host in a directive has at most 253 characters.",
        told: "it has no valid host",
    },
];

/// See the module.
pub fn terms() -> Terms {
    Terms {
        examples: examples(),
        rules: rules(),
        unstated: UNSTATED.to_vec(),
        codes: vec![
            Code::new("queue_not_found", "There is no such routing queue."),
            Code::new("license_limit_reached", "All licences for channels are taken."),
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
