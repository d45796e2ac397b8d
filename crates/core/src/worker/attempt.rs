//! One attempt: runs the handler, with a time-out. A panic of the handler is an error of the attempt, and so is a handler
//! that does not return.

use std::{convert::Infallible, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use serde_json::Value;
use tokio::time::sleep;
use tracing::warn;

use super::{context::ProcessContext, typed::Run};
use crate::handler::{JobContext, JobHandler, Progress};
use genfleet_job::{
    error::{ErrorClass, JobError},
    job_headers::MAX_STATE_BYTES,
};
use genfleet_queue::Delivery;

/// Time that a handler may take to return after it was asked to stop: a token request and the request in flight.
const STOPPING_GRACE: Duration = Duration::from_secs(35);

/// End of an attempt, without the worker's types.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time per job, and never in a collection")]
pub(crate) enum AttemptResult {
    /// Done, with this report.
    Done(Value),
    /// The job made a step.
    Begun {
        /// State to continue from, as JSON.
        state: String,
        /// Delay until the next attempt.
        again_in: Duration,
    },
    /// Not done.
    Error(JobError),
}

impl AttemptResult {
    /// Writes what a handler returned as JSON.
    pub(crate) fn of<H: JobHandler>(returned: Result<Progress<H>, JobError>) -> Self {
        match returned {
            Ok(Progress::Done(report)) => Self::Done(serde_json::to_value(report).unwrap_or(Value::Null)),
            Ok(Progress::Begun { state, again_in }) => match serde_json::to_string(&state) {
                Ok(state) => Self::Begun { state, again_in },
                Err(_) => Self::Error(JobError::permanent(
                    "panicked",
                    "the worker's state cannot be written as JSON: a defect of the worker",
                )),
            },
            Err(error) => Self::Error(error),
        }
    }
}

/// Runs the handler for at most `time`.
pub(crate) async fn run_attempt(
    process: &ProcessContext,
    job: &JobContext,
    delivery: &Delivery,
    time: Duration,
    run: Run,
) -> AttemptResult {
    let handling = AssertUnwindSafe(run(job)).catch_unwind();
    let result = tokio::select! {
        result = handling => result,
        error = out_of_time(process, job, time) => return limit_state(AttemptResult::Error(add_record(job, error))),
        never = stop_when_lost(job, delivery) => match never {},
    };
    limit_state(result.unwrap_or_else(|_| {
        let error = JobError::new(ErrorClass::Transient, "panicked", "the worker panicked: a defect of the worker");
        AttemptResult::Error(add_record(job, error))
    }))
}

/// Asks the handler to stop when its time is over. Gives it up when it does not, or when the process can wait no longer.
async fn out_of_time(process: &ProcessContext, job: &JobContext, time: Duration) -> JobError {
    tokio::select! {
        () = sleep(time) => job.stop.cancel(),
        () = job.stop.cancelled() => {}
    }
    tokio::select! {
        () = process.give_up.cancelled() => return JobError::interrupted(),
        () = sleep(STOPPING_GRACE) => {}
    }
    if process.drain.is_cancelled() {
        return JobError::interrupted();
    }
    warn!("the handler did not stop when its time was over: given up");
    JobError::new(ErrorClass::Transient, "api_timeout", "the attempt did not end in its time")
}

/// Adds the state and the details that the handler recorded last.
fn add_record(job: &JobContext, mut error: JobError) -> JobError {
    let record = job.record();
    error.state.clone_from(&record.state);
    error.details.extend(record.details.clone());
    error
}

/// Stops the attempt at a job of an exclusive kind once the session, and with it the lock, is lost.
async fn stop_when_lost(job: &JobContext, delivery: &Delivery) -> Infallible {
    if job.kind.is_exclusive() {
        delivery.settler.wait_until_lost().await;
        job.stop.cancel();
    }
    std::future::pending().await
}

/// Replaces a result whose state is too large for a message, which is a defect of the worker, by an error.
fn limit_state(result: AttemptResult) -> AttemptResult {
    let bytes = match &result {
        AttemptResult::Begun { state, .. } => state.len(),
        AttemptResult::Error(JobError { state: Some(state), .. }) => state.to_string().len(),
        AttemptResult::Error(_) | AttemptResult::Done(_) => 0,
    };
    if bytes <= MAX_STATE_BYTES {
        return result;
    }
    let message = format!(
        "the worker's state has {bytes} bytes; at most {MAX_STATE_BYTES} travel with a job: a defect of the worker"
    );
    AttemptResult::Error(JobError::permanent("panicked", message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::{Args, Command, FromArgMatches};
    use serde_json::{Map, json};

    use super::*;
    use crate::handler::Services;
    use genfleet_genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions, Rights};
    use genfleet_job::{
        JobId, Kind,
        clock::{SharedClock, SystemClock},
        supervisor::Supervisor,
    };
    use genfleet_telemetry::http::install_tls;

    fn context() -> JobContext {
        install_tls();
        let matches = GenesysOptions::augment_args(Command::new("test")).get_matches_from(["test"]);
        let options = GenesysOptions::from_arg_matches(&matches).unwrap();
        let source =
            CredentialSource::Given(Credentials { id: "id".to_owned().into(), secret: "hush".to_owned().into() });
        let clock: SharedClock = Arc::new(SystemClock);
        let genesys =
            GenesysClient::with_credentials(&options, Vec::<(Kind, Rights)>::new(), clock.clone(), source).unwrap();
        let services = Services { genesys, supervisor: Supervisor::new().0, clock };
        JobContext::first(JobId::parse("job").unwrap(), Kind::VniProvision, &services)
    }

    #[tokio::test]
    async fn an_attempt_that_comes_to_no_end_goes_on_from_what_its_handler_said_last() {
        let context = context();
        let given_up = || JobError::new(ErrorClass::Transient, "api_timeout", "no end");
        assert_eq!(add_record(&context, given_up()), given_up());
        context.record_progress(&json!({"step": 1}), Map::new());
        let details = Map::from_iter([("interfaceId".to_owned(), json!("i"))]);
        context.record_progress(&json!({"step": 2}), details.clone());
        let expected = JobError { state: Some(json!({"step": 2})), details, ..given_up() };
        assert_eq!(add_record(&context, given_up()), expected);
    }
}
