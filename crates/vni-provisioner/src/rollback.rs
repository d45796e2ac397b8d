//! The end of a job whose routing failed: keeps or deletes the interface, and reports that.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    failure::Failure,
    handler::JobContext,
};
use tokio::time::sleep;

use crate::{
    api::{self, Deleted},
    payload::InterfacePlan,
    progress::{CODES, VniState},
};

/// Interval of trying to delete an interface that reads do not show yet.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The consequence of a failure after an interface exists.
#[derive(Debug)]
pub(crate) enum RollbackDecision {
    /// The job continues later, with its interface.
    GoesOn(JobError),
    /// The job fails, and its interface stays.
    Stays(JobError),
    /// The job fails, and its interface is deleted in a separate step, so that a job that began to delete it never
    /// reports that it exists.
    Goes(Failure),
}

/// Decides the consequence of `error`.
pub(crate) fn judge(job: &JobContext, plan: &InterfacePlan, state: &VniState, error: JobError) -> RollbackDecision {
    let ends = match error.class {
        ErrorClass::Permanent => true,
        ErrorClass::Transient | ErrorClass::Ambiguous => job.is_last_attempt(),
        ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => false,
    };
    match (ends, state.created, plan.rollback) {
        (false, ..) => RollbackDecision::GoesOn(error),
        (true, true, true) => RollbackDecision::Goes(Failure::from(&error)),
        (true, true, false) => RollbackDecision::Stays(with_outcome(error, state, false, "stays: rollback is false")),
        (true, false, _) => {
            RollbackDecision::Stays(with_outcome(error, state, false, "stays: this job did not create it"))
        }
    }
}

/// Deletes the interface. Returns the job's error, or when to try again.
pub(crate) async fn remove(job: &JobContext, state: &VniState, failure: Failure) -> JobError {
    let interface_id = state.interface_id.as_deref().unwrap_or_default();
    let deleted = loop {
        match api::delete(job, interface_id).await {
            Ok(Deleted::NotThere) if state.may_lag(job) => {}
            other => break other,
        }
        if let Err(interrupted) = job.unless_stopped(sleep(TRY_EVERY)).await {
            return interrupted;
        }
    };
    let failed = failure.into_error(&CODES);
    match deleted {
        Ok(Deleted::Removed | Deleted::NotThere) => with_outcome(failed, state, true, "was removed again"),
        Err(error) => match error.class {
            ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted => error.into(),
            ErrorClass::Permanent | ErrorClass::Transient | ErrorClass::Ambiguous => {
                with_outcome(failed, state, false, &format!("could not be removed and stays: {}", error.message))
            }
        },
    }
}

/// Adds the fate of the interface to `error`.
fn with_outcome(mut error: JobError, state: &VniState, rolled_back: bool, what: &str) -> JobError {
    let interface_id = state.interface_id.clone().unwrap_or_default();
    error.message = format!("{}; interface {interface_id} {what}", error.message);
    error.details.extend(state.error_details(rolled_back));
    error
}
