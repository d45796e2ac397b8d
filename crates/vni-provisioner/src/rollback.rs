//! The end of a job that has an interface and no routing: whether the interface goes or stays, and how that is
//! reported.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    failure::Failure,
    handler::JobContext,
};

use crate::{
    api::{self, Deleted},
    creation::pause,
    payload::Plan,
    progress::{CODES, State},
};

/// How often the removal of something that does not show yet is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// What follows from a failure after there is an interface.
#[derive(Debug)]
pub(crate) enum RollbackDecision {
    /// The job goes on later, with its interface.
    GoesOn(JobError),
    /// The job fails; its interface stays.
    Stays(JobError),
    /// The job fails, and takes its interface along: a step of its own, so that a job which began to remove an
    /// interface never ends as if it were there.
    Goes(Failure),
}

/// Judges `error`.
pub(crate) fn judge(job: &JobContext, plan: &Plan, state: &State, error: JobError) -> RollbackDecision {
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

/// Removes the interface; how the job fails then, or when it goes on with removing.
pub(crate) async fn remove(job: &JobContext, state: &State, failure: Failure) -> JobError {
    let interface_id = state.interface_id.as_deref().unwrap_or_default();
    let deleted = loop {
        match api::delete(job, interface_id).await {
            Ok(Deleted::NotThere) if state.may_lag(job) => {}
            other => break other,
        }
        if let Err(interrupted) = pause(job, TRY_EVERY).await {
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

/// `error` with what became of the interface.
fn with_outcome(mut error: JobError, state: &State, rolled_back: bool, what: &str) -> JobError {
    let interface_id = state.interface_id.clone().unwrap_or_default();
    error.message = format!("{}; interface {interface_id} {what}", error.message);
    error.details.extend(state.error_details(rolled_back));
    error
}
