//! One attempt: the job handed to its handler, in its time. A panic is an error of the attempt, and so is not coming
//! to an end.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::sleep;
use tracing::warn;

use super::{engine::Engine, settle::Ended, suspect};
use crate::handler::{JobContext, JobHandler, Progress};
use genfleet_job::job_headers::JobHeaders;
use genfleet_job::{
    Job,
    error::{ErrorClass, JobError},
    lease::Lease,
    message::Lane,
};
use genfleet_queue::Delivery;

/// How long a handler that was asked to stop may still take: a token request and the request in flight.
const STOPPING_GRACE: Duration = Duration::from_secs(35);

impl<H: JobHandler> Engine<H> {
    pub(super) fn context(
        &self,
        job: &Job,
        carried: &JobHeaders,
        delivery: &Delivery,
        started_at: Timestamp,
    ) -> JobContext {
        let lease = delivery.settler.lease().filter(|_| H::KIND.is_exclusive());
        JobContext {
            id: job.id.clone(),
            kind: H::KIND,
            attempts: carried.attempts,
            max_attempts: job.max_attempts,
            generation: carried.generation,
            started: delivery.lane != Lane::Jobs,
            delivery_count: delivery.delivery_count,
            reads_settled_at: lease.as_ref().and_then(Lease::taken_over).map(|at| at + self.policy.takeover_wait),
            bytes: delivery.message.body.len(),
            started_at,
            trace: delivery.span.context().cloned(),
            stop: self.drain.child_token(),
            clock: self.clock.clone(),
            genesys: self.genesys.clone(),
            requests: 0.into(),
            turns: Mutex::default(),
            shared: Mutex::default(),
            lease,
            reached: Mutex::default(),
        }
    }

    /// Hands the job to the handler.
    pub(super) async fn attempt(
        &self,
        context: &JobContext,
        delivery: &Delivery,
        payload: H::Payload,
        state: H::State,
    ) -> Ended {
        let handling = AssertUnwindSafe(self.handler.handle(context, payload, state)).catch_unwind();
        let result = tokio::select! {
            result = handling => result,
            out_of_time = self.out_of_time(context, self.time_for(delivery)) => return Ended::Error(unended(context, out_of_time)),
            never = stop_when_lost(context, delivery) => match never {},
        };
        match result {
            Ok(Ok(Progress::Done(report))) => Ended::Done(serde_json::to_value(report).unwrap_or(Value::Null)),
            Ok(Ok(Progress::Begun { state, again_in })) => match serde_json::to_string(&state) {
                Ok(state) => Ended::Begun { state, again_in },
                Err(_) => {
                    Ended::Error(JobError::permanent("panicked", "the worker's state is no JSON: a defect of it"))
                }
            },
            Ok(Err(error)) => Ended::Error(error),
            Err(_) => {
                let panicked = JobError::new(ErrorClass::Transient, "panicked", "the worker panicked: a defect of it");
                Ended::Error(unended(context, panicked))
            }
        }
    }

    /// How long the attempt may last. A suspect that outlives its time alone is none, and goes on among the others.
    fn time_for(&self, delivery: &Delivery) -> Duration {
        match delivery.lane {
            Lane::Jobs | Lane::Resume => self.policy.attempt_timeout,
            Lane::Suspect => {
                let suspected = JobHeaders::read(&delivery.message.headers).suspected;
                suspect::time_alone(suspected).min(self.policy.attempt_timeout)
            }
        }
    }

    /// Asks the handler to stop when its time is over; gives it up when it does not, or when the process can wait no
    /// longer.
    async fn out_of_time(&self, context: &JobContext, time: Duration) -> JobError {
        tokio::select! {
            () = sleep(time) => context.stop.cancel(),
            () = context.stop.cancelled() => {}
        }
        tokio::select! {
            () = self.give_up.cancelled() => return JobError::interrupted(),
            () = sleep(STOPPING_GRACE) => {}
        }
        if self.drain.is_cancelled() {
            return JobError::interrupted();
        }
        warn!("the handler did not stop when its time was over: given up");
        JobError::new(ErrorClass::Transient, "api_timeout", "the attempt did not end in its time")
    }
}

/// An attempt that came to no end of its own, with what its handler said until then.
fn unended(context: &JobContext, mut error: JobError) -> JobError {
    let reached = context.reached.lock().unwrap_or_else(PoisonError::into_inner).clone();
    error.state = reached.state;
    error.details.extend(reached.details);
    error
}

/// Of a kind that one process at a time works: stops the attempt once the session is lost, and with it the lock.
async fn stop_when_lost(context: &JobContext, delivery: &Delivery) -> Infallible {
    if context.kind.is_exclusive() {
        delivery.settler.lost().await;
        context.stop.cancel();
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use clap::{Args, Command, FromArgMatches};
    use serde_json::{Map, json};

    use super::*;
    use crate::handler::Services;
    use genfleet_genesys::{CredentialSource, Credentials, GenesysClient, GenesysOptions};
    use genfleet_job::{
        JobId, Kind,
        clock::{SharedClock, SystemClock},
        supervisor::Tasks,
    };
    use genfleet_telemetry::http::install_tls;

    fn context() -> JobContext {
        install_tls();
        let matches = GenesysOptions::augment_args(Command::new("test")).get_matches_from(["test"]);
        let options = GenesysOptions::from_arg_matches(&matches).unwrap();
        let source =
            CredentialSource::Given(Credentials { id: "id".to_owned().into(), secret: "hush".to_owned().into() });
        let clock: SharedClock = Arc::new(SystemClock);
        let genesys = GenesysClient::with_credentials(&options, vec![], clock.clone(), source).unwrap();
        let services = Services { genesys, tasks: Tasks::new().0, clock };
        JobContext::first(JobId::parse("job").unwrap(), Kind::VniProvision, &services)
    }

    #[tokio::test]
    async fn an_attempt_that_comes_to_no_end_goes_on_from_what_its_handler_said_last() {
        let context = context();
        let given_up = || JobError::new(ErrorClass::Transient, "api_timeout", "no end");
        assert_eq!(unended(&context, given_up()), given_up());
        context.reached(&json!({"step": 1}), Map::new());
        let details = Map::from_iter([("interfaceId".to_owned(), json!("i"))]);
        context.reached(&json!({"step": 2}), details.clone());
        let expected = JobError { state: Some(json!({"step": 2})), details, ..given_up() };
        assert_eq!(unended(&context, given_up()), expected);
    }
}
