//! What a simulator is started with. How the command line spells it is not decided here.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::faults::FaultRule;

/// How the stand-in behaves; the defaults are the platform's.
#[derive(Clone)]
pub struct SimulatorOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Requests one token may send in a window.
    pub requests_per_minute: u32,
    /// Requests all tokens of one client may send in a window.
    pub client_requests_per_minute: u32,
    /// How long a window is; tests shorten it.
    pub rate_window: Duration,
    /// How long a token is good.
    pub token_lifetime: Duration,
    /// Added to every answer but those of the control routes.
    pub latency: Duration,
    /// The only client id and secret that get a token; `None` takes any.
    pub client: Option<(String, String)>,
    /// The faults to begin with.
    pub faults: Vec<FaultRule>,
}

impl Default for SimulatorOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            requests_per_minute: 300,
            client_requests_per_minute: 3000,
            rate_window: Duration::from_secs(60),
            token_lifetime: Duration::from_secs(86_400),
            latency: Duration::ZERO,
            client: None,
            faults: Vec::new(),
        }
    }
}

impl fmt::Debug for SimulatorOptions {
    /// Everything but the client's secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SimulatorOptions")
            .field("listen", &self.listen)
            .field("requests_per_minute", &self.requests_per_minute)
            .field("client_requests_per_minute", &self.client_requests_per_minute)
            .field("rate_window", &self.rate_window)
            .field("token_lifetime", &self.token_lifetime)
            .field("latency", &self.latency)
            .field("client", &self.client.as_ref().map(|(id, _)| id))
            .field("faults", &self.faults)
            .finish()
    }
}
