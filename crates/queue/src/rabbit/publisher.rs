//! The handle that passes publications to the task that sends them ([`super::publish`]).

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{
    delays::{Delay, Delays},
    outgoing_message::OutgoingMessage,
    replies::{PendingReply, Replies},
};
use crate::message::{Destination, Publication, QueueError, TooLarge};

/// Maximum number of unconfirmed publications.
const WINDOW: usize = 1024;

/// Publishes, and waits for confirms.
pub(super) struct Publisher {
    prefix: String,
    window: Arc<Semaphore>,
    outgoing: mpsc::UnboundedSender<PendingPublication>,
    pub(super) delays: Delays,
    pub(super) replies: Replies,
}

/// The receivers, for the tasks that send.
pub(super) struct Incoming {
    pub(super) publications: mpsc::UnboundedReceiver<PendingPublication>,
    pub(super) replies: mpsc::UnboundedReceiver<PendingReply>,
}

/// An unconfirmed publication.
pub(super) struct PendingPublication {
    pub(super) outgoing: Arc<OutgoingMessage>,
    confirmed: oneshot::Sender<Result<(), TooLarge>>,
    _place: OwnedSemaphorePermit,
}

impl PendingPublication {
    /// Ends the wait for the confirm. The caller may have been dropped; a confirmed message is durable anyway.
    pub(super) fn resolve(self, result: Result<(), TooLarge>) {
        let _ = self.confirmed.send(result);
    }
}

impl Publisher {
    pub(super) fn new(prefix: &str) -> (Self, Incoming) {
        let (outgoing, publications) = mpsc::unbounded_channel();
        let window = Arc::new(Semaphore::new(WINDOW));
        let (replies, waiting) = Replies::new(prefix);
        let publisher = Self { prefix: prefix.to_owned(), window, outgoing, delays: Delays::new(), replies };
        (publisher, Incoming { publications, replies: waiting })
    }

    /// Publishes, and returns when the broker has confirmed all of `publications` except the replies, which are sent
    /// afterwards and not waited for. If the future is dropped earlier, everything except the replies is still sent.
    ///
    /// Returns [`QueueError::TooLarge`] after all others are confirmed, if some are too large.
    pub(super) async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let is_reply = |publication: &Publication| matches!(publication.to, Destination::Reply { .. });
        let (replies, publications): (Vec<_>, Vec<_>) = publications.into_iter().partition(is_reply);
        self.publish_confirmed(publications).await?;
        for reply in replies {
            self.replies.offer(reply);
        }
        Ok(())
    }

    async fn publish_confirmed(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let delays: Vec<_> = publications.iter().filter_map(|each| Delay::of(&each.to)).collect();
        let prepare = |publication| Ok(Arc::new(OutgoingMessage::new(&self.prefix, publication)?));
        let prepared = publications.into_iter().map(prepare).collect::<Result<Vec<_>, QueueError>>()?;
        let mut confirms = Vec::with_capacity(prepared.len());
        for outgoing in prepared {
            let place = self.window.clone().acquire_owned().await.map_err(|_| QueueError::Closed)?;
            let (confirmed, confirm) = oneshot::channel();
            let pending = PendingPublication { outgoing, confirmed, _place: place };
            self.outgoing.send(pending).map_err(|_| QueueError::Closed)?;
            confirms.push(confirm);
        }
        let mut refused = None;
        for confirm in confirms {
            refused = confirm.await.map_err(|_| QueueError::Closed)?.err().or(refused);
        }
        if let Some(size) = refused {
            return Err(QueueError::TooLarge { size, settler: None });
        }
        self.delays.add(delays, Instant::now());
        Ok(())
    }

    /// Accepts no more publications.
    pub(super) fn stop(&self) {
        self.window.close();
    }
}
