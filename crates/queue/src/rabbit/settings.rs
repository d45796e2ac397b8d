//! Where the broker is and how it is used, and whether that can work at all.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use secrecy::SecretString;

use super::{super::QueueError, connect::BrokerHosts};

/// What is done about exchanges, queues and bindings when a session begins, and every minute from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TopologyMode {
    /// Declared, all of them; needs the right to configure.
    #[default]
    Declare,
    /// Exchanges and queues are looked for, and a missing one is named; the process is not ready while one is missing.
    Verify,
    /// Taken to be there.
    Skip,
}

/// A client certificate, both parts as PEM; read anew at every dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, and what leads from it to its root.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
}

/// Where the broker is and how it is used.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// `amqp://` or `amqps://`, one for each host; tried in an order drawn anew for each connection.
    pub urls: Vec<SecretString>,
    /// Before the name of every exchange and queue.
    pub prefix: String,
    /// What is done about them.
    pub topology: TopologyMode,
    /// Certificates trusted beside those of the system, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Shown to the broker.
    pub client_identity: Option<ClientIdentity>,
    /// The connections' name at the broker, e.g. `purger`; their role is put to it.
    pub name: String,
    /// Messages wait and nothing is delivered for this long: the session is rebuilt (SPEC 5.10: 60 s).
    pub watchdog: Duration,
}

/// One host of the broker, taken apart: for whoever speaks to it otherwise than by AMQP.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Name or address.
    pub host: String,
    /// Whether it is reached by TLS.
    pub secure: bool,
    /// The virtual host.
    pub virtual_host: String,
    /// Who logs in.
    pub user: String,
    /// With what.
    pub password: SecretString,
}

impl RabbitSettings {
    /// The hosts, in the order in which they are named.
    pub fn addresses(&self) -> Result<Vec<BrokerAddress>, QueueError> {
        Ok(BrokerHosts::new(self)?.addresses())
    }

    /// Finds what cannot work whatever the broker's state: a wrong URL or prefix, certificates that cannot be read, a
    /// watchdog without patience. Neither connects nor needs a runtime. All who use these settings ask the same.
    pub fn check(&self) -> Result<(), QueueError> {
        BrokerHosts::new(self).map(drop)
    }
}
