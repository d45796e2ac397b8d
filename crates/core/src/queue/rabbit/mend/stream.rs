//! A connection to the broker on which everything that lapin takes for text is text. Mends whole frames as they come;
//! remembers which messages had to be.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::TcpStream as StdTcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use async_compat::Compat;
use lapin::AsyncTcpStream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpStream, UnixStream},
};

use super::{super::greeting::Greeting, delivery_tag, method, properties};

/// Kind, channel and length.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
/// Read from the broker at once.
const CHUNK: usize = 64 * 1024;

/// The messages that were mended, by channel and delivery tag, until somebody asks for them; and what the broker said of
/// itself, which lapin keeps to itself.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Mended {
    deliveries: Arc<Mutex<HashSet<(u16, u64)>>>,
    greeting: Arc<OnceLock<Greeting>>,
}

impl Mended {
    /// Whether this delivery was mended; asked once.
    pub(in super::super) fn take(&self, channel: u16, tag: u64) -> bool {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).remove(&(channel, tag))
    }

    /// What the broker said of itself.
    pub(in super::super) fn greeting(&self) -> Option<&Greeting> {
        self.greeting.get()
    }

    fn add(&self, channel: u16, tag: u64) {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).insert((channel, tag));
    }

    fn greeted(&self, payload: &[u8]) {
        if self.greeting.get().is_none()
            && let Some(greeting) = Greeting::read(payload)
        {
            let _ = self.greeting.set(greeting);
        }
    }
}

/// What lapin is to be given in place of `broker`. Ends when either side does.
pub(in super::super) fn between(
    broker: AsyncTcpStream<Compat<TcpStream>>,
    mended: Mended,
) -> io::Result<AsyncTcpStream<Compat<TcpStream>>> {
    // lapin wants a TCP stream. Any socket can be one.
    let (ours, lapins) = StdUnixStream::pair()?;
    let lapins = StdTcpStream::from(OwnedFd::from(lapins));
    lapins.set_nonblocking(true)?;
    ours.set_nonblocking(true)?;
    let ours = UnixStream::from_std(ours)?;
    tokio::spawn(carry(Compat::new(broker), ours, mended));
    Ok(AsyncTcpStream::Plain(Compat::new(TcpStream::from_std(lapins)?)))
}

async fn carry(broker: impl AsyncRead + AsyncWrite, lapins: UnixStream, mended: Mended) {
    let (mut from_broker, mut to_broker) = split(broker);
    let (mut from_lapin, mut to_lapin) = lapins.into_split();
    tokio::select! {
        _ = copy(&mut from_lapin, &mut to_broker) => {}
        _ = mend(&mut from_broker, &mut to_lapin, mended) => {}
    }
}

async fn mend(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mended: Mended,
) -> io::Result<()> {
    let mut frames = Frames { pending: Vec::new(), tags: HashMap::new(), mended };
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        frames.pending.extend_from_slice(&chunk[..length]);
        let whole = frames.mend();
        to.write_all(&frames.pending[..whole]).await?;
        frames.pending.drain(..whole);
    }
}

/// What came of frames that are not whole yet, and the last message handed over on each channel: its properties follow.
struct Frames {
    pending: Vec<u8>,
    tags: HashMap<u16, u64>,
    mended: Mended,
}

impl Frames {
    /// Mends all whole frames; how many bytes they are.
    fn mend(&mut self) -> usize {
        let mut at = 0;
        while let Some(end) = frame_end(&self.pending, at) {
            let (head, payload) = self.pending[at..end - 1].split_at_mut(HEAD);
            let channel = u16::from_be_bytes([head[1], head[2]]);
            let mended = match head[0] {
                METHOD => {
                    self.mended.greeted(payload);
                    if let Some(tag) = delivery_tag(payload) {
                        self.tags.insert(channel, tag);
                    }
                    method(payload)
                }
                HEADER => properties(payload),
                _ => false,
            };
            if let Some(tag) = self.tags.get(&channel).filter(|_| mended) {
                self.mended.add(channel, *tag);
            }
            at = end;
        }
        at
    }
}

/// Where the frame at `at` ends, if all of it is there.
fn frame_end(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at + 3..at + HEAD)?.try_into().ok().map(u32::from_be_bytes)?;
    let end = at.checked_add(HEAD)?.checked_add(usize::try_from(length).ok()?)?.checked_add(1)?;
    (end <= bytes.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind], channel.to_be_bytes().as_slice(), &length, payload, &[0xce]].concat()
    }

    fn deliver(tag: u64) -> Vec<u8> {
        [vec![0, 60, 0, 60, 1, b't'], tag.to_be_bytes().to_vec(), vec![0, 0, 0]].concat()
    }

    fn header(id: &[u8]) -> Vec<u8> {
        let head = [vec![0, 60, 0, 0], 2_u64.to_be_bytes().to_vec(), vec![0, 0x80]].concat();
        [head, vec![u8::try_from(id.len()).unwrap()], id.to_vec()].concat()
    }

    async fn passed(sent: &[Vec<u8>]) -> (Vec<u8>, Mended) {
        let (mended, mut got) = (Mended::default(), Vec::new());
        let (mut broker, mut here) = tokio::io::duplex(7);
        let all = sent.concat();
        let writing = async {
            broker.write_all(&all).await.unwrap();
            drop(broker);
        };
        let ((), carried) = tokio::join!(writing, mend(&mut here, &mut got, mended.clone()));
        carried.unwrap();
        (got, mended)
    }

    #[tokio::test]
    async fn frames_come_out_whole_whatever_pieces_they_came_in_and_the_mended_are_known() {
        let body = frame(3, 1, b"\xff\xfe body");
        let sent = [frame(1, 1, &deliver(3)), frame(2, 1, &header(b"a\xff")), body.clone(), frame(8, 0, b"")];
        let (got, mended) = passed(&sent).await;
        let expected = [frame(1, 1, &deliver(3)), frame(2, 1, &header(b"a?")), body, frame(8, 0, b"")];
        assert_eq!(got, expected.concat());
        assert!(mended.take(1, 3));
        assert!(!mended.take(1, 3), "told once");
    }

    #[tokio::test]
    async fn another_channel_between_the_frames_of_a_message_changes_nothing() {
        let sent = [frame(1, 1, &deliver(3)), frame(1, 2, &deliver(9)), frame(2, 1, &header(b"\xff"))];
        let (_, mended) = passed(&sent).await;
        assert!(mended.take(1, 3) && !mended.take(2, 9));
        let sent = [frame(1, 1, &deliver(3)), frame(2, 1, &header(b"good"))];
        assert!(!passed(&sent).await.1.take(1, 3));
    }
}
