//! The two tasks of the audit: one writes waiting lines, many at once; the other syncs written lines as soon as they
//! have to be durable. Neither waits for the other, so that an intent can be written during a sync.
//!
//! A thread does the writing. It stays for a moment ([`LINGER`]) when no lines wait. It is woken only if a task waits for
//! lines to be written or durable. So while many jobs run, a line that no task waits for is written with the next one,
//! without a change of threads of its own.
//!
//! Lines that cannot be written stay in order and are written again every [`RETRY`]. A write or a sync that hangs (a
//! pipe without a reader, a faulty disk) blocks the audit until it ends. A sync that fails ends both tasks, and with
//! them the process, because it is unknown what is on the disk.

use std::{
    io,
    pin::pin,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

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
use genfleet_job::{metric, supervisor::Supervisor};

/// Pause between two tries while nothing can be written.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// Time after which a write or a sync counts as hanging.
const HANGS: Duration = Duration::from_secs(5);
/// Time for which the thread that writes waits for more lines before it leaves.
pub(super) const LINGER: Duration = Duration::from_millis(5);
/// Time after which it leaves in any case, well below [`HANGS`].
const TURN: Duration = Duration::from_secs(1);

/// Interval of logging the end of the chain.
const ANCHOR_EVERY: Duration = Duration::from_secs(60);

/// The condition of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditCondition {
    /// Lines can be written.
    #[default]
    Writable,
    /// Lines cannot be written now, for this reason.
    Blocked(String),
    /// Lines can never be written again in this process.
    Failed,
}

impl AuditCondition {
    /// The reason why lines cannot be written.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Blocked(why) => Some(why.clone()),
            Self::Failed => Some("the audit log failed: the process ends".to_owned()),
            Self::Writable => None,
        }
    }
}

/// The lines that a sync makes durable: all up to `written`.
#[derive(Clone, Debug, Default)]
pub(super) struct SyncMark {
    pub(super) written: u64,
    /// Hash of the last line; empty if this process wrote none.
    hash: String,
    file: Option<SyncHandle>,
}

impl SyncMark {
    /// The lines of an earlier process.
    pub(super) fn up_to(written: u64) -> Self {
        Self { written, ..Self::default() }
    }
}

/// The writer, before its tasks run.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) log: LogFile,
}

impl Writer {
    /// Runs the tasks; each ends the process when it ends.
    pub(crate) fn start(self, supervisor: &Supervisor) {
        supervisor.spawn("audit sync", sync(Arc::clone(&self.shared)));
        supervisor.spawn("audit anchor", anchor(Arc::clone(&self.shared)));
        supervisor.spawn("audit", self.run());
    }

    async fn run(self) {
        let Self { shared, mut log } = self;
        loop {
            shared.wait_for_lines().await;
            let (name, writing) = (log.name(), Arc::clone(&shared));
            let turn = move || {
                let result = writing.write_turn(&mut log);
                (log, result)
            };
            // A write that panicked has lost the file.
            let Ok((returned, result)) = shared.run_watched(&name, turn).await.0 else { return shared.fail() };
            log = returned;
            match result {
                Ok(()) => {}
                Err(WriteError::NotNow(error)) => {
                    shared.block(&format!("{}: {error}", log.name()));
                    sleep(RETRY).await;
                }
                Err(WriteError::Sync(error)) => return shared.fail_sync(&error),
            }
        }
    }
}

fn blocked_condition(why: &str) -> AuditCondition {
    AuditCondition::Blocked(format!("the audit log cannot be written: {why}"))
}

/// Syncs written lines whenever a task waits for that. All tasks that wait share the next sync (group commit).
async fn sync(shared: Arc<Shared>) {
    let (mut wanted, mut written) = (shared.wanted.subscribe(), shared.written.subscribe());
    let mut condition = shared.condition.subscribe();
    loop {
        let synced = *shared.synced.borrow();
        // Neither can fail: the senders are in `shared`.
        let Ok(wanted) = wanted.wait_for(|wanted| *wanted > synced).await.map(|wanted| *wanted) else { return };
        let _ = written.wait_for(|mark| mark.written > synced).await;
        tokio::select! {
            _ = written.wait_for(|mark| mark.written >= wanted) => {}
            _ = condition.wait_for(|condition| *condition != AuditCondition::Writable) => {}
        }
        let SyncMark { written, file, .. } = shared.written.borrow().clone();
        if let Some(file) = file {
            let (synced, hung) = shared.run_watched("syncing it", move || file.sync()).await;
            match synced {
                Ok(Ok(())) => hung.iter().for_each(|hung| shared.unblock_after(hung)),
                Ok(Err(error)) => return shared.fail_sync(&error),
                Err(_) => return shared.fail(),
            }
        }
        shared.synced.send_replace(written);
    }
}

