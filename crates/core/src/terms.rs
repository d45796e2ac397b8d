//! What a worker adds to the contract of its kind, beyond the types of its payload and report.

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;

/// The additions of one worker to its contract.
#[derive(Clone, Debug, Default)]
pub struct ContractTerms {
    /// Valid jobs, the simplest first.
    pub examples: Vec<Value>,
    /// A payload for `genfleet load`: valid, and another one for each job once `{number}`, `{run}`, `{uuid}` and
    /// `{net}` in its texts are filled in.
    pub load: Value,
    /// The worker's own rules that JSON Schema can state: merged into the payload's schema, member by member.
    pub rules: Value,
    /// The rules that it cannot.
    pub unstated: Vec<UnstatedRule>,
    /// The error codes of its jobs, beside those of every kind.
    pub codes: Vec<ErrorCode>,
    /// JSON Schemas of the members that it adds to an event's `error`, by name.
    pub error_members: Map<String, Value>,
}

/// A rule that JSON Schema cannot state: a job may break it although the schema accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnstatedRule {
    /// The place of the violation: a JSON pointer, with `*` for any entry of a list.
    pub at: &'static str,
    /// The rule, for people.
    pub rule: &'static str,
    /// A part of the violation's message.
    pub message: &'static str,
}
