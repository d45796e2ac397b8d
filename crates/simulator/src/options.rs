//! The settings of a simulator. The command line for them is defined in the crate `genfleet`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::faults::FaultRule;

/// The settings; the defaults are the platform's.
#[derive(Clone)]
pub struct SimulatorOptions {
    /// The address to listen at; port 0 means a free port.
    pub listen: SocketAddr,
    /// Number of requests that a token may send in a window.
    pub requests_per_minute: u32,
    /// Number of requests that all tokens of a client may send in a window.
    pub client_requests_per_minute: u32,
    /// The length of a window, which tests shorten.
    pub rate_window: Duration,
    /// The lifetime of a token.
    pub token_lifetime: Duration,
    /// Delay of every answer except those of the control routes.
    pub latency: Duration,
    /// The client id and secret that get a token; `None` permits all.
    pub client: Option<(String, String)>,
    /// The initial fault rules.
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
    /// Shows everything except the client's secret.
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
