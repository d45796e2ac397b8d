//! The settings of a broker: its addresses and how it is used.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use secrecy::SecretString;

/// The treatment of exchanges, queues and bindings when a session begins, and every minute from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TopologyMode {
    /// Declares all of them; needs the right to configure.
    #[default]
    Declare,
    /// Looks for exchanges and queues, and names a missing one; the process is not ready while one is missing.
    Verify,
    /// Assumes that they are there.
    Skip,
}

/// A client certificate, both parts as PEM; read anew for every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate and its chain.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
}

/// The settings of a broker.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// `amqp://` or `amqps://`, one for each host; tried in an order drawn anew for each connection.
    pub urls: Vec<SecretString>,
    /// First part of the name of every exchange and queue.
    pub prefix: String,
    /// The treatment of exchanges, queues and bindings.
    pub topology: TopologyMode,
    /// Certificate authorities that are trusted beside those of the system, as PEM.
    pub ca_file: Option<PathBuf>,
    /// The client certificate that is shown to the broker.
    pub client_identity: Option<ClientIdentity>,
    /// Name of the connections at the broker, e.g. `purger`, to which their role is added.
    pub name: String,
    /// Time after which the session is rebuilt if messages wait and nothing is delivered (SPEC 5.10: 60 s).
    pub watchdog: Duration,
}

/// One host of the broker, for other protocols than AMQP.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// It is reached by TLS.
    pub secure: bool,
    /// The virtual host.
    pub virtual_host: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretString,
}
