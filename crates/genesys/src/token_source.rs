//! The source of tokens: one request to the token endpoint at a time, shared by all callers that wait, and continued
//! when they are dropped. [`crate::token`] parses the answers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::counter;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use secrecy::ExposeSecret;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, warn};
use url::{Url, form_urlencoded};

use crate::{
    answer_body::{error_details, error_sentence},
    classify::{self, RetryAfterHeader, StatusClass},
    credentials::{CredentialSource, Credentials},
    error::ApiError,
    http_transport::{HttpRequest, HttpResponse, HttpTransport, TransportError, TransportFailure},
    limits,
    options::ClientAuth,
    permit::SharedAdmission,
    redact::Redactor,
    request::{RepeatSafety, RetryMode},
    request_telemetry::{self, RequestSpan},
    retries::CallRetries,
    token::{self, Token, TokenResponse},
};
use genfleet_job::{clock::SharedClock, error::ErrorClass, metric, options::ConfigError};

/// Everything that is needed to request a token.
pub(crate) struct TokenSource {
    pub(crate) transport: HttpTransport,
    pub(crate) clock: SharedClock,
    pub(crate) admission: Arc<SharedAdmission>,
    pub(crate) url: Url,
    pub(crate) auth: ClientAuth,
    /// The scopes of all kinds, each once.
    pub(crate) scope: String,
    pub(crate) credentials: CurrentCredentials,
    pub(crate) refresh: Mutex<Option<RefreshResult>>,
    /// The redactor of the secrets last used, with the number of their token.
    pub(crate) redactor: Mutex<Option<(u64, Arc<Redactor>)>>,
}

/// The credentials as they were read last, and where they can be read again.
pub(crate) struct CurrentCredentials {
    source: CredentialSource,
    current: Mutex<Credentials>,
}

/// The channel that sends the result of a refresh to the callers that wait.
pub(crate) type RefreshResult = watch::Receiver<Option<Result<(), TokenEndpointAway>>>;

/// The number of requests to the token endpoint without a conclusive answer.
#[derive(Clone, Debug)]
pub(crate) struct TokenEndpointAway {
    pub(crate) requests: u32,
    pub(crate) error: ApiError,
}

impl CurrentCredentials {
    pub(crate) fn new(source: CredentialSource) -> Result<Self, ConfigError> {
        let current = Mutex::new(source.read()?);
        Ok(Self { source, current })
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Credentials> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the credentials from their source, without using them.
    pub(crate) fn read(&self) -> Result<Credentials, ConfigError> {
        self.source.read()
    }
}

impl TokenSource {
    /// Starts a refresh, unless one is running. The result says only whether the caller should look again: an error
    /// means that the token endpoint does not answer.
    pub(crate) fn refresh(self: &Arc<Self>) -> RefreshResult {
        let mut running = self.running();
        // A refresh that panicked has dropped its sender.
        if let Some(result) = running.as_ref().filter(|result| result.has_changed().is_ok()) {
            return result.clone();
        }
        let (tell, receiver) = watch::channel(None);
        *running = Some(receiver.clone());
        let source = Arc::clone(self);
        tokio::spawn(async move {
            let result = source.refresh_with_retries().await;
            // Callers that fail with this one request another.
            *source.running() = None;
            tell.send_replace(Some(result));
        });
        receiver
    }

