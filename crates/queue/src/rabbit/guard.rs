//! A filter between the broker and lapin, on every connection. A producer decides what is in the properties of a
//! message, and the broker accepts more than lapin can read (4.12.3). Names that are not UTF-8, a header frame above
//! the negotiated size (the broker splits bodies, never headers, and adds headers of its own) and bytes after the last
//! property end the connection. Deeply nested tables overflow the stack of lapin's parser and abort the process. Such a
//! message would be delivered again at once in the next session.
//!
//! Therefore every frame is checked here first. Frames that lapin can read pass unchanged. In others, invalid text is
//! replaced by question marks; if that is not enough, all headers except the broker's are removed. Such a message gets
//! a [`MARK`], from which the consumer reads its [`MessageDefect`](crate::MessageDefect).
//!
//! The depth of tables is limited only here. lapin's thread has the default stack of a Rust thread (2 MiB; lapin has no
//! setting for it, and `RUST_MIN_STACK` applies to all threads of the process). Tables within the limit need less than
//! a quarter of it.

use std::{
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_rs::{
    TokioRuntime,
    traits::{Executor, Reactor, RuntimeKit},
    util::Task,
};
use futures_io::{AsyncRead, AsyncWrite};

use self::frames::Frames;

pub(super) mod frames;
mod header;
mod method;
mod walk;

/// The header with a [`MessageDefect`](crate::MessageDefect). It is not copied into later publications. A producer that
/// sets it only causes its own message to be refused.
pub(super) const MARK: &str = "x-genfleet-flaw";

/// A connection to the broker, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection to the broker, from which lapin reads only frames that it can handle.
pub(super) struct Guarded {
    broker: Box<dyn Stream>,
    frames: Frames,
}

impl Guarded {
    pub(super) fn new(broker: Box<dyn Stream>, frames: Frames) -> Self {
        Self { broker, frames }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { broker, frames } = &mut *self;
        loop {
            let copied = frames.copy_to(out);
            if copied > 0 || out.is_empty() {
                return Poll::Ready(Ok(copied));
            }
            if let Some(most) = frames.direct() {
                let most = most.min(out.len());
                let read = ready!(Pin::new(broker).poll_read(cx, &mut out[..most]))?;
                frames.read_directly(read);
                return Poll::Ready(Ok(read));
            }
            match ready!(Pin::new(&mut *broker).poll_read(cx, frames.space()))? {
                0 => return Poll::Ready(Ok(0)),
                read => frames.add(read)?,
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.broker).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.broker).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.broker).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.broker).poll_close(cx)
    }
}

/// The tokio runtime for lapin, with [`Guarded`] connections.
#[derive(Clone, Debug)]
pub(super) struct Kit(pub(super) TokioRuntime);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <TokioRuntime as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Guarded;
    type Sleep = <TokioRuntime as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl futures_util::Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// Always fails: connections are made by [`super::connect`], which also guards connections with TLS.
    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Guarded>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
