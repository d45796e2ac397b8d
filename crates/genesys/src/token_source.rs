//! Asks for tokens: one request at a time, shared by all who wait for it, and running on when they go away. What the
//! answers mean is read by [`crate::token`].

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use metrics::counter;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, warn};
use url::form_urlencoded;

use crate::{
    classify::{self, TransportFailure, RetryAfterHeader, StatusClass},
    client::{GenesysClient, Scopes},
    error::{self, ApiError},
    fleet_key::FleetKey,
    limits,
    options::ClientAuth,
    redact::Redactor,
    request::{self, RepeatSafety},
    send::{CallRetries, warn_of_long},
    token::{self, TokenResponse},
    traced,
    http_transport::{TransportError, HttpRequest, HttpResponse},
};
use genfleet_job::{
    error::ErrorClass,
    hash, metric,
    options::{ConfigError, secret},
};

const ID: &str = "GENESYS_CLIENT_ID";
/// Hexadecimal digits of a client's mark.
const MARK: usize = 16;
const SECRET: &str = "GENESYS_CLIENT_SECRET";

/// Requester we are.
#[derive(Clone)]
pub struct Credentials {
    /// The client id.
    pub id: SecretString,
    /// The client secret.
    pub secret: SecretString,
}

impl Credentials {
    /// Those that the environment names; none where it names none.
    pub fn of_environment() -> Result<Option<Self>, ConfigError> {
        Ok(secret(ID)?.zip(secret(SECRET)?).map(|(id, secret)| Self { id, secret }))
    }

    /// Stands for the client's id where that is none of others' business.
    pub fn mark(&self) -> String {
        let mut mark = hash::sha256(format!("genfleet:client:{}", self.id.expose_secret()));
        mark.truncate(MARK);
        mark
    }
}

/// Where credentials come from. They are read again while the token endpoint refuses them.
#[derive(Clone)]
pub enum CredentialSource {
    /// `GENESYS_CLIENT_ID` and `GENESYS_CLIENT_SECRET`, or the files that `…_FILE` names.
    Environment,
    /// These, for good: what the built-in simulator takes.
    Given(Credentials),
    /// A test's own.
    #[cfg(test)]
    Shared(std::sync::Arc<Mutex<Credentials>>),
}

impl CredentialSource {
    fn read(&self) -> Result<Credentials, ConfigError> {
        match self {
            Self::Environment => Ok(Credentials { id: required(ID)?, secret: required(SECRET)? }),
            Self::Given(credentials) => Ok(credentials.clone()),
            #[cfg(test)]
            Self::Shared(credentials) => Ok(credentials.lock().unwrap().clone()),
        }
    }
}

fn required(name: &str) -> Result<SecretString, ConfigError> {
    secret(name)?.ok_or_else(|| {
        ConfigError::new(format!(
            "no credentials for Genesys Cloud: set {name}, or {name}_FILE to a file that holds it"
        ))
    })
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialSource")
    }
}

/// What minting keeps between two tokens.
pub(super) struct TokenSource {
    auth: ClientAuth,
    source: CredentialSource,
    credentials: Mutex<Credentials>,
    /// The scopes of all kinds, each once.
    scope: String,
    running: Mutex<Option<Outcome>>,
}

/// Where those who wait learn what came of it.
type Outcome = watch::Receiver<Option<Result<(), TokenEndpointAway>>>;

/// The token endpoint was asked so often, and gave no answer that says anything.
#[derive(Clone, Debug)]
pub(super) struct TokenEndpointAway {
    pub(super) asked: u32,
    pub(super) error: ApiError,
}

