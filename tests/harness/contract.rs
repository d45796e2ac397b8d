//! Holds every event that a test reads to the published contract, and more strictly than a consumer may: nothing that
//! the contract does not name, no code that it does not list.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

const PUBLISHED: &str = include_str!("../../deploy/contract/event.schema.json");
const REMEDY: &str = "name it where the event is made (core's event/shape.rs, a worker's report or contract.rs), then \
run: cargo run -p genfleet -- schema --out deploy/contract";

/// Panics where `event` is not one of the contract's.
pub fn assert_keeps_contract(event: &Value) {
    static CONTRACT: OnceLock<(Validator, Vec<Value>)> = OnceLock::new();
    let (validator, codes) = CONTRACT.get_or_init(|| {
        let mut schema: Value = serde_json::from_str(PUBLISHED).expect("the contract is JSON");
        let codes = schema["$defs"]["ErrorCode"]["enum"].as_array().expect("the contract lists the codes").clone();
        close(&mut schema);
        let validator = jsonschema::options().should_validate_formats(true).build(&schema);
        (validator.expect("the contract is a schema"), codes)
    });
    let errors: Vec<String> =
        validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "an event that is not as published:\n{}\n{event:#}\n{REMEDY}", errors.join("\n"));
    for member in ["code", "cause"] {
        let code = event["data"]["error"].get(member);
        assert!(code.is_none_or(|code| codes.contains(code)), "the contract lists no {member} {code:?}; {REMEDY}");
    }
}

/// Lets no object have members that its schema does not name. What only adds to a schema says no type, and stays open.
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
