//! One process of the fleet at a time for some kinds (SPEC 6.1): it holds the exclusive queue `<prefix>.lock.<kind>`
//! on its consuming connection. The broker lets it go with that connection, so it outlives no session.

use std::time::Duration;

use lapin::{
    Channel, ErrorKind, options::QueueDeclareOptions, protocol::AMQPErrorKind, protocol::AMQPSoftError,
    types::FieldTable,
};
use tokio::time::sleep;

use super::{
    dial::why,
    session::{Link, Lost},
};
use crate::job::Kind;

/// How long one that stands by waits between two tries.
const STANDING_BY: Duration = Duration::from_secs(2);

/// Waits until this connection holds the lock of `kind`; the channel it was taken on.
pub(super) async fn hold(link: &Link, prefix: &str, kind: Kind) -> Result<Channel, Lost> {
    let name = format!("{prefix}.lock.{kind}");
    let mut told = false;
    loop {
        // A refusal closes the channel.
        let channel = link.channel(1).await?;
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await {
            Ok(_) => {
                tracing::info!(kind = kind.as_str(), "holds the lock of this kind");
                return Ok(channel);
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

/// Whether this is the refusal of a lock that another connection holds.
pub(super) fn is_held(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(told) = error.kind() else { return false };
    matches!(told.kind(), AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED))
}
