//! Replies: the final event once more, to the queue that the producer named in `reply_to`, by the default exchange.
//!
//! A producer is not trusted, and a reply is a courtesy: the event is durable before one is offered here, and no job
//! waits for it. Replies have a connection of their own, made for the first one, because the broker may end it over one
//! name; they wait in bounded memory and are tried once; one that cannot be sent is dropped and counted. The names that
//! are published to are in [`names`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use self::names::ReplyQueueNames;
use super::outgoing_message::OutgoingMessage;
use crate::{
    message::{Destination, Publication},
    topology::topology,
};
use genfleet_job::metric;

pub(super) mod names;

/// Bytes of the replies that wait or are being sent.
const ROOM: usize = 16 * 1024 * 1024;
/// Bytes of a reply beside its body.
const OVERHEAD: usize = 1024;
/// Interval of log lines about names that are not published to.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Time after a refusal of the right to send replies until one is tried again.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The reason why a reply was dropped; the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyDropReason {
    /// The queue's name is not published to.
    NotAllowed,
    /// There is no such queue.
    Unroutable,
    /// It was tried, and was not confirmed.
    Failed,
    /// Too many waited, or the process stopped.
    Dropped,
}

impl ReplyDropReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::NotAllowed, Self::Unroutable, Self::Failed, Self::Dropped];

    /// The value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Unroutable => "unroutable",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }

    fn count(self) {
        metrics::counter!(metric::REPLIES_GIVEN_UP, "reason" => self.as_str()).increment(1);
        if self == Self::Unroutable {
            metrics::counter!(metric::REPLIES_UNROUTABLE).increment(1);
        }
    }
}

/// The handle that takes replies, and never waits.
pub(super) struct Replies {
    prefix: String,
    names: RwLock<ReplyQueueNames>,
    room: Arc<Semaphore>,
    waiting: mpsc::UnboundedSender<Reply>,
    /// When our user was last found not to have the right to write to the default exchange.
    refused: Mutex<Option<Instant>>,
    logged: Mutex<Option<Instant>>,
}

/// A reply that waits or is being sent. Counts itself when dropped, unless it was sent.
pub(super) struct Reply {
    pub(super) outgoing: OutgoingMessage,
    pub(super) is_direct: bool,
    /// `None` once it was sent.
    pub(super) drop_reason: Option<ReplyDropReason>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(reason) = self.drop_reason {
            reason.count();
        }
    }
}

impl Replies {
    /// A handle, and the receiver of its replies.
    pub(super) fn new(prefix: &str) -> (Self, mpsc::UnboundedReceiver<Reply>) {
        for reason in ReplyDropReason::ALL {
            metrics::counter!(metric::REPLIES_GIVEN_UP, "reason" => reason.as_str()).increment(0);
        }
        metrics::counter!(metric::REPLIES_UNROUTABLE).increment(0);
        let (waiting, incoming) = mpsc::unbounded_channel();
        let replies = Self {
            prefix: prefix.to_owned(),
            names: RwLock::default(),
            room: Arc::new(Semaphore::new(ROOM)),
            waiting,
            refused: Mutex::default(),
            logged: Mutex::default(),
        };
        replies.allow(Vec::new());
        (replies, incoming)
    }

    /// Allows the names of `allowed`, beside those that the broker makes.
    pub(super) fn allow(&self, allowed: Vec<names::ReplyTo>) {
        let names = ReplyQueueNames::new(&self.prefix, &topology(&self.prefix), allowed);
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Takes `publication`, a reply, to be sent, or drops it.
    pub(super) fn offer(&self, publication: Publication) {
        if let Err(reason) = self.take(publication) {
            reason.count();
        }
    }

    fn take(&self, publication: Publication) -> Result<(), ReplyDropReason> {
        let Destination::Reply { queue } = &publication.to else { return Ok(()) };
        if !self.names.read().unwrap_or_else(PoisonError::into_inner).admits(queue) {
            self.log_not_allowed(queue);
            return Err(ReplyDropReason::NotAllowed);
        }
        if self.refused().is_some_and(|refused| refused.elapsed() < REFUSED_FOR) {
            return Err(ReplyDropReason::Failed);
        }
        let is_direct = names::is_direct(queue);
        let outgoing = OutgoingMessage::new(&self.prefix, publication).map_err(|_| ReplyDropReason::Failed)?;
        let bytes = u32::try_from(outgoing.body.len() + OVERHEAD).map_err(|_| ReplyDropReason::Dropped)?;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| ReplyDropReason::Dropped)?;
        let reply = Reply { outgoing, is_direct, drop_reason: Some(ReplyDropReason::Dropped), _room: room };
        // Without a receiver it counts itself.
        let _ = self.waiting.send(reply);
        Ok(())
    }

    fn refused(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that our user may not write to the default exchange: for a minute no reply is tried. Returns true if
    /// that was not known.
    pub(super) fn refuse(&self) -> bool {
        self.refused().replace(Instant::now()).is_none()
    }

    /// Tries the right again with the next reply: it may have been given since.
    pub(super) fn try_again(&self) {
        if let Some(refused) = self.refused().as_mut() {
            *refused = refused.checked_sub(REFUSED_FOR).unwrap_or(*refused);
        }
    }

    /// Records that a reply was confirmed. Returns true if our user did not have the right before.
    pub(super) fn permit(&self) -> bool {
        self.refused().take().is_some()
    }

    /// Describes why no reply is sent, if our user does not have the right.
    pub(super) fn problem(&self) -> Option<String> {
        let since = self.refused().is_some();
        since.then(|| {
            "no reply is sent: the broker does not permit this process's user to write to the default exchange \
             (amq.default); the right is tried again with a reply after a minute"
                .to_owned()
        })
    }

    /// Logs one line a minute, since a producer can write as many names as it likes.
    fn log_not_allowed(&self, queue: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() > LOG_EVERY) {
            *logged = Some(Instant::now());
            tracing::warn!(
                ?queue,
                "no reply: reply_to names a queue that is not published to; the event is on the exchange of events. \
                 If this queue is to get replies, name it in --reply-to-allow"
            );
        }
    }
}
