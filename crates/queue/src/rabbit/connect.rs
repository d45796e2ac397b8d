//! Connects to the broker: from URLs to an open AMQP connection, with TLS, time-outs, and a way to end a connection
//! that hangs. Never shows a password.

use std::{io, os::fd::AsFd, sync::Arc, time::Duration};

use async_rs::Runtime;
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    types::FrameSize,
    uri::{AMQPScheme, AMQPUri},
};
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::compat::TokioAsyncReadCompatExt;
use url::{Host as UrlHost, Url};

use super::{
    certificates::Certificates,
    error::describe,
    guard::{Guarded, Kit, Stream, frames::Frames},
    link::{ConnectionRole, OpenConnection},
    settings::{BrokerAddress, RabbitSettings},
    socket::{SocketHandle, SocketSlot},
};
use crate::{message::QueueError, topology::check_prefix};

/// Time for name resolution, TCP, TLS and the AMQP handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeat interval in seconds, unless the URL sets one. Two intervals without traffic end the connection.
const HEARTBEAT: u16 = 15;

/// Maximum frame size in bytes, even if the broker allows more: lapin reserves memory for 64 frames per connection,
/// which without a limit is 128 GiB. This is the broker's default, so a producer's headers can be as long.
const FRAME: FrameSize = 128 * 1024;
/// Smallest maximum frame size that a broker accepts (4.1 and later).
const SMALLEST_FRAME: FrameSize = 8 * 1024;
/// Maximum frame size of the publishing connection: at most 64 KiB of message headers, the other properties, and room.
const PUBLISHING_FRAME: FrameSize = 72 * 1024;
/// Maximum frame size of the connection for control messages, which are short and have no headers.
const CONTROL_FRAME: FrameSize = 8 * 1024;
/// The role of the connection for control messages, as the broker shows it.
pub(super) const CONTROL: &str = "gossip";
/// The role of the connection that replies to producers.
pub(super) const REPLIES: &str = "replies";

/// The error for a watchdog of 0 s, which would end the session at every count.
const NO_WATCHDOG: &str = "--queue-watchdog: 0 s would end every session at once; write 60s";

/// One address of the broker.
#[derive(Clone)]
pub(super) struct BrokerHost {
    uri: AMQPUri,
    /// Scheme, host, port and virtual host, without credentials.
    pub(super) display_name: String,
}

impl BrokerHost {
    fn address(&self) -> BrokerAddress {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        BrokerAddress {
            host: authority.host.clone(),
            secure: *scheme == AMQPScheme::AMQPS,
            virtual_host: vhost.clone(),
            user: authority.userinfo.username.clone(),
            password: authority.userinfo.password.clone().into(),
        }
    }
}

/// The addresses of the broker, and the certificates to connect with.
pub(super) struct BrokerHosts {
    hosts: Vec<BrokerHost>,
    name: String,
    certificates: Certificates,
}

