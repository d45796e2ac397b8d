//! An examination of a broker for the operator's tool: who it is, whether the whole topology is there, how large a
//! message it takes. Over a short-lived connection; creates and changes nothing.

use std::time::Duration;

use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    protocol::AMQPSoftError::{ACCESSREFUSED, PRECONDITIONFAILED},
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    amqp_handshake::BrokerIdentity,
    connect::BrokerHosts,
    declare::{self, TopologyComparison},
    error::{describe, is_refusal},
    link::OpenConnection,
    settings::RabbitSettings,
};
use crate::{
    message::QueueError,
    topology::{Topology, control, topology},
};

/// Time for the comparison of the topology, which a healthy broker needs a fraction of a second for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time for a message, which is taken within milliseconds, or, by a broker with an alarm, not at all.
const MESSAGE: Duration = Duration::from_secs(5);
/// Maximum wait for the broker when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of checking whether the broker has said that it takes no publications.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// One host, and the connection to it.
pub struct HostConnection {
    /// Scheme, host, port and virtual host.
    pub display_name: String,
    /// The connection, or the reason why there is none.
    pub outcome: Result<BrokerExaminer, String>,
}

/// An open connection to one host.
pub struct BrokerExaminer {
    open: OpenConnection,
    prefix: String,
    topology: Topology,
}

/// The answer to a message of some size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageAcceptance {
    /// The broker takes it.
    Yes,
    /// The broker refuses it, with this message.
    No(String),
    /// The broker takes no publications now (alarm).
    Blocked,
    /// It could not be tried, for this reason.
    Unknown(String),
}

impl BrokerExaminer {
    /// Connects to every host once.
    pub async fn connect(settings: &RabbitSettings) -> Result<Vec<HostConnection>, QueueError> {
        let broker = BrokerHosts::new(settings)?;
        let mut connections = Vec::new();
        for host in broker.hosts() {
            let (prefix, topology) = (settings.prefix.clone(), topology(&settings.prefix));
            let outcome = broker.connect(host, "examine").await.map(|open| Self { open, prefix, topology });
            connections.push(HostConnection { display_name: host.display_name.clone(), outcome });
        }
        Ok(connections)
    }

    /// The broker's identity.
    pub fn identity(&self) -> Option<&BrokerIdentity> {
        self.open.socket.identity()
    }

    /// Looks for every exchange and queue, and compares their arguments if our user may.
    ///
    /// What is there is declared again, which compares and creates nothing. Should somebody delete it between the two,
    /// it is created again.
    pub async fn compare(&self) -> Result<TopologyComparison, QueueError> {
        let compared = timeout(PATIENCE, declare::compare(&self.open.connection, &self.topology)).await;
        let late = |_| QueueError::Broker(format!("the topology could not be compared within {PATIENCE:?}"));
        compared.map_err(late)?.map_err(QueueError::Broker)
    }

    /// Publishes `bytes` with a key that no queue is bound by, to the default exchange or, if our user may not, to the
    /// one of broadcasts: the broker returns the message, unless it is too large. To be called last: a broker with an
    /// alarm says nothing more on a connection that has published.
    pub async fn takes(&self, bytes: usize) -> MessageAcceptance {
        let trying = async {
            match self.try_message("", bytes).await {
                Err(error) if is_refusal(&error, &ACCESSREFUSED) => {
                    self.try_message(&control(&self.prefix), bytes).await
                }
                answer => answer,
            }
        };
        let blocked = async {
            while !self.open.connection.status().blocked() {
                sleep(CHECK_EVERY).await;
            }
        };
        let tried = tokio::select! {
            tried = timeout(MESSAGE, trying) => tried,
            () = blocked => return MessageAcceptance::Blocked,
        };
        match tried {
            Ok(Ok(())) => MessageAcceptance::Yes,
            Ok(Err(error)) if is_refusal(&error, &PRECONDITIONFAILED) => MessageAcceptance::No(describe(error)),
            Ok(Err(error)) => MessageAcceptance::Unknown(describe(error)),
            Err(_) => MessageAcceptance::Unknown(format!("no answer within {MESSAGE:?}")),
        }
    }

    async fn try_message(&self, exchange: &str, bytes: usize) -> lapin::Result<()> {
        let channel = self.open.confirming_channel().await?;
        let nowhere = format!("genfleet-doctor-{}", Uuid::new_v4());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (body, properties) = (vec![b' '; bytes], BasicProperties::default());
        channel.basic_publish(exchange.into(), nowhere.into(), options, &body, properties).await?.await?;
        Ok(())
    }

    /// Closes the connection; dropping it cuts it.
    pub async fn close(self) {
        self.open.close(CLOSE_TIMEOUT).await;
    }
}
