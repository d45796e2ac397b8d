//! One process of the fleet at a time for some kinds (SPEC 6.1): it holds the exclusive queue `<prefix>.lock.<kind>`
//! on its consuming connection. The broker lets it go with that connection, so it outlives no session.

use std::time::Duration;

use lapin::{
    Channel, ErrorKind, options::QueueDeclareOptions, protocol::AMQPErrorKind, protocol::AMQPSoftError,
    types::FieldTable,
};
use tokio::time::{Instant, sleep};

use super::{
    dial::why,
    session::{Link, Lost},
};
use crate::{
    job::Kind,
    queue::tenure::{Proof, Tenure},
};

/// How long one that stands by waits between two tries.
const STANDING_BY: Duration = Duration::from_secs(2);

/// How long after one proof that it is held the next one is asked for.
const PROVEN_EVERY: Duration = Duration::from_secs(1);

/// The lock of one kind, held.
pub(super) struct Lock {
    name: String,
    /// It was taken on this.
    channel: Channel,
    tenure: Tenure,
    proof: Proof,
}

/// Waits until this connection holds the lock of `kind`.
pub(super) async fn hold(link: &Link, prefix: &str, kind: Kind) -> Result<Lock, Lost> {
    let name = format!("{prefix}.lock.{kind}");
    let mut told = false;
    loop {
        // A refusal closes the channel.
        let channel = link.channel(1).await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await {
            Ok(_) => {
                tracing::info!(kind = kind.as_str(), "holds the lock of this kind");
                let (tenure, proof) = Tenure::begin();
                return Ok(Lock { name, channel, tenure, proof });
            }
            Err(error) if is_held(&error) => {}
            Err(error) => return Err(why(&error)),
        }
        if !told {
            tracing::info!(kind = kind.as_str(), "standing by: another process works this kind");
            told = true;
        }
        sleep(STANDING_BY).await;
    }
}

impl Lock {
    /// The time for which it is held.
    pub(super) fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Proves again and again that it is held; why it is not any more.
    pub(super) async fn proven(&self) -> Lost {
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        loop {
            let asked = Instant::now();
            let looked = self.channel.queue_declare(self.name.as_str().into(), look, FieldTable::default()).await;
            match looked {
                Ok(_) => self.proof.answered(asked),
                Err(error) => return format!("the lock {} is not held any more: {}", self.name, why(&error)),
            }
            sleep(PROVEN_EVERY).await;
        }
    }
}

/// Whether this is the refusal of a lock that another connection holds.
pub(super) fn is_held(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(told) = error.kind() else { return false };
    matches!(told.kind(), AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED))
}
