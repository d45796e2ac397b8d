//! Decides what follows from an exchange: whether the call ends or is sent again, and what further requests have to
//! wait for.

use genfleet_job::{
    JobId, Kind,
    error::{ErrorClass, HELD_SPREAD},
    trace_context::TraceContext,
};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{Call, GenesysClient, NextStep};
use crate::{
    admission::{ApiSignal, RequestOutcome},
    answer_body::error_sentence,
    classify::{self, Classification},
    error::ApiError,
    http_transport::{HttpResponse, TransportError, TransportFailure},
    limits::{self, RateLimitHeaders},
    permit::Permit,
    received_answer::ReceivedAnswer,
    request::Caller,
};

impl GenesysClient {
    /// Decides on the next step of the call, and records in admission control what the exchange says about the API.
    pub(super) fn next_step(
        &self,
        call: &mut Call<'_>,
        permit: Permit,
        exchange: Result<HttpResponse, TransportError>,
        trace: Option<TraceContext>,
    ) -> NextStep {
        let is_probe = permit.is_probe();
        let next = match exchange {
            Ok(response) => {
                let answer = ReceivedAnswer::read(call.request, response, self.shared.clock.now());
                self.next_step_after_answer(call, permit, answer, trace)
            }
            Err(error) => self.next_step_after_failure(call, permit, &error),
        };
        match next {
            NextStep::Failed(error) if is_probe => {
                NextStep::Failed(ApiError { probed_until: self.next_probe(), ..error })
            }
            next => next,
        }
    }

    fn next_step_after_answer(
        &self,
        call: &mut Call<'_>,
        permit: Permit,
        answer: ReceivedAnswer<'_>,
        trace: Option<TraceContext>,
    ) -> NextStep {
        let (status, token) = (answer.status(), permit.token.number);
        limits::warn_of_long_pause(call.request.endpoint, answer.wait);
        call.change.is_effect_unknown |= answer.leaves_effect_unknown();
        if let Some(cause) = answer.failure_cause() {
            self.shared.admission.control().note_failure(&cause, Instant::now());
        }
        let (rate_limits, signal) = (answer.rate_limits(), answer.signal.clone());
        permit.end(call.caller, RequestOutcome::Answered { status, rate_limits, signal });
        match answer.classification {
            Classification::Success => NextStep::Done(answer.into_success(trace)),
            Classification::Throttled => {
                call.retries.restart_clock();
                NextStep::SendAgain
            }
            Classification::Unauthorized => self.replace_token(call, token, answer),
            Classification::Failed(class, code) => {
                let error = answer.into_error(class, code);
                NextStep::Failed(if status == 403 { self.explain_forbidden(call, error) } else { error })
            }
        }
    }

    fn next_step_after_failure(&self, call: &mut Call<'_>, permit: Permit, error: &TransportError) -> NextStep {
        let failure = error.failure;
        call.change.is_effect_unknown |= failure != TransportFailure::NeverSent;
        if failure != TransportFailure::TooLong {
            self.shared.admission.control().note_failure(&error.cause, Instant::now());
        }
        let outcome = match failure {
            TransportFailure::NeverSent => RequestOutcome::NeverSent,
            TransportFailure::TimedOut | TransportFailure::Broken => RequestOutcome::Lost,
            // The API works, only its answer is too long.
            TransportFailure::TooLong => {
                let rate_limits = RateLimitHeaders::default();
                RequestOutcome::Answered { status: 0, rate_limits, signal: ApiSignal::Fine }
            }
        };
        permit.end(call.caller, outcome);
        let (class, code) = classify::classify_failure(failure, call.request.repeat);
        NextStep::Failed(ApiError::new(class, code, format!("{}: {}", call.request.name(), error.message)))
    }

    /// Handles a 401: the first time a new token helps; the second time the credentials are bad.
    fn replace_token(&self, call: &mut Call<'_>, token: u64, answer: ReceivedAnswer<'_>) -> NextStep {
        let mut control = self.shared.admission.control();
        control.tokens.forget(token);
        if call.retries.take_token_replacement() {
            return NextStep::SendAgain;
        }
        let why = format!("the API answered 401 to a fresh token: {}", error_sentence(&answer.details));
        control.hold_for_credentials(&why, Instant::now());
        NextStep::Failed(answer.into_error_saying(ApiError::credentials(why)))
    }

    /// Adds to a 403 the rights that the kind needs, and whether the job waits for them.
    fn explain_forbidden(&self, call: &Call<'_>, error: ApiError) -> ApiError {
        let Caller { kind, jobs, .. } = call.caller;
        let message = format!("{}; {kind} needs {}", error.message, self.shared.rights.needed_by(*kind));
        let error = ApiError { message, ..error };
        let [job] = jobs else { return error };
        match self.judge_forbidden(*kind, call.request.endpoint, job) {
            None => error,
            Some(until) => ApiError { class: ErrorClass::Held { until, spread: HELD_SPREAD }, ..error },
        }
    }

    /// Judges the 403 that `job` got on `endpoint`: returns until when the job waits, since permissions are missing for
    /// its whole kind; `None` if it fails. Must be called once for each job. [`send`](Self::send) does so for a request
    /// of a single job, so only callers that share a request among jobs call it.
    pub fn judge_forbidden(&self, kind: Kind, endpoint: &'static str, job: &JobId) -> Option<Timestamp> {
        let until = self.shared.admission.control().judge_forbidden(kind, endpoint, job, Instant::now());
        until.map(|until| self.time_of(until))
    }

    fn next_probe(&self) -> Option<Timestamp> {
        let next = self.shared.admission.control().next_probe();
        next.map(|next| self.time_of(next))
    }
}
