//! Which addresses deliveries connect to (SPEC 7): public ones, and what `--webhook-allow` opens. Whoever writes a URL
//! into a job chooses where a worker inside the network sends a request, so what counts is the address connected to:
//! every look-up is sifted on its way to the connection, and literals, which are not looked up, are judged before.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::receiver::Receiver;
use crate::options::ConfigError;

mod special;

/// What is delivered to although it is not public, or not `https`.
#[derive(Clone, Debug, Default)]
pub struct AllowList(Arc<[Allowed]>);

/// One entry of an [`AllowList`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// This name, whatever its addresses.
    Host(String),
    /// These addresses, whatever names they go by.
    Net(IpNet),
}

/// A receiver that is not connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRefused {
    /// What kind of address it has, e.g. `a private`.
    pub what: &'static str,
    /// The address itself: for logs.
    pub ip: IpAddr,
}

/// Where names become addresses.
pub trait Names: Clone + Send + Sync + 'static {
    /// The addresses of `host`.
    fn look_up(&self, host: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames;

/// Sifts what is looked up.
#[derive(Clone, Debug)]
pub struct Guard<N> {
    names: N,
    allowed: AllowList,
}

impl AllowList {
    /// With these entries.
    pub fn new(entries: &[Allowed]) -> Self {
        Self(entries.into())
    }

    /// Whether `receiver` is reached by `https`, or may do without.
    pub fn allows_scheme(&self, receiver: &Receiver) -> bool {
        receiver.url().scheme() == "https" || self.names(receiver.url())
    }

    /// Judges a host that is an address; a name is judged when it is looked up.
    pub fn judge_literal(&self, receiver: &Receiver) -> Result<(), AddressRefused> {
        match receiver.url().host() {
            Some(Host::Ipv4(ip)) => self.judge(ip.into()),
            Some(Host::Ipv6(ip)) => self.judge(ip.into()),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    /// Whether an entry names the host of `url` itself.
    fn names(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(host)) => self.allows_host(host),
            Some(Host::Ipv4(ip)) => self.allows_address(ip.into()),
            Some(Host::Ipv6(ip)) => self.allows_address(ip.into()),
            None => false,
        }
    }

    fn judge(&self, ip: IpAddr) -> Result<(), AddressRefused> {
        match special::kind(ip) {
            Some(what) if !self.allows_address(ip) => Err(AddressRefused { what, ip }),
            Some(_) | None => Ok(()),
        }
    }

    /// Of `found`, what `host` may be connected at; an error where nothing is left.
    fn sift(&self, host: &str, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, AddressRefused> {
        if self.allows_host(host) {
            return Ok(found);
        }
        let (mut left, mut refused) = (Vec::new(), None);
        for ip in found {
            match self.judge(ip) {
                Ok(()) => left.push(ip),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(error) if left.is_empty() => Err(error),
            Some(_) | None => Ok(left),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.0.iter().any(|entry| matches!(entry, Allowed::Host(name) if name.eq_ignore_ascii_case(host)))
    }

    fn allows_address(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|entry| matches!(entry, Allowed::Net(net) if net.contains(&ip)))
    }
}

impl FromStr for Allowed {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let written = written.trim();
        let address = || written.parse::<IpAddr>().map(IpNet::from);
        if let Ok(net) = written.parse::<IpNet>().or_else(|_| address()) {
            return Ok(Self::Net(net));
        }
        match Host::parse(written) {
            Ok(Host::Domain(name)) if !name.contains('*') => {
                Ok(Self::Host(name.strip_suffix('.').unwrap_or(&name).to_owned()))
            }
            _ => {
                let told =
                    format!("{written:?} is neither: write a host name (hooks.internal) or a network (10.1.0.0/16)");
                Err(ConfigError::new(told))
            }
        }
    }
}

impl Names for SystemNames {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

impl<N: Names> Guard<N> {
    /// Over what `names` finds.
    pub fn new(names: N, allowed: AllowList) -> Self {
        Self { names, allowed }
    }
}

impl<N: Names> Resolve for Guard<N> {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = guard.names.look_up(host).await?;
            let left = guard.allowed.sift(host, found)?;
            // The port is the URL's.
            let addresses: Addrs = Box::new(left.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

/// Without the address, which a stranger may be after.
impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "has {} address, which is not delivered to unless --webhook-allow opens it", self.what)
    }
}

impl Error for AddressRefused {}

#[cfg(test)]
mod tests;
