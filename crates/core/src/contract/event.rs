//! The schema of the event every job ends in, with the report of each kind.

use serde_json::{Map, Value, json};

use super::{
    KindContract,
    code::{COMMON, Code},
    headed, lay,
    named::{named, pascal},
    written,
};
use crate::webhook::delivery::Deliverer;
use genfleet_job::{
    Kind, UNKNOWN_KIND,
    event::{Outcome, shape::CloudEvent},
};

/// The schema of an event of any of these kinds, or of a webhook delivery, which every worker makes.
pub fn schema(kinds: &[KindContract]) -> Value {
    let delivery = KindContract::of::<Deliverer>();
    let kinds: Vec<&KindContract> = kinds.iter().chain([&delivery]).collect();
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).chain([UNKNOWN_KIND]).collect();
    let mut event = event(&kinds, &COMMON);
    let data = &mut event["properties"]["data"];
    lay(data, &json!({ "title": "EventData", "allOf": kinds.iter().copied().map(of_kind).collect::<Vec<_>>() }));
    lay(&mut data["properties"]["kind"], &json!({ "title": "EventKind", "enum": names }));
    data["properties"]["error"]["title"] = "EventError".into();
    named(headed("event", "Genfleet event", event), "Event")
}

/// The schema of the events of each kind, with its report and its codes.
pub fn schemas(kinds: &[KindContract]) -> impl Iterator<Item = (Kind, Value)> {
    let delivery =
        Some(KindContract::of::<Deliverer>()).filter(|_| kinds.iter().all(|one| one.kind != Kind::WebhookDeliver));
    let of_one = |contract: &KindContract| (contract.kind, schema_of(contract));
    kinds.iter().map(of_one).chain(delivery.as_ref().map(of_one)).collect::<Vec<_>>().into_iter()
}

fn schema_of(contract: &KindContract) -> Value {
    let (kind, prefix) = (contract.kind, pascal(contract.kind.as_str()));
    let common: Vec<Code> = COMMON.into_iter().filter(|code| code.code != "unknown_kind").collect();
    let mut event = event(&[contract], &common);
    let types = Outcome::ALL.map(|outcome| format!("genfleet.{kind}.{}", outcome.as_str()));
    let properties = &mut event["properties"];
    lay(&mut properties["type"], &json!({ "title": format!("{prefix}EventType"), "enum": types }));
    let data = &mut properties["data"];
    data["title"] = format!("{prefix}EventData").into();
    let properties = &mut data["properties"];
    properties["error"]["title"] = format!("{prefix}EventError").into();
    properties["error"]["properties"]["code"]["anyOf"][0]["title"] = format!("{prefix}ErrorCode").into();
    properties["error"]["properties"]["cause"]["anyOf"][0]["title"] = format!("{prefix}ErrorCode").into();
    lay(&mut properties["kind"], &json!({ "const": kind.as_str() }));
    lay(&mut properties["action"], &json!({ "enum": [contract.action, null] }));
    let told = properties["report"]["description"].take();
    properties["report"] = report(contract);
    lay(&mut properties["report"], &json!({ "description": told }));
    named(headed(&format!("{kind}:event"), &format!("{kind} event"), event), &prefix)
}

/// An event with the errors of these kinds.
fn event(kinds: &[&KindContract], common: &[Code]) -> Value {
    let mut event = written::<CloudEvent>();
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
    lay(error, &Value::Object(common_members().into_iter().chain(own).collect()));
    lay(data, &json!({ "allOf": outcomes() }));
    event
}

/// What every worker may add to `error`.
fn common_members() -> Map<String, Value> {
    let api = json!({
        "description": "What the API's body said about the error, its long members cut.",
        "type": "object",
    });
    Map::from_iter([("api".to_owned(), api)])
}

/// What the worker of one kind adds, by the names of their types.
fn error_members(contract: &KindContract) -> Map<String, Value> {
    let mut members = contract.terms.error_members.clone();
    for (name, member) in members.iter_mut().filter(|(_, member)| member["properties"].is_object()) {
        member["title"] = format!("{}{}", pascal(contract.kind.as_str()), pascal(name)).into();
    }
    members
}

/// The codes there are. One that a later version adds is no error.
fn codes(kinds: &[&KindContract], common: &[Code]) -> Value {
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
    json!({
        "if": { "properties": { "kind": { "const": contract.kind.as_str() } } },
        "then": { "properties": { "action": { "enum": [contract.action, Value::Null] }, "report": report(contract) } },
    })
}

/// The report of one kind, by the name of its type.
fn report(contract: &KindContract) -> Value {
    let mut report = contract.report.clone();
    if let Some(members) = report.as_object_mut() {
        members.shift_remove("$schema");
    }
    let prefix = pascal(contract.kind.as_str());
    report["title"] = format!("{prefix}Report").into();
    named(report, &prefix)
}
