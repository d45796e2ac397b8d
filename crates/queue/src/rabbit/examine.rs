//! Examines a broker for the operator's tool: its identity, whether the topology is complete, and the size of messages
//! that it accepts. Uses a short-lived connection; creates and changes nothing.

use std::time::Duration;

use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    protocol::AMQPSoftError::{self, ACCESSREFUSED, PRECONDITIONFAILED},
};
use tokio::time::timeout;
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
    topology::{Topology, control},
};

/// Maximum time for the comparison of the topology. A healthy broker needs a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// Maximum time for a message. It is accepted within milliseconds or, by a broker with an alarm, not at all.
const MESSAGE: Duration = Duration::from_secs(5);
/// Maximum wait for the broker when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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

/// The broker's reaction to a message of some size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageAcceptance {
    /// The broker accepts it.
    Yes,
    /// The broker refuses it, with this message.
    No(String),
    /// The broker blocks publications now (alarm).
    Blocked,
    /// It could not be tested, for this reason.
    Unknown(String),
}

impl BrokerExaminer {
    /// Tries to connect to every host once.
    pub async fn connect(settings: &RabbitSettings) -> Result<Vec<HostConnection>, QueueError> {
        let broker = BrokerHosts::new(settings)?;
        let mut connections = Vec::new();
        for host in broker.hosts() {
            let (prefix, topology) = (settings.prefix.clone(), settings.needed_topology());
            let outcome = broker.connect(host, "examine").await.map(|open| Self { open, prefix, topology });
            connections.push(HostConnection { display_name: host.display_name.clone(), outcome });
        }
        Ok(connections)
    }

    /// The broker's identity.
    pub fn identity(&self) -> Option<&BrokerIdentity> {
        self.open.socket.identity()
    }

    /// Checks every exchange and queue, and compares their arguments if the user has the right to declare them.
    ///
    /// Existing objects are declared again, which compares them and creates nothing. An object that is deleted between
    /// the check and the declaration is created again.
    pub async fn compare(&self) -> Result<TopologyComparison, QueueError> {
        let compared = timeout(PATIENCE, declare::compare(&self.open.connection, &self.topology)).await;
        let late = |_| QueueError::Broker(format!("the topology could not be compared within {PATIENCE:?}"));
        compared.map_err(late)?.map_err(QueueError::Broker)
    }

    /// Publishes `bytes` with a key to which no queue is bound, to the default exchange or, if the user lacks that
    /// right, to the exchange of broadcasts. The broker returns the message, unless it is too large. Call this last:
    /// while the broker has an alarm, it does not answer on a connection that has published.
    pub async fn test_message(&self, bytes: usize) -> MessageAcceptance {
        let trying = async {
            match self.try_message("", bytes).await {
                Err(error) if is_refusal(&error, &ACCESSREFUSED) => {
                    self.try_message(&control(&self.prefix), bytes).await
                }
                answer => answer,
            }
        };
        self.acceptance(trying, &PRECONDITIONFAILED).await
    }

    /// Publishes an empty message to the default exchange, as replies are, with a key to which no queue is bound. Call
    /// this late, like [`Self::test_message`].
    pub async fn test_reply(&self) -> MessageAcceptance {
        self.acceptance(self.try_message("", 0), &ACCESSREFUSED).await
    }

    /// Waits for the answer to a message. A refusal with `code` is the broker's No.
    async fn acceptance(
        &self,
        trying: impl Future<Output = lapin::Result<()>>,
        code: &AMQPSoftError,
    ) -> MessageAcceptance {
        let tried = tokio::select! {
            tried = timeout(MESSAGE, trying) => tried,
            () = self.open.wait_until_blocked() => return MessageAcceptance::Blocked,
        };
        match tried {
            Ok(Ok(())) => MessageAcceptance::Yes,
            Ok(Err(error)) if is_refusal(&error, code) => MessageAcceptance::No(describe(error)),
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

    /// Closes the connection. Dropping it closes only the socket.
    pub async fn close(self) {
        self.open.close(CLOSE_TIMEOUT).await;
    }
}
