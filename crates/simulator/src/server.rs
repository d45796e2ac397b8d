//! Starts and stops the simulator, and gives tests access to its state.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connection::{SeverableListener, Severer};
use crate::faults::{FaultRule, Faults};
use crate::options::SimulatorOptions;
use crate::record::RecordedRequest;
use crate::routes;
use crate::world::Shared;

/// Maximum time for requests in progress when the simulator stops.
const STOPPING_TIME: Duration = Duration::from_secs(2);

/// A running simulator. It stops when this value is dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    shared: Shared,
    ended: CancellationToken,
    task: JoinHandle<()>,
}

impl Simulator {
    /// Starts a simulator in a task of its own.
    pub async fn start(options: SimulatorOptions) -> io::Result<Self> {
        let asked = options.listen;
        let refused = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {asked}: {error}"));
        let listener = TcpListener::bind(asked).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let shared = Shared::new(options);
        let ended = CancellationToken::new();
        let task = tokio::spawn(serve(listener, shared.clone(), ended.clone()));
        Ok(Self { address, shared, ended, task })
    }

    /// The address of the API; the token endpoint is `/oauth/token` under it.
    pub fn base_url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        format!("http://{address}")
    }

    /// The received requests, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().record.after(0, "")
    }

    /// Number of purges of each path.
    pub fn purge_counts(&self) -> BTreeMap<String, u64> {
        self.shared.lock().organisation.cdn.purged.clone()
    }

    /// All data of the organisation, as `/_sim/state` shows it.
    pub fn state(&self) -> Value {
        self.shared.lock().organisation.to_json()
    }

    /// Changes one part of the organisation (`eventStreams`, `webMessaging`, `webDeployments`, `network`, `files`,
    /// `media`). Fails with a message if the change is invalid.
    pub fn set(&self, part: &str, change: &Value) -> Result<(), String> {
        self.shared.lock().organisation.set(part, change)
    }

    /// Replaces the fault rules.
    pub fn set_faults(&self, faults: Vec<FaultRule>) {
        self.shared.lock().faults = Faults::new(faults);
    }

    /// Stops the simulator: accepts no more requests, and ends those in progress. Waiting ones are answered at once.
    pub async fn stop(self) {
        self.shared.stopping.cancel();
        if tokio::time::timeout(STOPPING_TIME, self.ended.cancelled()).await.is_err() {
            tracing::warn!("the simulator stopped with requests under way");
        }
    }

    /// Waits until the server has ended for any reason.
    pub async fn wait(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // The token ends the tasks of the connections; the abort frees the port.
        self.shared.stopping.cancel();
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Shared, ended: CancellationToken) {
    let _ended_on_return_and_on_panic = ended.drop_guard();
    let stopping = shared.stopping.clone();
    let service = routes::all(shared).into_make_service_with_connect_info::<Severer>();
    let server = axum::serve(SeverableListener(listener), service);
    if let Err(error) = server.with_graceful_shutdown(stopping.cancelled_owned()).await {
        tracing::error!(%error, "the simulator failed");
    }
}
