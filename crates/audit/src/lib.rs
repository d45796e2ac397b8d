//! The audit (SPEC 8): what this product was about to change, what came of it and how every job ended, as JSON lines
//! in a hash chain. [`record`] says what a line is and how its hash is computed; [`file`](mod@file) and [`names`] what
//! the files are; [`writer`] writes and syncs them; [`verify`] finds what was done to them.
//!
//! A fact gets its number and hash when it is [appended](Audit), in memory. An intent is *written* (accepted by
//! `write(2)`, which is where a full disk shows) before its call is sent, and *synced* with everything else of the job
//! before the job's message is acknowledged. A process that dies between the two has lost nothing: what the kernel took
//! it writes. When the machine dies, an intent whose call was sent may be missing, but its message was not acknowledged:
//! the job runs again and leaves its own. Syncing every intent first would add a sync to every request instead of
//! sharing one among all jobs that end at about the same time.
//!
//! While the file cannot be written the brake `audit` is on: no call that changes anything is sent ([`Intent`] waits),
//! nothing is acknowledged ([`Audit::durable`] waits), no job is begun. A job whose calls were sent already is held in
//! memory until there is room, so that its effects are neither lost nor done twice.
//!
//! What is told beside the facts of a job (its worker's word, the hash of its payload) is known from when it
//! [begins](Audit::begin) here; whoever sends only names the job.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

#[cfg(any(test, feature = "testing"))]
pub use self::writer::RETRY;
use self::{
    file::LogFile,
    record::{Chain, Line},
    subject::SubjectState,
    writer::{AuditCondition, Mark, Writer},
};
pub use self::{
    intent::{Effect, Intent},
    options::{AuditOptions, AuditTarget, OpenedAudit, default_file, operator},
    read::{AuditRecord, DamagedLine},
    record::{AuditSubject, ChainLink, Detail, Fact, payload_sha256},
    subject::{AuditPosition, JobAudit},
    tail::ChainTail,
    verify::{LinePlace, VerifyReport, events::ClaimedLines, lines, verify},
};
use genfleet_job::event::AuditReference;
use genfleet_job::{
    JobId, Kind,
    clock::{SharedClock, SystemClock},
};

#[cfg(any(test, feature = "testing"))]
mod faults;
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

/// The result of an effect that was found, and whose intent an earlier life of the job wrote.
const FOUND: &str = "found";
/// How long a process that stops waits for its last facts.
const CLOSING: Duration = Duration::from_secs(5);

/// Where a process writes its facts down. Clones share it.
#[derive(Clone, Debug)]
pub struct Audit {
    shared: Arc<Shared>,
}

/// What all clones share, and the tasks that write.
#[derive(Debug)]
struct Shared {
    clock: SharedClock,
    state: Mutex<AuditState>,
    /// Lines wait.
    work: Notify,
    written: watch::Sender<Mark>,
    /// Somebody waits for everything up to this to be durable.
    wanted: watch::Sender<u64>,
    synced: watch::Sender<u64>,
    condition: watch::Sender<AuditCondition>,
}

#[derive(Debug)]
struct AuditState {
    /// `None`: no audit is kept.
    chain: Option<Chain>,
    /// Not written yet, in their order.
    waiting: Vec<Line>,
    /// The jobs that run here.
    jobs: HashMap<(Kind, JobId), Arc<SubjectState>>,
}

/// The process ends, or whoever asked is to stop: what was to be written down may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit could not be written in time")]
pub struct Unwritten;

impl Audit {
    /// None is kept.
    pub fn off() -> Self {
        Self::with(None, 0, Arc::new(SystemClock))
    }

    /// The audit of `process` in `log`, whose chain ended at `end`; and what has to run for it.
    fn open(process: String, log: LogFile, end: ChainLink, clock: SharedClock) -> (Self, Writer) {
        let last = end.seq;
        let audit = Self::with(Some(Chain::new(process, end)), last, clock);
        let writer = Writer { shared: Arc::clone(&audit.shared), log };
        (audit, writer)
    }

