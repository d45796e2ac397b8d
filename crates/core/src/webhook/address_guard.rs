//! Which addresses deliveries connect to (SPEC 7): public ones, and what `--webhook-allow` opens, but nothing that
//! `--webhook-deny` names. Whoever writes a URL into a job chooses where a worker inside the network sends a request, so
//! what counts is the address connected to: every look-up is sifted on its way to the connection, and literals, which are
//! not looked up, are judged before.

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

use super::receiver::Receiver;
use genfleet_job::options::ConfigError;

mod special;

/// What is delivered to although it is not public, or not `https`; and what is not delivered to, whatever it is.
#[derive(Clone, Debug, Default)]
pub struct AddressList {
    allowed: Arc<[Entry]>,
    denied: Arc<[Entry]>,
}

/// One entry of an [`AddressList`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    place: Place,
    /// Only this port.
    port: Option<u16>,
}

/// Where an entry leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// This name, whatever its addresses.
    Host(String),
    /// These addresses, whatever names they go by.
    Net(IpNet),
}

/// A receiver that is not connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRefused {
    why: Why,
    /// The address itself, where it was judged: for logs.
    pub ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// What kind of address it has, e.g. `a private`.
    NotPublic(&'static str),
    Denied,
}

/// Where names become addresses.
pub trait Names: Clone + Send + Sync + 'static {
    /// The addresses of `host`.
    fn look_up(&self, host: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug)]
pub struct SystemNames;

/// A look-up of one's own [`Names`].
pub type LookUp = Arc<dyn Fn(String) -> Promised<io::Result<Vec<IpAddr>>> + Send + Sync>;

type Promised<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Sifts what is looked up for one connection.
#[derive(Clone)]
pub struct Guard {
    names: LookUp,
    list: AddressList,
    /// The port that is connected to.
    port: Option<u16>,
}

impl AddressList {
    /// With these entries.
    pub fn new(allowed: &[Entry], denied: &[Entry]) -> Self {
        Self { allowed: allowed.into(), denied: denied.into() }
    }

    /// Whether `receiver` is reached by `https`, or may do without.
    pub fn allows_scheme(&self, receiver: &Receiver) -> bool {
        receiver.url().scheme() == "https" || names(&self.allowed, receiver.url())
    }

    /// Whether an entry denies `receiver` by what its URL says; its address is judged when it is looked up.
    pub fn denies(&self, receiver: &Receiver) -> bool {
        names(&self.denied, receiver.url())
    }

    /// Judges what the URL says by itself: its host where that is an address, which is not looked up, and what is denied.
    pub fn judge_literal(&self, receiver: &Receiver) -> Result<(), AddressRefused> {
        let port = receiver.url().port_or_known_default();
        match receiver.url().host() {
            Some(Host::Ipv4(ip)) => self.judge(ip.into(), port),
            Some(Host::Ipv6(ip)) => self.judge(ip.into(), port),
            Some(Host::Domain(_)) if self.denies(receiver) => Err(AddressRefused { why: Why::Denied, ip: None }),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }

    fn judge(&self, ip: IpAddr, port: Option<u16>) -> Result<(), AddressRefused> {
        if self.denied.iter().any(|entry| entry.is_address(ip, port) || entry.is_address(ip.to_canonical(), port)) {
            return Err(AddressRefused { why: Why::Denied, ip: Some(ip) });
        }
        match special::kind(ip) {
            Some(what) if !self.allowed.iter().any(|entry| entry.is_address(ip, port)) => {
                Err(AddressRefused { why: Why::NotPublic(what), ip: Some(ip) })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Of `found`, what `host` may be connected at; an error where nothing is left.
    fn sift(&self, host: &str, port: Option<u16>, found: Vec<IpAddr>) -> Result<Vec<IpAddr>, AddressRefused> {
        let is_allowed = self.allowed.iter().any(|entry| entry.is_host(host, port));
        let (mut left, mut refused) = (Vec::new(), None);
        for ip in found {
            match self.judge(ip, port) {
                Err(AddressRefused { why: Why::NotPublic(_), .. }) if is_allowed => left.push(ip),
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

/// Whether an entry names what `url` says by itself.
fn names(entries: &[Entry], url: &Url) -> bool {
    let port = url.port_or_known_default();
    entries.iter().any(|entry| match url.host() {
        Some(Host::Domain(host)) => entry.is_host(host, port),
        Some(Host::Ipv4(ip)) => entry.is_address(ip.into(), port),
        Some(Host::Ipv6(ip)) => entry.is_address(ip.into(), port),
        None => false,
    })
}

impl Entry {
    fn is_host(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.is_for(port) && matches!(&self.place, Place::Host(name) if name.eq_ignore_ascii_case(host))
    }

    fn is_address(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.is_for(port) && matches!(&self.place, Place::Net(net) if net.contains(&ip))
    }

    fn is_for(&self, port: Option<u16>) -> bool {
        self.port.is_none() || self.port == port
    }
}

impl FromStr for Entry {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let written = written.trim();
        if let Some(place) = place(written) {
            return Ok(Self { place, port: None });
        }
        let with_port = written.rsplit_once(':').and_then(|(host, port)| {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            // An address of colons needs its brackets.
            let host = bare.or_else(|| (!host.contains(':')).then_some(host))?;
            Some(Self { place: place(host)?, port: Some(port.parse().ok().filter(|port| *port > 0)?) })
        });
        with_port.ok_or_else(|| {
            ConfigError::new(format!(
                "{written:?} is none of these: write a host name (hooks.internal) or a network (10.1.0.0/16), for one port with it (hooks.internal:8443)"
            ))
        })
    }
}

fn place(written: &str) -> Option<Place> {
    let address = || written.parse::<IpAddr>().map(IpNet::from);
    if let Ok(net) = written.parse::<IpNet>().or_else(|_| address()) {
        return Some(Place::Net(net));
    }
    match Host::parse(written) {
        Ok(Host::Domain(name)) if !name.contains('*') => {
            Some(Place::Host(name.strip_suffix('.').unwrap_or(&name).to_owned()))
        }
        _ => None,
    }
}

impl Names for SystemNames {
    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

impl Guard {
    /// Over what `names` finds, for a connection to `port`.
    pub fn new(names: LookUp, list: AddressList, port: Option<u16>) -> Self {
        Self { names, list, port }
    }
}

impl Service<Name> for Guard {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Promised<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = (guard.names)(host.to_owned()).await?;
            let left = guard.list.sift(host, guard.port, found)?;
            // The port is the URL's.
            let addresses: Vec<_> = left.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Without the address, which a stranger may be after.
impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            Why::NotPublic(what) => {
                write!(f, "has {what} address, which is not delivered to unless --webhook-allow opens it")
            }
            Why::Denied => f.write_str("is not delivered to: --webhook-deny names it"),
        }
    }
}

impl Error for AddressRefused {}

#[cfg(test)]
mod tests;
