//! The published schema of a job: the one that the worker validates with, merged with the worker's own rules.

use serde_json::{Value, json};

use super::{
    KindContract, merge,
    named::{name_parts, pascal},
    pattern::TIME,
    with_head,
};
use crate::terms::UnstatedRule;

/// Rules of the envelope that no schema can state.
pub const ENVELOPE_UNSTATED: [UnstatedRule; 2] = [
    UnstatedRule { at: "/deadline", rule: "deadline does not lie before notBefore.", message: "before notBefore" },
    UnstatedRule {
        at: "/webhook/url",
        rule: "webhook: its url is an https URL without credentials (http where the workers allow its host); workers that \
            have no secret to sign with refuse any.",
        // There are several messages.
        message: "",
    },
];

/// The rules for the bytes, before they are parsed.
const BYTES: &str = "UTF-8, at most 1 MiB; at most 100,000 values, arrays and objects nested at most 64 deep; no member twice in \
    an object, no number that 64 bits do not hold.";

/// The schema of a job of one kind.
pub(super) fn schema(contract: &KindContract) -> Value {
    let kind = contract.kind;
    let mut job = contract.job.clone();
    merge(&mut job, &json!({ "properties": { "payload": contract.terms.rules } }));
    for time in ["notBefore", "deadline"] {
        merge(&mut job["properties"][time], &json!({ "pattern": TIME }));
    }
    merge(&mut job, &json!({ "description": description(contract), "examples": contract.terms.examples }));
    job["properties"]["webhook"]["title"] = "JobWebhook".into();
    name_parts(with_head(&format!("{kind}:job"), &format!("{kind} job"), job), &pascal(kind.as_str()))
}

fn description(contract: &KindContract) -> String {
    let kind = contract.kind;
    let mut text = format!("The body of a message on exchange genfleet.jobs with routing key {kind}. {BYTES}");
    text.push_str(" Not stated by this schema, but checked:");
    for unstated in ENVELOPE_UNSTATED.iter().chain(&contract.terms.unstated) {
        text.push_str("\n- ");
        text.push_str(unstated.rule);
    }
    text
}
