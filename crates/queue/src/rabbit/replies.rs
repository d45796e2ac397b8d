//! Replies: a copy of the final event for the queue that the producer named in `reply_to`, sent over the default
//! exchange.
//!
//! Producers are not trusted, and replies are best effort: the event is durable before its reply is offered here, and
//! no job waits for a reply. Replies use their own connection, which is opened for the first one, because the broker
//! may end it over a queue name. They wait in limited memory and are tried once; a reply that cannot be sent is dropped
//! and counted. [`names`] decides which queues may receive replies.

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

/// Maximum number of bytes of the replies that wait or are being sent.
const ROOM: usize = 16 * 1024 * 1024;
/// Number of bytes that are counted for a reply in addition to its body.
const OVERHEAD: usize = 1024;
/// Interval of log lines about queue names that are not allowed.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Time until the next try after the broker refused the right to send replies.
const REFUSED_FOR: Duration = Duration::from_secs(60);

/// The reason why a reply was dropped, used as the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyDropReason {
    /// The queue's name is not allowed.
    NotAllowed,
    /// The queue does not exist.
    Unroutable,
    /// The reply was sent, but not confirmed.
    Failed,
    /// Too many replies waited, or the process stopped.
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

/// The handle that accepts replies. It never waits.
pub(super) struct Replies {
    prefix: String,
    names: RwLock<ReplyQueueNames>,
    room: Arc<Semaphore>,
    waiting: mpsc::UnboundedSender<PendingReply>,
    /// The last time at which the broker refused the right to write to the default exchange.
    refused: Mutex<Option<Instant>>,
    logged: Mutex<Option<Instant>>,
}

/// A reply that waits or is being sent. Counts itself as dropped when it is dropped without having been sent.
pub(super) struct PendingReply {
    pub(super) outgoing: OutgoingMessage,
    pub(super) is_direct: bool,
    /// `None` after it was sent.
    pub(super) drop_reason: Option<ReplyDropReason>,
    _room: OwnedSemaphorePermit,
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if let Some(reason) = self.drop_reason {
            reason.count();
        }
    }
}

impl Replies {
    /// Creates a handle and the receiver of its replies.
    pub(super) fn new(prefix: &str) -> (Self, mpsc::UnboundedReceiver<PendingReply>) {
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

    /// Allows the queue names in `allowed`, in addition to names that the broker generates.
    pub(super) fn allow(&self, allowed: Vec<names::ReplyTo>) {
        let names = ReplyQueueNames::new(&self.prefix, &topology(&self.prefix), allowed);
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Accepts a reply for sending, or drops it.
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
        if self.lock_refusal().is_some_and(|refused| refused.elapsed() < REFUSED_FOR) {
            return Err(ReplyDropReason::Failed);
        }
        let is_direct = names::is_direct(queue);
        let outgoing = OutgoingMessage::new(&self.prefix, publication).map_err(|_| ReplyDropReason::Failed)?;
        let bytes = u32::try_from(outgoing.body.len() + OVERHEAD).map_err(|_| ReplyDropReason::Dropped)?;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| ReplyDropReason::Dropped)?;
        let reply = PendingReply { outgoing, is_direct, drop_reason: Some(ReplyDropReason::Dropped), _room: room };
        // Without a receiver it is dropped, and counts itself.
        let _ = self.waiting.send(reply);
        Ok(())
    }

    fn lock_refusal(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that this process's user may not write to the default exchange. No reply is sent for a minute. Returns
    /// true if this was not known.
    pub(super) fn record_forbidden(&self) -> bool {
        self.lock_refusal().replace(Instant::now()).is_none()
    }

    /// Lets the next reply be tried, because the right may have been granted.
    pub(super) fn retry_forbidden(&self) {
        if let Some(refused) = self.lock_refusal().as_mut() {
            *refused = refused.checked_sub(REFUSED_FOR).unwrap_or(*refused);
        }
    }

    /// Records that a reply was confirmed. Returns true if the right was missing before.
    pub(super) fn record_permitted(&self) -> bool {
        self.lock_refusal().take().is_some()
    }

    /// Describes why no replies are sent, if the right is missing.
    pub(super) fn problem(&self) -> Option<String> {
        let since = self.lock_refusal().is_some();
        since.then(|| {
            "no reply is sent: the broker does not permit this process's user to write to the default exchange \
             (amq.default); the right is tried again with a reply after a minute"
                .to_owned()
        })
    }

    /// Logs at most one line a minute, because a producer can use any number of names.
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
