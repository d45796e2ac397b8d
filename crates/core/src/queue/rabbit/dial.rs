//! From a URL to an open AMQP connection: the hosts and their order, TLS, time-outs, and a way to end what
//! hangs. Never shows a password.

use std::{
    fs,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties, ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::{Host as UrlHost, Url};

use super::{super::QueueError, ClientIdentity, RabbitSettings};

/// Name, TCP, TLS and the AMQP handshake together.
const DIAL: Duration = Duration::from_secs(10);
/// Seconds, where the URL does not say: two of them without a sign of life end the connection.
const HEARTBEAT: u16 = 15;
/// Exchange and queue names are short strings, and ours are up to 30 bytes longer.
const LONGEST_PREFIX: usize = 100;

/// lapin ends the connection over a message whose short strings (ids, names of headers) are not UTF-8.
pub(super) const UNREADABLE: &str = "the broker sent what cannot be read";

/// One address of the broker.
#[derive(Clone)]
pub(super) struct Host {
    uri: AMQPUri,
    /// Scheme, host, port and virtual host: all that may be shown.
    pub(super) shown: String,
}

/// All addresses, and how to be let in.
pub(super) struct Broker {
    hosts: Vec<Host>,
    name: String,
    ca_file: Option<PathBuf>,
    identity: Option<ClientIdentity>,
}

impl Broker {
    /// Checks all that can be checked without the broker.
    pub(super) fn new(settings: &RabbitSettings) -> Result<Self, QueueError> {
        check_prefix(&settings.prefix)?;
        let hosts = settings.urls.iter().map(host).collect::<Result<Vec<_>, _>>()?;
        if hosts.is_empty() {
            return Err(QueueError::Configuration("no broker is named: give an amqp:// or amqps:// URL".to_owned()));
        }
        let (ca_file, identity) = (settings.ca_file.clone(), settings.client_identity.clone());
        let broker = Self { hosts, name: settings.name.clone(), ca_file, identity };
        broker.tls().map_err(QueueError::Configuration)?;
        Ok(broker)
    }

    /// The hosts in an order of chance, over and over.
    pub(super) fn rotation(&self) -> impl Iterator<Item = Host> + Send + use<> {
        let mut hosts = self.hosts.clone();
        fastrand::shuffle(&mut hosts);
        hosts.into_iter().cycle()
    }

    /// One connection to `host`, named after its `role`, within 10 s.
    pub(super) async fn dial(&self, host: &Host, role: &str) -> Result<(Connection, Line), String> {
        let properties = ConnectionProperties::default().with_connection_name(format!("{} {role}", self.name).into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let tls = self.tls()?;
        let line = Line::default();
        let held = line.0.clone();
        // lapin applies no time-out of its own, neither to dialling nor to the handshake, and a connection
        // attempt that is dropped lives on in its thread: our own dialling keeps hold of the socket to end it.
        let connecting = Connection::connector(
            host.uri.clone(),
            runtime,
            async move |uri: AMQPUri, runtime| {
                let address = (uri.authority.host.clone(), uri.authority.port);
                let stream = async {
                    let addresses: Vec<_> = tokio::net::lookup_host(address).await?.collect();
                    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(plain) = &stream {
                        held.hold(TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?));
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls.as_ref()).await,
                    }
                };
                timeout(DIAL, stream).await.unwrap_or_else(|elapsed| Err(elapsed.into())).map_err(lapin::Error::from)
            },
            properties,
        );
        match timeout(DIAL, connecting).await {
            Ok(Ok(connection)) => Ok((connection, line)),
            Ok(Err(error)) => Err(format!("{}: {}", host.shown, why(&error))),
            Err(_) => Err(format!("{}: no connection within {DIAL:?}", host.shown)),
        }
    }

    /// Read anew each time: certificates are rotated.
    fn tls(&self) -> Result<OwnedTLSConfig, String> {
        let cert_chain =
            self.ca_file.as_deref().map(|file| read(file).and_then(|bytes| pem_text(file, bytes))).transpose()?;
        let identity = self.identity.as_ref().map(|identity| {
            Ok::<_, String>(OwnedIdentity::PKCS8 { pem: read(&identity.certificate)?, key: read(&identity.key)? })
        });
        Ok(OwnedTLSConfig { identity: identity.transpose()?, cert_chain })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

fn pem_text(file: &Path, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| format!("{} is no PEM file", file.display()))
}

fn check_prefix(prefix: &str) -> Result<(), QueueError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if (1..=LONGEST_PREFIX).contains(&prefix.len()) && prefix.bytes().all(allowed) && !prefix.starts_with("amq.") {
        return Ok(());
    }
    let rule = format!("1 to {LONGEST_PREFIX} of A-Za-z0-9._:- and does not begin with amq.");
    Err(QueueError::Configuration(format!("{prefix:?} is no queue prefix: it takes {rule}")))
}