impl TokenSource {
    pub(super) fn new(auth: ClientAuth, source: CredentialSource, scopes: &Scopes) -> Result<Self, ConfigError> {
        let mut all: Vec<&str> = scopes.iter().flat_map(|(_, scopes)| scopes.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        let credentials = Mutex::new(source.read()?);
        Ok(Self { auth, source, credentials, scope: all.join(" "), running: Mutex::new(None) })
    }

    fn read_again(&self) -> Result<(), ConfigError> {
        let read = self.source.read()?;
        *self.credentials.lock().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }
}

impl GenesysClient {
    /// Sees to it that a token is asked for, unless one is already. The outcome says only whether the caller should
    /// look again: an error means that the token endpoint is away.
    pub(super) fn refresh_token(&self) -> Outcome {
        let mut running = self.shared.tokens.running.lock().unwrap_or_else(PoisonError::into_inner);
        // One that panicked has no sender any more.
        if let Some(outcome) = running.as_ref().filter(|outcome| outcome.has_changed().is_ok()) {
            return outcome.clone();
        }
        let (tell, outcome) = watch::channel(None);
        *running = Some(outcome.clone());
        let client = self.clone();
        tokio::spawn(async move {
            let result = client.refresh_with_retries().await;
            // Whoever fails by this one asks for another.
            *client.shared.tokens.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tell.send_replace(Some(result));
        });
        outcome
    }

    /// Stands for the client's id where that is none of others' business. All processes with this id have the same.
    pub fn client_mark(&self) -> String {
        self.shared.tokens.credentials.lock().unwrap_or_else(PoisonError::into_inner).mark()
    }

    /// The key that all processes of the client sign their words to each other with.
    pub fn fleet_key(&self) -> FleetKey {
        FleetKey::of(&self.shared.tokens.credentials.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same of the secret as it is now, where it is this client's and can be read: files may have been replaced since
    /// a token was asked for.
    pub fn fleet_key_anew(&self) -> Option<FleetKey> {
        let read = self.shared.tokens.source.read().ok()?;
        let current = self.shared.tokens.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        (read.id.expose_secret() == current.id.expose_secret()).then(|| FleetKey::of(&read))
    }

    /// Reads the credentials again and asks for one token.
    pub(super) fn try_credentials(&self) {
        match self.shared.tokens.read_again() {
            Ok(()) => drop(self.refresh_token()),
            Err(error) => {
                warn!(%error, "the credentials cannot be read");
                self.admission().refused_us(&error.to_string(), Instant::now());
            }
        }
    }

    /// With the short retries of any call; a probe asks once.
    async fn refresh_with_retries(&self) -> Result<(), TokenEndpointAway> {
        let mut tries = CallRetries::new(RetryMode::Short);
        loop {
            tries.sent();
            let Err(error) = self.refresh_once().await else { return Ok(()) };
            let wait = tries.wait(&error).filter(|_| !self.admission().is_probing());
            let Some(wait) = wait else { return Err(TokenEndpointAway { asked: tries.requests, error }) };
            sleep(wait).await;
        }
    }

    async fn refresh_once(&self) -> Result<(), ApiError> {
        let sent = Instant::now();
        let (exchange, answer, _) = self.ask_for_token().await;
        let (now, mut admission) = (Instant::now(), self.admission());
        let (result, outcome) = match answer {
            TokenResponse::Granted(grant) => {
                admission.store_token(grant, now);
                ("ok", Ok(()))
            }
            TokenResponse::Throttled => {
                let wait = exchange.ok().and_then(|received| self.wait(&received));
                admission.throttled(sent, now, wait);
                ("throttled", Ok(()))
            }
            TokenResponse::Refused(why) => {
                admission.refused_us(&why, now);
                ("rejected", Ok(()))
            }
            TokenResponse::InvalidScope => {
                admission.refused_us("invalid_scope, also without any", now);
                ("rejected", Ok(()))
            }
            TokenResponse::Away => {
                admission.fails(&format!("token endpoint: {}", cause(&exchange)), now);
                admission.note_refresh_failure(now);
                ("error", Err(self.away(&exchange)))
            }
        };
        counter!(metric::TOKEN_REFRESHES, "result" => result).increment(1);
        debug!(result, "asked for a token");
        outcome
    }

    /// Asks with the scopes of all kinds, and where they are not known once more without; whether they were taken.
    pub(super) async fn ask_for_token(&self) -> (Result<HttpResponse, TransportError>, TokenResponse, bool) {
        let scope = Some(self.shared.tokens.scope.as_str()).filter(|scope| !scope.is_empty());
        let (exchange, answer) = self.ask(scope).await;
        if let TokenResponse::InvalidScope = answer {
            debug!("the token endpoint does not know the scopes: asking without");
            let (exchange, answer) = self.ask(None).await;
            return (exchange, answer, false);
        }
        (exchange, answer, scope.is_some())
    }

    async fn ask(&self, scope: Option<&str>) -> (Result<HttpResponse, TransportError>, TokenResponse) {
        let request = self.token_request(scope);
        let HttpRequest { method, url, .. } = &request;
        let mut span = RequestSpan { method, endpoint: url.path(), url }.span_of_its_own();
        let exchange = match self.shared.transport.exchange(request).await {
            // A token is what was asked for.
            Ok(received) if classify::status_class(received.status) == StatusClass::Success => Ok(received),
            exchange => self.redactor().exchange(exchange),
        };
        request_span::answered(&mut span, &exchange);
        let answer = match &exchange {
            Ok(received) => {
                let says_when = if received.headers.contains_key(RETRY_AFTER) { RetryAfterHeader::Present } else { RetryAfterHeader::Absent };
                token::read(received.status, says_when, &received.body)
            }
            Err(lost) => match lost.why {
                TransportFailure::TooLong => TokenResponse::Refused(format!("{}: is this the token endpoint?", lost.message)),
                TransportFailure::NeverSent | TransportFailure::TimedOut | TransportFailure::Broken => TokenResponse::Away,
            },
        };
        (exchange, answer)
    }

    fn token_request(&self, scope: Option<&str>) -> HttpRequest {
        let mint = &self.shared.tokens;
        let credentials = mint.credentials.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        let basic = match mint.auth {
            ClientAuth::Basic => Some((credentials.id, credentials.secret)),
            ClientAuth::Form => {
                form.append_pair("client_id", credentials.id.expose_secret());
                form.append_pair("client_secret", credentials.secret.expose_secret());
                None
            }
        };
        let is_form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, is_form)]);
        let url = self.shared.addresses.token.clone();
        HttpRequest { method: Method::POST, url, headers, body: Some(form.finish().into()), basic }
    }

