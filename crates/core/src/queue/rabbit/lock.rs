//! One process of the fleet at a time for some kinds (SPEC 6.1): it holds the exclusive queue `<prefix>.lock.<kind>`
//! on its consuming connection. The broker lets it go with that connection, so it outlives no session.
//!
//! What the last holder created may not show yet in what the next one reads. So the holder keeps a mark at the broker,
//! the queue `<prefix>.lock.<kind>.held`, which goes by itself a moment after it is no longer renewed: whoever takes the
//! lock and finds none knows that nobody was before it. The mark is a classic queue, since declaring a quorum queue again
//! does not renew its `x-expires` (tried on 3.10.8); nothing is ever in it.

use std::time::Duration;

use lapin::{
    Channel, ErrorKind,
    options::QueueDeclareOptions,
    protocol::AMQPErrorKind,
    protocol::AMQPSoftError,
    types::{AMQPValue, FieldTable},
};
use tokio::time::{Instant, sleep};

use super::{
    dial::why,
    session::{Link, Lost},
};
use crate::{
    job::Kind,
    queue::tenure::{Before, Proof, Tenure},
};

/// How long one that stands by waits between two tries.
const STANDING_BY: Duration = Duration::from_secs(2);

/// How long after one proof that it is held the next one is asked for.
const PROVEN_EVERY: Duration = Duration::from_secs(1);

/// The mark is renewed with one proof in so many.
const MARKED_EVERY: u32 = 5;
/// It goes so long after it was renewed last: longer than reads lag writes (SPEC 3) and the time between two renewals.
const MARK_LASTS: Duration = Duration::from_secs(20);

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
                let before = if told { Before::Somebody } else { before(link, &name).await? };
                tracing::info!(kind = kind.as_str(), ?before, "holds the lock of this kind");
                let (tenure, proof) = Tenure::begin(before);
                let lock = Lock { name, channel, tenure, proof };
                // Before the first job, so that no creation goes without it.
                lock.mark().await.map_err(|error| why(&error))?;
                return Ok(lock);
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

/// Whether somebody held the lock a moment ago. What cannot be known counts as yes.
async fn before(link: &Link, name: &str) -> Result<Before, Lost> {
    // That there is no mark closes the channel.
    let channel = link.channel(1).await?;
    let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looked = channel.queue_declare(mark(name).as_str().into(), look, FieldTable::default()).await;
    Ok(match looked {
        Err(error) if is_unmarked(&error) => Before::Nobody,
        Ok(_) | Err(_) => Before::Somebody,
    })
}

fn mark(lock: &str) -> String {
    format!("{lock}{MARK}")
}

/// The end of a mark's name.
const MARK: &str = ".held";

/// Whether this says that there is no mark.
pub(super) fn is_unmarked(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(told) = error.kind() else { return false };
    let absent = matches!(told.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND));
    absent && told.get_message().as_str().contains(&format!("{MARK}'"))
}

impl Lock {
    /// The time for which it is held.
    pub(super) fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Proves again and again that it is held; why it is not any more.
    pub(super) async fn proven(&self) -> Lost {
        let look = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let mut round = 1_u32;
        loop {
            if round.is_multiple_of(MARKED_EVERY)
                && let Err(error) = self.mark().await
            {
                return format!("the mark of {} cannot be renewed: {}", self.name, why(&error));
            }
            let asked = Instant::now();
            let looked = self.channel.queue_declare(self.name.as_str().into(), look, FieldTable::default()).await;
            match looked {
                Ok(_) => self.proof.answered(asked),
                Err(error) => return format!("the lock {} is not held any more: {}", self.name, why(&error)),
            }
            round = round.wrapping_add(1);
            sleep(PROVEN_EVERY).await;
        }
    }

    async fn mark(&self) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        let lasts = i64::try_from(MARK_LASTS.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(lasts));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(mark(&self.name).as_str().into(), options, arguments).await.map(drop)
    }
}

/// Whether this is the refusal of a lock that another connection holds.
pub(super) fn is_held(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(told) = error.kind() else { return false };
    matches!(told.kind(), AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED))
}
