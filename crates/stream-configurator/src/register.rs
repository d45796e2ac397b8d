//! Registers a definition despite changes by others: sends it; after a conflict reads the existing one, and sends it
//! again for that version.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::ApiError,
    retry,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    api::{EventStreams, Put, StoredDefinition},
    definition::Definition,
    payload::OnConflict,
    version::Version,
};

/// The state of a started job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamState {
    /// True if a definition was sent without an answer, so that a conflict may be with this job's own request.
    pub unanswered: bool,
}

/// Maximum number of times that the definition is read and sent again.
pub(crate) const MOST_ROUNDS: u32 = 5;

/// The definition to register, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// The definition.
    pub definition: &'a Definition,
    /// The version to replace; `None` is any.
    pub etag: Option<&'a str>,
    /// The action if another version exists.
    pub(crate) on_conflict: OnConflict,
    /// True if this job may already have sent the definition, so that the other version may be its own.
    pub may_have_been_sent: bool,
    /// Cancelled when no further request may start.
    pub stop: &'a CancellationToken,
}

/// A registered definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The status of the last answer.
    pub status: u16,
    /// The version, as far as it is known.
    pub etag: Option<String>,
    /// True if it was already registered.
    pub unchanged: bool,
    /// Number of conflicts before that.
    pub conflicts_resolved: u32,
}

/// Registers the definition. An error with a next attempt contains whether the definition may have been sent.
pub(crate) async fn register(streams: &impl EventStreams, order: Order<'_>) -> Result<Registered, JobError> {
    let mut sent = order.may_have_been_sent;
    let result = attempt(streams, order, &mut sent).await;
    result.map_err(|error| {
        let remembers = sent && error.class != ErrorClass::Permanent;
        if remembers { error.with_state(&StreamState { unanswered: true }) } else { error }
    })
}

async fn attempt(streams: &impl EventStreams, order: Order<'_>, sent: &mut bool) -> Result<Registered, JobError> {
    let mut version = Version::of_job(order.etag);
    let mut waits = retry::rounds();
    let mut conflicts = 0;
    loop {
        let conflict = match send(streams, order, &version.if_match(), sent).await? {
            Put::Registered { status, etag } => {
                return Ok(Registered { status, etag, unchanged: false, conflicts_resolved: conflicts });
            }
            Put::Conflict(conflict) => conflict,
        };
        let overwrites = order.on_conflict == OnConflict::Overwrite;
        if let Some(restored) = version.original_form().filter(|_| !overwrites) {
            // It is the same version, so there is no conflict.
            version = restored;
            continue;
        }
        conflicts += 1;
        info!(source_id = order.definition.id, conflicts, "another version is there: {}", conflict.message);
        let gives_up = !overwrites || conflicts > MOST_ROUNDS;
        if gives_up && !*sent {
            return Err(conflict_error(conflict, order, &version, conflicts));
        }
        if conflicts > 1 {
            pause(waits.next().unwrap_or_default(), order.stop).await?;
        }
        match streams.get(&order.definition.id).await? {
            Some(found) if order.definition.is(&found.body) => return Ok(register_unchanged(found, conflicts)),
            _ if gives_up => return Err(conflict_error(conflict, order, &version, conflicts)),
            Some(found) => version = version.after(&found.etag.ok_or_else(no_version)?),
            None => version = version.after_missing(),
        }
    }
}

/// Sends the definition once, and records whether it may have had its effect without an answer.
async fn send(streams: &impl EventStreams, order: Order<'_>, if_match: &str, sent: &mut bool) -> Result<Put, ApiError> {
    let put = streams.put(order.definition, if_match).await;
    *sent |= match &put {
        Ok(Put::Registered { .. }) => false,
        Ok(Put::Conflict(conflict)) => conflict.requests > 1,
        Err(error) => error.requests > 0,
    };
    put
}

async fn pause(wait: Duration, stop: &CancellationToken) -> Result<(), JobError> {
    stop.run_until_cancelled(tokio::time::sleep(wait)).await.ok_or_else(JobError::interrupted)
}

fn register_unchanged(found: StoredDefinition, conflicts: u32) -> Registered {
    Registered { status: found.status, etag: found.etag, unchanged: true, conflicts_resolved: conflicts }
}

fn conflict_error(conflict: ApiError, order: Order<'_>, version: &Version, conflicts: u32) -> JobError {
    let mut error = JobError::from(conflict);
    let why = match (version.refusals(), version.absences()) {
        _ if order.on_conflict != OnConflict::Overwrite => {
            "onConflict is fail: read the definition, and send the job again with its ETag".to_owned()
        }
        (0, 0) => format!("somebody else was first {conflicts} times in a row: find out who keeps changing it"),
        (0, absent) => format!(
            "nothing was there the last {absent} times that it was looked for (404), and each time the API refused to \
             make it: find out who keeps making and removing it, or see whether a gateway rewrites If-Match"
        ),
        (refused, _) => format!(
            "nobody changed it the last {refused} times: the API refuses the version that it tells itself, {}; see whether a gateway rewrites ETag or If-Match",
            version.if_match()
        ),
    };
    error.message = format!("{}; {why}", error.message);
    error.details.insert("conflicts".to_owned(), conflicts.into());
    error
}

fn no_version() -> JobError {
    JobError::permanent(
        "unexpected_response",
        "the API returned the definition without its ETag: it cannot be replaced",
    )
}

#[cfg(test)]
mod tests;
