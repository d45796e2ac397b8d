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
    /// Time after which messages that wait in vain end the session.
    pub(super) watchdog: Duration,
    pub(super) health: ConnectionHealth,
    pub(super) settlements: Arc<Settlements>,
    pub(super) unsettled: UnsettledCounts,
    pub(super) buffers: watch::Sender<Vec<Arc<DeliveryBuffer>>>,
    /// Locked while the topology is declared.
    pub(super) declaring: Mutex<Preparation>,
    /// Notified when a message proves that a binding is missing.
    pub(super) unbound: Notify,
    pub(super) closing: CancellationToken,
    /// The reason why a supervisor ended unasked.
    pub(super) failure: watch::Sender<Option<String>>,
    /// The receiver of messages of unknown kinds, if there is one.
    pub(super) unknown_kinds: OnceLock<mpsc::Sender<UnknownKindMessage>>,
}

/// The state of the topology's preparation by this process.
#[derive(Default)]
pub(super) struct Preparation {
    /// The last one was successful.
    pub(super) succeeded: bool,
    /// It was logged that some of the topology is of an earlier version.
    pub(super) logged: bool,
}

impl Shared {
    /// Runs `task`, which the queue waits for when it closes. From any thread.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.settlements.spawn(task);
    }
}