    /// Reads the credentials again and requests one token.
    pub(crate) fn retry_credentials(self: &Arc<Self>) {
        match self.credentials.read() {
            Ok(read) => {
                *self.credentials.get() = read;
                // After the credentials: what is made of them from now on is made of the new ones.
                *self.last_redactor() = None;
                drop(self.refresh());
            }
            Err(error) => {
                warn!(%error, "the credentials cannot be read");
                self.admission.control().hold_for_credentials(&error.to_string(), Instant::now());
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<RefreshResult>> {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks with the short retries of any call; a probe asks once.
    async fn refresh_with_retries(&self) -> Result<(), TokenEndpointAway> {
        let mut retries = CallRetries::new(RetryMode::Short);
        loop {
            retries.note_sent();
            let Err(error) = self.refresh_once().await else { return Ok(()) };
            let wait = retries.next_wait(&error).filter(|_| !self.admission.control().is_probing());
            let Some(wait) = wait else { return Err(TokenEndpointAway { requests: retries.requests, error }) };
            sleep(wait).await;
        }
    }

    async fn refresh_once(&self) -> Result<(), ApiError> {
        let sent = Instant::now();
        let (exchange, response, _) = self.request_token().await;
        let (now, mut control) = (Instant::now(), self.admission.control());
        let (label, result) = match response {
            TokenResponse::Granted(grant) => {
                control.store_token(grant, now);
                ("ok", Ok(()))
            }
            TokenResponse::Throttled => {
                let wait = exchange.ok().and_then(|response| self.wait(&response));
                control.pause(sent, now, wait);
                ("throttled", Ok(()))
            }
            TokenResponse::Refused(why) | TokenResponse::RefusedWithScope(why) => {
                control.hold_for_credentials(&why, now);
                ("rejected", Ok(()))
            }
            TokenResponse::Away => {
                let status = |response: &HttpResponse| response.status.to_string();
                let cause = exchange.as_ref().map_or_else(|error| error.cause.clone(), status);
                control.note_failure(&format!("token endpoint: {cause}"), now);
                control.tokens.note_failure(now);
                ("error", Err(self.away(&exchange)))
            }
        };
        counter!(metric::TOKEN_REFRESHES, "result" => label).increment(1);
        debug!(result = label, "asked for a token");
        result
    }

    /// Asks with the scopes of all kinds, if they have any, and where these may be why it is refused once more without.
    /// The flag says whether the scopes were accepted.
    pub(crate) async fn request_token(&self) -> (Result<HttpResponse, TransportError>, TokenResponse, bool) {
        let scope = Some(self.scope.as_str()).filter(|scope| !scope.is_empty());
        let (exchange, response) = self.exchange(scope).await;
        match response {
            TokenResponse::RefusedWithScope(why) if scope.is_some() => {
                debug!(why, "the token endpoint refuses the request with our scopes: asking without");
                let (exchange, response) = self.exchange(None).await;
                (exchange, response, false)
            }
            response => (exchange, response, scope.is_some()),
        }
    }

    async fn exchange(&self, scope: Option<&str>) -> (Result<HttpResponse, TransportError>, TokenResponse) {
        let request = self.token_request(scope);
        let HttpRequest { method, url, .. } = &request;
        let mut span = RequestSpan { method, endpoint: url.path(), url }.begin_unattended();
        let exchange = match self.transport.exchange(request).await {
            // The token is not to be redacted.
            Ok(response) if classify::status_class(response.status) == StatusClass::Success => Ok(response),
            exchange => self.credentials_redactor().exchange(exchange),
        };
        request_telemetry::end_span(&mut span, &exchange);
        let response = match &exchange {
            Ok(response) => {
                token::read_response(response.status, RetryAfterHeader::of(&response.headers), &response.body)
            }
            Err(error) if error.failure == TransportFailure::TooLong => {
                TokenResponse::Refused(format!("{}: is this the token endpoint?", error.message))
            }
            Err(_) => TokenResponse::Away,
        };
        (exchange, response)
    }

    fn token_request(&self, scope: Option<&str>) -> HttpRequest {
        let credentials = self.credentials.get().clone();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        let basic = match self.auth {
            ClientAuth::Basic => Some((credentials.id, credentials.secret)),
            ClientAuth::Form => {
                form.append_pair("client_id", credentials.id.expose_secret());
                form.append_pair("client_secret", credentials.secret.expose_secret());
                None
            }
        };
        let is_form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, is_form)]);
        HttpRequest { method: Method::POST, url: self.url.clone(), headers, body: Some(form.finish().into()), basic }
    }

    /// Returns the redactor of what answers to requests with `token` may quote: the token and the credentials.
    pub(crate) fn redactor(&self, token: &Token) -> Arc<Redactor> {
        let mut last = self.last_redactor();
        if let Some((number, redactor)) = last.as_ref()
            && *number == token.number
        {
            return Arc::clone(redactor);
        }
        let redactor = Arc::new(self.credentials_redactor().bearer(&token.bearer));
        *last = Some((token.number, Arc::clone(&redactor)));
        redactor
    }

    fn last_redactor(&self) -> MutexGuard<'_, Option<(u64, Arc<Redactor>)>> {
        self.redactor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credentials_redactor(&self) -> Redactor {
        let credentials = self.credentials.get();
        Redactor::default().basic(credentials.id.expose_secret(), credentials.secret.expose_secret())
    }

    pub(crate) fn wait(&self, response: &HttpResponse) -> Option<Duration> {
        let wait = limits::wait(&response.headers, &error_details(&response.body), self.clock.now());
        limits::warn_of_long_pause(self.url.path(), wait);
        wait
    }

    fn away(&self, exchange: &Result<HttpResponse, TransportError>) -> ApiError {
        match exchange {
            Ok(response) => {
                let details = error_details(&response.body);
                let sentence = error_sentence(&details);
                let message = format!("the token endpoint answered {}: {sentence}", response.status);
                let retry_after = limits::retry_after(&response.headers, self.clock.now()).unwrap_or_default();
                let error = ApiError::new(ErrorClass::Transient, "api_unavailable", message);
                ApiError { retry_after, ..error.with_answer(response.status, &response.headers, details) }
            }
            Err(error) => {
                // Nothing was sent for the caller yet.
                let (_, code) = classify::classify_failure(error.failure, RepeatSafety::Safe);
                let message = format!("no answer from the token endpoint: {}", error.message);
                ApiError::new(ErrorClass::Transient, code, message)
            }
        }
    }
}
