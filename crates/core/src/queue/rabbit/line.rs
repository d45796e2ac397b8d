//! A way to end a connection that hangs: the socket under it.

use std::{
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The socket under a connection, to end it where the AMQP way of closing hangs. Cut when dropped.
#[derive(Default)]
pub(super) struct Line(Arc<Socket>);

/// The place of the socket, shared with the one that dials.
#[derive(Default)]
pub(super) struct Socket(Mutex<Held>);

#[derive(Default)]
struct Held {
    cut: bool,
    socket: Option<TcpStream>,
}

impl Line {
    /// Where the socket is put once there is one.
    pub(super) fn socket(&self) -> Arc<Socket> {
        self.0.clone()
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

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Socket {
    /// Cut at once where the line was cut before.
    pub(super) fn hold(&self, socket: TcpStream) {
        let mut held = self.held();
        if held.cut {
            let _ = socket.shutdown(Shutdown::Both);
        } else {
            held.socket = Some(socket);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
