//! The audit (SPEC 8): every change that this product intended, its result, and how every job ended, as JSON lines in a
//! hash chain. [`record`] defines a line and its hash; [`file`](mod@file) and [`names`] the files; [`writer`] writes
//! and syncs them; [`mod@verify`] finds changes to the files.
//!
//! A fact gets its number and hash in memory when it is appended. An intent is *written* (accepted by `write(2)`, which
//! is where a full disk shows) before its call is sent, and *synced* with everything else of the job before the job's
//! message is acknowledged. A process that dies between the two has lost nothing: the kernel writes what it accepted.
//! When the machine dies, an intent whose call was sent may be missing, but its message was not acknowledged: the job
//! runs again and leaves its own. Syncing every intent first would add a sync to every request instead of sharing one
//! among all jobs that end at about the same time.
//!
//! While the file cannot be written the audit is blocked: no call that changes anything is sent ([`Intent`] waits),
//! nothing is acknowledged ([`Audit::wait_until_durable`] waits), no job is started. A job whose calls were sent already
//! is held in memory until there is room, so that its effects are neither lost nor done twice.
//!
//! The members that every fact of a job repeats (its action, the hash of its payload) are given once, when the job
//! [begins](Audit::begin). Afterwards a caller gives only the job's id.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::{
    file::LogFile,
    record::{Chain, Line},
    subject::SubjectState,
    writer::{SyncMark, Writer},
};
pub use self::{
    intent::{Effect, Intent},
    options::{AuditOptions, AuditTarget, OpenedAudit, default_file, operator},
    read::{AuditRecord, DamagedLine},
    record::{AuditSubject, ChainLink, Detail, Fact, payload_sha256},
    subject::{AuditPosition, JobAudit},
    tail::ChainTail,
    verify::{LinePlace, LineProblem, VerifyReport, events::ClaimedLines, lines, verify},
    writer::AuditCondition,
};
use genfleet_job::event::AuditReference;
use genfleet_job::{
    JobId, Kind,
    clock::{SharedClock, SystemClock},
};

mod file;
mod intent;
mod lock;
mod names;
mod options;
mod read;
mod record;
mod subject;
mod tail;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

/// The result of an effect that was found, and whose intent an earlier run of the job wrote.
const FOUND: &str = "found";
/// Maximum wait of a stopping process for its last facts.
const CLOSING: Duration = Duration::from_secs(5);

/// The audit of a process. Clones share it.
#[derive(Clone, Debug)]
pub struct Audit {
    shared: Arc<Shared>,
}

/// The state that all clones share with the tasks that write.
#[derive(Debug)]
struct Shared {
    clock: SharedClock,
    state: Mutex<AuditState>,
    /// Notified when lines wait and no thread writes.
    work: Notify,
    /// Notified when a task waits for lines and the writing thread lingers.
    more: Condvar,
    written: watch::Sender<SyncMark>,
    /// The last line whose durability a task waits for.
    wanted: watch::Sender<u64>,
    synced: watch::Sender<u64>,
    condition: watch::Sender<AuditCondition>,
}

#[derive(Debug)]
struct AuditState {
    /// `None` if no audit is kept.
    chain: Option<Chain>,
    /// Lines that are not written yet, in their order.
    waiting: Vec<Line>,
    /// True while the writing thread lingers and was not woken.
    lingers: bool,
    /// The jobs that run in this process.
    jobs: HashMap<(Kind, JobId), Arc<SubjectState>>,
}

/// The error that facts may not be written, because the process ends or the caller has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit could not be written in time")]
pub struct Unwritten;

impl Audit {
    /// Creates an audit that keeps nothing.
    pub fn off() -> Self {
        Self::with(None, 0, Arc::new(SystemClock))
    }

    /// Creates the audit of `process` in `log`, whose chain ended at `end`, and its writer.
    fn open(process: String, log: LogFile, end: ChainLink, clock: SharedClock) -> (Self, Writer) {
        let last = end.seq;
        let audit = Self::with(Some(Chain::new(process, end)), last, clock);
        let writer = Writer { shared: Arc::clone(&audit.shared), log };
        (audit, writer)
    }