/// No error here may repeat the URL: it holds a password.
fn host(url: &SecretString) -> Result<Host, QueueError> {
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
    // lapin takes an address in brackets for no host at all, and goes to localhost.
    if let Some(UrlHost::Ipv6(address)) = parsed.host() {
        uri.authority.host = address.to_string();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    let (authority, host) = (&uri.authority, &uri.authority.host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let shown = format!("{}://{host}:{}/{}", uri.scheme, authority.port, uri.vhost.trim_start_matches('/'));
    Ok(Host { uri, shown })
}

/// The error in a sentence; a refusal of our credentials said as such.
pub(super) fn why(error: &lapin::Error) -> String {
    if let ErrorKind::ParsingError(_) = error.kind() {
        return UNREADABLE.to_owned();
    }
    if let ErrorKind::ProtocolError(refusal) = error.kind() {
        let refused =
            [AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED), AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)];
        return match refusal.kind() {
            kind if refused.contains(kind) => {
                format!("access is refused; check user, password and rights: {}", refusal.get_message())
            }
            _ => refusal.get_message().to_string(),
        };
    }
    error.to_string()
}

/// The socket under a connection, to end it where the AMQP way of closing hangs. Cut when dropped.
#[derive(Default)]
pub(super) struct Line(Arc<Socket>);

#[derive(Default)]
struct Socket(Mutex<Held>);

#[derive(Default)]
struct Held {
    cut: bool,
    socket: Option<TcpStream>,
}

impl Line {
    /// lapin's thread sees the end of the stream and ends as well.
    pub(super) fn cut(&self) {
        let mut held = self.0.held();
        held.cut = true;
        if let Some(socket) = held.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Socket {
    fn hold(&self, socket: TcpStream) {
        let mut held = self.held();
        if held.cut {
            let _ = socket.shutdown(Shutdown::Both);
        } else {
            held.socket = Some(socket);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(urls: &[&str]) -> RabbitSettings {
        RabbitSettings {
            urls: urls.iter().map(|url| SecretString::from(*url)).collect(),
            prefix: "genfleet".to_owned(),
            topology: super::super::TopologyMode::Declare,
            ca_file: None,
            client_identity: None,
            name: "test".to_owned(),
            watchdog: Duration::from_secs(60),
        }
    }

    #[test]
    fn what_is_shown_of_a_url_holds_no_password() {
        let given = "amqps://someone:hunter2@rabbit.example/%2fteam?heartbeat=5";
        let broker = Broker::new(&settings(&[given])).unwrap();
        assert_eq!(broker.hosts[0].shown, "amqps://rabbit.example:5671/team");
        assert_eq!(broker.hosts[0].uri.query.heartbeat, Some(5));
    }

    #[test]
    fn an_address_in_brackets_is_dialled() {
        let broker = Broker::new(&settings(&["amqp://[::1]"])).unwrap();
        assert_eq!(broker.hosts[0].uri.authority.host, "::1");
        assert_eq!(
            (broker.hosts[0].shown.as_str(), broker.hosts[0].uri.query.heartbeat),
            ("amqp://[::1]:5672/", Some(15))
        );
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
            let error = Broker::new(&settings(&[url])).err().unwrap().to_string();
            assert!(!error.contains("hunter2") && error.contains("amqp://user:password@host"), "{url}: {error}");
        }
        assert!(Broker::new(&settings(&[])).is_err());
    }

    #[test]
    fn a_prefix_that_names_no_queue_is_refused() {
        for prefix in ["", "amq.mine", "two words", &"x".repeat(101)] {
            let settings = RabbitSettings { prefix: prefix.to_owned(), ..settings(&["amqp://h"]) };
            assert!(Broker::new(&settings).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named() {
        let settings = RabbitSettings { ca_file: Some("no/such/ca.pem".into()), ..settings(&["amqps://h"]) };
        assert!(Broker::new(&settings).err().unwrap().to_string().starts_with("no/such/ca.pem cannot be read"));
    }

    #[test]
    fn each_connection_tries_all_hosts_before_one_again() {
        let broker = Broker::new(&settings(&["amqp://a", "amqp://b", "amqp://c"])).unwrap();
        let mut tried: Vec<_> = broker.rotation().take(3).map(|host| host.shown).collect();
        tried.sort();
        assert_eq!(tried, ["amqp://a:5672/", "amqp://b:5672/", "amqp://c:5672/"]);
    }
}
