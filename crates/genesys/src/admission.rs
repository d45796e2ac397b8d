//! The types of admission: the requests to [`crate::admission_control`], its decisions, and the outcomes that it
//! records.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::limits::{LimitScope, RateLimitHeaders};
use genfleet_job::{JobId, Kind};

/// The decision whether workers of a kind may start jobs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Jobs may start.
    Open,
    /// Jobs may not start.
    Closed {
        /// The reason.
        reason: ClosedReason,
        /// The time at which they may be sent again, if it is known.
        reopens: Option<Instant>,
        /// The time at which one job may start as a probe.
        probe: Option<Instant>,
    },
}

/// The reason why no job starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedReason {
    /// The API asked for a long pause.
    Throttled,
    /// A service of the platform asked for a pause by a limit of its own. It holds an endpoint for one kind and closes
    /// no intake.
    ServiceLimit,
    /// The API does not answer.
    ApiUnavailable,
    /// The credentials are refused.
    Credentials,
    /// The kind's permissions are missing.
    Forbidden,
    /// The audit cannot be written.
    Audit,
    /// A worker holds its own kind, for the reason of this name.
    Worker(&'static str),
}

impl ClosedReason {
    /// All reasons except those of workers.
    pub(crate) const ALL: [Self; 6] =
        [Self::Throttled, Self::ServiceLimit, Self::ApiUnavailable, Self::Credentials, Self::Forbidden, Self::Audit];

    /// Returns the metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::ServiceLimit => "service_limit",
            Self::ApiUnavailable => "api_unavailable",
            Self::Credentials => "credentials",
            Self::Forbidden => "forbidden",
            Self::Audit => "audit",
            Self::Worker(reason) => reason,
        }
    }
}

impl fmt::Display for ClosedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Grace after a probe is due. If no job has taken it by then, no job waits: those that were held came back within
/// [`HELD_SPREAD`](genfleet_job::error::HELD_SPREAD) of the probe's time. Until a job takes it, nothing is held.
pub(crate) const PROBE_GRACE: Duration = Duration::from_secs(10);

/// A reason that holds requests, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveHold {
    /// The reason.
    pub reason: ClosedReason,
    /// The reason in a sentence.
    pub why: String,
    /// The one kind that it concerns; `None` if it concerns all.
    pub kind: Option<Kind>,
    /// The remaining time, if it is known.
    pub for_another: Option<Duration>,
}

/// The reason why a caller does not wait in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionRefusal {
    Credentials(String),
    Held(ClosedReason, Instant),
}

/// The jobs that a request is to be sent for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requester<'a> {
    pub kind: Kind,
    pub jobs: &'a [JobId],
}

/// The place of a caller in the queue for budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueuePosition {
    First,
    Outside,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct SentRequest<'a> {
    pub requester: Requester<'a>,
    /// Its path's template.
    pub endpoint: &'static str,
    pub at: Instant,
}

/// The end of a request that was sent.
#[derive(Clone, Debug)]
pub(crate) enum RequestOutcome {
    Answered {
        status: u16,
        rate_limits: RateLimitHeaders,
        signal: ApiSignal,
    },
    /// No connection: the API never saw it.
    NeverSent,
    Lost,
    Dropped,
}

/// The API's condition, according to one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiSignal {
    Fine,
    Failing,
    /// It asks for a pause, of this length if it names one, by a limit of this scope.
    Later(Option<Duration>, LimitScope),
}

#[derive(Clone, Debug)]
pub(crate) struct AdmissionGauges {
    /// Every reason, and whether it holds anything.
    pub holds: Vec<(ClosedReason, bool)>,
    /// The length of all pauses.
    pub time_paused: Duration,
    /// Requests that may be sent now, by the token's limit and the client's.
    pub budget_left: u32,
}
