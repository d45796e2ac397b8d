//! The payload of a job. The schema is generated from these types; the rules that no schema can state are in `rules`,
//! and those of AWS in [`render`](super::render).
//!
//! A member that is missing or invalid by the schema is parsed as its default, so that all other violations are found,
//! too. Such a job is never worked.

use genfleet_core::job::whole_number;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::payload::{
    AttributeMapping, Condition, OnConflict, Transformation,
    directive::{Directive, directives},
};

mod rules;
#[cfg(test)]
mod tests;

/// An Amazon `EventBridge` integration to create or to update.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub struct Payload {
    /// Name of the integration. Default: `genfleet-` and the suffix.
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,
    /// The AWS account that receives the events: 12 digits.
    #[schemars(regex(pattern = r"^[0-9]{12}$"), extend("x-rule" = "must be the 12 digits of an AWS account, e.g. 123456789012"))]
    pub aws_account_id: String,
    /// The name of an AWS region, e.g. `us-east-1`.
    #[schemars(regex(
        pattern = r"^([a-z]{2}|eusc)(-[a-z]{2,4})?-(north|south|east|west|central|northeast|northwest|southeast|southwest)-[1-9][0-9]?$"
    ), extend("x-rule" = "must be the name of an AWS region, e.g. us-east-1"))]
    pub aws_account_region: String,
    /// Last part of the event source's name in AWS.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"), extend("x-rule" = "must be 1 to 64 characters of A-Z, a-z, 0-9 and . _ -, e.g. crm-events"))]
    pub event_source_suffix: String,
    /// The topics whose events are sent, e.g. `v2.detail.events.conversation.{id}.user.end`.
    #[schemars(length(min = 1, max = 10_000))]
    pub topics: Vec<String>,
    /// Records for administrators. Without them, existing notes are kept.
    pub notes: Option<String>,
    /// True to activate the integration, false to deactivate it. Default true.
    pub enabled: Option<bool>,
    /// Action if somebody else changes the integration, or has changed it since `version`.
    #[serde(default)]
    pub(crate) on_conflict: OnConflict,
    /// The last known version of the configuration. With `onConflict` `fail`, no other version is replaced.
    #[serde(default, deserialize_with = "whole_number")]
    #[schemars(range(min = 0))]
    pub version: Option<i64>,
    /// Rules for AWS, which are written into the report and not sent to Genesys Cloud.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(crate) rules: Vec<Rule>,
    /// The `eventBody` of a sample event, to which the rules' transformations and mappings are applied before anything
    /// is sent.
    pub sample_event: Option<Value>,
}

/// A rule of an event bus: the events that it selects, and how it transforms them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(!default)]
pub(crate) struct Rule {
    /// Names the rule.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"), extend("x-rule" = "must be 1 to 64 characters of A-Z, a-z, 0-9 and . _ -, e.g. long-calls"))]
    pub name: String,
    /// The topics whose events it selects. Default: those of the job.
    #[schemars(length(min = 1, max = 10_000))]
    pub topics: Option<Vec<String>>,
    /// Conditions for events. Fields begin at `eventBody`.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(crate) conditions: Vec<Condition>,
    /// Transformations of event fields. Fields begin at `eventBody`.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(crate) transformations: Vec<Transformation>,
    /// Attributes to copy, with their new names. They begin at `eventBody`.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub(crate) attribute_mappings: Vec<AttributeMapping>,
}

impl Payload {
    /// The integration's name.
    pub(crate) fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("genfleet-{}", self.event_source_suffix))
    }

    /// Returns true if the integration has to be active.
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true)
    }

    /// Returns the topics in their order, each once.
    pub(crate) fn topics(&self) -> Vec<&str> {
        unique(&self.topics)
    }

    /// Returns the rules, each with its place.
    pub(crate) fn placed_rules(&self) -> impl Iterator<Item = (String, &Rule)> {
        self.rules.iter().enumerate().map(|(index, rule)| (format!("/payload/rules/{index}"), rule))
    }
}

impl Rule {
    /// Returns the topics whose events it selects, given those of its job.
    pub(crate) fn topics<'a>(&'a self, of_job: &'a [String]) -> Vec<&'a str> {
        unique(self.topics.as_deref().unwrap_or(of_job))
    }

    /// Returns the directives of the rule at `place`.
    pub(crate) fn directives(&self, place: &str) -> impl Iterator<Item = Directive<'_>> {
        directives(place, &self.transformations, &self.attribute_mappings)
    }
}

fn unique(topics: &[String]) -> Vec<&str> {
    let mut seen = std::collections::HashSet::new();
    topics.iter().map(String::as_str).filter(|topic| seen.insert(*topic)).collect()
}
