//! A producer that writes its own frames: what no decent client would send.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use url::Url;

use super::rig::Rig;

/// What of a message lapin cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Its message id is not UTF-8.
    Id,
    /// The name of a header is not.
    HeaderName,
    /// A word before its routing key is not.
    Key,
    /// 2,000 tables inside each other.
    Nested,
    /// 40,000 values.
    Wide,
    /// Headers that fill the frame to the last byte that is allowed.
    Long,
}

/// The payload of a header frame that fills it.
const FULL: usize = 131_072 - 8;

/// Publishes a job that lapin cannot read.
pub(super) async fn publish_unreadable(rig: &Rig, exchange: &str, key: &str, what: Unreadable) {
    let url = Url::parse(&rig.url).unwrap();
    let mut broker = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap_or(5672))).await.unwrap();
    let user = if url.username().is_empty() { "guest" } else { url.username() };
    let login = format!("\0{user}\0{}", url.password().unwrap_or("guest"));
    let vhost =
        url.path().get(1..).filter(|path| !path.is_empty()).map_or("/".to_owned(), |path| path.replace("%2f", "/"));

    broker.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
    answer(&mut broker).await;
    let start_ok = [method(10, 11), long(b""), short(b"PLAIN"), long(login.as_bytes()), short(b"en_US")].concat();
    broker.write_all(&frame(1, 0, &start_ok)).await.unwrap();
    let tune = answer(&mut broker).await;
    let tune_ok = [method(10, 31), tune[4..10].to_vec(), vec![0, 0]].concat();
    let open = [method(10, 40), short(vhost.as_bytes()), short(b""), vec![0]].concat();
    broker.write_all(&[frame(1, 0, &tune_ok), frame(1, 0, &open)].concat()).await.unwrap();
    answer(&mut broker).await;
    broker.write_all(&frame(1, 1, &[method(20, 10), short(b"")].concat())).await.unwrap();
    answer(&mut broker).await;

    let key = if what == Unreadable::Key { [b"\xff.", key.as_bytes()].concat() } else { key.as_bytes().to_vec() };
    let publish = [method(60, 40), vec![0, 0], short(exchange.as_bytes()), short(&key), vec![0]].concat();
    let header = header(what);
    let close = [method(20, 40), vec![0, 200], short(b""), vec![0; 4]].concat();
    let frames = [frame(1, 1, &publish), frame(2, 1, &header), frame(3, 1, b"{}"), frame(1, 1, &close)];
    broker.write_all(&frames.concat()).await.unwrap();
    assert!(answer(&mut broker).await.starts_with(&method(20, 41)), "the broker takes it");
}

/// Headers, delivery mode and message id.
fn header(what: Unreadable) -> Vec<u8> {
    let id = if what == Unreadable::Id { short(b"bad\xff\xfe") } else { short(b"good") };
    let header = |headers: &[u8]| {
        let head = [method(60, 0), 2_u64.to_be_bytes().to_vec(), vec![0x30, 0x80]].concat();
        [&head, &*long(headers), &[2], &id].concat()
    };
    match what {
        Unreadable::HeaderName => header(b"\x04caf\xe9t\x01"),
        Unreadable::Nested => {
            header(&(0..2_000).fold(Vec::new(), |inner, _| [b"\x01nF".to_vec(), long(&inner)].concat()))
        }
        Unreadable::Wide => header(&[b"\x01nA".to_vec(), long(&b"V".repeat(40_000))].concat()),
        Unreadable::Long => {
            let filled = |length| header(&[b"\x01nS".to_vec(), long(&b"x".repeat(length))].concat());
            filled(FULL - filled(0).len())
        }
        Unreadable::Id | Unreadable::Key => header(b"\x04cafet\x01"),
    }
}

pub(super) fn method(class: u16, method: u16) -> Vec<u8> {
    [class.to_be_bytes(), method.to_be_bytes()].concat()
}

pub(super) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub(super) fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

pub(super) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], channel.to_be_bytes().as_slice(), &length, payload, &[0xce]].concat()
}

/// The next frame's payload.
pub(super) async fn answer(broker: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    broker.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; length as usize + 1];
    broker.read_exact(&mut payload).await.unwrap();
    payload
}
