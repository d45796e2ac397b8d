//! The check of the credentials for the operator's tool: requests one token and uses it for a request, like a worker,
//! and changes nothing in the client.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, DATE, HeaderMap};
use tokio::time::Instant;

use crate::{
    answer_body::{error_details, error_sentence},
    client::GenesysClient,
    clock_skew::ClockReading,
    http_date::read_http_date,
    http_transport::{HttpResponse, TransportError, TransportFailure},
    limits::RateLimitHeaders,
    request::ApiRequest,
    token::{TokenGrant, TokenResponse},
};

/// A request that changes nothing and that every token may make.
const OWN_TOKEN: &str = "/api/v2/tokens/me";

/// The check of the token endpoint, and of the API with the token.
#[derive(Clone, Debug)]
pub struct CredentialCheck {
    /// The answer of the token endpoint.
    pub token: TokenCheckOutcome,
    /// The answer of the API; `None` without a token.
    pub api: Option<ApiCheckOutcome>,
    /// The other side's clock, as it answered last, and ours.
    pub clock: Option<ClockReading>,
}

/// The API's status and the limits that it names, or why there is no answer.
type ApiCheckOutcome = Result<(u16, RateLimitHeaders), (TransportFailure, String)>;

/// The token endpoint's answer.
#[derive(Clone, Debug)]
pub enum TokenCheckOutcome {
    /// It returned a token.
    Granted {
        /// The lifetime of the token.
        life: Duration,
        /// True if the requested scopes were accepted; otherwise the token has none.
        scoped: bool,
    },
    /// It requests a pause.
    Throttled {
        /// The length of the pause, if it names one.
        wait: Option<Duration>,
    },
    /// It refuses the credentials.
    Refused {
        /// Its status and words.
        reported: String,
    },
    /// It returned an invalid or temporary error.
    Away {
        /// Its status and words.
        reported: String,
    },
    /// It does not answer at all.
    NoAnswer {
        /// The stage at which the exchange failed.
        failure: TransportFailure,
        /// The error in words.
        message: String,
    },
}

impl GenesysClient {
    /// Requests one token, and sends a request with it that changes nothing.
    pub async fn check_credentials(&self) -> CredentialCheck {
        let begun = Instant::now();
        let (exchange, response, scoped) = self.shared.tokens.request_token().await;
        let clock = exchange.as_ref().ok().and_then(|received| self.read_clocks(&received.headers, begun.elapsed()));
        let (api, api_clock) = match &response {
            TokenResponse::Granted(grant) => {
                let (api, clock) = self.check_api(grant).await;
                (Some(api), clock)
            }
            _ => (None, None),
        };
        let token = self.token_check_outcome(exchange, response, scoped);
        CredentialCheck { token, api, clock: api_clock.or(clock) }
    }

    fn token_check_outcome(
        &self,
        exchange: Result<HttpResponse, TransportError>,
        response: TokenResponse,
        scoped: bool,
    ) -> TokenCheckOutcome {
        let received = match exchange {
            Ok(received) => received,
            Err(TransportError { failure, message, .. }) => return TokenCheckOutcome::NoAnswer { failure, message },
        };
        match response {
            TokenResponse::Granted(grant) => TokenCheckOutcome::Granted { life: grant.life, scoped },
            TokenResponse::Throttled => TokenCheckOutcome::Throttled { wait: self.shared.tokens.wait(&received) },
            TokenResponse::Refused(reported) | TokenResponse::RefusedWithScope(reported) => {
                TokenCheckOutcome::Refused { reported }
            }
            TokenResponse::Away => {
                let sentence = error_sentence(&error_details(&received.body));
                TokenCheckOutcome::Away { reported: format!("{} {sentence}", received.status) }
            }
        }
    }

    /// Sends a request with a token that changes nothing.
    async fn check_api(&self, grant: &TokenGrant) -> (ApiCheckOutcome, Option<ClockReading>) {
        let Ok(mut request) = self.build(&ApiRequest::get(OWN_TOKEN)) else {
            return (Err((TransportFailure::NeverSent, "the base URL gives no address".to_owned())), None);
        };
        request.headers.insert(AUTHORIZATION, grant.bearer.clone());
        let begun = Instant::now();
        match self.shared.transport.exchange(request).await {
            Ok(received) => {
                let outcome = Ok((received.status, RateLimitHeaders::of(&received.headers)));
                (outcome, self.read_clocks(&received.headers, begun.elapsed()))
            }
            Err(TransportError { failure, message, .. }) => (Err((failure, message)), None),
        }
    }

    /// Reads both clocks at an answer that came `took` after it was asked for.
    pub(crate) fn read_clocks(&self, headers: &HeaderMap, took: Duration) -> Option<ClockReading> {
        let theirs = read_http_date(headers.get(DATE)?.to_str().ok()?)?;
        Some(ClockReading { theirs, ours: self.shared.clock.now(), took })
    }
}
