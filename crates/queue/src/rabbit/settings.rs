//! The settings of a broker: its addresses and how it is used.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use secrecy::SecretString;

use crate::topology::{Topology, topology, topology_of};
use genfleet_job::Kind;

/// The handling of exchanges, queues and bindings when a session begins, and every minute after that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TopologyMode {
    /// Declares all of them; needs the right to configure.
    #[default]
    Declare,
    /// Checks that the exchanges and queues that this process uses exist, and reports missing ones. The process is not
    /// ready while one is missing.
    Verify,
    /// Assumes that they exist.
    Skip,
}

/// A client certificate, both parts as PEM; read again for every connection.
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
    /// `amqp://` or `amqps://` URLs, one for each host; tried in a new random order for each connection.
    pub urls: Vec<SecretString>,
    /// First part of the name of every exchange and queue.
    pub prefix: String,
    /// The treatment of exchanges, queues and bindings.
    pub topology: TopologyMode,
    /// Kinds that this process works, or of which it publishes jobs. [`TopologyMode::Verify`] ignores the queues of all
    /// others.
    pub kinds: Vec<Kind>,
    /// Certificate authorities that are trusted in addition to those of the system, as PEM.
    pub ca_file: Option<PathBuf>,
    /// The client certificate for the broker.
    pub client_identity: Option<ClientIdentity>,
    /// Name of the connections at the broker, e.g. `purger`; their role is appended.
    pub name: String,
    /// Time after which the session is rebuilt if messages wait and none is delivered (SPEC 5.10: 60 s).
    pub watchdog: Duration,
}

impl RabbitSettings {
    /// The exchanges, queues and bindings that have to exist.
    pub fn needed_topology(&self) -> Topology {
        match self.topology {
            TopologyMode::Verify => topology_of(&self.prefix, &self.kinds),
            TopologyMode::Declare | TopologyMode::Skip => topology(&self.prefix),
        }
    }
}

/// One host of the broker, for other protocols than AMQP.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// True if it uses TLS.
    pub secure: bool,
    /// The virtual host.
    pub virtual_host: String,
    /// The user.
    pub user: String,
    /// The password.
    pub password: SecretString,
}
