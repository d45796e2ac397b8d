//! The socket of a connection, to which lapin gives no access: a way to end a connection that hangs, and the identity
//! that the broker sent in the handshake.

use std::{
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::amqp_handshake::BrokerIdentity;

/// The socket of a connection, to end it if closing by AMQP hangs. Dropping it closes the socket.
#[derive(Default)]
pub(super) struct SocketHandle(Arc<SocketSlot>);

/// The slot that is filled while the connection is opened.
#[derive(Default)]
pub(crate) struct SocketSlot {
    state: Mutex<SocketState>,
    identity: OnceLock<BrokerIdentity>,
}

#[derive(Default)]
struct SocketState {
    cut: bool,
    socket: Option<TcpStream>,
}

impl SocketHandle {
    pub(super) fn slot(&self) -> Arc<SocketSlot> {
        self.0.clone()
    }

    /// The broker's identity, after the broker has sent it.
    pub(super) fn identity(&self) -> Option<&BrokerIdentity> {
        self.0.identity.get()
    }

    /// Closes the socket. lapin's thread sees the end of the stream and ends.
    pub(super) fn close(&self) {
        let mut state = self.0.state();
        state.cut = true;
        if let Some(socket) = state.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for SocketHandle {
    fn drop(&mut self) {
        self.close();
    }
}

impl SocketSlot {
    /// Stores the socket, and closes it at once if the handle was already closed.
    pub(super) fn store(&self, socket: TcpStream) {
        let mut state = self.state();
        if state.cut {
            let _ = socket.shutdown(Shutdown::Both);
        } else {
            state.socket = Some(socket);
        }
    }

    /// Stores the broker's identity, if this method contains it.
    pub(super) fn read_handshake(&self, method: &[u8]) {
        if self.identity.get().is_none()
            && let Some(identity) = BrokerIdentity::read(method)
        {
            let _ = self.identity.set(identity);
        }
    }

    fn state(&self) -> MutexGuard<'_, SocketState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