    /// Knows the client's secret.
    pub(super) fn redactor(&self) -> Redactor {
        let credentials = self.shared.tokens.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        Redactor::default().basic(credentials.id.expose_secret(), credentials.secret.expose_secret())
    }

    /// How long the token endpoint says to wait.
    fn wait(&self, received: &HttpResponse) -> Option<std::time::Duration> {
        let wait = limits::wait(&received.headers, &error::told(&received.body), self.shared.clock.now());
        warn_of_long(self.shared.addresses.token.path(), wait);
        wait
    }

    fn away(&self, exchange: &Result<HttpResponse, TransportError>) -> ApiError {
        match exchange {
            Ok(received) => {
                let told = error::told(&received.body);
                let message = format!("the token endpoint answered {}: {}", received.status, error::sentence(&told));
                let mut error = ApiError::new(ErrorClass::Transient, "api_unavailable", message);
                let wait = limits::retry_after(&received.headers, self.shared.clock.now());
                error.retry_after = wait.unwrap_or_default();
                error.with_answer(received.status, &received.headers, told)
            }
            Err(lost) => {
                // Nothing was sent for the caller yet.
                let (_, code) = classify::lost(lost.why, RepeatSafety::Safe);
                ApiError::new(
                    ErrorClass::Transient,
                    code,
                    format!("no answer from the token endpoint: {}", lost.message),
                )
            }
        }
    }
}

/// What an exchange without a token comes down to.
fn cause(exchange: &Result<HttpResponse, TransportError>) -> String {
    match exchange {
        Ok(received) => received.status.to_string(),
        Err(lost) => lost.cause.clone(),
    }
}
