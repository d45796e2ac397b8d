//! The state of a started job, and its report.

use genfleet_core::{failure::Failure, handler::JobContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::api::READ_LAG;

/// The state of a started job. Later versions only add optional fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VniState {
    /// The state of the order, before the interface is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Order>,
    /// The interface, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_id: Option<String>,
    /// True if this job's own POST made it.
    pub created: bool,
    /// The time, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at_ms: Option<i64>,
    /// Number of checks of its routing table.
    pub routing_polls: u32,
    /// The reason why the interface is being removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undoing: Option<Failure>,
}

/// The state of a job's order, while it is unknown whether it created the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    /// The first delivery of this message sends the request. If the message is redelivered, it may have been sent.
    Next,
    /// The request was sent, with an unknown result.
    Sent,
}

/// The report of a successful job.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VniReport {
    /// The API's id of the interface.
    pub interface_id: String,
    /// True if it was there before this job.
    pub adopted: bool,
    /// Number of checks of its routing table.
    pub routing_polls: u32,
    /// 1 after the routing table has converged.
    pub uptime_rate: f64,
    /// Milliseconds since the job's first start.
    pub provision_ms: i64,
}

impl VniState {
    /// Creates the state of a job whose interface already existed. The interface stays, even if the job fails.
    pub(crate) fn adopted(interface_id: String) -> Self {
        Self { interface_id: Some(interface_id), ..Self::default() }
    }

    /// Creates the state of a job whose own POST created its interface.
    pub(crate) fn created(job: &JobContext, interface_id: String) -> Self {
        let created_at_ms = Some(job.now().as_millisecond());
        Self { interface_id: Some(interface_id), created: true, created_at_ms, ..Self::default() }
    }

    /// Creates the state of a job that has no interface yet.
    pub(crate) fn ordering(order: Option<Order>) -> Self {
        Self { order, ..Self::default() }
    }

    /// Returns true if an existing identical interface was created by this job's own POST.
    ///
    /// [`Order`] is recorded right after a check that found none, only one job of an organisation is worked at a time
    /// in the whole fleet, and every attempt that ends without sending removes the record. One case cannot be
    /// distinguished: somebody outside the fleet creates an identical interface (same name, addresses and table)
    /// between that check and a crash of the process before its request. It counts as this job's.
    pub(crate) fn may_have_ordered(&self, job: &JobContext) -> bool {
        match self.order {
            None => false,
            Some(Order::Next) => job.was_redelivered(),
            Some(Order::Sent) => true,
        }
    }

    /// Creates the report of a successful job.
    pub(crate) fn report(&self, job: &JobContext) -> VniReport {
        VniReport {
            interface_id: self.interface_id.clone().unwrap_or_default(),
            adopted: !self.created,
            routing_polls: self.routing_polls,
            uptime_rate: 1.0,
            provision_ms: (job.now().as_millisecond() - job.started_at.as_millisecond()).max(0),
        }
    }

    /// Returns true if reads may not show this job's interface yet.
    pub(crate) fn may_lag(&self, job: &JobContext) -> bool {
        let age = self.created_at_ms.map(|at| job.now().as_millisecond().saturating_sub(at));
        age.and_then(|age| u128::try_from(age).ok()).is_some_and(|age| age < READ_LAG.as_millis())
    }

    /// Creates the report for an error while the interface exists.
    pub(crate) fn error_details(&self, rolled_back: bool) -> Map<String, Value> {
        let interface_id = self.interface_id.clone().unwrap_or_default();
        let members = [("interfaceId", Value::from(interface_id)), ("rolledBack", rolled_back.into())];
        members.map(|(member, value)| (member.to_owned(), value)).into_iter().collect()
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
        let state: VniState = serde_json::from_value(json!({"interfaceId": "a", "colour": 1})).unwrap();
        assert_eq!(state, VniState { interface_id: Some("a".into()), ..VniState::default() });
    }
}
