//! A way to a broker that refuses one user what it grants another: channels are closed over what is forbidden, in the
//! words of `RabbitMQ`, before it reaches the real broker.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
};
use url::Url;

use super::{
    raw::{frame, method, short},
    rig::Rig,
};

/// Why a method is refused, if it is; given class and method, and its arguments.
pub(super) type Law = fn(u16, u16, &[u8]) -> Option<&'static str>;

/// Nothing is declared, only looked for.
pub(super) fn declares_nothing(class: u16, number: u16, arguments: &[u8]) -> Option<&'static str> {
    let passive = |skipped: usize| {
        let flags = (0..skipped).fold(2, |at, _| at + 1 + usize::from(arguments[at]));
        arguments[flags] & 1 == 1
    };
    let declares = match (class, number) {
        (40, 10) => !passive(2),
        (50, 10) => !passive(1),
        _ => false,
    };
    declares.then_some("ACCESS_REFUSED - configure access to it in vhost '/' refused for user 'few'")
}

/// Nothing is published to the default exchange.
pub(super) fn sends_no_replies(class: u16, number: u16, arguments: &[u8]) -> Option<&'static str> {
    let refused = (class, number) == (60, 40) && arguments[2] == 0;
    refused.then_some("ACCESS_REFUSED - write access to exchange 'amq.default' in vhost '/' refused for user 'few'")
}

/// True if [`sends_replies_once_permitted`] permits them.
pub(super) static MAY_REPLY: AtomicBool = AtomicBool::new(false);

/// Nothing is published to the default exchange until [`MAY_REPLY`] is set.
pub(super) fn sends_replies_once_permitted(class: u16, number: u16, arguments: &[u8]) -> Option<&'static str> {
    sends_no_replies(class, number, arguments).filter(|_| !MAY_REPLY.load(Ordering::Acquire))
}

/// Nothing is forbidden.
fn allows_all(_: u16, _: u16, _: &[u8]) -> Option<&'static str> {
    None
}

/// The address of a broker under `law`.
pub(super) async fn broker_under(law: Law, rig: &Rig) -> String {
    broker(law, false, rig).await
}

/// The address of a broker that refuses all that is published by the first connection, like a channel that met an
/// election.
pub(super) async fn broker_refusing_at_first(rig: &Rig) -> String {
    broker(allows_all, true, rig).await
}

async fn broker(law: Law, mut refuses: bool, rig: &Rig) -> String {
    let mut url = Url::parse(&rig.url).unwrap();
    let broker = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let broker = TcpStream::connect(broker.clone()).await.unwrap();
            tokio::spawn(carry(client, broker, law, std::mem::take(&mut refuses)));
        }
    });
    url.to_string()
}

/// Channels closed by us: towards the client until it says so, towards the broker until that says so.
#[derive(Default)]
struct Closing {
    client: BTreeSet<u16>,
    broker: BTreeSet<u16>,
}

async fn carry(client: TcpStream, broker: TcpStream, law: Law, refuses: bool) {
    let (mut from_client, to_client) = client.into_split();
    let (from_broker, mut to_broker) = broker.into_split();
    let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
    let closing = Arc::<Mutex<Closing>>::default();
    let mut identity = [0; 8];
    if from_client.read_exact(&mut identity).await.is_err() || to_broker.write_all(&identity).await.is_err() {
        return;
    }
    tokio::select! {
        _ = answers(from_broker, to_client.clone(), closing.clone(), refuses) => {}
        _ = questions(from_client, to_broker, to_client, closing, law) => {}
    }
}

async fn questions(
    mut from_client: tcp::OwnedReadHalf,
    mut to_broker: tcp::OwnedWriteHalf,
    to_client: Arc<tokio::sync::Mutex<tcp::OwnedWriteHalf>>,
    closing: Arc<Mutex<Closing>>,
    law: Law,
) -> std::io::Result<()> {
    loop {
        let (kind, channel, payload) = read(&mut from_client).await?;
        let (class, number) = if kind == 1 { named(&payload) } else { (0, 0) };
        if closing.lock().unwrap().client.contains(&channel) {
            if (class, number) == (20, 41) {
                closing.lock().unwrap().client.remove(&channel);
            }
            continue;
        }
        let refusal = if kind == 1 { law(class, number, &payload[4..]) } else { None };
        let Some(why) = refusal else {
            to_broker.write_all(&frame(kind, channel, &payload)).await?;
            continue;
        };
        closing.lock().unwrap().client.insert(channel);
        closing.lock().unwrap().broker.insert(channel);
        let close = |code: u16, why: &str| {
            let close = [method(20, 40), code.to_be_bytes().to_vec(), short(why.as_bytes()), vec![0; 4]].concat();
            frame(1, channel, &close)
        };
        to_broker.write_all(&close(200, "")).await?;
        to_client.lock().await.write_all(&close(403, why)).await?;
    }
}

async fn answers(
    mut from_broker: tcp::OwnedReadHalf,
    to_client: Arc<tokio::sync::Mutex<tcp::OwnedWriteHalf>>,
    closing: Arc<Mutex<Closing>>,
    refuses: bool,
) -> std::io::Result<()> {
    loop {
        let (kind, channel, mut payload) = read(&mut from_broker).await?;
        if refuses && kind == 1 && named(&payload) == (60, 80) {
            // The arguments of a refusal are those of a confirm.
            payload[..4].copy_from_slice(&method(60, 120));
        }
        if closing.lock().unwrap().broker.contains(&channel) {
            if kind == 1 && named(&payload) == (20, 41) {
                closing.lock().unwrap().broker.remove(&channel);
            }
            continue;
        }
        to_client.lock().await.write_all(&frame(kind, channel, &payload)).await?;
    }
}

/// Class and method.
fn named(payload: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]))
}

async fn read(from: &mut tcp::OwnedReadHalf) -> std::io::Result<(u8, u16, Vec<u8>)> {
    let mut head = [0; 7];
    from.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; length as usize + 1];
    from.read_exact(&mut payload).await?;
    payload.pop();
    Ok((head[0], u16::from_be_bytes([head[1], head[2]]), payload))
}
