//! A producer that writes its own frames, which correct clients would not send but a broker accepts.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Properties that a broker accepts and clients may not be able to read, each with the reason: their flags, and
/// headers, delivery mode and message id.
pub fn hostile_properties() -> [(&'static str, Vec<u8>); 4] {
    let nested = (0..2_000).fold(Vec::new(), |inner, _| [b"\x01nF".to_vec(), long(&inner)].concat());
    // With class, weight and length, the payload of the header frame has its maximum length.
    let empty = properties(&[b"\x01nS".to_vec(), long(b"")].concat(), b"long").len();
    let filling = b"x".repeat(131_064 - 12 - empty);
    [
        ("tables inside each other", properties(&nested, b"nested")),
        ("a frame filled to its end", properties(&[b"\x01nS".to_vec(), long(&filling)].concat(), b"long")),
        ("an id that is no text", properties(b"", b"bad\xff\xfe")),
        ("a header's name that is no text", properties(b"\x04caf\xe9t\x01", b"named")),
    ]
}

fn properties(headers: &[u8], id: &[u8]) -> Vec<u8> {
    [vec![0x30, 0x80], long(headers), vec![2], short(id)].concat()
}

/// Publishes a message whose id and a header's name are not UTF-8, and waits until the broker has it.
pub async fn publish_unreadable(url: &str, exchange: &str, key: &str) {
    publish_with(url, exchange, key, &properties(b"\x04caf\xe9t\x01", b"bad\xff\xfe"), b"{}").await;
}

/// Publishes a message with properties from [`hostile_properties`], and waits until the broker has it.
pub async fn publish_with(url: &str, exchange: &str, key: &str, properties: &[u8], body: &[u8]) {
    let url: lapin::uri::AMQPUri = url.parse().unwrap_or_else(|error| panic!("{error}"));
    let address = (url.authority.host.as_str(), url.authority.port);
    let mut broker = TcpStream::connect(address).await.expect("the broker is there");
    let login = format!("\0{}\0{}", url.authority.userinfo.username, url.authority.userinfo.password);
    broker.write_all(b"AMQP\0\0\x09\x01").await.expect("written");
    answer(&mut broker).await;
    let start_ok = [method(10, 11), long(b""), short(b"PLAIN"), long(login.as_bytes()), short(b"en_US")].concat();
    broker.write_all(&frame(1, 0, &start_ok)).await.expect("written");
    let tune = answer(&mut broker).await;
    let tune_ok = [method(10, 31), tune[4..10].to_vec(), vec![0, 0]].concat();
    let open = [method(10, 40), short(url.vhost.as_bytes()), short(b""), vec![0]].concat();
    broker.write_all(&[frame(1, 0, &tune_ok), frame(1, 0, &open)].concat()).await.expect("written");
    answer(&mut broker).await;
    for question in [[method(20, 10), short(b"")].concat(), [method(85, 10), vec![0]].concat()] {
        broker.write_all(&frame(1, 1, &question)).await.expect("written");
        answer(&mut broker).await;
    }
    let publish = [method(60, 40), vec![0, 0], short(exchange.as_bytes()), short(key.as_bytes()), vec![0]].concat();
    let header = [&method(60, 0), (body.len() as u64).to_be_bytes().as_slice(), properties].concat();
    let frames = [frame(1, 1, &publish), frame(2, 1, &header), frame(3, 1, body)];
    broker.write_all(&frames.concat()).await.expect("written");
    assert!(answer(&mut broker).await.starts_with(&method(60, 80)), "the broker confirms it");
}

fn method(class: u16, method: u16) -> Vec<u8> {
    [class.to_be_bytes(), method.to_be_bytes()].concat()
}

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text].concat()
}

fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("not that long").to_be_bytes(), text].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("not that long").to_be_bytes();
    [&[kind], channel.to_be_bytes().as_slice(), &length, payload, &[0xce]].concat()
}

/// Reads the payload of the next frame.
async fn answer(broker: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 7];
    broker.read_exact(&mut head).await.expect("an answer");
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; length as usize + 1];
    broker.read_exact(&mut payload).await.expect("an answer");
    payload
}