impl BrokerHosts {
    /// Checks everything that can be checked without the broker.
    pub(super) fn new(settings: &RabbitSettings) -> Result<Self, QueueError> {
        check_prefix(&settings.prefix)?;
        if settings.watchdog.is_zero() {
            return Err(QueueError::Configuration(NO_WATCHDOG.to_owned()));
        }
        let hosts = settings.urls.iter().map(host).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(QueueError::Configuration("no broker is named: give an amqp:// or amqps:// URL".to_owned()));
        }
        let certificates = Certificates::new(settings.ca_file.clone(), settings.client_identity.clone());
        certificates.read().map_err(QueueError::Configuration)?;
        Ok(Self { hosts, name: settings.name.clone(), certificates })
    }

    /// Returns the hosts in a random order, repeated without end.
    pub(super) fn rotation(&self) -> impl Iterator<Item = BrokerHost> + Send + use<> {
        let mut hosts = self.hosts.clone();
        fastrand::shuffle(&mut hosts);
        hosts.into_iter().cycle()
    }

    /// The hosts in the order in which they are configured.
    pub(super) fn hosts(&self) -> &[BrokerHost] {
        &self.hosts
    }

    /// Opens a connection to a random host.
    pub(super) async fn connect_any(&self, role: &str) -> Result<OpenConnection, String> {
        match self.rotation().next() {
            Some(host) => self.connect(&host, role).await,
            None => Err("no broker is named".to_owned()),
        }
    }

    /// Opens a connection to `host`, named after its `role`, within 10 s.
    pub(super) async fn connect(&self, host: &BrokerHost, role: &str) -> Result<OpenConnection, String> {
        let properties = ConnectionProperties::default().with_connection_name(format!("{} {role}", self.name).into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let tls = match host.uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => Some(TlsConnector::from(Arc::new(self.certificates.read()?.client_config()?))),
        };
        let mut uri = host.uri.clone();
        let frame_max = frame_max(role, uri.query.frame_max);
        uri.query.frame_max = Some(frame_max);
        let socket = SocketHandle::default();
        let slot = socket.slot();
        // lapin has no time-out for connecting or for the handshake, and an attempt that is dropped continues in its
        // thread. So the socket is connected here, and kept to end the attempt.
        let connecting = Connection::connector(
            uri,
            Runtime::new(Kit(runtime)),
            async move |uri: AMQPUri, _: Runtime<Kit>| {
                let connected = timeout(CONNECT_TIMEOUT, connect(&uri, tls.as_ref(), &slot)).await;
                let stream = connected.unwrap_or_else(|elapsed| Err(elapsed.into()))?;
                Ok(AsyncTcpStream::Plain(Guarded::new(stream, Frames::new(frame_max, slot.clone()))))
            },
            properties,
        );
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(OpenConnection { connection, socket }),
            Ok(Err(error)) => Err(format!("{}: {}", host.display_name, describe(error))),
            Err(_) => Err(format!("{}: no connection within {CONNECT_TIMEOUT:?}", host.display_name)),
        }
    }
}

impl RabbitSettings {
    /// The hosts in the order in which they are configured.
    pub fn addresses(&self) -> Result<Vec<BrokerAddress>, QueueError> {
        Ok(BrokerHosts::new(self)?.hosts.iter().map(BrokerHost::address).collect())
    }

    /// Finds errors that do not depend on the broker: a wrong URL or prefix, unreadable certificates, a watchdog of 0
    /// s. Does not connect, and needs no runtime.
    pub fn check(&self) -> Result<(), QueueError> {
        BrokerHosts::new(self).map(drop)
    }
}

/// Connects to the host of `uri`, by TLS if `tls` is given, and stores the socket in `slot`.
async fn connect(uri: &AMQPUri, tls: Option<&TlsConnector>, slot: &SocketSlot) -> io::Result<Box<dyn Stream>> {
    let host = uri.authority.host.as_str();
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    slot.store(std::net::TcpStream::from(stream.as_fd().try_clone_to_owned()?));
    let Some(tls) = tls else { return Ok(Box::new(stream.compat())) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tls.connect(name, stream).await?.compat()))
}

/// Returns the maximum frame size to request. Without one in the URL, or with 0 (no limit), the role decides.
fn frame_max(role: &str, named: Option<FrameSize>) -> FrameSize {
    match role {
        CONTROL => CONTROL_FRAME,
        _ if [ConnectionRole::Publish.as_str(), REPLIES].contains(&role) => PUBLISHING_FRAME,
        _ => named.filter(|named| *named > 0).map_or(FRAME, |named| named.clamp(SMALLEST_FRAME, FRAME)),
    }
}

