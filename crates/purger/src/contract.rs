//! The contract of `cdn.purge` jobs beyond the shape of their types. The rules themselves are in `payload.rs`.

use genfleet_core::contract::{
    ContractTerms, UnstatedRule,
    pattern::{BLANKS, CONTROLS},
};
use serde_json::{Map, Value, json};

use crate::payload::MAX_PATH_BYTES;

pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({ "paths": ["/genfleet-load/{run}/{number}"] }),
        rules: rules(),
        unstated: vec![UnstatedRule {
            at: "/payload/paths/*",
            rule: "A path has at most 2,048 bytes of UTF-8; the schema counts characters.",
            message: "2048 bytes",
        }],
        codes: Vec::new(),
        error_members: Map::from_iter([(
            "path".to_owned(),
            json!({ "type": "string", "description": "cdn.purge: the path that the API refused." }),
        )]),
    }
}

fn examples() -> Vec<Value> {
    let plain = json!({ "payload": { "paths": ["/static/app.js", "/images/*"] } });
    let with_all = json!({
        "id": "release-42",
        "kind": "cdn.purge",
        "payload": { "paths": ["/*"], "allowPurgeAll": true },
        "notBefore": "2026-12-01T00:00:00Z",
        "deadline": "2026-12-01T06:00:00Z",
        "maxAttempts": 3,
    });
    vec![plain, with_all]
}

fn rules() -> Value {
    let path = json!({
        "maxLength": MAX_PATH_BYTES,
        "pattern": "^/[^/]",
        "allOf": [
            { "not": { "pattern": format!("[{CONTROLS}{BLANKS}?#]") } },
            { "not": { "pattern": "(/|%2[Ff])(\\.|%2[Ee]){1,2}(/|%2[Ff]|$)" } },
            { "not": { "pattern": "\\*." } },
        ],
    });
    let all = json!({ "type": "array", "contains": { "const": "/*" } });
    let purges_all = json!({ "required": ["paths"], "properties": { "paths": all } });
    let says_so = json!({ "required": ["allowPurgeAll"], "properties": { "allowPurgeAll": { "const": true } } });
    json!({
        "properties": { "paths": { "items": path } },
        "allOf": [{ "if": purges_all, "then": says_so }],
    })
}
