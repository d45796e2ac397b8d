//! The two tasks behind the audit: one writes the lines that wait, many at once; one syncs what was written, as soon as
//! somebody needs it durable. Neither waits for the other, so that an intent is written while a sync goes on.
//!
//! What cannot be written stays in order and is tried again every [`RETRY`]; a write or a sync that does not come to an
//! end (a pipe that nobody reads, a disk that hangs) puts the brake on until it does; a sync that failed ends both tasks,
//! and with them the process: after it nobody knows what is on the disk.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::{
    task::{JoinError, spawn_blocking},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    Shared,
    file::{LogFile, SyncHandle, WriteError},
    record::{ChainLink, Line},
};
use genfleet_job::{metric, supervisor::Tasks};

/// Between two tries while nothing can be written.
pub const RETRY: Duration = Duration::from_secs(2);
/// A write or a sync that takes longer hangs.
const HANGS: Duration = Duration::from_secs(5);

/// How often the end of the chain is told.
const ANCHOR_EVERY: Duration = Duration::from_secs(60);

/// Whether lines can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditCondition {
    /// They can.
    #[default]
    Writable,
    /// Not now: why.
    Blocked(String),
    /// Never again in this process.
    Failed,
}

impl AuditCondition {
    /// Why the brake is on.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Blocked(why) => Some(why.clone()),
            Self::Failed => Some("the audit log failed: the process ends".to_owned()),
            Self::Writable => None,
        }
    }
}

/// What a sync makes durable: all lines up to `written`.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark {
    pub(super) written: u64,
    /// Of the last line; empty where this process wrote none.
    hash: String,
    file: Option<SyncHandle>,
}

impl Mark {
    /// What an earlier process wrote.
    pub(super) fn up_to(written: u64) -> Self {
        Self { written, ..Self::default() }
    }
}

/// The tasks, before they run.
#[derive(Debug)]
pub struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) log: LogFile,
}

impl Writer {
    /// Runs both tasks; each ends the process when it ends.
    pub fn start(self, tasks: &Tasks) {
        tasks.spawn("audit sync", sync(Arc::clone(&self.shared)));
        tasks.spawn("audit anchor", anchor(Arc::clone(&self.shared)));
        tasks.spawn("audit", self.run());
    }

    async fn run(self) {
        let Self { shared, mut log } = self;
        loop {
            let lines = shared.taken().await;
            let name = log.name();
            let writing = move || {
                let (written, result) = log.write(&lines);
                (log, lines, written, result)
            };
            // One that panicked has lost the file.
            let Ok((returned, mut lines, written, result)) = shared.watched(&name, writing).await.0 else {
                return shared.fail();
            };
            log = returned;
            shared.wrote(&lines[..written], &log);
            match result {
                Ok(()) => shared.lift(),
                Err(WriteError::NotNow(error)) => shared.block(&format!("{}: {error}", log.name())),
                Err(WriteError::Sync(error)) => return shared.unsynced(&error),
            }
            let left = lines.split_off(written);
            if !left.is_empty() {
                shared.put_back(left);
                sleep(RETRY).await;
            }
        }
    }
}

fn blocked(why: &str) -> AuditCondition {
    AuditCondition::Blocked(format!("the audit log cannot be written: {why}"))
}

/// Syncs what was written whenever somebody waits for it: all that asked meanwhile share the next sync.
async fn sync(shared: Arc<Shared>) {
    let (mut wanted, mut written) = (shared.wanted.subscribe(), shared.written.subscribe());
    let mut condition = shared.condition.subscribe();
    loop {
        let synced = *shared.synced.borrow();
        // Neither fails: the senders are in `shared`.
        let Ok(wanted) = wanted.wait_for(|wanted| *wanted > synced).await.map(|wanted| *wanted) else { return };
        let _ = written.wait_for(|mark| mark.written > synced).await;
        tokio::select! {
            _ = written.wait_for(|mark| mark.written >= wanted) => {}
            _ = condition.wait_for(|condition| *condition != AuditCondition::Writable) => {}
        }
        let Mark { written, file, .. } = shared.written.borrow().clone();
        if let Some(file) = file {
            let (synced, hung) = shared.watched("syncing it", move || file.sync()).await;
            match synced {
                Ok(Ok(())) => hung.iter().for_each(|hung| shared.comes_to_an_end(hung)),
                Ok(Err(error)) => return shared.unsynced(&error),
                Err(_) => return shared.fail(),
            }
        }
        shared.synced.send_replace(written);
    }
}

