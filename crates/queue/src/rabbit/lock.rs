//! One process of the fleet at a time for some kinds (SPEC 6.1): it holds the exclusive queue `<prefix>.lock.<kind>`
//! on its consuming connection. The broker lets it go with that connection, so it outlives no session.
//!
//! What the last holder created may not show yet in what the next one reads. So whoever takes the lock leaves a mark at
//! the broker first, the exchange `<prefix>.lock.<kind>`, to which nothing is bound and through which nothing goes: who
//! finds none knows that nobody ever was before it, and waits for nothing. Whatever else is answered, or nothing in time,
//! counts as somebody. The mark stays. It could only say more (nobody was there *lately*) if it were renewed, and what is
//! renewed can fail to be: a queue has a node that dies or a leader to elect, and a message in it has to be published,
//! which the connection that consumes must not do. What it would spare is a wait of a few seconds, for jobs that come
//! right after a start. An exchange is part of the cluster's own description: every node that runs has it, and no
//! session is lost over it once it is there.

use std::time::Duration;

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Shared,
    connect::describe,
    counts,
    session::{Link, SessionError},
};
use crate::topology::lane_queue;
use genfleet_job::{
    Kind,
    lease::{Lease, LeaseRenewer, PreviousHolder},
    message::Lane,
};

/// How long one that stands by waits between two tries.
const STANDING_BY: Duration = Duration::from_secs(2);
/// How long the broker may take for one answer: a lock whose node is dead can keep it busy for a minute.
const ANSWER: Duration = Duration::from_secs(5);
/// How long nobody may consume what waits before one that stands by says so.
const UNANSWERED: Duration = Duration::from_secs(25);
/// How long after one proof that it is held the next one is asked for.
const PROVEN_EVERY: Duration = Duration::from_secs(1);

/// The lock of one kind, held.
pub(super) struct Lock {
    name: String,
    /// It was taken on this.
    channel: Channel,
    lease: Lease,
    renewer: LeaseRenewer,
}

/// What came of a try to take it.
enum LockAttempt {
    Taken(Channel),
    /// Another connection holds it, or held it when its node died.
    Held,
    /// The broker does not say.
    Unanswered,
}

/// Waits until this connection holds the lock of `kind`.
pub(super) async fn hold(shared: &Shared, link: &Link, kind: Kind) -> Result<Lock, SessionError> {
    let name = format!("{}.lock.{kind}", shared.prefix);
    let mut standby: Option<Standby<'_>> = None;
    loop {
        match try_lock(link, &name).await? {
            LockAttempt::Taken(channel) => {
                let before = if standby.is_some() { PreviousHolder::Somebody } else { before(link, &name).await? };
                // Before the first job, so that no creation goes without it.
                mark(link, &name).await?;
                tracing::info!(kind = kind.as_str(), ?before, "holds the lock of this kind");
                let (lease, renewer) = Lease::begin(before);
                return Ok(Lock { name, channel, lease, renewer });
            }
            LockAttempt::Held => standby.get_or_insert_with(|| Standby::by(shared, kind)).look(link).await?,
            LockAttempt::Unanswered => standby.get_or_insert_with(|| Standby::by(shared, kind)).unanswered(),
        }
        sleep(STANDING_BY).await;
    }
}

async fn try_lock(link: &Link, name: &str) -> Result<LockAttempt, SessionError> {
    // A refusal closes the channel, and one that does not answer is of no use.
    let channel = link.channel(1).await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let taken = channel.queue_declare(name.into(), options, FieldTable::default());
    match timeout(ANSWER, taken).await {
        Ok(Ok(_)) => Ok(LockAttempt::Taken(channel)),
        Ok(Err(error)) if is_held(&error) => Ok(LockAttempt::Held),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Ok(LockAttempt::Unanswered),
    }
}

/// Whether somebody held the lock before.
async fn before(link: &Link, name: &str) -> Result<PreviousHolder, SessionError> {
    // That there is no mark closes the channel.
    let channel = link.channel(1).await?;
    let look = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let looked = channel.exchange_declare(name.into(), ExchangeKind::Fanout, look, FieldTable::default());
    Ok(match timeout(ANSWER, looked).await {
        Ok(Err(error)) if is_unmarked(&error) => PreviousHolder::Nobody,
        Ok(Ok(()) | Err(_)) | Err(_) => PreviousHolder::Somebody,
    })
}

/// Leaves the mark, where it is not there yet.
async fn mark(link: &Link, name: &str) -> Result<(), SessionError> {
    let channel = link.channel(1).await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let marked = channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default());
    let unmarked = |why: String| format!("the exchange {name}, which says that this kind was worked, {why}");
    match timeout(ANSWER, marked).await {
        Ok(marked) => marked.map_err(|error| unmarked(format!("cannot be declared: {}", describe(&error))))?,
        Err(_) => return Err(unmarked(format!("was not declared within {ANSWER:?}"))),
    }
    channel.close(200, "done".into()).await.map_err(|error| describe(&error))
}

/// Standing by: that it does is on the board, and once nobody seems to hold the lock, what is waited for, too.
struct Standby<'a> {
    shared: &'a Shared,
    kind: Kind,
    /// Since when every look found jobs that nobody consumes, or no answer.
    unworked: Option<Instant>,
}

impl<'a> Standby<'a> {
    fn by(shared: &'a Shared, kind: Kind) -> Self {
        tracing::info!(kind = kind.as_str(), "standby by: another process works this kind");
        shared.board.stands_by(kind, None);
        Self { shared, kind, unworked: None }
    }

    /// Whether somebody consumes what waits. A holder that takes no jobs for now does not either: whether it is there
    /// others have to say.
    async fn look(&mut self, link: &Link) -> Result<(), SessionError> {
        let channel = link.channel(0).await?;
        let (mut waiting, mut consumers) = (0, 0);
        for lane in [Lane::Jobs, Lane::Resume] {
            let queue = lane_queue(&self.shared.prefix, lane, self.kind);
            let Ok(looked) = timeout(ANSWER, counts::look(&channel, &queue)).await else {
                self.unanswered();
                return Ok(());
            };
            let looked = looked.map_err(|error| describe(&error))?;
            waiting += looked.message_count();
            consumers += looked.consumer_count();
        }
        if waiting > 0 && consumers == 0 {
            self.note(format!("{waiting} jobs wait and nobody consumes them"));
        } else {
            self.unworked = None;
            self.shared.board.stands_by(self.kind, None);
        }
        channel.close(200, "done".into()).await.map_err(|error| describe(&error))
    }

    fn unanswered(&mut self) {
        self.note(format!("the broker does not answer within {ANSWER:?}"));
    }

    fn note(&mut self, what: String) {
        let since = *self.unworked.get_or_insert_with(Instant::now);
        if since.elapsed() >= UNANSWERED {
            self.shared.board.stands_by(self.kind, Some(what));
        }
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        self.shared.board.stands_by_no_more(self.kind);
    }
}

/// Whether this says that there is no mark.
pub(super) fn is_unmarked(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(told) = error.kind() else { return false };
    let absent = matches!(told.kind(), AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND));
    let message = told.get_message().as_str();
    absent && message.contains("no exchange") && message.contains(".lock.")
}

impl Lock {
    /// The time for which it is held.
    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Proves again and again that it is held; why it is not any more.
    pub(super) async fn proven(&self) -> SessionError {
        loop {
            let asked = Instant::now();
            match counts::look(&self.channel, &self.name).await {
                Ok(_) => self.renewer.renew(asked),
                Err(error) => return format!("the lock {} is not held any more: {}", self.name, describe(&error)),
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
