//! The addresses that deliveries may connect to (SPEC 7): public ones and those of `--webhook-allow`, but none of
//! `--webhook-deny`. The author of a job chooses where a worker inside the network sends a request (SSRF). Therefore
//! the address connected to is checked: the result of every look-up on its way to the connection, and literal
//! addresses, which are not looked up, before.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    str::FromStr,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower_service::Service;
use url::{Host, Url};

use genfleet_job::options::ConfigError;

mod special;

/// The receivers that are allowed although they are not public or not `https`, and those that are denied.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressList {
    allowed: Arc<[AddressEntry]>,
    denied: Arc<[AddressEntry]>,
    /// The flag that opens an address, if it is not that of webhooks.
    flag: Option<&'static str>,
}

/// One entry of an [`AddressList`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    target: EntryTarget,
    /// The only port; `None` for all.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EntryTarget {
    /// A host name, whatever its addresses.
    Host(String),
    /// A network, whatever the names in it.
    Net(IpNet),
}

/// The reason why a receiver is not connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRefused {
    reason: RefusalReason,
    /// The address that was refused, for logs.
    pub(crate) ip: Option<IpAddr>,
    flag: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusalReason {
    /// The kind of address with its article, e.g. `a private`.
    NotPublic(&'static str),
    Denied,
}

/// Looks up the addresses of a host.
pub(crate) type Resolver = Arc<dyn Fn(String) -> BoxFuture<io::Result<Vec<IpAddr>>> + Send + Sync>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The resolver of the operating system.
pub(crate) fn system_resolver() -> Resolver {
    Arc::new(|host| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// A resolver for one connection that removes addresses that must not be connected to.
#[derive(Clone)]
pub(super) struct GuardedResolver {
    resolver: Resolver,
    list: AddressList,
    /// The port of the connection.
    port: Option<u16>,
}

impl AddressList {
    pub(super) fn new(allowed: &[AddressEntry], denied: &[AddressEntry]) -> Self {
        Self { allowed: allowed.into(), denied: denied.into(), flag: None }
    }

    /// Allows the public addresses, and those of `allowed`, which the setting `flag` names.
    pub(crate) fn of_setting(flag: &'static str, allowed: &[AddressEntry]) -> Self {
        Self { allowed: allowed.into(), denied: Arc::default(), flag: Some(flag) }
    }

    /// Returns the setting that allows more.
    pub(crate) fn flag(&self) -> &'static str {
        self.flag.unwrap_or("--webhook-allow")
    }

    /// Returns true if `url` uses `https`, or is allowed without.
    pub(crate) fn allows_scheme(&self, url: &Url) -> bool {
        url.scheme() == "https" || match_url(&self.allowed, url)
    }

    /// Returns true if `url` is denied; its addresses are checked after they are looked up.
    pub(super) fn denies(&self, url: &Url) -> bool {
        match_url(&self.denied, url)
    }

    fn refusal(&self, reason: RefusalReason, ip: Option<IpAddr>) -> AddressRefused {
        AddressRefused { reason, ip, flag: self.flag }
    }

    /// Checks `url` without a look-up: a literal address, or a denied name.
    pub(crate) fn check_url(&self, url: &Url) -> Result<(), AddressRefused> {
        let port = url.port_or_known_default();
        match url.host() {
            Some(Host::Ipv4(ip)) => self.check(ip.into(), port),
            Some(Host::Ipv6(ip)) => self.check(ip.into(), port),
            Some(Host::Domain(_)) if match_url(&self.denied, url) => Err(self.refusal(RefusalReason::Denied, None)),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    fn check(&self, ip: IpAddr, port: Option<u16>) -> Result<(), AddressRefused> {
        if self.denied.iter().any(|entry| entry.is_address(ip, port) || entry.is_address(ip.to_canonical(), port)) {
            return Err(self.refusal(RefusalReason::Denied, Some(ip)));
        }
        match special::kind(ip) {
            Some(what) if !self.allowed.iter().any(|entry| entry.is_address(ip, port)) => {
                Err(self.refusal(RefusalReason::NotPublic(what), Some(ip)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Removes from `found` the addresses at which `host` must not be connected to; an error if none is left.
    fn filter(&self, host: &str, port: Option<u16>, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, AddressRefused> {
        let is_allowed = self.allowed.iter().any(|entry| entry.is_host(host, port));
        let (mut left, mut refused) = (Vec::new(), None);
        for ip in found {
            match self.check(ip, port) {
                Err(AddressRefused { reason: RefusalReason::NotPublic(_), .. }) if is_allowed => left.push(ip),
                Err(error) => refused = Some(error),
                Ok(()) => left.push(ip),
            }
        }
        match refused {
            Some(error) if left.is_empty() => Err(error),
            Some(_) | None => Ok(left),
        }
    }
}

/// Returns true if an entry matches `url` without a look-up.
fn match_url(entries: &[AddressEntry], url: &Url) -> bool {
    let port = url.port_or_known_default();
    entries.iter().any(|entry| match url.host() {
        Some(Host::Domain(host)) => entry.is_host(host, port),
        Some(Host::Ipv4(ip)) => entry.is_address(ip.into(), port),
        Some(Host::Ipv6(ip)) => entry.is_address(ip.into(), port),
        None => false,
    })
}

impl AddressEntry {
    fn is_host(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.is_for(port) && matches!(&self.target, EntryTarget::Host(name) if name.eq_ignore_ascii_case(host))
    }

    fn is_address(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.is_for(port) && matches!(&self.target, EntryTarget::Net(net) if net.contains(&ip))
    }

    fn is_for(&self, port: Option<u16>) -> bool {
        self.port.is_none() || self.port == port
    }
}

impl FromStr for AddressEntry {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let written = written.trim();
        if let Some(target) = parse_target(written) {
            return Ok(Self { target, port: None });
        }
        let with_port = written.rsplit_once(':').and_then(|(host, port)| {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            // An IPv6 address with a port needs brackets.
            let host = bare.or_else(|| (!host.contains(':')).then_some(host))?;
            Some(Self { target: parse_target(host)?, port: Some(port.parse().ok().filter(|port| *port > 0)?) })
        });
        with_port.ok_or_else(|| {
            ConfigError::new(format!(
                "{written:?} is neither a host nor a network: write a host name (hooks.internal) or a network (10.1.0.0/16), optionally with a port (hooks.internal:8443)"
            ))
        })
    }
}

fn parse_target(written: &str) -> Option<EntryTarget> {
    let address = || written.parse::<IpAddr>().map(IpNet::from);
    if let Ok(net) = written.parse::<IpNet>().or_else(|_| address()) {
        return Some(EntryTarget::Net(net));
    }
    match Host::parse(written) {
        Ok(Host::Domain(name)) if !name.contains('*') => {
            Some(EntryTarget::Host(name.strip_suffix('.').unwrap_or(&name).to_owned()))
        }
        _ => None,
    }
}

impl GuardedResolver {
    pub(super) fn new(resolver: Resolver, list: AddressList, port: Option<u16>) -> Self {
        Self { resolver, list, port }
    }
}

impl Service<Name> for GuardedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = (guard.resolver)(host.to_owned()).await?;
            let left = guard.list.filter(host, guard.port, found)?;
            // The connector sets the port.
            let addresses: Vec<_> = left.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Without the address, which must not leak to the author of a job.
impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason, self.flag) {
            (RefusalReason::NotPublic(what), Some(flag)) => {
                write!(f, "has {what} address, which is not connected to unless {flag} names it")
            }
            (RefusalReason::NotPublic(what), None) => {
                write!(f, "has {what} address, which gets no deliveries unless --webhook-allow names it")
            }
            (RefusalReason::Denied, _) => f.write_str("gets no deliveries: --webhook-deny names it"),
        }
    }
}

impl Error for AddressRefused {}

#[cfg(test)]
mod tests;
