//! A request that Genfleet sent for a job, for the minimal worker to send it as well.

use serde::{Deserialize, Serialize};

/// A request.
#[derive(Clone, Serialize, Deserialize)]
pub struct Recorded {
    pub method: String,
    /// With the query.
    pub path: String,
    /// The header `if-match`.
    pub if_match: Option<String>,
    pub body: String,
    /// Time since the request before it, if the job waited for it; else 0.
    pub after_ms: u64,
}