/// Parses a URL. Errors must not repeat it, because it contains a password.
fn host(url: &SecretString) -> Result<BrokerHost, QueueError> {
    let wrong = |why: String| {
        QueueError::Configuration(format!(
            "a broker's URL is wrong ({why}); write amqp://user:password@host:5672/vhost"
        ))
    };
    let parsed = Url::parse(url.expose_secret()).map_err(|error| wrong(error.to_string()))?;
    if !["amqp", "amqps"].contains(&parsed.scheme()) || parsed.cannot_be_a_base() {
        return Err(wrong("it does not begin with amqp:// or amqps://".to_owned()));
    }
    let mut uri: AMQPUri = url.expose_secret().parse().map_err(wrong)?;
    // lapin does not recognise an address in brackets, and would connect to localhost.
    if let Some(UrlHost::Ipv6(address)) = parsed.host() {
        uri.authority.host = address.to_string();
    }
    if uri.vhost.is_empty() {
        // A virtual host cannot have an empty name. A URL that ends with / means the virtual host "/".
        "/".clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let (authority, host) = (&uri.authority, &uri.authority.host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let display_name = format!("{}://{host}:{}/{}", uri.scheme, authority.port, uri.vhost.trim_start_matches('/'));
    Ok(BrokerHost { uri, display_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(urls: &[&str]) -> RabbitSettings {
        RabbitSettings {
            urls: urls.iter().map(|url| SecretString::from(*url)).collect(),
            prefix: "genfleet".to_owned(),
            topology: crate::rabbit::TopologyMode::Declare,
            kinds: Vec::new(),
            ca_file: None,
            client_identity: None,
            name: "test".to_owned(),
            watchdog: Duration::from_secs(60),
        }
    }

    #[test]
    fn what_is_shown_of_a_url_holds_no_password() {
        let given = "amqps://someone:hunter2@rabbit.example/%2fteam?heartbeat=5";
        let broker = BrokerHosts::new(&settings(&[given])).unwrap();
        assert_eq!(broker.hosts[0].display_name, "amqps://rabbit.example:5671/team");
        assert_eq!(broker.hosts[0].uri.query.heartbeat, Some(5));
    }

    #[test]
    fn a_url_without_a_virtual_host_names_the_default_one_with_a_slash_or_without() {
        for (url, vhost) in [("amqp://a", "/"), ("amqp://a/", "/"), ("amqp://a/%2f", "/"), ("amqp://a/team", "team")] {
            assert_eq!(BrokerHosts::new(&settings(&[url])).unwrap().hosts[0].uri.vhost, vhost, "{url}");
        }
    }

    #[test]
    fn an_address_in_brackets_is_used() {
        let broker = BrokerHosts::new(&settings(&["amqp://[::1]"])).unwrap();
        assert_eq!(broker.hosts[0].uri.authority.host, "::1");
        assert_eq!(
            (broker.hosts[0].display_name.as_str(), broker.hosts[0].uri.query.heartbeat),
            ("amqp://[::1]:5672/", Some(15))
        );
    }

    #[test]
    fn a_limit_is_asked_for_whatever_the_url_says() {
        for (named, consuming) in [(None, FRAME), (Some(0), FRAME), (Some(1 << 30), FRAME), (Some(65_536), 65_536)] {
            assert_eq!(frame_max(ConnectionRole::Consume.as_str(), named), consuming);
            assert_eq!(frame_max(ConnectionRole::Publish.as_str(), named), PUBLISHING_FRAME);
            assert_eq!(frame_max(CONTROL, named), CONTROL_FRAME);
        }
        assert_eq!(frame_max("inspect", Some(1)), SMALLEST_FRAME);
    }

    #[test]
    fn a_wrong_url_is_refused_without_repeating_it() {
        for url in [
            "http://u:hunter2@h",
            "amqp:hunter2",
            "u:hunter2@h:5672",
            "amqp://u:hunter2@h:port",
            "amqp://u:hunter2@h?heartbeat=soon",
            "",
        ] {
            let error = BrokerHosts::new(&settings(&[url])).err().unwrap().to_string();
            assert!(!error.contains("hunter2") && error.contains("amqp://user:password@host"), "{url}: {error}");
        }
        assert!(BrokerHosts::new(&settings(&[])).is_err());
    }

    #[test]
    fn whatever_cannot_work_is_found_without_a_runtime_and_without_connecting() {
        let good = || settings(&["amqps://nobody.invalid"]);
        good().check().unwrap();
        for (wrong, message) in [
            (RabbitSettings { prefix: "amq.mine".to_owned(), ..good() }, "no queue prefix"),
            (RabbitSettings { watchdog: Duration::ZERO, ..good() }, "--queue-watchdog"),
            (RabbitSettings { ca_file: Some("no/such/ca.pem".into()), ..good() }, "no/such/ca.pem cannot be read"),
            (settings(&["amqp://h?heartbeat=soon"]), "a broker's URL is wrong"),
            (settings(&[]), "no broker is named"),
        ] {
            let error = wrong.check().unwrap_err();
            assert!(matches!(error, QueueError::Configuration(_)) && error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn each_connection_tries_all_hosts_before_one_again() {
        let broker = BrokerHosts::new(&settings(&["amqp://a", "amqp://b", "amqp://c"])).unwrap();
        let mut tried: Vec<_> = broker.rotation().take(3).map(|host| host.display_name).collect();
        tried.sort();
        assert_eq!(tried, ["amqp://a:5672/", "amqp://b:5672/", "amqp://c:5672/"]);
    }
}
