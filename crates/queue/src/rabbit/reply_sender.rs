//! Sends replies, on a connection that is opened again while there are replies to send.
//!
//! A name for direct reply-to can look valid and still end the connection, for example if its node is unknown.
//! Therefore such a reply is sent alone, so that only this reply and the connection are lost.

use std::{sync::Arc, time::Duration};

use backoff::{ExponentialBackoff, backoff::Backoff};
use futures_util::{StreamExt, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, options::BasicPublishOptions};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    connect::REPLIES,
    error::describe,
    link::{OpenConnection, SessionError},
    outgoing_message::OutgoingMessage,
    replies::{PendingReply, ReplyDropReason},
    session::reconnect,
    shared::Shared,
};

/// Maximum number of replies that are sent at once.
const WINDOW: usize = 64;
/// Maximum wait for one step of the broker.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum wait for the broker when the connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for waiting replies when the queue closes.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// Part of the broker's message if the user may not write to the default exchange.
const FORBIDDEN: &str = "to exchange 'amq.default'";

/// Sends replies until the queue is closed, and for a moment after that.
pub(super) async fn run(shared: Arc<Shared>, incoming: mpsc::UnboundedReceiver<PendingReply>) {
    let closing = shared.closing.clone();
    let mut sending = ReplySender { shared, incoming, put_back: None, waits: reconnect() };
    let over = async {
        closing.cancelled().await;
        sleep(LAST_MOMENT).await;
    };
    tokio::select! {
        () = sending.run() => {}
        () = over => {}
    }
}

struct ReplySender {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<PendingReply>,
    /// A reply that was received but not tried.
    put_back: Option<PendingReply>,
    waits: ExponentialBackoff,
}

impl ReplySender {
    async fn run(&mut self) {
        let mut earliest = Instant::now();
        while let Some(first) = self.next().await {
            sleep_until(earliest).await;
            let sent = match ReplyConnection::open(&self.shared).await {
                Ok(connection) => {
                    let sent = self.send_by(&connection, first).await;
                    connection.open.close(CLOSE_TIMEOUT).await;
                    sent
                }
                Err(reason) => {
                    fail(first);
                    Err(reason)
                }
            };
            let Err(reason) = sent else { continue };
            if reason.contains(FORBIDDEN) {
                if self.shared.settlements.publisher.replies.record_forbidden() {
                    tracing::warn!(
                        reason,
                        "no reply is sent: the broker does not permit this process's user to write to the default \
                         exchange; the right is tried again every minute while there are replies"
                    );
                }
                while self.incoming.try_recv().map(fail).is_ok() {}
                continue;
            }
            let pause = self.waits.next_backoff().unwrap_or_default();
            tracing::info!(reason, ?pause, "the connection of the replies is lost");
            earliest = Instant::now() + pause;
        }
    }

    /// Returns the next reply; `None` when the queue is closed and all are taken.
    async fn next(&mut self) -> Option<PendingReply> {
        if let Some(reply) = self.put_back.take() {
            return Some(reply);
        }
        let closing = self.shared.closing.clone();
        if let Some(next) = closing.run_until_cancelled(self.incoming.recv()).await {
            return next;
        }
        self.incoming.close();
        self.incoming.recv().await
    }

    /// Sends `first` and the following replies, until the connection fails or the queue is closed.
    async fn send_by(&mut self, connection: &ReplyConnection, first: PendingReply) -> Result<(), SessionError> {
        let mut under_way = FuturesUnordered::new();
        self.put_back = Some(first);
        loop {
            let next = tokio::select! {
                Some(sent) = under_way.next() => {
                    self.settle(sent)?;
                    continue;
                }
                next = self.next(), if under_way.len() < WINDOW => next,
            };
            let Some(reply) = next else {
                return self.settle_all(&mut under_way).await;
            };
            if !connection.is_up() {
                self.put_back = Some(reply);
                return Err("the connection is gone".to_owned());
            }
            let alone = reply.is_direct;
            if alone {
                self.settle_all(&mut under_way).await?;
            }
            under_way.push(connection.send(reply));
            if alone {
                self.settle_all(&mut under_way).await?;
            }
        }
    }

    async fn settle_all<T: Future<Output = Result<(), SessionError>>>(
        &mut self,
        under_way: &mut FuturesUnordered<T>,
    ) -> Result<(), SessionError> {
        while let Some(sent) = under_way.next().await {
            self.settle(sent)?;
        }
        Ok(())
    }

    fn settle(&mut self, sent: Result<(), SessionError>) -> Result<(), SessionError> {
        sent.inspect(|()| {
            self.waits.reset();
            if self.shared.settlements.publisher.replies.record_permitted() {
                tracing::info!("replies are sent again: the broker permits it");
            }
        })
    }
}

/// Drops a reply after its try.
fn fail(mut reply: PendingReply) {
    reply.drop_reason = Some(ReplyDropReason::Failed);
}

struct ReplyConnection {
    open: OpenConnection,
    channel: Channel,
}

impl ReplyConnection {
    async fn open(shared: &Shared) -> Result<Self, SessionError> {
        let open = shared.broker.connect_any(REPLIES).await?;
        let channel = within(open.confirming_channel()).await?;
        Ok(Self { open, channel })
    }

    fn is_up(&self) -> bool {
        self.open.is_up() && self.channel.status().connected()
    }

    /// Sends one reply. Fails if the connection can no longer be used.
    ///
    /// Replies to named queues are mandatory. For direct reply-to `RabbitMQ` 3 returns every mandatory message, so they
    /// are not. lapin may attach a returned message to the confirm of another one, which makes no difference to the
    /// counts.
    async fn send(&self, mut reply: PendingReply) -> Result<(), SessionError> {
        reply.drop_reason = Some(ReplyDropReason::Failed);
        let OutgoingMessage { exchange, key, properties, body } = &reply.outgoing;
        let options = BasicPublishOptions { mandatory: !reply.is_direct, ..Default::default() };
        let confirmed = within(async {
            let sent = self.channel.basic_publish(exchange.clone(), key.clone(), options, body, properties.clone());
            sent.await?.await
        });
        match confirmed.await? {
            Confirmation::Ack(returned) => reply.drop_reason = returned.map(|_| ReplyDropReason::Unroutable),
            Confirmation::Nack(_) | Confirmation::NotRequested => {}
        }
        Ok(())
    }
}

async fn within<T>(step: impl Future<Output = lapin::Result<T>>) -> Result<T, SessionError> {
    match timeout(PATIENCE, step).await {
        Ok(done) => done.map_err(describe),
        Err(_) => Err(format!("the broker did not answer within {PATIENCE:?}")),
    }
}
