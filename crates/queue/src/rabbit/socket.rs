//! What lapin keeps to itself of a connection: the socket under it, as a way to end one that hangs, and what the broker
//! said of itself.

use std::{
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::amqp_handshake::BrokerIdentity;

/// The socket under a connection, to end it where the AMQP way of closing hangs. Cut when dropped.
#[derive(Default)]
pub(super) struct SocketHandle(Arc<SocketSlot>);

/// The place of the socket, shared with the one that dials.
#[derive(Default)]
pub(crate) struct SocketSlot {
    held: Mutex<Held>,
    identity: OnceLock<BrokerIdentity>,
}

#[derive(Default)]
struct Held {
    cut: bool,
    socket: Option<TcpStream>,
}

impl SocketHandle {
    /// Where the socket is put once there is one.
    pub(super) fn socket(&self) -> Arc<SocketSlot> {
        self.0.clone()
    }

    /// What the broker said of itself, once it has.
    pub(super) fn identity(&self) -> Option<&BrokerIdentity> {
        self.0.identity.get()
    }

    /// lapin's thread sees the end of the stream and ends as well.
    pub(super) fn cut(&self) {
        let mut held = self.0.held();
        held.cut = true;
        if let Some(socket) = held.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for SocketHandle {
    fn drop(&mut self) {
        self.cut();
    }
}

impl SocketSlot {
    /// Cut at once where the line was cut before.
    pub(super) fn hold(&self, socket: TcpStream) {
        let mut held = self.held();
        if held.cut {
            let _ = socket.shutdown(Shutdown::Both);
        } else {
            held.socket = Some(socket);
        }
    }

    /// Notes what the broker says of itself, where this method does.
    pub(super) fn read_handshake(&self, method: &[u8]) {
        if self.identity.get().is_none()
            && let Some(identity) = BrokerIdentity::read(method)
        {
            let _ = self.identity.set(identity);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