/// Tells the end of the chain, once it is durable, so that a log that is kept elsewhere can prove what the file had.
async fn anchor(shared: Arc<Shared>) {
    let mut told = shared.written.borrow().written;
    loop {
        sleep(ANCHOR_EVERY).await;
        let mark = shared.written.borrow().clone();
        if mark.written > told && shared.synced.subscribe().wait_for(|synced| *synced >= mark.written).await.is_ok() {
            told = mark.written;
            shared.tell_anchor(&mark);
        }
    }
}

impl Shared {
    /// The end of what was written here, where anything was.
    pub(super) fn tell_last_anchor(&self) {
        let mark = self.written.borrow().clone();
        if !mark.hash.is_empty() && *self.synced.borrow() >= mark.written {
            self.tell_anchor(&mark);
        }
    }

    fn tell_anchor(&self, mark: &Mark) {
        let anchor = ChainLink { seq: mark.written, hash: mark.hash.clone() };
        let process = self.state().chain.as_ref().map(|chain| chain.process().to_owned());
        info!(%anchor, process, "the audit has come to here: genfleet audit verify --anchor proves it");
    }

    /// All lines that wait, once there are any.
    async fn taken(&self) -> Vec<Line> {
        loop {
            let lines = std::mem::take(&mut self.state().waiting);
            if !lines.is_empty() {
                return lines;
            }
            self.work.notified().await;
        }
    }

    /// Lets `lines` wait again, before those that came since.
    fn put_back(&self, mut lines: Vec<Line>) {
        let mut state = self.state();
        lines.append(&mut state.waiting);
        state.waiting = lines;
    }

    /// Does `work` on a thread of its own. Where it hangs the brake is put on, unless it is on: for this, which is returned.
    async fn watched<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (Result<T, JoinError>, Option<AuditCondition>) {
        let mut work = pin!(spawn_blocking(work));
        if let Ok(done) = timeout(HANGS, &mut work).await {
            return (done, None);
        }
        let why = format!("{what}: it takes longer than {HANGS:?} and has not ended");
        let hung = blocked(&why);
        if *self.condition.borrow() == AuditCondition::Writable {
            self.block(&why);
        }
        (work.await, Some(hung))
    }

    /// Lifts the brake if it is on for `hung` alone: what cannot be written is another matter.
    fn comes_to_an_end(&self, hung: &AuditCondition) {
        if *self.condition.borrow() == *hung {
            self.lift();
        }
    }

    fn wrote(&self, lines: &[Line], log: &LogFile) {
        metrics::counter!(metric::AUDIT_RECORDS).increment(lines.len() as u64);
        if let Some(last) = lines.last() {
            let ChainLink { seq: written, hash } = last.link.clone();
            self.written.send_replace(Mark { written, hash, file: log.syncable() });
        }
    }

    fn lift(&self) {
        if self.change(AuditCondition::Writable) {
            info!("the audit log can be written again: the brake is off");
        }
    }

    fn block(&self, why: &str) {
        if self.change(blocked(why)) {
            warn!(why, "the audit log cannot be written: nothing is changed and nothing acknowledged until it can");
        }
    }

    fn unsynced(&self, why: &io::Error) {
        error!(%why, "the audit log could not be synced: nobody knows what of it is on the disk");
        self.fail();
    }

    fn fail(&self) {
        self.change(AuditCondition::Failed);
    }

    fn change(&self, condition: AuditCondition) -> bool {
        self.condition.send_if_modified(|current| {
            let changes = *current != condition && *current != AuditCondition::Failed;
            if changes {
                *current = condition;
            }
            changes
        })
    }
}
