//! A limit on what a receiver may send before its response. An HTTP client skips interim responses (1xx) without end,
//! and nothing above the connection could stop that.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The limit, in bytes: for a handshake, the rest of the previous response, and the head of a response.
const BOUND: usize = 256 * 1024;
/// The highest number of bytes of one read.
const AT_ONCE: usize = 16 * 1024;

/// Counts the bytes received on one connection. Only the whole head of a response resets it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    received: AtomicUsize,
    answered: AtomicBool,
}

impl Meter {
    /// Resets the count: a response arrived.
    pub(crate) fn reset(&self) {
        self.0.received.store(0, Ordering::Relaxed);
        self.0.answered.store(true, Ordering::Relaxed);
    }

    /// Returns whether a response arrived on this connection.
    pub(crate) fn has_answered(&self) -> bool {
        self.0.answered.load(Ordering::Relaxed)
    }
}

/// A connection that breaks beyond the limit.
pub(crate) struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, meter: Meter::default() }
    }
}

impl<S> Connection for Metered<S> {
    /// Puts the meter among the extensions of every response.
    fn connected(&self) -> Connected {
        Connected::new().extra(self.meter.clone())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = BOUND.saturating_sub(self.meter.0.received.load(Ordering::Relaxed));
        if left == 0 {
            let message = format!("the receiver sent {} KiB without a complete response", BOUND / 1024);
            return Poll::Ready(Err(io::Error::other(message)));
        }
        let length = left.min(AT_ONCE).min(to.remaining());
        let mut part = ReadBuf::new(to.initialize_unfilled_to(length));
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        to.advance(read);
        self.meter.0.received.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, repeat};

    use super::*;

    /// Brings bytes without end, and takes any.
    fn endless() -> Metered<impl AsyncRead + AsyncWrite + Unpin> {
        Metered::new(tokio::io::join(repeat(b'x'), tokio::io::sink()))
    }

    async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> usize {
        let mut read = Vec::new();
        let error = stream.read_to_end(&mut read).await.unwrap_err();
        assert!(error.to_string().contains("256 KiB"), "{error}");
        read.len()
    }

    #[tokio::test]
    async fn what_comes_without_an_answer_is_bounded_whatever_is_written_meanwhile() {
        let mut stream = endless();
        let mut chunk = vec![0; BOUND];
        for _ in 0..BOUND / AT_ONCE {
            assert_eq!(stream.read(&mut chunk).await.unwrap(), AT_ONCE);
            stream.write_all(b"x").await.unwrap();
        }
        assert!(stream.read(&mut chunk).await.unwrap_err().to_string().contains("256 KiB"));
    }

    #[tokio::test]
    async fn an_answer_sets_it_back() {
        let mut stream = endless();
        let meter = stream.meter.clone();
        for _ in 0..3 {
            meter.reset();
            assert_eq!(read_all(&mut stream).await, BOUND);
        }
    }
}