    fn with(chain: Option<Chain>, last: u64, clock: SharedClock) -> Self {
        let state = AuditState { chain, waiting: Vec::new(), jobs: HashMap::new() };
        let shared = Shared {
            clock,
            state: Mutex::new(state),
            work: Notify::new(),
            written: watch::Sender::new(Mark::up_to(last)),
            wanted: watch::Sender::new(last),
            synced: watch::Sender::new(last),
            condition: watch::Sender::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// `job` runs here from now on, with the payload that has this SHA-256.
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

    /// Writes down that something outside is about to be changed for `jobs` (none: on the process's own behalf), and
    /// waits until that is in the file. [`Unwritten`] where `stop` is cancelled first: then it must not be done.
    ///
    /// `detail` says what, without payloads and secrets.
    pub async fn intend(
        &self,
        kind: Kind,
        jobs: &[JobId],
        detail: &Detail,
        stop: &CancellationToken,
    ) -> Result<Intent, Unwritten> {
        self.writable_or_stopped(stop).await?;
        let intent = self.propose(kind, jobs, detail);
        intent.written(stop).await?;
        Ok(intent)
    }

    /// Appends an intent; nothing may be done before it is [`written`](Intent::written).
    pub fn propose(&self, kind: Kind, jobs: &[JobId], detail: &Detail) -> Intent {
        let subjects = self.shared.state().subjects(kind, jobs);
        let facts = self.append(subjects.into_iter().map(|subject| (subject, detail.clone())), Fact::Intent);
        Intent::new(self.clone(), facts)
    }

    /// Writes down how a job ended: which line says it. `None` where no audit is kept.
    pub fn outcome(&self, about: &AuditSubject, detail: &Detail) -> Option<AuditReference> {
        self.fact(about, Fact::Outcome, detail)
    }

    /// Writes `fact` down, of something that is no job's run here. `None` where no audit is kept.
    pub fn fact(&self, about: &AuditSubject, fact: Fact, detail: &Detail) -> Option<AuditReference> {
        let time = self.shared.clock.now();
        let stamp = self.shared.state().append(about, fact, detail, time);
        self.shared.work.notify_one();
        stamp
    }

    /// Writes down that what an earlier life of `job` was about to change is found changed.
    pub fn found(&self, kind: Kind, job: &JobId, detail: &Detail) {
        let subjects = self.shared.state().subjects(kind, std::slice::from_ref(job));
        let told = |subject| (subject, detail.clone().with("result", FOUND));
        self.append(subjects.into_iter().map(told), Fact::Effect);
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
            subject.appended(seq);
            Some((subject, seq))
        };
        let appended = facts.filter_map(&mut append).collect();
        drop(state);
        self.shared.work.notify_one();
        appended
    }

    /// Waits until everything up to the line `seq` is durable, through any brake.
    pub async fn durable(&self, seq: u64) -> Result<(), Unwritten> {
        self.shared.wanted.send_if_modified(|wanted| {
            let more = seq > *wanted;
            *wanted = seq.max(*wanted);
            more
        });
        let mut synced = self.shared.synced.subscribe();
        tokio::select! {
            biased;
            reached = synced.wait_for(|synced| *synced >= seq) => reached.map(drop).map_err(|_| Unwritten),
            () = self.failed() => Err(Unwritten),
        }
    }

    /// Waits until lines can be written.
    pub async fn wait_until_writable(&self) -> Result<(), Unwritten> {
        let mut condition = self.conditions();
        let settled = condition.wait_for(|condition| !matches!(condition, AuditCondition::Blocked(_))).await;
        if settled.is_ok_and(|condition| *condition == AuditCondition::Writable) { Ok(()) } else { Err(Unwritten) }
    }

    /// The same, unless `stop` is cancelled first.
    pub async fn writable_or_stopped(&self, stop: &CancellationToken) -> Result<(), Unwritten> {
        stop.run_until_cancelled(self.wait_until_writable()).await.unwrap_or(Err(Unwritten))
    }

    /// Waits until the brake is on.
    pub async fn blocked(&self) {
        // The sender is in `self`.
        let _ = self.conditions().wait_for(|condition| matches!(condition, AuditCondition::Blocked(_))).await;
    }

    /// Whether lines can be written.
    pub fn is_writable(&self) -> bool {
        *self.shared.condition.borrow() == AuditCondition::Writable
    }

    async fn failed(&self) {
        let _ = self.conditions().wait_for(|condition| *condition == AuditCondition::Failed).await;
    }

    /// Waits until the audit cannot be written, and says why.
    pub async fn trouble(&self) -> String {
        let mut conditions = self.conditions();
        let found = conditions.wait_for(|condition| condition.trouble().is_some()).await;
        match found.ok().and_then(|condition| condition.trouble()) {
            Some(why) => why,
            // Not while the sender lives, which is in `self`.
            None => std::future::pending().await,
        }
    }

    /// Whether lines can be written, now and from now on.
    pub fn conditions(&self) -> watch::Receiver<AuditCondition> {
        self.shared.condition.subscribe()
    }

    /// Waits until everything written down so far is durable.
    pub async fn all_durable(&self) -> Result<(), Unwritten> {
        let last = self.shared.state().chain.as_ref().map(Chain::last);
        match last {
            Some(last) => self.durable(last).await,
            None => Ok(()),
        }
    }

    /// Makes the last facts durable, as far as that takes no longer than a few seconds.
    pub async fn close(&self) {
        // Braked: they are lost with the process, and their jobs come again.
        let _ = timeout(CLOSING, self.all_durable()).await;
        self.shared.tell_last_anchor();
    }
}

impl Shared {
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

    /// Whom facts for `jobs` are about: the kind itself, where there is none.
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