/// Logs the end of the chain when it is durable, so that a log that is kept elsewhere can prove the content of the
/// file.
async fn anchor(shared: Arc<Shared>) {
    let mut logged = shared.written.borrow().written;
    loop {
        sleep(ANCHOR_EVERY).await;
        let mark = shared.written.borrow().clone();
        if mark.written > logged && shared.synced.subscribe().wait_for(|synced| *synced >= mark.written).await.is_ok() {
            logged = mark.written;
            shared.log_anchor(&mark);
        }
    }
}

impl Shared {
    /// Logs the last written line, if there is one.
    pub(super) fn log_last_anchor(&self) {
        let mark = self.written.borrow().clone();
        if !mark.hash.is_empty() && *self.synced.borrow() >= mark.written {
            self.log_anchor(&mark);
        }
    }

    fn log_anchor(&self, mark: &SyncMark) {
        let anchor = ChainLink { seq: mark.written, hash: mark.hash.clone() };
        let process = self.state().chain.as_ref().map(|chain| chain.process().to_owned());
        info!(%anchor, process, "anchor of the audit: genfleet audit verify --anchor checks that the files still contain this line");
    }

    /// Waits until there are lines to write.
    async fn wait_for_lines(&self) {
        while self.state().waiting.is_empty() {
            self.work.notified().await;
        }
    }

    /// Writes the waiting lines and those that follow soon. Lines that could not be written wait again.
    fn write_turn(&self, log: &mut LogFile) -> Result<(), WriteError> {
        let end = Instant::now() + TURN;
        while Instant::now() < end {
            let mut lines = self.take_lines();
            if lines.is_empty() {
                return Ok(());
            }
            let (written, result) = log.write(&lines);
            self.set_written(&lines[..written], log);
            if result.is_err() {
                self.put_back(lines.split_off(written));
                return result;
            }
            self.unblock();
        }
        Ok(())
    }

    /// Takes all waiting lines; none if none was added for a moment.
    fn take_lines(&self) -> Vec<Line> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            state.lingers = true;
            state = self.more.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner).0;
            state.lingers = false;
        }
        std::mem::take(&mut state.waiting)
    }

    /// Puts `lines` back, before those that were added since.
    fn put_back(&self, mut lines: Vec<Line>) {
        let mut state = self.state();
        lines.append(&mut state.waiting);
        state.waiting = lines;
    }

    /// Runs `work` on a separate thread. If it hangs, blocks the audit unless it is already blocked, and returns that
    /// condition.
    async fn run_watched<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (Result<T, JoinError>, Option<AuditCondition>) {
        let mut work = pin!(spawn_blocking(work));
        if let Ok(done) = timeout(HANGS, &mut work).await {
            return (done, None);
        }
        let why = format!("{what}: it takes longer than {HANGS:?} and has not ended");
        let hung = blocked_condition(&why);
        if *self.condition.borrow() == AuditCondition::Writable {
            self.block(&why);
        }
        (work.await, Some(hung))
    }

    /// Unblocks the audit if `hung` is the only reason why it is blocked.
    fn unblock_after(&self, hung: &AuditCondition) {
        if *self.condition.borrow() == *hung {
            self.unblock();
        }
    }

    fn set_written(&self, lines: &[Line], log: &LogFile) {
        metrics::counter!(metric::AUDIT_RECORDS).increment(lines.len() as u64);
        if let Some(last) = lines.last() {
            let ChainLink { seq: written, hash } = last.link.clone();
            self.written.send_replace(SyncMark { written, hash, file: log.syncable() });
        }
    }

    fn unblock(&self) {
        if self.set_condition(AuditCondition::Writable) {
            info!("the audit log can be written again");
        }
    }

    fn block(&self, why: &str) {
        if self.set_condition(blocked_condition(why)) {
            warn!(why, "the audit log cannot be written: nothing is changed and nothing acknowledged until it can");
        }
    }

    fn fail_sync(&self, why: &io::Error) {
        error!(%why, "the audit log could not be synced: it is unknown what of it is on the disk");
        self.fail();
    }

    fn fail(&self) {
        self.set_condition(AuditCondition::Failed);
    }

    fn set_condition(&self, condition: AuditCondition) -> bool {
        self.condition.send_if_modified(|current| {
            let changes = *current != condition && *current != AuditCondition::Failed;
            if changes {
                *current = condition;
            }
            changes
        })
    }
}