    fn with(chain: Option<Chain>, last: u64, clock: SharedClock) -> Self {
        let state = AuditState { chain, waiting: Vec::new(), lingers: false, jobs: HashMap::new() };
        let shared = Shared {
            clock,
            state: Mutex::new(state),
            work: Notify::new(),
            more: Condvar::new(),
            written: watch::Sender::new(SyncMark::up_to(last)),
            wanted: watch::Sender::new(last),
            synced: watch::Sender::new(last),
            condition: watch::Sender::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins the audit of a job that runs in this process from now on.
    pub fn begin(&self, kind: Kind, job: &JobId, action: &'static str, payload_sha256: &str) -> JobAudit {
        let is_kept = self.shared.state().chain.is_some();
        let about = AuditSubject {
            job: Some(job.clone()),
            kind: kind.as_str(),
            worker: kind.worker(),
            action,
            payload_sha256: is_kept.then(|| payload_sha256.to_owned()),
        };
        let (key, subject) = ((kind, job.clone()), Arc::new(SubjectState::new(about)));
        if is_kept {
            self.shared.state().jobs.insert(key.clone(), Arc::clone(&subject));
        }
        JobAudit::new(self.clone(), key, subject)
    }

    /// Writes the intent to change something outside for `jobs` (none: on the process's own behalf), and waits until it
    /// is in the file. [`Unwritten`] if `stop` is cancelled first: then the change must not be made.
    ///
    /// `detail` holds no payloads and no secrets.
    pub async fn intend(
        &self,
        kind: Kind,
        jobs: &[JobId],
        detail: &Detail,
        stop: &CancellationToken,
    ) -> Result<Intent, Unwritten> {
        self.wait_until_writable_or_stopped(stop).await?;
        let intent = self.propose(kind, jobs, detail);
        intent.wait_until_written(stop).await?;
        Ok(intent)
    }

    /// Appends an intent; the change may not be made before it is [written](Intent::wait_until_written).
    pub fn propose(&self, kind: Kind, jobs: &[JobId], detail: &Detail) -> Intent {
        let subjects = self.shared.state().subjects(kind, jobs);
        let facts = self.append(subjects.into_iter().map(|subject| (subject, detail.clone())), Fact::Intent);
        Intent::new(self.clone(), facts)
    }

    /// Appends a record that concerns no job of this process. `None` if no audit is kept.
    pub fn fact(&self, about: &AuditSubject, fact: Fact, detail: &Detail) -> Option<AuditReference> {
        let time = self.shared.clock.now();
        let mut state = self.shared.state();
        let stamp = state.append(about, fact, detail, time);
        self.shared.notify_writer(state);
        stamp
    }

    /// Appends that the change that an earlier run of `job` intended was found.
    pub fn record_found(&self, kind: Kind, job: &JobId, detail: &Detail) {
        let subjects = self.shared.state().subjects(kind, std::slice::from_ref(job));
        let found = |subject| (subject, detail.clone().with("result", FOUND));
        self.append(subjects.into_iter().map(found), Fact::Effect);
    }

    fn append(
        &self,
        facts: impl Iterator<Item = (Arc<SubjectState>, Detail)>,
        fact: Fact,
    ) -> Vec<(Arc<SubjectState>, u64)> {
        let time = self.shared.clock.now();
        let mut state = self.shared.state();
        let mut append = |(subject, detail): (Arc<SubjectState>, Detail)| {
            let seq = state.append(&subject.about, fact, &detail, time)?.seq;
            subject.record_appended(seq);
            Some((subject, seq))
        };
        let appended = facts.filter_map(&mut append).collect();
        self.shared.notify_writer(state);
        appended
    }

    /// Waits until everything up to the line `seq` is durable, also while the audit is blocked.
    pub async fn wait_until_durable(&self, seq: u64) -> Result<(), Unwritten> {
        self.shared.wanted.send_if_modified(|wanted| {
            let more = seq > *wanted;
            *wanted = seq.max(*wanted);
            more
        });
        self.shared.wake_lingering_writer();
        let mut synced = self.shared.synced.subscribe();
        tokio::select! {
            biased;
            reached = synced.wait_for(|synced| *synced >= seq) => reached.map(drop).map_err(|_| Unwritten),
            () = self.wait_until_failed() => Err(Unwritten),
        }
    }

    /// Waits until lines can be written.
    pub async fn wait_until_writable(&self) -> Result<(), Unwritten> {
        let mut condition = self.conditions();
        let settled = condition.wait_for(|condition| !matches!(condition, AuditCondition::Blocked(_))).await;
        if settled.is_ok_and(|condition| *condition == AuditCondition::Writable) { Ok(()) } else { Err(Unwritten) }
    }

    /// Waits until lines can be written, or until `stop` is cancelled.
    pub async fn wait_until_writable_or_stopped(&self, stop: &CancellationToken) -> Result<(), Unwritten> {
        stop.run_until_cancelled(self.wait_until_writable()).await.unwrap_or(Err(Unwritten))
    }

    /// Waits until the audit is blocked.
    pub async fn wait_until_blocked(&self) {
        // Cannot fail: the sender is in `self`.
        let _ = self.conditions().wait_for(|condition| matches!(condition, AuditCondition::Blocked(_))).await;
    }

    /// Returns true while lines can be written.
    pub fn is_writable(&self) -> bool {
        *self.shared.condition.borrow() == AuditCondition::Writable
    }

    async fn wait_until_failed(&self) {
        let _ = self.conditions().wait_for(|condition| *condition == AuditCondition::Failed).await;
    }

    /// Waits until the audit cannot be written, and returns the reason.
    pub async fn trouble(&self) -> String {
        let mut conditions = self.conditions();
        let found = conditions.wait_for(|condition| condition.trouble().is_some()).await;
        match found.ok().and_then(|condition| condition.trouble()) {
            Some(why) => why,
            // Cannot fail: the sender is in `self`.
            None => std::future::pending().await,
        }
    }

    /// Returns a receiver of the condition.
    pub fn conditions(&self) -> watch::Receiver<AuditCondition> {
        self.shared.condition.subscribe()
    }

    /// Waits until everything appended so far is durable.
    pub async fn wait_until_all_durable(&self) -> Result<(), Unwritten> {
        let last = self.shared.state().chain.as_ref().map(Chain::last);
        match last {
            Some(last) => self.wait_until_durable(last).await,
            None => Ok(()),
        }
    }

    /// Makes the last facts durable, but waits only a few seconds.
    pub async fn close(&self) {
        // If the audit is blocked, they are lost with the process, and their jobs run again.
        let _ = timeout(CLOSING, self.wait_until_all_durable()).await;
        self.shared.log_last_anchor();
    }
}

impl Shared {
    /// Wakes the writer if no thread writes. A thread that lingers takes the lines after [`LINGER`](writer::LINGER), or
    /// as soon as a task waits for them ([`Self::wake_lingering_writer`]).
    fn notify_writer(&self, state: MutexGuard<'_, AuditState>) {
        let lingers = state.lingers;
        drop(state);
        if !lingers {
            self.work.notify_one();
        }
    }

    /// Wakes the writing thread if it lingers and lines wait.
    fn wake_lingering_writer(&self) {
        let mut state = self.state();
        if state.lingers && !state.waiting.is_empty() {
            state.lingers = false;
            drop(state);
            self.more.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, AuditState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditState {
    fn append(
        &mut self,
        about: &AuditSubject,
        fact: Fact,
        detail: &Detail,
        time: jiff::Timestamp,
    ) -> Option<AuditReference> {
        let (line, stamp) = self.chain.as_mut()?.append(about, fact, detail, time);
        self.waiting.push(line);
        Some(stamp)
    }

    /// Returns the subjects of facts for `jobs`, or the kind itself if there are none.
    fn subjects(&self, kind: Kind, jobs: &[JobId]) -> Vec<Arc<SubjectState>> {
        let stranger = |job| {
            let about = AuditSubject {
                job,
                kind: kind.as_str(),
                worker: kind.worker(),
                action: kind.as_str(),
                payload_sha256: None,
            };
            Arc::new(SubjectState::new(about))
        };
        if jobs.is_empty() {
            return vec![stranger(None)];
        }
        let known = |job: &JobId| self.jobs.get(&(kind, job.clone())).map(Arc::clone);
        jobs.iter().map(|job| known(job).unwrap_or_else(|| stranger(Some(job.clone())))).collect()
    }
}
