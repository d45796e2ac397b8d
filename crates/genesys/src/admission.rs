//! The words in which [`crate::admission`] is asked and answers: may jobs start, may a request go, what became of
//! it. Decides nothing.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use crate::{
    admission_control::SendGrant,
    limits::{RateLimitHeaders, LimitScope},
    token::Token,
};
use genfleet_job::{JobId, Kind};

/// May workers of a kind start jobs now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// They may.
    Open,
    /// They may not.
    Closed {
        /// Why.
        reason: ClosedReason,
        /// When they may again, where that is known.
        reopens: Option<Instant>,
        /// When one job may start, to try.
        probe: Option<Instant>,
    },
}

/// Why no job starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedReason {
    /// The API said "later", and much later.
    Throttled,
    /// A service of the platform said "later", by a limit of its own: an endpoint is held, for one kind. No intake closes.
    ServiceLimit,
    /// The API answers nobody.
    ApiUnavailable,
    /// Our credentials are bad.
    Credentials,
    /// The kind's permissions are missing.
    Forbidden,
    /// The audit cannot be written.
    Audit,
}

impl ClosedReason {
    /// All reasons.
    pub const ALL: [Self; 6] =
        [Self::Throttled, Self::ServiceLimit, Self::ApiUnavailable, Self::Credentials, Self::Forbidden, Self::Audit];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::ServiceLimit => "service_limit",
            Self::ApiUnavailable => "api_unavailable",
            Self::Credentials => "credentials",
            Self::Forbidden => "forbidden",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for ClosedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a caller does next to send.
#[derive(Debug)]
pub(crate) enum AdmissionStep {
    /// Sends.
    Go(SendGrant, Token),
    /// Waits for its turn: first come, first served.
    BreakerChange,
    /// Sees to it that there is a token.
    TokenSource,
    /// Waits until then, or until something changes.
    Wait(Instant),
    /// Gives up for now.
    Refused(AdmissionRefusal),
}

/// Why a caller does not wait in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionRefusal {
    /// The brake is on, for this reason.
    Credentials(String),
    /// Not before then.
    Held(ClosedReason, Instant),
}

/// Requester asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requester<'a> {
    /// The kind of job.
    pub kind: Kind,
    /// The jobs.
    pub jobs: &'a [JobId],
}

/// Whether a caller is the first in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueuePosition {
    /// It is.
    First,
    /// It is not in it yet.
    Outside,
}

/// A request that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SentRequest<'a> {
    /// For whom.
    pub who: Requester<'a>,
    /// Its path's template.
    pub endpoint: &'static str,
    /// When.
    pub at: Instant,
}

/// What became of a request that was sent.
#[derive(Clone, Debug)]
pub(crate) enum RequestOutcome {
    /// The API answered.
    Answered {
        /// With this status.
        status: u16,
        /// What it told of the budget.
        rates: RateLimitHeaders,
        /// What it said about itself.
        said: ApiSignal,
    },
    /// No connection: the API never saw it.
    NeverSent,
    /// No answer.
    Lost,
    /// Its caller went away.
    Dropped,
}

/// What an answer says about the API, apart from what it says to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiSignal {
    /// It works.
    Fine,
    /// It does not, now.
    Failing,
    /// "Later", with how long where it tells, and to whom.
    Later(Option<Duration>, LimitScope),
}

/// What is shown in `/metrics`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmissionGauges {
    /// Per reason: is anything shut for it?
    pub shut: [(ClosedReason, bool); ClosedReason::ALL.len()],
    /// How long the gate was shut altogether.
    pub time_shut: Duration,
    /// Requests that may be sent now, by the token's limit and the client's.
    pub budget_left: u32,
}

/// Something that is shut, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveHold {
    /// Why.
    pub reason: ClosedReason,
    /// In a sentence.
    pub why: String,
    /// Which kind alone, where it is one.
    pub kind: Option<Kind>,
    /// How long still, where that is known.
    pub for_another: Option<Duration>,
}
