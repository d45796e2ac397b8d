//! Checks every event that a test reads against the published contract, more strictly than a consumer may: members
//! and codes that the contract does not name are errors.

use std::{iter, sync::OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

macro_rules! published {
    ($name:literal) => {
        include_str!(concat!("../../deploy/contract/", $name, ".schema.json"))
    };
}

const PUBLISHED: &str = published!("event");
const OF_ONE_KIND: [&str; 9] = [
    published!("event.cdn.purge"),
    published!("event.stream.configure"),
    published!("event.channel.provision"),
    published!("event.vni.provision"),
    published!("event.file.scan"),
    published!("event.media.scan"),
    published!("event.webdeployment.provision"),
    published!("event.eventbridge.configure"),
    published!("event.webhook.deliver"),
];
const REMEDY: &str = "name it where the event is made (core's event/shape.rs, a worker's report or contract.rs), then \
run: cargo run -p genfleet -- schema --out deploy/contract";

/// Panics if `event` violates the contract or the schema of its kind.
pub fn assert_keeps_contract(event: &Value) {
    static CONTRACTS: OnceLock<Vec<Contract>> = OnceLock::new();
    let contracts = CONTRACTS.get_or_init(|| iter::once(PUBLISHED).chain(OF_ONE_KIND).map(Contract::of).collect());
    let kind = event["data"]["kind"].as_str().unwrap_or_default();
    let of_kind = contracts.iter().filter(|contract| contract.name == format!("urn:genfleet:schema:{kind}:event"));
    let of_kind: Vec<&Contract> = contracts.iter().take(1).chain(of_kind).collect();
    assert_eq!(of_kind.len(), if kind == "unknown" { 1 } else { 2 }, "{event:#}");
    for contract in of_kind {
        contract.assert_keeps(event);
    }
}

struct Contract {
    name: String,
    validator: Validator,
    codes: Vec<Value>,
}

impl Contract {
    fn of(published: &str) -> Self {
        let mut schema: Value = serde_json::from_str(published).expect("the contract is JSON");
        let parts = schema["$defs"].as_object().expect("the contract has parts");
        let codes = parts.iter().find(|(name, _)| name.ends_with("ErrorCode")).map(|(_, codes)| &codes["enum"]);
        let codes = codes.and_then(Value::as_array).expect("the contract lists the codes").clone();
        close(&mut schema);
        let validator = jsonschema::options().should_validate_formats(true).build(&schema);
        let name = schema["$id"].as_str().unwrap_or_default().to_owned();
        Self { name, validator: validator.expect("the contract is a schema"), codes }
    }

    fn assert_keeps(&self, event: &Value) {
        let errors = self.validator.iter_errors(event);
        let errors: Vec<String> = errors.map(|error| format!("{}: {error}", error.instance_path())).collect();
        let (name, problems) = (&self.name, errors.join("\n"));
        assert!(errors.is_empty(), "an event that violates {name}:\n{problems}\n{event:#}\n{REMEDY}");
        for member in ["code", "cause"] {
            let code = event["data"]["error"].get(member);
            assert!(code.is_none_or(|code| self.codes.contains(code)), "{name} lists no {member} {code:?}; {REMEDY}");
        }
    }
}

/// Forbids members that a schema does not name. Schemas without a type only extend others and stay open.
fn close(schema: &mut Value) {
    if schema["type"] == "object" && schema.get("properties").is_some() {
        schema["unevaluatedProperties"] = json!(false);
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(close),
        Value::Array(entries) => entries.iter_mut().for_each(close),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
