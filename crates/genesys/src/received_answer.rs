//! An interpreted answer of the API: its classification, and its meaning for the caller and for the state of the API.
//! [`crate::client`] acts on it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    admission::ApiSignal,
    answer::ApiAnswer,
    answer_body::{AnswerAuthor, error_details, error_sentence, request_id},
    classify::{self, Classification, RetryAfterHeader, StatusClass},
    error::ApiError,
    http_transport::HttpResponse,
    limits::{self, RateLimitHeaders},
    request::{ApiRequest, ExpectedBody},
};
use genfleet_job::{error::ErrorClass, trace_context::TraceContext};

pub(crate) struct ReceivedAnswer<'a> {
    request: &'a ApiRequest,
    response: HttpResponse,
    author: AnswerAuthor,
    pub(crate) classification: Classification,
    pub(crate) signal: ApiSignal,
    /// The error that its body describes.
    pub(crate) details: Map<String, Value>,
    /// The wait that it requests.
    pub(crate) wait: Option<Duration>,
    /// The description of how it differs from the requested object.
    mismatch: Option<String>,
}

impl<'a> ReceivedAnswer<'a> {
    pub(crate) fn read(request: &'a ApiRequest, response: HttpResponse, now: Timestamp) -> Self {
        let HttpResponse { status, headers, body } = &response;
        let is_success = classify::status_class(*status) == StatusClass::Success;
        let mismatch = if is_success { request.find_mismatch(body) } else { None };
        let author = if mismatch.is_some() { AnswerAuthor::Intermediary } else { AnswerAuthor::of(body) };
        let retry_after = RetryAfterHeader::of(headers);
        let classification = classify::classify_answer(*status, retry_after, author, request.repeat, request.expected);
        let details = if classification == Classification::Success { Map::new() } else { error_details(body) };
        let (signal, wait) = match classification {
            Classification::Throttled => {
                let wait = limits::wait(headers, &details, now);
                (ApiSignal::Later(wait, limits::scope(&details)), wait)
            }
            Classification::Failed(ErrorClass::Transient | ErrorClass::Ambiguous, _) => {
                (ApiSignal::Failing, limits::retry_after(headers, now))
            }
            Classification::Failed(..) => (ApiSignal::Fine, limits::retry_after(headers, now)),
            Classification::Success | Classification::Unauthorized => (ApiSignal::Fine, None),
        };
        Self { request, response, author, classification, signal, details, wait, mismatch }
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status
    }

    pub(crate) fn rate_limits(&self) -> RateLimitHeaders {
        RateLimitHeaders::of(&self.response.headers)
    }

    /// Returns true if the request may have had an effect that nobody knows of.
    pub(crate) fn leaves_effect_unknown(&self) -> bool {
        let is_success = classify::status_class(self.status()) == StatusClass::Success;
        self.signal == ApiSignal::Failing || is_success && self.classification != Classification::Success
    }

    /// Names the failure in a few words, if it is one of the API.
    pub(crate) fn failure_cause(&self) -> Option<String> {
        let status = self.status();
        (self.signal == ApiSignal::Failing).then(|| match self.author {
            AnswerAuthor::Intermediary => format!("{status} from a proxy or gateway"),
            AnswerAuthor::Api | AnswerAuthor::Json | AnswerAuthor::Nobody => status.to_string(),
        })
    }

    pub(crate) fn into_success(self, trace: Option<TraceContext>) -> ApiAnswer {
        let HttpResponse { status, headers, body } = self.response;
        ApiAnswer { status, request_id: request_id(&headers), headers, body, requests: 0, trace }
    }

    pub(crate) fn into_error(self, class: ErrorClass, code: &'static str) -> ApiError {
        let hint = self.mismatch.clone().unwrap_or_else(|| self.hint(class));
        let sentence = error_sentence(&self.details);
        let message = format!("{}: {} {sentence}{hint}", self.request.name(), self.status());
        let wait = self.wait.unwrap_or_default();
        ApiError { retry_after: wait, ..self.into_error_saying(ApiError::new(class, code, message)) }
    }

    pub(crate) fn into_error_saying(self, error: ApiError) -> ApiError {
        error.with_answer(self.response.status, &self.response.headers, self.details)
    }

    /// Describes where an unexpected answer may come from.
    fn hint(&self, class: ErrorClass) -> String {
        let status = self.status();
        let is_page = self.author == AnswerAuthor::Intermediary || status == 404 && self.author != AnswerAuthor::Api;
        if is_page && class != ErrorClass::Permanent {
            return "; not the API's own answer: see what is between here and it (GENESYS_BASE_URL, HTTPS_PROXY, a \
                    gateway)"
                .to_owned();
        }
        if classify::status_class(status) != StatusClass::Success {
            return String::new();
        }
        let statuses: Vec<String> = self.request.expected.statuses.iter().map(u16::to_string).collect();
        let body = match self.request.expected.body {
            ExpectedBody::Json => "JSON",
            ExpectedBody::JsonOrNothing => "JSON or nothing",
        };
        format!("; the API promises {} with {body}", statuses.join(" or "))
    }
}
