//! The schema of the event every job ends in, with the report of each kind.

use serde_json::{Map, Value, json};

use super::{
    KindContract, merge,
    named::{name_parts, pascal},
    schema_of_serialized, with_head,
};
use crate::error_code::{COMMON_CODES, ErrorCode};
use genfleet_job::{
    Kind, UNKNOWN_KIND,
    event::{CloudEvent, Outcome},
};

/// The schema of an event of any of these kinds.
pub(super) fn schema(kinds: &[KindContract]) -> Value {
    let kinds: Vec<&KindContract> = kinds.iter().collect();
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).chain([UNKNOWN_KIND]).collect();
    let mut event = event(&kinds, &COMMON_CODES);
    let data = &mut event["properties"]["data"];
    merge(data, &json!({ "title": "EventData", "allOf": kinds.iter().copied().map(of_kind).collect::<Vec<_>>() }));
    merge(&mut data["properties"]["kind"], &json!({ "title": "EventKind", "enum": names }));
    data["properties"]["error"]["title"] = "EventError".into();
    name_parts(with_head("event", "Genfleet event", event), "Event")
}

/// The schema of the events of one kind, with its report and its codes.
pub(super) fn schema_of(contract: &KindContract) -> Value {
    let (kind, prefix) = (contract.kind, pascal(contract.kind.as_str()));
    let common: Vec<ErrorCode> = COMMON_CODES.into_iter().filter(|code| code.code != "unknown_kind").collect();
    let mut event = event(&[contract], &common);
    let types = Outcome::ALL.map(|outcome| format!("genfleet.{kind}.{}", outcome.as_str()));
    let properties = &mut event["properties"];
    merge(&mut properties["type"], &json!({ "title": format!("{prefix}EventType"), "enum": types }));
    let data = &mut properties["data"];
    data["title"] = format!("{prefix}EventData").into();
    let properties = &mut data["properties"];
    properties["error"]["title"] = format!("{prefix}EventError").into();
    properties["error"]["properties"]["code"]["anyOf"][0]["title"] = format!("{prefix}ErrorCode").into();
    properties["error"]["properties"]["cause"]["anyOf"][0]["title"] = format!("{prefix}ErrorCode").into();
    merge(&mut properties["kind"], &json!({ "const": kind.as_str() }));
    merge(&mut properties["action"], &json!({ "enum": [contract.action, null] }));
    let description = properties["report"]["description"].take();
    properties["report"] = report(contract);
    merge(&mut properties["report"], &json!({ "description": description }));
    name_parts(with_head(&format!("{kind}:event"), &format!("{kind} event"), event), &prefix)
}

/// An event with the errors of these kinds.
fn event(kinds: &[&KindContract], common: &[ErrorCode]) -> Value {
    let mut event = schema_of_serialized::<CloudEvent>();
    let data = &mut event["properties"]["data"];
    let properties = &mut data["properties"];
    properties["outcome"]["title"] = "Outcome".into();
    properties["audit"]["title"] = "AuditLine".into();
    let error = &mut properties["error"]["properties"];
    error["violations"]["items"]["title"] = "Violation".into();
    for member in ["code", "cause"] {
        let description = error[member]["description"].take();
        error[member] = codes(kinds, common);
        error[member]["description"] = description;
    }
    let own = kinds.iter().flat_map(|contract| error_members(contract));
    merge(error, &Value::Object(common_members().into_iter().chain(own).collect()));
    merge(data, &json!({ "allOf": outcomes() }));
    event
}

/// The members that every worker may add to `error`.
fn common_members() -> Map<String, Value> {
    let api = json!({
        "description": "What the API's body said about the error, its long members cut.",
        "type": "object",
    });
    let text = |description: &str| json!({ "description": description, "type": "string" });
    let parameters = json!({ "description": "The values in the API's message, by their names.", "type": "object" });
    let members = [
        ("api", api),
        ("messageWithParams", text("The API's message, with the names of its values.")),
        ("messageParams", parameters),
        ("entityId", text("The id of the object that the API's error is about.")),
        ("entityName", text("The type of the object that the API's error is about.")),
    ];
    members.map(|(name, member)| (name.to_owned(), member)).into_iter().collect()
}

/// The members that the worker of one kind adds, with titles for their types.
fn error_members(contract: &KindContract) -> Map<String, Value> {
    let mut members = contract.terms.error_members.clone();
    for (name, member) in members.iter_mut().filter(|(_, member)| member["properties"].is_object()) {
        member["title"] = format!("{}{}", pascal(contract.kind.as_str()), pascal(name)).into();
    }
    members
}

/// The schema of an error code. A code that a later version adds is valid, too.
fn codes(kinds: &[&KindContract], common: &[ErrorCode]) -> Value {
    let mut all = common.to_vec();
    for code in kinds.iter().flat_map(|contract| &contract.terms.codes) {
        if !all.iter().any(|known| known.code == code.code) {
            all.push(*code);
        }
    }
    let meanings: Vec<String> = all.iter().map(|code| format!("- `{}`: {}", code.code, code.meaning)).collect();
    let known: Vec<&str> = all.iter().map(|code| code.code).collect();
    let known = json!({ "title": "ErrorCode", "description": meanings.join("\n"), "type": "string", "enum": known });
    let later =
        json!({ "description": "One that a later version adds.", "type": "string", "pattern": "^[a-z]+(_[a-z]+)*$" });
    json!({ "anyOf": [known, later] })
}

/// The members that depend on the outcome.
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
    json!({
        "if": { "properties": { "kind": { "const": contract.kind.as_str() } } },
        "then": { "properties": { "action": { "enum": [contract.action, Value::Null] }, "report": report(contract) } },
    })
}

/// The report of one kind, with a title for its type.
fn report(contract: &KindContract) -> Value {
    let mut report = contract.report.clone();
    if let Some(members) = report.as_object_mut() {
        members.shift_remove("$schema");
    }
    let prefix = pascal(contract.kind.as_str());
    report["title"] = format!("{prefix}Report").into();
    name_parts(report, &prefix)
}
