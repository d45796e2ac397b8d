//! Liveness of the process's loops, for `/livez`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The loops of a process, each with the time of its last heartbeat. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heartbeats(Arc<Mutex<Vec<(String, Instant)>>>);

/// One loop in [`Heartbeats`].
#[derive(Clone, Debug)]
pub(crate) struct LoopHeartbeat {
    all: Heartbeats,
    index: usize,
}

impl Heartbeats {
    /// Adds the loop `name`.
    pub(crate) fn register(&self, name: &str) -> LoopHeartbeat {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((name.to_owned(), Instant::now()));
        LoopHeartbeat { all: self.clone(), index: all.len() - 1 }
    }

    /// Lists the loops without a heartbeat for `silence`.
    pub(crate) fn silent_for(&self, silence: Duration) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, last)| last.elapsed() > silence).map(|(name, _)| name.clone()).collect()
    }
}

impl LoopHeartbeat {
    /// Records that the loop is alive.
    pub(crate) fn beat(&self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner)[self.index].1 = Instant::now();
    }
}
