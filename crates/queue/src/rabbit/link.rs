//! An open connection to the broker and the session on it. Any error of the connection, a channel or a stream ends the
//! session; a failed session is never repaired.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use lapin::{
    Channel, Connection,
    options::{BasicQosOptions, ConfirmSelectOptions},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{error::describe, socket::SocketHandle};

/// Maximum wait for the broker when a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of checking whether the broker has blocked publications.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// The reason why a session ended, in a sentence.
pub(super) type SessionError = String;

/// The end of a task that runs until its session is lost.
pub(super) type SessionTaskEnd = Result<Infallible, SessionError>;

/// The use of a connection. When the broker blocks a connection that publishes, everything on it is blocked. Therefore
/// consuming and publishing use separate connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionRole {
    /// Carries deliveries, acknowledgements and counts.
    Consume,
    /// Carries publications and their confirms.
    Publish,
}

impl ConnectionRole {
    pub(super) const ALL: [Self; 2] = [Self::Consume, Self::Publish];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
        }
    }
}

impl fmt::Display for ConnectionRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The task of a connection, which runs in one session after the other.
pub(super) trait SessionWork: Send {
    const ROLE: ConnectionRole;

    /// Waits until a connection is needed.
    fn wait_until_wanted(&mut self) -> impl Future<Output = ()> + Send;

    /// Runs in one session until it ends, or until the queue is closed.
    fn run(&mut self, link: Arc<Link>) -> impl Future<Output = SessionError> + Send;
}

/// The state of a session. After its end, its deliveries can no longer be settled.
#[derive(Clone, Debug, Default)]
pub(super) struct Session {
    over: CancellationToken,
    reason: Arc<OnceLock<SessionError>>,
}

impl Session {
    /// Ends the session. The first reason is kept.
    pub(super) fn end(&self, reason: impl Into<SessionError>) {
        let _ = self.reason.set(reason.into());
        self.over.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits for the end of the session, and returns the reason.
    pub(super) async fn wait_until_ended(&self) -> SessionError {
        self.over.cancelled().await;
        self.reason.get().cloned().unwrap_or_default()
    }
}

pub(super) struct OpenConnection {
    pub(super) connection: Connection,
    pub(super) socket: SocketHandle,
}

impl OpenConnection {
    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Waits until the broker blocks publications (alarm).
    pub(super) async fn wait_until_blocked(&self) {
        while !self.connection.status().blocked() {
            sleep(CHECK_EVERY).await;
        }
    }

    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        self.connection.create_channel().await
    }

    /// Opens a channel with publisher confirms.
    pub(super) async fn confirming_channel(&self) -> lapin::Result<Channel> {
        let channel = self.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Closes the connection, and then the socket if the broker does not answer within `patience`. Dropping it closes
    /// the socket at once.
    pub(super) async fn close(&self, patience: Duration) {
        let _ = timeout(patience, self.connection.close(200, "closed".into())).await;
        self.socket.close();
    }
}

/// An open connection with a session on it.
pub(super) struct Link {
    open: OpenConnection,
    pub(super) session: Session,
}

impl Link {
    pub(super) fn new(open: OpenConnection) -> Self {
        Self { open, session: Session::default() }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.open.connection
    }

    /// Opens a channel with a prefetch limit for each of its consumers.
    pub(super) async fn channel(&self, prefetch: u16) -> Result<Channel, SessionError> {
        let channel = self.open.channel().await.map_err(describe)?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await.map_err(describe)?;
        Ok(channel)
    }

    /// Opens a channel with publisher confirms.
    pub(super) async fn confirming_channel(&self) -> Result<Channel, SessionError> {
        self.open.confirming_channel().await.map_err(describe)
    }

    /// Ends the session and closes the connection.
    pub(super) async fn close(&self, reason: &str) {
        self.session.end(reason);
        self.open.close(CLOSE_TIMEOUT).await;
    }
}
