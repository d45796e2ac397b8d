//! The check of the credentials for the operator's tool: requests one token and uses it for a request, like a worker,
//! and changes nothing in the client.

use std::time::Duration;

use reqwest::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue},
};
use tokio::time::Instant;

use crate::{
    answer_body::{error_details, error_sentence},
    client::GenesysClient,
    clock_skew::ClockReading,
    http_date::read_http_date,
    http_transport::{HttpRequest, HttpResponse, TransportError, TransportFailure},
    limits::RateLimitHeaders,
    token::{TokenGrant, TokenResponse},
};

/// A request that changes nothing and that every token may make.
const OWN_TOKEN: &str = "/api/v2/tokens/me";

/// The check of the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenCheck {
    /// The answer of the token endpoint.
    pub outcome: TokenCheckOutcome,
    /// The other side's clock, as it answered, and ours.
    pub clock: Option<ClockReading>,
}

/// The token endpoint's answer.
#[derive(Clone, Debug)]
pub enum TokenCheckOutcome {
    /// It returned a token.
    Granted {
        /// The token.
        grant: TokenGrant,
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

/// The check of the API with a token.
#[derive(Clone, Debug)]
pub struct ApiCheck {
    /// Its status and the limits that it names, or why there is no answer.
    pub outcome: Result<(u16, RateLimitHeaders), (TransportFailure, String)>,
    /// The other side's clock, as it answered, and ours.
    pub clock: Option<ClockReading>,
}

impl GenesysClient {
    /// Requests one token.
    pub async fn check_token(&self) -> TokenCheck {
        let begun = Instant::now();
        let (exchange, response, scoped) = self.shared.tokens.request_token().await;
        let clock = exchange.as_ref().ok().and_then(|received| self.read_clocks(&received.headers, begun.elapsed()));
        TokenCheck { outcome: self.token_check_outcome(exchange, response, scoped), clock }
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
            TokenResponse::Granted(grant) => TokenCheckOutcome::Granted { life: grant.life, grant, scoped },
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
    pub async fn check_api(&self, grant: &TokenGrant) -> ApiCheck {
        let Some(url) = self.shared.addresses.at(OWN_TOKEN) else {
            let outcome = Err((TransportFailure::NeverSent, "the base URL gives no address".to_owned()));
            return ApiCheck { outcome, clock: None };
        };
        let json = HeaderValue::from_static("application/json");
        let headers = [(AUTHORIZATION, grant.bearer.clone()), (ACCEPT, json.clone()), (CONTENT_TYPE, json)];
        let headers = HeaderMap::from_iter(headers);
        let begun = Instant::now();
        let request = HttpRequest { method: Method::GET, url, headers, body: None, basic: None };
        match self.shared.transport.exchange(request).await {
            Ok(received) => {
                let clock = self.read_clocks(&received.headers, begun.elapsed());
                ApiCheck { outcome: Ok((received.status, RateLimitHeaders::of(&received.headers))), clock }
            }
            Err(TransportError { failure, message, .. }) => ApiCheck { outcome: Err((failure, message)), clock: None },
        }
    }

    /// Reads both clocks at an answer that came `took` after it was asked for.
    pub(crate) fn read_clocks(&self, headers: &HeaderMap, took: Duration) -> Option<ClockReading> {
        let theirs = read_http_date(headers.get(DATE)?.to_str().ok()?)?;
        Some(ClockReading { theirs, ours: self.shared.clock.now(), took })
    }
}
