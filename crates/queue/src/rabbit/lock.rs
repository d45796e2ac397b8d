//! The lock of an exclusive kind (SPEC 6.1): one process of the fleet holds the exclusive queue `<prefix>.lock.<kind>`
//! on its consuming connection. The broker releases it with that connection, so it outlives no session.
//!
//! The next holder may not yet see what the last holder created. So a process that takes the lock leaves a mark at the
//! broker first: the exchange `<prefix>.lock.<kind>`, to which nothing is bound. If there is no mark, no process has
//! ever held the lock, and no wait is needed. Any other answer, or none in time, counts as a previous holder. The mark
//! stays. To show that no process held the lock *recently*, it would have to be renewed, which can fail: a
//! queue can lose its node or its leader, and a message in it has to be published, which the consuming connection
//! must not do. That would save a wait of a few seconds for jobs right after a start. An exchange is part of the
//! cluster's metadata: every running node has it, and it causes no loss of a session.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::FieldTable,
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    depth,
    error::{describe, is_refusal, refusal},
    link::{Link, SessionError},
    shared::Shared,
};
use crate::topology::lane_queue;
use genfleet_job::{
    Kind,
    lease::{Lease, LeaseRenewer, PreviousHolder},
    message::Lane,
};

/// Time between two attempts of a standby process.
const STANDING_BY: Duration = Duration::from_secs(2);
/// Maximum wait for an answer of the broker, which a lock on a failed node can delay by a minute.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for which waiting jobs may have no consumer before a standby process reports it.
const UNANSWERED: Duration = Duration::from_secs(25);
/// Interval of lease renewals.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// A held lock of a kind.
pub(super) struct KindLock {
    name: String,
    /// The channel on which it was taken.
    channel: Channel,
    lease: Lease,
    renewer: LeaseRenewer,
}

/// The result of an attempt to take the lock.
enum LockAttempt {
    Taken(Channel),
    /// Another connection holds it, or held it when its node died.
    Held,
    /// The broker does not answer.
    Unanswered,
}

/// Waits until this connection holds the lock of `kind`.
pub(super) async fn acquire(shared: &Shared, link: &Link, kind: Kind) -> Result<KindLock, SessionError> {
    let name = format!("{}.lock.{kind}", shared.prefix);
    let mut standby: Option<Standby<'_>> = None;
    loop {
        match try_lock(link, &name).await? {
            LockAttempt::Taken(channel) => {
                let before =
                    if standby.is_some() { PreviousHolder::Somebody } else { previous_holder(link, &name).await? };
                // Before the first job, so that the mark exists before anything is created.
                mark(link, &name).await?;
                tracing::info!(kind = kind.as_str(), ?before, "holds the lock of this kind");
                let (lease, renewer) = Lease::begin(before);
                return Ok(KindLock { name, channel, lease, renewer });
            }
            LockAttempt::Held => standby.get_or_insert_with(|| Standby::new(shared, kind)).check(link).await?,
            LockAttempt::Unanswered => standby.get_or_insert_with(|| Standby::new(shared, kind)).record_no_answer(),
        }
        sleep(STANDING_BY).await;
    }
}

async fn try_lock(link: &Link, name: &str) -> Result<LockAttempt, SessionError> {
    // A refusal closes the channel, and a channel without an answer cannot be used further.
    let channel = link.channel(1).await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let taken = channel.queue_declare(name.into(), options, FieldTable::default());
    match timeout(ANSWER, taken).await {
        Ok(Ok(_)) => Ok(LockAttempt::Taken(channel)),
        Ok(Err(error)) if is_held(&error) => Ok(LockAttempt::Held),
        Ok(Err(error)) => Err(describe(error)),
        Err(_) => Ok(LockAttempt::Unanswered),
    }
}

/// Looks for the mark of a previous holder.
async fn previous_holder(link: &Link, name: &str) -> Result<PreviousHolder, SessionError> {
    // A missing mark closes the channel.
    let channel = link.channel(1).await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let looked = channel.exchange_declare(name.into(), ExchangeKind::Fanout, passive, FieldTable::default());
    Ok(match timeout(ANSWER, looked).await {
        Ok(Err(error)) if is_unmarked(&error) => PreviousHolder::Nobody,
        Ok(Ok(()) | Err(_)) | Err(_) => PreviousHolder::Somebody,
    })
}

