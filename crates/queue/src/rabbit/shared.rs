//! The state that all tasks of one queue share.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    buffer::DeliveryBuffer, connect::BrokerHosts, health::ConnectionHealth, settings::TopologyMode, settle::Settlements,
};
use crate::{message::UnknownKindMessage, topology::Topology, unsettled::UnsettledCounts};

pub(super) struct Shared {
    pub(super) broker: BrokerHosts,
    pub(super) prefix: String,
    pub(super) topology: Topology,
    pub(super) mode: TopologyMode,
    /// Time after which the session ends if messages wait without being delivered.
    pub(super) watchdog: Duration,
    pub(super) health: ConnectionHealth,
    pub(super) settlements: Arc<Settlements>,
    pub(super) unsettled: UnsettledCounts,
    pub(super) buffers: watch::Sender<Vec<Arc<DeliveryBuffer>>>,
    /// Locked while the topology is declared.
    pub(super) declaring: Mutex<Preparation>,
    /// Notified when a message shows that a binding is missing.
    pub(super) unbound: Notify,
    pub(super) closing: CancellationToken,
    /// The reason why a supervisor ended on its own.
    pub(super) failure: watch::Sender<Option<String>>,
    /// The channel for messages of unknown kinds, if they are consumed.
    pub(super) unknown_kinds: OnceLock<mpsc::Sender<UnknownKindMessage>>,
}

/// The state of this process's preparation of the topology.
#[derive(Default)]
pub(super) struct Preparation {
    /// True if the last one was successful.
    pub(super) succeeded: bool,
    /// True after it was logged that an earlier version declared some of the topology.
    pub(super) logged: bool,
}

impl Shared {
    /// Runs `task`, from any thread. The queue waits for it when it closes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.settlements.spawn(task);
    }
}
