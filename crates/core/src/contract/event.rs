//! The schema of the event every job ends in, with the report of each kind.

use serde_json::{Map, Value, json};

use super::{
    KindContract,
    code::{COMMON, Code},
    headed, lay, written,
};
use crate::{
    event::shape::CloudEvent,
    job::{Kind, UNKNOWN_KIND},
    webhook::delivery::Deliverer,
};

/// The schema of an event of any of these kinds, or of a webhook delivery, which every worker makes.
pub fn schema(kinds: &[KindContract]) -> Value {
    let delivery = KindContract::of::<Deliverer>();
    let kinds: Vec<&KindContract> = kinds.iter().chain([&delivery]).collect();
    let mut event = written::<CloudEvent>();
    let data = &mut event["properties"]["data"];
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).chain([UNKNOWN_KIND]).collect();
    lay(&mut data["properties"]["kind"], &json!({ "enum": names }));
    let error = &mut data["properties"]["error"]["properties"];
    for member in ["code", "cause"] {
        lay(&mut error[member], &codes(&kinds));
    }
    let own = kinds.iter().flat_map(|contract| contract.terms.error_members.clone());
    lay(error, &Value::Object(common_members().into_iter().chain(own).collect()));
    let rules: Vec<Value> = outcomes().into_iter().chain(kinds.iter().copied().map(of_kind)).collect();
    lay(data, &json!({ "allOf": rules }));
    headed("event", "Genfleet event", event)
}

/// What every worker may add to `error`.
fn common_members() -> Map<String, Value> {
    let api = json!({
        "description": "What the API's body said about the error, its long members cut.",
        "type": "object",
    });
    Map::from_iter([("api".to_owned(), api)])
}

/// The codes there are. One that a later version adds is no error.
fn codes(kinds: &[&KindContract]) -> Value {
    let mut all: Vec<Code> = COMMON.to_vec();
    for code in kinds.iter().flat_map(|contract| &contract.terms.codes) {
        if !all.iter().any(|known| known.code == code.code) {
            all.push(*code);
        }
    }
    let mut branches: Vec<Value> =
        all.iter().map(|code| json!({ "const": code.code, "description": code.meaning })).collect();
    branches.push(json!({ "description": "One that a later version adds." }));
    json!({ "pattern": "^[a-z]+(_[a-z]+)*$", "anyOf": branches })
}

/// What is there depends on how the job ended.
fn outcomes() -> [Value; 2] {
    let ended = |outcome: &str| json!({ "properties": { "outcome": { "const": outcome } } });
    let succeeded = json!({
        "required": ["report"],
        "properties": { "report": true, "error": false, "action": { "type": "string" } },
    });
    let not_succeeded = json!({ "required": ["error"], "properties": { "error": true, "action": { "type": "null" } } });
    let expired = json!({
        "properties": {
            "report": false,
            "requests": { "const": 0 },
            "error": { "properties": { "code": { "const": "deadline_passed" } } },
        },
    });
    [
        json!({ "if": ended("succeeded"), "then": succeeded, "else": not_succeeded }),
        json!({ "if": ended("expired"), "then": expired }),
    ]
}

/// The report and the action of one kind.
fn of_kind(contract: &KindContract) -> Value {
    let mut report = contract.report.clone();
    if let Some(members) = report.as_object_mut() {
        members.remove("$schema");
    }
    json!({
        "if": { "properties": { "kind": { "const": contract.kind.as_str() } } },
        "then": { "properties": { "action": { "enum": [contract.action, Value::Null] }, "report": report } },
    })
}
