//! One token asked for and shown to the API, as a worker would, to see whether that works. For the operator's tool:
//! nothing here touches the gate, the budget or the token of a client that works.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{
    Method,
    header::{AUTHORIZATION, DATE, HeaderMap},
};
use tokio::time::Instant;

use crate::{
    classify::LostAnswer,
    client::GenesysClient,
    error, http_date,
    limits::{self, Rates},
    token::{TokenAnswer, TokenGrant},
    transport::{NoAnswer, Outgoing, Received},
};

/// A request of the platform that changes nothing and that every token may make: what the token is.
const OWN_TOKEN: &str = "/api/v2/tokens/me";

/// What the token endpoint made of us.
#[derive(Clone, Debug)]
pub struct TokenTrial {
    /// What came of it.
    pub outcome: TokenOutcome,
    /// The other side's clock, as it answered, and ours.
    pub clock: Option<Clocks>,
    /// How long it took.
    pub took: Duration,
}

/// What came of asking for a token.
#[derive(Clone, Debug)]
pub enum TokenOutcome {
    /// A token.
    Granted {
        /// It.
        grant: TokenGrant,
        /// How long it is good.
        life: Duration,
        /// Whether our scopes were taken; else it was given without any.
        scoped: bool,
    },
    /// Too many were asked for.
    Throttled {
        /// Not before this is over, where it says so.
        wait: Option<Duration>,
    },
    /// It will not have us: status and words.
    Refused {
        /// Its status, and what it said.
        told: String,
    },
    /// It answered, and may answer otherwise later.
    Away {
        /// Its status, and what it said.
        told: String,
    },
    /// No answer at all.
    NoAnswer {
        /// How far it came.
        why: LostAnswer,
        /// In words.
        message: String,
    },
}

/// What the API made of a token.
#[derive(Clone, Debug)]
pub struct ApiTrial {
    /// Its status and what it says of our limits, or why there is no answer.
    pub outcome: Result<(u16, Rates), (LostAnswer, String)>,
    /// The other side's clock, as it answered, and ours.
    pub clock: Option<Clocks>,
}

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Theirs, in whole seconds.
    pub theirs: Timestamp,
    /// Ours, when the answer was there.
    pub ours: Timestamp,
    /// How long the answer may have been on its way.
    pub took: Duration,
}

impl GenesysClient {
    /// Asks for one token.
    pub async fn try_token(&self) -> TokenTrial {
        let begun = Instant::now();
        let (exchange, answer, scoped) = self.ask_for_token().await;
        let took = begun.elapsed();
        let clock = exchange.as_ref().ok().and_then(|received| self.clocks(&received.headers, took));
        TokenTrial { outcome: self.outcome(exchange, answer, scoped), clock, took }
    }

    fn outcome(&self, exchange: Result<Received, NoAnswer>, answer: TokenAnswer, scoped: bool) -> TokenOutcome {
        let received = match exchange {
            Ok(received) => received,
            Err(NoAnswer { why, message, .. }) => return TokenOutcome::NoAnswer { why, message },
        };
        match answer {
            TokenAnswer::Granted(grant) => TokenOutcome::Granted { life: grant.life(), grant, scoped },
            TokenAnswer::Throttled => {
                let told = error::told(&received.body);
                TokenOutcome::Throttled { wait: limits::wait(&received.headers, &told, self.shared.clock.now()) }
            }
            TokenAnswer::Refused(told) => TokenOutcome::Refused { told },
            TokenAnswer::InvalidScope => TokenOutcome::Refused { told: "invalid_scope, also without any".to_owned() },
            TokenAnswer::Away => {
                let told = error::sentence(&error::told(&received.body));
                TokenOutcome::Away { told: format!("{} {told}", received.status) }
            }
        }
    }

    /// Shows the API a token, with a request that changes nothing.
    pub async fn try_api(&self, grant: &TokenGrant) -> ApiTrial {
        let Some(url) = self.shared.addresses.at(OWN_TOKEN) else {
            let outcome = Err((LostAnswer::NeverSent, "the base URL gives no address".to_owned()));
            return ApiTrial { outcome, clock: None };
        };
        let headers = HeaderMap::from_iter([(AUTHORIZATION, grant.bearer().clone())]);
        let begun = Instant::now();
        let sent = Outgoing { method: Method::GET, url, headers, body: None, basic: None };
        match self.shared.transport.exchange(sent).await {
            Ok(received) => {
                let clock = self.clocks(&received.headers, begun.elapsed());
                ApiTrial { outcome: Ok((received.status, Rates::of(&received.headers))), clock }
            }
            Err(NoAnswer { why, message, .. }) => ApiTrial { outcome: Err((why, message)), clock: None },
        }
    }

    /// Where tokens are asked for, and where the API is.
    pub fn addresses(&self) -> (&str, &str) {
        (self.shared.addresses.token.as_str(), self.shared.addresses.api.as_str())
    }

    /// The two clocks at an answer that came `took` after it was asked for.
    pub(super) fn clocks(&self, headers: &HeaderMap, took: Duration) -> Option<Clocks> {
        let theirs = http_date::read_http_date(headers.get(DATE)?.to_str().ok()?)?;
        Some(Clocks { theirs, ours: self.shared.clock.now(), took })
    }
}

impl Clocks {
    /// How far ours is ahead, in seconds, below zero where it is behind; what the answer's way and the whole second of
    /// theirs can explain is taken for nothing.
    pub fn ahead(&self) -> i64 {
        let ahead = self.ours.duration_since(self.theirs).as_millis();
        let explained = i128::try_from(self.took.as_millis()).unwrap_or(i128::MAX).saturating_add(1000);
        let off = if ahead < 0 { ahead } else { (ahead - explained).max(0) };
        i64::try_from(off / 1000).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_way_and_the_whole_second_explain_is_no_skew() {
        let theirs: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let ahead = |ours: &str, took| {
            Clocks { theirs, ours: ours.parse().unwrap(), took: Duration::from_millis(took) }.ahead()
        };
        assert_eq!(ahead("2026-11-27T12:00:00.900Z", 0), 0);
        assert_eq!(ahead("2026-11-27T12:00:03Z", 2000), 0);
        assert_eq!(ahead("2026-11-27T12:00:11Z", 0), 10);
        assert_eq!(ahead("2026-11-27T11:59:50Z", 100), -10);
    }
}
