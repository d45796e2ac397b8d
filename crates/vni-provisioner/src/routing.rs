//! The routing table: starts its synchronisation, and polls until it has converged.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    handler::JobContext,
};
use tokio::time::sleep;

use crate::api;

/// Number of checks after which a table counts as not converged.
pub(crate) const POLLS: u32 = 10;

/// Synchronises the table and waits until it has converged. Every check is added to `polls`.
pub(crate) async fn converge(
    job: &JobContext,
    table_id: &str,
    every: Duration,
    polls: &mut u32,
) -> Result<(), JobError> {
    let expected = api::sync(job, table_id).await?;
    let mut last_result = String::new();
    for poll in 0..POLLS {
        if poll > 0 {
            job.unless_stopped(sleep(every)).await?;
        }
        match check_once(job, table_id).await? {
            Ok(hash) if hash.as_deref() == Some(&expected) => {
                *polls += 1;
                return Ok(());
            }
            Ok(hash) => last_result = format!("its hash is {:?}", hash.unwrap_or_default()),
            Err(why) => last_result = why,
        }
        *polls += 1;
    }
    let details = format!(
        "routing table {table_id} did not converge to {expected:?} in {POLLS} checks {every:?} apart; at the last one {last_result}"
    );
    Err(JobError::new(ErrorClass::Transient, "routing_not_converged", details))
}

/// Checks the table once. A failed check counts, and is described in the result. An error that does not concern the job
/// does not count.
async fn check_once(job: &JobContext, table_id: &str) -> Result<Result<Option<String>, String>, JobError> {
    match api::current_hash(job, table_id).await {
        Ok(hash) => Ok(Ok(hash)),
        Err(error) => match error.class {
            ErrorClass::Transient | ErrorClass::Ambiguous | ErrorClass::Permanent => Ok(Err(error.message)),
            ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => Err(error.into()),
        },
    }
}
