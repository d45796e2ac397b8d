//! One session after the other on one connection: dial, topology, work, teardown, a pause, again. Any fault of
//! connection, channel or stream ends the session; lapin's own recovery stays off.
//!
//! What a session does is its [`Work`]: [`super::consume`] or [`super::publish`].

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use backoff::backoff::Backoff;
use futures_util::{FutureExt, Stream, StreamExt};
use lapin::{Channel, Connection, Event, options::BasicQosOptions};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    connect::{BrokerHost, describe},
    declare,
    health::Role,
    lock,
    publish::refuses,
    size_limit,
    socket::SocketHandle,
    unknown_kinds,
};
use genfleet_job::{metric, retry};

/// After a session that lasted this long the next pause is short again: the broker is there, whatever ended the session.
const LASTED: Duration = Duration::from_secs(2);
/// Where the pauses would end, which they do not.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the broker may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Some ends of a connection make no event: its state is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Why a session ended, in a sentence.
pub(super) type SessionError = String;

/// What a connection is used for, session after session.
pub(super) trait Work: Send {
    /// Which of the two.
    const ROLE: Role;

    /// Returns once there is something to connect for.
    fn wanted(&mut self) -> impl Future<Output = ()> + Send;

    /// Works on one session until that ends, or until the queue is closed.
    fn run(&mut self, link: Arc<Link>) -> impl Future<Output = SessionError> + Send;
}

/// Whether a session still lives: what came by a dead one cannot be settled any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    over: CancellationToken,
    reason: Arc<OnceLock<SessionError>>,
}

impl Session {
    /// Ends it; the first reason is the one that is told.
    pub(super) fn end(&self, reason: impl Into<SessionError>) {
        let _ = self.reason.set(reason.into());
        self.over.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> SessionError {
        self.over.cancelled().await;
        self.reason.get().cloned().unwrap_or_default()
    }
}

/// An open connection, watched.
pub(super) struct Link {
    connection: Connection,
    pub(super) session: Session,
    line: SocketHandle,
}

impl Link {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A channel that is given at most `prefetch` unsettled messages for each of its consumers.
    pub(super) async fn channel(&self, prefetch: u16) -> Result<Channel, SessionError> {
        let channel = self.connection.create_channel().await.map_err(|error| describe(&error))?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(|error| describe(&error))?;
        Ok(channel)
    }

    /// A channel that confirms what is published on it.
    pub(super) async fn confirming_channel(&self) -> Result<Channel, SessionError> {
        let channel = self.connection.create_channel().await.map_err(|error| describe(&error))?;
        channel
            .confirm_select(lapin::options::ConfirmSelectOptions::default())
            .await
            .map_err(|error| describe(&error))?;
        Ok(channel)
    }

    async fn close(&self, reason: &str) {
        self.session.end(reason);
        let goodbye = self.connection.close(200, "closed".into());
        let _ = timeout(GOODBYE, goodbye).await;
        self.line.cut();
    }
}

/// Sessions for `work`, one after the other, until the queue is closed.
pub(super) async fn supervise<W: Work>(shared: &Arc<Shared>, work: &mut W) {
    let closing = shared.closing.clone();
    if closing.run_until_cancelled(work.wanted()).await.is_none() {
        return;
    }
    shared.board.needs(W::ROLE);
    let mut waits = retry::reconnect();
    for host in shared.broker.rotation() {
        let Some(opened) = closing.run_until_cancelled(open(shared, W::ROLE, &host)).await else { return };
        let lost = match opened {
            Ok(link) => session(shared, work, link, &mut waits).await,
            Err(reason) => reason,
        };
        shared.board.down(W::ROLE, lost.clone());
        if closing.is_cancelled() {
            return;
        }
        let pause = waits.next_backoff().unwrap_or(LONGEST_PAUSE);
        tracing::warn!(role = W::ROLE.as_str(), reason = lost, ?pause, "no session with the broker");
        closing.run_until_cancelled(sleep(pause)).await;
    }
}

async fn session<W: Work>(shared: &Shared, work: &mut W, link: Arc<Link>, waits: &mut impl Backoff) -> SessionError {
    let began = Instant::now();
    shared.board.up(W::ROLE);
    let lost = work.run(link.clone()).await;
    link.close(&lost).await;
    if W::ROLE == Role::Publish {
        shared.board.block(false);
    }
    if !shared.closing.is_cancelled() {
        metrics::counter!(metric::BROKER_RECONNECTS, "role" => W::ROLE.as_str()).increment(1);
    }
    // The broker is not away over a queue that takes nothing, or a message that it does not take.
    if began.elapsed() >= LASTED || refuses(&lost) || size_limit::refused(&lost).is_some() {
        waits.reset();
    }
    lost
}

async fn open(shared: &Arc<Shared>, role: Role, host: &BrokerHost) -> Result<Arc<Link>, SessionError> {
    let (connection, socket) = shared.broker.connect(host, role.as_str()).await?;
    let events = connection.events_listener();
    let link = Link { connection, session: Session::default(), line: socket };
    if let Err(reason) = declare::prepare(shared, &link.connection).await {
        link.close(&reason).await;
        return Err(reason);
    }
    tracing::info!(role = role.as_str(), broker = host.display_name, "connected to the broker");
    watch(shared, role, &link, events);
    Ok(Arc::new(link))
}

/// The one listener of this connection: lapin's events go to whichever listener takes them first.
///
/// A fault of before the session began was dealt with there (looking at the topology may close a channel), or the
/// connection's state tells it.
fn watch(
    shared: &Arc<Shared>,
    role: Role,
    link: &Link,
    mut events: impl Stream<Item = Event> + Send + Unpin + 'static,
) {
    let (session, status) = (link.session.clone(), link.connection.status().clone());
    while let Some(Some(event)) = events.next().now_or_never() {
        if !matches!(event, Event::Error(_)) {
            tell(shared, role, &session, event);
        }
    }
    let told = shared.clone();
    shared.spawn(async move {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                biased;
                _ = session.ended() => return,
                event = events.next() => match event {
                    Some(event) => tell(&told, role, &session, event),
                    None => session.end("the connection is gone"),
                },
                _ = look.tick() => if !status.connected() {
                    session.end("the connection was closed");
                },
            }
        }
    });
}

/// The broker blocks connections that publish, so only that one is ever told so.
fn tell(shared: &Shared, role: Role, session: &Session, event: Event) {
    match event {
        // Closed the channel on which the lock was asked for, and nothing else.
        Event::Error(error) if lock::is_held(&error) || lock::is_unmarked(&error) => {}
        // Closed the channel of a look at the topology; who consumes from what is missing is told on its own channel.
        Event::Error(error) if role == Role::Consume && declare::is_objection(&error) => {}
        // Nobody's job waits for these answers.
        Event::Error(error) if unknown_kinds::is_refused(&error, &shared.prefix) => {}
        Event::Error(error) => session.end(describe(&error)),
        Event::ConnectionBlocked(reason) => {
            tracing::warn!(reason, "the broker takes no publications");
            shared.board.block(true);
        }
        Event::ConnectionUnblocked => {
            tracing::info!("the broker takes publications again");
            shared.board.block(false);
        }
        _ => {}
    }
}