/// Leaves the mark.
async fn mark(link: &Link, name: &str) -> Result<(), SessionError> {
    let channel = link.channel(1).await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let marked = channel.exchange_declare(name.into(), ExchangeKind::Fanout, options, FieldTable::default());
    let unmarked = |why: String| format!("the exchange {name}, which says that this kind was worked, {why}");
    match timeout(ANSWER, marked).await {
        Ok(marked) => marked.map_err(|error| unmarked(format!("cannot be declared: {}", describe(error))))?,
        Err(_) => return Err(unmarked(format!("was not declared within {ANSWER:?}"))),
    }
    channel.close(200, "done".into()).await.map_err(describe)
}

/// A process that waits for the lock. It reports that it stands by and, if no process seems to work the kind, why.
struct Standby<'a> {
    shared: &'a Shared,
    kind: Kind,
    /// Time since which every check found jobs without a consumer, or got no answer.
    unworked: Option<Instant>,
}

impl<'a> Standby<'a> {
    fn new(shared: &'a Shared, kind: Kind) -> Self {
        tracing::info!(kind = kind.as_str(), "standing by: another process works this kind");
        shared.health.set_standing_by(kind, None);
        Self { shared, kind, unworked: None }
    }

    /// Checks that waiting jobs have a consumer. A paused holder has none either, which its own health reports.
    async fn check(&mut self, link: &Link) -> Result<(), SessionError> {
        let channel = link.channel(0).await?;
        let (mut waiting, mut consumers) = (0, 0);
        for lane in [Lane::Jobs, Lane::Resume] {
            let queue = lane_queue(&self.shared.prefix, lane, self.kind);
            let Ok(state) = timeout(ANSWER, depth::state(&channel, &queue)).await else {
                self.record_no_answer();
                return Ok(());
            };
            let state = state.map_err(describe)?;
            waiting += state.message_count();
            consumers += state.consumer_count();
        }
        if waiting > 0 && consumers == 0 {
            self.record(match waiting {
                1 => "1 job waits and nobody consumes it".to_owned(),
                _ => format!("{waiting} jobs wait and nobody consumes them"),
            });
        } else {
            self.unworked = None;
            self.shared.health.set_standing_by(self.kind, None);
        }
        channel.close(200, "done".into()).await.map_err(describe)
    }

    fn record_no_answer(&mut self) {
        self.record(format!("the broker does not answer within {ANSWER:?}"));
    }

    fn record(&mut self, what: String) {
        let since = *self.unworked.get_or_insert_with(Instant::now);
        if since.elapsed() >= UNANSWERED {
            self.shared.health.set_standing_by(self.kind, Some(what));
        }
    }
}

impl Drop for Standby<'_> {
    fn drop(&mut self) {
        self.shared.health.end_standing_by(self.kind);
    }
}

/// Returns true for the refusal that says that there is no mark.
pub(super) fn is_unmarked(error: &lapin::Error) -> bool {
    refusal(error).is_some_and(|(kind, message)| {
        *kind == AMQPSoftError::NOTFOUND && message.contains("no exchange") && message.contains(".lock.")
    })
}

impl KindLock {
    /// The lease that the lock grants.
    pub(super) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Renews the lease repeatedly until the lock is lost.
    pub(super) async fn renew_until_lost(&self) -> SessionError {
        loop {
            let asked = Instant::now();
            match depth::state(&self.channel, &self.name).await {
                Ok(_) => self.renewer.renew(asked),
                Err(error) => return format!("the lock {} is not held any more: {}", self.name, describe(error)),
            }
            sleep(RENEW_EVERY).await;
        }
    }
}

/// Returns true for the refusal of a lock that another connection holds.
pub(super) fn is_held(error: &lapin::Error) -> bool {
    is_refusal(error, &AMQPSoftError::RESOURCELOCKED)
}
