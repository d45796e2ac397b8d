//! The state of a started job, and the times of its checks while it waits. Pure.

use std::time::Duration;

use genfleet_core::{
    failure::Failure,
    retry::{NextLook, next_look},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Number of checks that wait in memory; later ones wait in the queue.
const LOOKS_IN_MEMORY: u32 = 10;

/// The state of a started job. Later versions only add optional members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebDeploymentState {
    /// True if the attempt that left this state was not interrupted, so that the state contains everything that was
    /// sent.
    pub begun: bool,
    /// True if the object of the next step may already have been created.
    pub unanswered: bool,
    /// True if the flow uses the queue; `None` before that was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_verified: Option<bool>,
    /// The warnings for the report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The deployment to update, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The configuration, if it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<ConfigurationState>,
    /// The deployment, if it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment: Option<DeploymentState>,
    /// The condition for which the job waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait: Option<Wait>,
    /// The reason why the configuration is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undoing: Option<Failure>,
}

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ConfigurationState {
    /// The API's id.
    pub id: String,
    /// The published version, if it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// True if this job created it.
    pub made: bool,
    /// Time of this job's last change, in milliseconds since 1970; 0 if there was none.
    pub changed_at_ms: i64,
}

/// A deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeploymentState {
    /// The API's id.
    pub id: String,
    /// The origin of the deployment.
    pub(crate) how: Provided,
    /// The time, in milliseconds since 1970.
    pub at_ms: i64,
}

/// The origin of a job's deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Provided {
    /// The job created it.
    #[default]
    Created,
    /// It was found with the job's marker.
    Adopted,
    /// It already existed, and the job changed it.
    Updated,
}

/// A condition for which a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum WaitedFor {
    /// The draft of a configuration is active.
    Draft,
    /// The deployment has its status.
    Status,
    /// The deployment serves the version.
    Version,
    /// Browsers get the version.
    Edge,
}

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wait {
    /// The condition.
    pub(crate) of: WaitedFor,
    /// Number of checks so far.
    pub looks: u32,
    /// The start of the wait, in milliseconds since 1970.
    pub since_ms: i64,
}

impl WebDeploymentState {
    /// Returns the wait before the next check of `of`; `None` after `timeout` from the first one. The last check is at
    /// that time.
    pub(crate) fn next_check(&mut self, of: WaitedFor, now: Timestamp, timeout: Duration) -> Option<NextLook> {
        let new = Wait { of, looks: 0, since_ms: now.as_millisecond() };
        let wait = self.wait.filter(|wait| wait.of == of).unwrap_or(new);
        self.wait = Some(Wait { looks: wait.looks + 1, ..wait });
        let left = timeout.saturating_sub(since(wait.since_ms, now));
        // Waits for browsers are in the queue from the beginning.
        let looks = if of == WaitedFor::Edge { wait.looks.saturating_add(LOOKS_IN_MEMORY) } else { wait.looks };
        (!left.is_zero()).then(|| match next_look(looks) {
            NextLook::Here(wait) => NextLook::Here(wait.min(left)),
            NextLook::InQueue(wait) => NextLook::InQueue(wait.min(left)),
        })
    }
}

/// Returns the time from `ms`, in milliseconds since 1970, to `now`.
pub(crate) fn since(ms: i64, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(now.as_millisecond().saturating_sub(ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_wait_ends_with_a_look_when_its_time_is_over() {
        let mut state = WebDeploymentState::default();
        let (here, in_queue) =
            (|s| Some(NextLook::Here(Duration::from_secs(s))), |s| Some(NextLook::InQueue(Duration::from_secs(s))));
        let timeout = Duration::from_secs(7);
        assert_eq!(state.next_check(WaitedFor::Draft, at(0), timeout), here(2));
        assert_eq!(state.next_check(WaitedFor::Draft, at(6), timeout), here(1));
        assert_eq!(state.next_check(WaitedFor::Draft, at(7), timeout), None);
        assert_eq!(
            state.next_check(WaitedFor::Edge, at(8), timeout),
            in_queue(5),
            "another wait, in the queue at once"
        );
        assert_eq!(state.next_check(WaitedFor::Edge, at(13), timeout), in_queue(2));
        assert_eq!(state.next_check(WaitedFor::Edge, at(15), timeout), None);
    }

    #[test]
    fn a_state_of_another_version_is_read_as_far_as_it_goes() {
        let state: WebDeploymentState = serde_json::from_value(json!({"target": "d", "colour": 1})).unwrap();
        assert_eq!(state, WebDeploymentState { target: Some("d".into()), ..WebDeploymentState::default() });
    }
}
