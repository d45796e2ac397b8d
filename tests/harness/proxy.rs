//! A TCP proxy in front of a broker that can delay data, close connections and refuse them.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Debug, Default)]
struct Valve {
    shut: bool,
    stalled: bool,
    /// Number of the last cut; connections from before it are closed.
    cuts: u32,
}

/// Forwards bytes between the processes under test and a broker. When it is dropped, all its connections are closed.
pub struct Proxy {
    url: String,
    valve: Arc<watch::Sender<Valve>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Starts a proxy that forwards everything to the broker at `url`.
    pub async fn to(url: &str) -> Self {
        let (user, place) = url.split_once('@').expect("a broker's URL with a user");
        let (address, vhost) = place.split_once('/').expect("a broker's URL with a virtual host");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("it listens");
        let valve = Arc::new(watch::Sender::new(Valve::default()));
        let accepting = accept(listener, address.to_owned(), Arc::clone(&valve));
        Self {
            url: format!("{user}@{own}/{vhost}"),
            valve,
            _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }

    /// The URL of the broker through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Closes all connections; new ones are forwarded.
    pub fn cut(&self) {
        self.valve.send_modify(|valve| valve.cuts += 1);
    }

    /// Holds all bytes back in both directions; connections stay open.
    pub fn stall(&self) {
        self.valve.send_modify(|valve| valve.stalled = true);
    }

    /// Closes all connections, and all new ones.
    pub fn shut(&self) {
        self.valve.send_modify(|valve| (valve.cuts, valve.shut) = (valve.cuts + 1, true));
    }

    /// Forwards everything again, starting with the bytes that were held back.
    pub fn open(&self) {
        self.valve.send_modify(|valve| (valve.stalled, valve.shut) = (false, false));
    }
}

async fn accept(listener: TcpListener, address: String, valve: Arc<watch::Sender<Valve>>) {
    let mut carried = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        if !valve.borrow().shut {
            carried.spawn(carry(client, address.clone(), valve.subscribe()));
        }
        while carried.try_join_next().is_some() {}
    }
}

async fn carry(client: TcpStream, address: String, mut valve: watch::Receiver<Valve>) {
    let born = valve.borrow().cuts;
    let Ok(broker) = TcpStream::connect(address).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (up, down) = (valve.clone(), valve.clone());
    tokio::select! {
        () = pump(from_client, to_broker, up) => {}
        () = pump(from_broker, to_client, down) => {}
        _ = valve.wait_for(|valve| valve.cuts != born) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut valve: watch::Receiver<Valve>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if valve.wait_for(|valve| !valve.stalled).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
