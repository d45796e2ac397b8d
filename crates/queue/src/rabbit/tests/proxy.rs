//! A way to the broker that can be cut, held, and opened.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};
use url::Url;

use super::rig::Rig;

/// What is let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Valve {
    open: bool,
    /// What the broker says does not reach the client.
    mute: bool,
    /// What the client says does not reach the broker.
    deaf: bool,
    /// Connections of an earlier cut are gone.
    cuts: u32,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Proxy {
    address: SocketAddr,
    valve: Arc<watch::Sender<Valve>>,
}

impl Proxy {
    /// Lets everything through.
    pub(super) async fn opened(rig: &Rig) -> Self {
        let proxy = Self::closed(rig).await;
        proxy.open();
        proxy
    }

    /// Hangs up on whoever calls.
    pub(super) async fn closed(rig: &Rig) -> Self {
        let url = Url::parse(&rig.url).unwrap();
        let broker = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy =
            Self { address: listener.local_addr().unwrap(), valve: Arc::new(watch::Sender::new(Valve::default())) };
        let valve = proxy.valve.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if valve.borrow().open {
                    let broker = TcpStream::connect(broker.clone()).await.unwrap();
                    tokio::spawn(carry(client, broker, valve.subscribe()));
                }
            }
        });
        proxy
    }

    pub(super) fn url(&self, rig: &Rig) -> String {
        let mut url = Url::parse(&rig.url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.address.port())).unwrap();
        url.to_string()
    }

    pub(super) fn open(&self) {
        self.valve.send_modify(|valve| valve.open = true);
    }

    /// Ends all connections, and hangs up on whoever calls.
    pub(super) fn shut(&self) {
        self.valve.send_modify(|valve| (valve.cuts, valve.open) = (valve.cuts + 1, false));
    }

    /// The client's words still reach the broker; no answer comes.
    pub(super) fn mute(&self) {
        self.valve.send_modify(|valve| valve.mute = true);
    }

    /// The client's words reach the broker no more; it writes them all the same.
    pub(super) fn deafen(&self) {
        self.valve.send_modify(|valve| valve.deaf = true);
    }

    /// Ends all connections; new ones are whole again.
    pub(super) fn cut(&self) {
        self.valve.send_modify(|valve| *valve = Valve { open: valve.open, cuts: valve.cuts + 1, ..Valve::default() });
    }
}

async fn carry(client: TcpStream, broker: TcpStream, mut valve: watch::Receiver<Valve>) {
    let born = valve.borrow().cuts;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (words, answers) = (valve.clone(), valve.clone());
    tokio::select! {
        () = pump(from_client, to_broker, words, |valve| valve.deaf) => {}
        () = pump(from_broker, to_client, answers, |valve| valve.mute) => {}
        _ = valve.wait_for(|valve| valve.cuts != born) => {}
    }
}

async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut valve: watch::Receiver<Valve>,
    held: fn(&Valve) -> bool,
) {
    let born = valve.borrow().cuts;
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let heard = valve.wait_for(|valve| !held(valve) || valve.cuts != born).await;
        if heard.is_ok_and(|valve| valve.cuts != born) {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
