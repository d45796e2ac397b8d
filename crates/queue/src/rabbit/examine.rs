//! Whether a broker can be worked with: who it is, whether the whole topology is there, how large a message it takes.
//! For the operator's tool, over a short-lived connection. Makes and changes nothing; judges nothing.

use std::time::Duration;

use lapin::{
    BasicProperties, Connection, ErrorKind,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
};
use tokio::time::timeout;
use uuid::Uuid;

pub use super::declare::TopologyComparison;
use super::{
    RabbitSettings,
    amqp_handshake::BrokerIdentity,
    connect::{BrokerHosts, describe},
    declare,
    socket::SocketHandle,
};
use crate::{
    QueueError,
    topology::{Topology, control, topology},
};

/// Looking at the whole topology of a healthy broker takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(20);
/// A message is taken within milliseconds, or, by a broker with an alarm, not at all.
const MESSAGE: Duration = Duration::from_secs(5);
const GOODBYE: Duration = Duration::from_secs(2);

/// One host, and what came of dialling it.
pub struct HostConnection {
    /// Scheme, host, port and virtual host.
    pub display_name: String,
    /// A connection, or why there is none.
    pub outcome: Result<BrokerExaminer, String>,
}

/// An open connection to one host.
pub struct BrokerExaminer {
    connection: Connection,
    prefix: String,
    topology: Topology,
    line: SocketHandle,
}

/// Whether a message of some size gets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageAcceptance {
    /// It does.
    Yes,
    /// It is refused; the broker's words.
    No(String),
    /// It could not be tried; why.
    Unknown(String),
}

impl BrokerExaminer {
    /// Dials every host once.
    pub async fn connect(settings: &RabbitSettings) -> Result<Vec<HostConnection>, QueueError> {
        let broker = BrokerHosts::new(settings)?;
        let mut dialled = Vec::new();
        for host in broker.hosts() {
            let outcome = broker.connect(host, "examine").await;
            let outcome = outcome.map(|(connection, line)| Self {
                connection,
                prefix: settings.prefix.clone(),
                topology: topology(&settings.prefix),
                line,
            });
            dialled.push(HostConnection { display_name: host.display_name.clone(), outcome });
        }
        Ok(dialled)
    }

    /// Who answers.
    pub fn identity(&self) -> Option<&BrokerIdentity> {
        self.line.identity()
    }

    /// Looks for every exchange and queue, and compares their arguments where our user may.
    ///
    /// What is there is declared again, which compares and makes nothing. Should somebody delete it between the two, it
    /// is made anew.
    pub async fn compare(&self) -> Result<TopologyComparison, QueueError> {
        let compared = timeout(PATIENCE, declare::compare(&self.connection, &self.topology)).await;
        let late = |_| QueueError::Broker(format!("the topology could not be looked at within {PATIENCE:?}"));
        compared.map_err(late)?.map_err(QueueError::Broker)
    }

    /// Publishes `bytes` under a key that no queue has, to the default exchange or, where our user may not, to the one of
    /// the fleet's own words: the broker hands it back, unless it is too large. To be asked last: a broker with an alarm says nothing more on a connection that has published.
    pub async fn takes(&self, bytes: usize) -> MessageAcceptance {
        let trying = async {
            match self.try_message("", bytes).await {
                Err(error) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => {
                    self.try_message(&control(&self.prefix), bytes).await
                }
                tried => tried,
            }
        };
        match timeout(MESSAGE, trying).await {
            Ok(Ok(())) => MessageAcceptance::Yes,
            Ok(Err(error)) if is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED) => {
                MessageAcceptance::No(describe(&error))
            }
            Ok(Err(error)) => MessageAcceptance::Unknown(describe(&error)),
            Err(_) => MessageAcceptance::Unknown(format!(
                "no answer within {MESSAGE:?}; a broker with an alarm takes nothing"
            )),
        }
    }

    async fn try_message(&self, exchange: &str, bytes: usize) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let nowhere = format!("genfleet-doctor-{}", Uuid::new_v4());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = vec![b' '; bytes];
        channel
            .basic_publish(exchange.into(), nowhere.into(), options, &body, BasicProperties::default())
            .await?
            .await?;
        Ok(())
    }

    /// Says goodbye; dropping does without.
    pub async fn close(self) {
        let _ = timeout(GOODBYE, self.connection.close(200, "closed".into())).await;
    }
}

fn is_soft(error: &lapin::Error, kind: &AMQPSoftError) -> bool {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return false };
    matches!(refusal.kind(), AMQPErrorKind::Soft(soft) if soft == kind)
}
