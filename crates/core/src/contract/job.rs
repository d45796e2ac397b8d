//! The schema of a job as it is published: the one that the worker checks with, and the rules of the worker's own
//! code laid over it.

use serde_json::{Value, json};

use super::{
    KindContract, Unstated, headed, lay,
    named::{named, pascal},
    pattern::TIME,
};

/// Rules of the envelope that no schema can state.
pub const UNSTATED: [Unstated; 2] = [
    Unstated { at: "/deadline", rule: "deadline does not lie before notBefore.", told: "before notBefore" },
    Unstated {
        at: "/webhook/url",
        rule: "webhook: its url is an https URL without credentials (http where the workers allow its host); workers that \
            have no secret to sign with refuse any.",
        // Whatever of this is wrong.
        told: "",
    },
];

/// What holds for the bytes, before they are looked at as JSON.
const BYTES: &str = "UTF-8, at most 1 MiB; at most 100,000 values, arrays and objects nested at most 64 deep; no member twice in \
    an object, no number that 64 bits do not hold.";

/// The schema of a job of one kind.
pub fn schema(contract: &KindContract) -> Value {
    let kind = contract.kind;
    let mut job = contract.job.clone();
    lay(&mut job, &json!({ "properties": { "payload": contract.terms.rules } }));
    for time in ["notBefore", "deadline"] {
        lay(&mut job["properties"][time], &json!({ "pattern": TIME }));
    }
    lay(&mut job, &json!({ "description": description(contract), "examples": contract.terms.examples }));
    job["properties"]["webhook"]["title"] = "JobWebhook".into();
    named(headed(&format!("{kind}:job"), &format!("{kind} job"), job), &pascal(kind.as_str()))
}

fn description(contract: &KindContract) -> String {
    let kind = contract.kind;
    let mut text = format!("The body of a message on exchange genfleet.jobs with routing key {kind}. {BYTES}");
    text.push_str(" Not stated by this schema, but checked:");
    for unstated in UNSTATED.iter().chain(&contract.terms.unstated) {
        text.push_str("\n- ");
        text.push_str(unstated.rule);
    }
    text
}
