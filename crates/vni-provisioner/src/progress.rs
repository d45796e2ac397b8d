//! The state of a begun job, and its report.

use genfleet_core::{error::JobError, failure::Failure, handler::JobContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::READ_LAG;

/// What a begun job remembers. Changes only by optional fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// Before there is an interface: what is known of the order for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The interface, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_id: Option<String>,
    /// True if this job's own POST made it.
    pub created: bool,
    /// When, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at_ms: Option<i64>,
    /// How often its routing table was looked at.
    pub routing_polls: u32,
    /// Why the interface is being removed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undoing: Option<Failure>,
}

/// What is known of a job's order for its interface, which a look showed to be neither there nor impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// It is sent by whoever works this message first: once the message came back unsettled it may have been.
    Next,
    /// It was sent, and nobody knows what became of it.
    Sent,
}

/// What a successful job reports.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VniReport {
    /// The API's id of the interface.
    pub interface_id: String,
    /// True if it was there before this job.
    pub adopted: bool,
    /// How often its routing table was looked at.
    pub routing_polls: u32,
    /// 1 once the routing table has converged.
    pub uptime_rate: f64,
    /// From the job's first start.
    pub provision_ms: i64,
}

impl State {
    /// Of a job whose interface was there, whoever made it: it stays, whatever becomes of the job.
    pub(crate) fn adopted(interface_id: String) -> Self {
        Self { interface_id: Some(interface_id), ..Self::default() }
    }

    /// Of a job whose own POST made its interface.
    pub(crate) fn created(job: &JobContext, interface_id: String) -> Self {
        let created_at_ms = Some(job.now().as_millisecond());
        Self { interface_id: Some(interface_id), created: true, created_at_ms, ..Self::default() }
    }

    /// Of a job that has no interface yet.
    pub(crate) fn ordering(order: Option<Order>) -> Self {
        Self { order, ..Self::default() }
    }

    /// Returns true if an identical interface that is there was made by this job's own POST.
    ///
    /// [`Order`] is written down right after a look that showed none, one job of an organisation is worked at a time in
    /// the whole fleet, and it is forgotten by every attempt that ends unsent. What cannot be distinguished is an
    /// identical interface (same name, addresses and table) that somebody outside the fleet makes between that look and
    /// the death of the process which was about to make it: it counts as this job's.
    pub(crate) fn may_have_ordered(&self, job: &JobContext) -> bool {
        match self.order {
            None => false,
            Some(Order::Next) => job.was_redelivered(),
            Some(Order::Sent) => true,
        }
    }

    /// The report of a success.
    pub(crate) fn report(&self, job: &JobContext) -> VniReport {
        VniReport {
            interface_id: self.interface_id.clone().unwrap_or_default(),
            adopted: !self.created,
            routing_polls: self.routing_polls,
            uptime_rate: 1.0,
            provision_ms: (job.now().as_millisecond() - job.started_at().as_millisecond()).max(0),
        }
    }

    /// Returns true if what this job created may not show yet in what is read.
    pub(crate) fn may_lag(&self, job: &JobContext) -> bool {
        let age = self.created_at_ms.map(|at| job.now().as_millisecond().saturating_sub(at));
        age.and_then(|age| u128::try_from(age).ok()).is_some_and(|age| age < READ_LAG.as_millis())
    }

    /// The report beside an error while the interface is there.
    pub(crate) fn error_details(&self, rolled_back: bool) -> Map<String, Value> {
        let interface_id = self.interface_id.clone().unwrap_or_default();
        let members = [("interfaceId", Value::from(interface_id)), ("rolledBack", rolled_back.into())];
        members.map(|(member, value)| (member.to_owned(), value)).into_iter().collect()
    }

    /// `error`, with this state to go on from.
    pub(crate) fn kept_in(&self, error: JobError) -> JobError {
        match serde_json::to_value(self) {
            Ok(state) => error.with_state(state),
            Err(_) => error,
        }
    }
}

/// The codes with which routing can fail.
pub(crate) const CODES: [&str; 9] = [
    "routing_not_converged",
    "rejected",
    "forbidden",
    "not_found",
    "conflict",
    "unexpected_response",
    "api_unavailable",
    "api_timeout",
    "throttled",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_of_another_version_is_read_as_far_as_it_goes() {
        let state: State = serde_json::from_value(json!({"interfaceId": "a", "colour": 1})).unwrap();
        assert_eq!(state, State { interface_id: Some("a".into()), ..State::default() });
    }
}
