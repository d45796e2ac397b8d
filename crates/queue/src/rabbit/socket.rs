//! What lapin keeps to itself of a connection: the socket under it, as a way to end one that hangs, and what the broker
//! said of itself.

use std::{
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::greeting::Greeting;

/// The socket under a connection, to end it where the AMQP way of closing hangs. Cut when dropped.
#[derive(Default)]
pub(super) struct Line(Arc<Socket>);

/// The place of the socket, shared with the one that dials.
#[derive(Default)]
pub(crate) struct Socket {
    held: Mutex<Held>,
    greeting: OnceLock<Greeting>,
}

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

    /// What the broker said of itself, once it has.
    pub(super) fn greeting(&self) -> Option<&Greeting> {
        self.0.greeting.get()
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

    /// Notes what the broker says of itself, where this method does.
    pub(super) fn greeted(&self, method: &[u8]) {
        if self.greeting.get().is_none()
            && let Some(greeting) = Greeting::read(method)
        {
            let _ = self.greeting.set(greeting);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
