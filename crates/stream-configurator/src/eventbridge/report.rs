//! The report of a successful job.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{
    payload::Payload,
    render::{AwsRule, event_source},
    steps::Reached,
};
use crate::projection::Projection;

const PENDING: &str = "the event source stays pending in AWS until an event bus is made for it (aws events \
    create-event-bus), and AWS deletes it after two weeks without one";

/// The report of a configured integration.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventbridgeReport {
    /// The integration's id.
    pub integration_id: String,
    /// Its name.
    pub name: String,
    /// True if this job created it.
    pub created: bool,
    /// True if the integration was already as requested, so that nothing was changed.
    pub unchanged: bool,
    /// The version of its configuration.
    pub config_version: i64,
    /// Number of changes by others before the configuration was stored.
    pub conflicts_resolved: u32,
    /// The code of its state: `ACTIVE`, or `INACTIVE` if `enabled` is false.
    pub reported_state: String,
    /// The id of the organisation.
    pub organization_id: String,
    /// The name of the partner event source in AWS, and of its event bus.
    pub event_source: String,
    /// The topics whose events are sent.
    pub topics: Vec<String>,
    /// SHA-256 over the canonical JSON of the configuration's properties, including those that this job did not change.
    pub properties_sha256: String,
    /// Objects to create in AWS.
    pub(crate) aws: Aws,
    /// Share of transformations and mappings that resolved with the sample event; null without one.
    pub validation_success_rate: Option<f64>,
    /// Result for the sample event, or its SHA-256: of one rule as it is, else under the names of the rules;
    /// null without a sample event.
    pub projection: Option<Value>,
    /// Warnings for the operator.
    pub warnings: Vec<String>,
}

/// The AWS side.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Aws {
    /// The rules of the event bus.
    pub(crate) rules: Vec<AwsRule>,
}

impl EventbridgeReport {
    /// Creates the report of the integration in `reached` for `payload`.
    pub(crate) fn new(payload: &Payload, reached: Reached) -> Self {
        let event_source = event_source(&reached.organization, &payload.event_source_suffix);
        let (projection, rate) = projection(payload).map(|made| (made.event, made.success_rate)).unzip();
        Self {
            integration_id: reached.id,
            name: payload.name(),
            created: reached.created,
            unchanged: reached.unchanged,
            config_version: reached.version,
            conflicts_resolved: reached.conflicts,
            reported_state: reached.reported,
            organization_id: reached.organization,
            topics: payload.topics().into_iter().map(str::to_owned).collect(),
            properties_sha256: reached.properties_sha256,
            aws: Aws { rules: payload.rules.iter().map(|rule| AwsRule::of(rule, payload, &event_source)).collect() },
            event_source,
            validation_success_rate: rate,
            projection,
            warnings: warnings(payload),
        }
    }
}

fn projection(payload: &Payload) -> Option<Projection> {
    let sample = payload.sample_event.as_ref()?;
    let is_only = payload.rules.len() == 1;
    let groups = payload.rules.iter().map(|rule| {
        let name = (!is_only).then_some(rule.name.as_str());
        (name, rule.directives(""))
    });
    Some(Projection::of_groups(sample, groups))
}

fn warnings(payload: &Payload) -> Vec<String> {
    let topics = payload.topics();
    let unsent = payload.rules.iter().flat_map(|rule| {
        let unsent = rule.topics(&payload.topics).into_iter().filter(|topic| !topics.contains(topic));
        unsent.map(|topic| {
            format!(
                "rule {} takes events of {topic}, which the integration does not send: topics does not name it",
                rule.name
            )
        })
    });
    [PENDING.to_owned()].into_iter().chain(unsent).collect()
}
