//! The state of the simulator, behind one lock, and the admission of requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::http::request::Parts;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::errors::ApiError;
use crate::faults::{FaultRule, Faults, Target};
use crate::limits::{Exceeded, Limits, RateLimitStatus};
use crate::options::SimulatorOptions;
use crate::record::{self, Record, RecordedRequest};
use crate::state::Organisation;
use crate::tokens::{self, Tokens};

/// Maximum length of a body in bytes.
pub(crate) const MOST_BODY_BYTES: usize = 512_000;
const SHOWN_OF_A_TOKEN: usize = 8;

/// The state that all routes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    world: Arc<Mutex<World>>,
    /// Cancelled when the simulator stops.
    pub(crate) stopping: CancellationToken,
}

impl Shared {
    pub(crate) fn new(mut options: SimulatorOptions) -> Self {
        let faults = Faults::new(std::mem::take(&mut options.faults));
        let world = World {
            options,
            faults,
            tokens: Tokens::default(),
            limits: Limits::default(),
            record: Record::default(),
            organisation: Organisation::default(),
        };
        Self { world: Arc::new(Mutex::new(world)), stopping: CancellationToken::new() }
    }

    /// Locks the state. The lock must not be held over an `await`.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the simulator.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: SimulatorOptions,
    pub(crate) faults: Faults,
    pub(crate) tokens: Tokens,
    pub(crate) limits: Limits,
    pub(crate) record: Record,
    pub(crate) organisation: Organisation,
}

/// The host of the platform that receives a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpHost {
    /// The token endpoint.
    Token,
    /// The API.
    Api,
    /// Requests of browsers, without a token.
    Edge,
}

/// A received request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) at_us: u64,
    pub(crate) host: HttpHost,
    pub(crate) parts: &'a Parts,
    pub(crate) body: &'a [u8],
}

/// The decision about a request before its route handles it.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) number: u64,
    pub(crate) rate_limit: RateLimitStatus,
    pub(crate) latency: Duration,
    pub(crate) verdict: Result<Option<FaultRule>, ApiError>,
}

impl World {
    /// Records a request, checks its token, counts it, and finds its fault. A request that is refused
    /// does not use a fault up.
    pub(crate) fn admit(&mut self, arrival: Arrival<'_>, now: Instant) -> Admission {
        let number = self.note(arrival);
        let (rate_limit, entry) = match arrival.host {
            HttpHost::Token | HttpHost::Edge => (self.limits.rate_limit(None, &self.options, now), Ok(())),
            HttpHost::Api => self.enter_api(arrival, now),
        };
        let verdict = entry.map(|()| self.find_fault(number, arrival));
        Admission { number, rate_limit, latency: self.options.latency, verdict }
    }

    fn note(&mut self, arrival: Arrival<'_>) -> u64 {
        let Arrival { at_us, host, parts, body } = arrival;
        let token = tokens::bearer(&parts.headers);
        let client_id = match host {
            HttpHost::Token => tokens::credentials(&parts.headers, body).map(|(id, _)| id),
            HttpHost::Api | HttpHost::Edge => token.and_then(|token| self.tokens.client_of(token)).map(str::to_owned),
        };
        let request = RecordedRequest {
            number: 0,
            at_us,
            client_id,
            token: token.map(|token| token.chars().take(SHOWN_OF_A_TOKEN).collect()),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            status: None,
            effect: false,
            fault: None,
            headers: record::headers_of_interest(&parts.headers),
            body: Value::Null,
        };
        match host {
            HttpHost::Token => self.record.record_request(request, &record::without_secret(body)),
            HttpHost::Api | HttpHost::Edge => self.record.record_request(request, body),
        }
    }

    fn enter_api(&mut self, arrival: Arrival<'_>, now: Instant) -> (RateLimitStatus, Result<(), ApiError>) {
        let token = tokens::bearer(&arrival.parts.headers);
        let (token, client) = match self.tokens.check(token, now) {
            Ok(known) => known,
            Err(error) => return (self.limits.rate_limit(token, &self.options, now), Err(error)),
        };
        match self.limits.take(token, client, &self.options, now) {
            Ok(rate_limit) => (rate_limit, check_size(arrival.body)),
            Err((rate_limit, exceeded)) => (rate_limit, Err(over_the_limit(exceeded))),
        }
    }

    fn find_fault(&mut self, number: u64, arrival: Arrival<'_>) -> Option<FaultRule> {
        let target = Target {
            method: arrival.parts.method.as_str(),
            path: arrival.parts.uri.path(),
            body: arrival.body,
            is_token_endpoint: arrival.host == HttpHost::Token,
        };
        let (name, rule) = self.faults.choose(target, fastrand::f64)?;
        self.record.record_fault(number, name);
        Some(rule)
    }

    /// Resets the organisation and the record. Tokens, rate-limit windows and faults are kept.
    pub(crate) fn reset(&mut self) {
        self.organisation = Organisation::default();
        self.record.clear();
        self.limits.forget_most();
    }
}

fn check_size(body: &[u8]) -> Result<(), ApiError> {
    if body.len() > MOST_BODY_BYTES {
        return Err(ApiError::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    Ok(())
}

fn over_the_limit(exceeded: Exceeded) -> ApiError {
    let seconds = exceeded.seconds_to_wait;
    ApiError { retry_after: Some(seconds), ..ApiError::too_many_requests(seconds, exceeded.limit) }
}
