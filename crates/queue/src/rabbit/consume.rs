//! The consuming connection: consumes every configured kind, and counts the queues that belong to no kind.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    buffer::DeliveryBuffer,
    counts,
    flow::KindFlows,
    kind_consumer::KindConsumer,
    link::{ConnectionRole, Link, SessionError, SessionTaskEnd, SessionWork},
    lock::{self, KindLock},
    shared::Shared,
    topology_check, unknown_kinds,
};

/// Time for settlements before the connection is closed. A quorum queue processes at most 32 settlements of a channel
/// at a time; the others wait in the channel, and are lost with it.
const SETTLING: Duration = Duration::from_millis(250);

/// The work of the consuming connection.
pub(super) struct ConsumerConnection {
    shared: Arc<Shared>,
    buffers: watch::Receiver<Vec<Arc<DeliveryBuffer>>>,
}

impl ConsumerConnection {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), buffers: shared.buffers.subscribe() }
    }

    /// Serves all kinds, including those that are added while it runs, until one of them fails.
    async fn serve(&mut self, link: &Arc<Link>, tasks: &mut JoinSet<SessionTaskEnd>) -> SessionError {
        let mut served = 0;
        let closing = self.shared.closing.clone();
        tasks.spawn(counts::count_others(self.shared.clone(), link.clone()));
        tasks.spawn(topology_check::check(self.shared.clone(), link.clone()));
        tasks.spawn(unknown_kinds::serve(self.shared.clone(), link.clone()));
        loop {
            let buffers = self.buffers.borrow_and_update().clone();
            for buffer in buffers.iter().skip(served) {
                tasks.spawn(serve_kind(self.shared.clone(), buffer.clone(), link.clone()));
            }
            served = buffers.len();
            tokio::select! {
                reason = link.session.wait_until_ended() => return reason,
                Some(ended) = tasks.join_next() => {
                    let Err(reason) = ended.unwrap_or_else(|error| Err(error.to_string()));
                    return reason;
                }
                Ok(()) = self.buffers.changed() => {}
                () = closing.cancelled() => {
                    sleep(SETTLING).await;
                    return "the process is stopping".to_owned();
                }
            }
        }
    }
}

/// Serves one kind until the session is lost. An exclusive kind waits until this process holds its lock.
async fn serve_kind(shared: Arc<Shared>, buffer: Arc<DeliveryBuffer>, link: Arc<Link>) -> SessionTaskEnd {
    let lock = if buffer.kind.is_exclusive() { Some(lock::acquire(&shared, &link, buffer.kind).await?) } else { None };
    let flows = Arc::new(KindFlows::new(&shared.unsettled, buffer.kind));
    let consumer = KindConsumer::new(&shared, &buffer, &link, &flows, lock.as_ref().map(KindLock::lease));
    let lock_lost = async {
        match &lock {
            Some(lock) => lock.renew_until_lost().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = consumer.run_until_lost() => ended,
        reason = lock_lost => Err(reason),
        ended = counts::count(shared, buffer, link, flows) => ended,
    }
}

impl SessionWork for ConsumerConnection {
    const ROLE: ConnectionRole = ConnectionRole::Consume;

    async fn wait_until_wanted(&mut self) {
        let _ = self.buffers.wait_for(|buffers| !buffers.is_empty()).await;
    }

    async fn run(&mut self, link: Arc<Link>) -> SessionError {
        let mut tasks = JoinSet::new();
        let reason = self.serve(&link, &mut tasks).await;
        link.session.end(reason.clone());
        tasks.shutdown().await;
        self.shared.settlements.recent.record_session_loss(Instant::now());
        for buffer in self.buffers.borrow().iter() {
            buffer.session_over();
        }
        reason
    }
}
