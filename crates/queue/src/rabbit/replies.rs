//! Replies: the final event once more, to the queue that the producer named in `reply_to`, by the default exchange.
//!
//! A producer is not trusted, and a reply is a courtesy: the event is safe on the exchange of events before one is
//! offered here, and no job waits for what becomes of it. Replies have a connection of their own, dialled for the first
//! one, because the broker may end it over one name; they wait in bounded memory, are tried once, and whatever is in the
//! way of one gives it up and counts it. Which names are published to at all is in [`names`].

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};

use self::names::ReplyQueueNames;
use super::outgoing_message::OutgoingMessage;
use crate::{Destination, Publication, topology::topology};
use genfleet_job::metric;

pub(super) mod names;
mod sending;

pub(super) use self::sending::send;

/// Bytes of the replies that wait, or are under way.
const ROOM: usize = 16 * 1024 * 1024;
/// What one takes beside its body.
const OVERHEAD: usize = 1024;
/// Between two log lines about names that are not published to.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Why a reply was given up; the metric's label.
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NotAllowed, Self::Unroutable, Self::Failed, Self::Dropped];

    /// The label.
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

/// Takes replies, and never keeps anybody waiting.
pub(super) struct Replies {
    prefix: String,
    names: RwLock<ReplyQueueNames>,
    room: Arc<Semaphore>,
    waiting: mpsc::UnboundedSender<Reply>,
    /// Our user may not write to the default exchange: for the rest of the process no reply is tried.
    forbidden: AtomicBool,
    told: Mutex<Option<Instant>>,
}

/// A reply that waits or is under way. Dropped before it was taken care of, it was given up.
pub(super) struct Reply {
    outgoing: OutgoingMessage,
    is_direct: bool,
    drop_reason: Option<ReplyDropReason>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(drop_reason) = self.drop_reason {
            drop_reason.count();
        }
    }
}

impl Replies {
    /// The handle, and what [`send`] takes from.
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
            forbidden: AtomicBool::new(false),
            told: Mutex::default(),
        };
        replies.allow(Vec::new());
        (replies, incoming)
    }

    /// Publishes to `allowed` beside the names that the broker makes.
    pub(super) fn allow(&self, allowed: Vec<names::ReplyTo>) {
        let names = ReplyQueueNames::new(&self.prefix, &topology(&self.prefix), allowed);
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// Takes `publication`, a reply, to be sent at the next occasion, or gives it up.
    pub(super) fn offer(&self, publication: Publication) {
        if let Err(given_up) = self.take(publication) {
            given_up.count();
        }
    }

    fn take(&self, publication: Publication) -> Result<(), ReplyDropReason> {
        let Destination::Reply { queue } = &publication.to else { return Ok(()) };
        if !self.names.read().unwrap_or_else(PoisonError::into_inner).admits(queue) {
            self.tell(queue);
            return Err(ReplyDropReason::NotAllowed);
        }
        if self.forbidden.load(Ordering::Acquire) {
            return Err(ReplyDropReason::Failed);
        }
        let is_direct = names::is_direct(queue);
        let outgoing = OutgoingMessage::new(&self.prefix, publication).map_err(|_| ReplyDropReason::Failed)?;
        let bytes = u32::try_from(outgoing.body.len() + OVERHEAD).map_err(|_| ReplyDropReason::Dropped)?;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| ReplyDropReason::Dropped)?;
        let reply = Reply { outgoing, is_direct, drop_reason: Some(ReplyDropReason::Dropped), _room: room };
        // Nobody takes it any more: it counts itself.
        let _ = self.waiting.send(reply);
        Ok(())
    }

    /// A producer can write as many names as it likes: one line a minute.
    fn tell(&self, queue: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() > TOLD_AGAIN) {
            *told = Some(Instant::now());
            tracing::warn!(
                ?queue,
                "no reply: reply_to names a queue that is not published to; the event is on the exchange of events. \
                 If this queue is to get replies, name it in --reply-to-allow"
            );
        }
    }
}
