//! Redrives or discards the selected dead letters of each queue, one after the other.
//!
//! A dead letter is published, and the publication confirmed, before it is removed. At most a window of dead letters is
//! published and not yet removed. So if the process is killed, none is lost, and at most a window of them is
//! duplicated. A run handles only the dead letters that existed when it started, and none that it has redriven itself:
//! otherwise a job that fails at once would be redriven forever.

use genfleet_core::eprint_line;
use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use anyhow::{anyhow, bail};
use genfleet_core::{
    clock::{Clock, SystemClock},
    job::Kind,
    queue::{
        Browser, QueueError, QueueInspector,
        dead_letters::{DeadLetter, DeadLetterQueue, Removal},
    },
};
use indicatif::ProgressBar;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::{
    filter::Filter,
    pace::Pace,
    queues::existing,
    tally::{Action, Left, Tally},
};
use super::audit::{ActionAudit, Entry};
use crate::{commands::rate::Rate, terminal};

/// Time between two attempts to read a queue.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Number of checks whether the broker has returned the dead letters that this process held.
const CHECKS: u32 = 10;

/// The action, and on which dead letters.
#[derive(Clone, Debug)]
pub(super) struct ActionPlan {
    /// The action for each dead letter.
    pub action: Action,
    /// The dead letters.
    pub filter: Filter,
    /// The kind of messages that name none.
    pub as_kind: Option<Kind>,
    /// Maximum number of dead letters.
    pub limit: Option<u64>,
    /// Maximum number of dead letters a second.
    pub rate: Option<Rate>,
    /// Maximum number of dead letters that are published and not yet removed.
    pub window: usize,
    /// Maximum time for which the broker may be unavailable or refuse publications.
    pub timeout: Duration,
}

/// Carries out a plan; see the module.
pub(super) struct DeadLetterAction<'a> {
    inspector: &'a QueueInspector,
    audit: &'a ActionAudit,
    plan: ActionPlan,
    now: Timestamp,
    stop: CancellationToken,
    pace: Pace,
    redriven: Redriven,
    tally: Tally,
    /// The dead letters that are published and removed next.
    batch: Vec<(&'static str, Entry, Removal)>,
    /// The last window of removed dead letters. A broker that crashes may not have stored their removal.
    latest: VecDeque<u64>,
    /// Those of `latest` that may be in the queue again because the connection to the broker was lost.
    back: Vec<u64>,
    progress: ProgressBar,
}

/// The action on one dead letter.
enum Choice {
    Leave,
    Discard,
    Redrive(Kind),
}

impl<'a> DeadLetterAction<'a> {
    /// Creates the action.
    pub(super) fn new(
        inspector: &'a QueueInspector,
        audit: &'a ActionAudit,
        plan: ActionPlan,
        stop: CancellationToken,
    ) -> Self {
        let (now, pace) = (SystemClock.now(), Pace::new(plan.rate));
        let progress = terminal::progress_bar(0, "{bar:30} {pos} done of {len} there  {elapsed}");
        let (redriven, tally) = (Redriven::default(), Tally::default());
        let (batch, latest, back) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { inspector, audit, plan, now, stop, pace, redriven, tally, batch, latest, back, progress }
    }

    /// Returns the counts of what was done.
    pub(super) fn finish(self) -> Tally {
        self.progress.finish_and_clear();
        self.tally
    }

    /// Carries out the plan. Continues when the connection to the broker was lost.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        for queue in existing(self.inspector, self.plan.filter.queues()).await? {
            self.clear(queue).await?;
        }
        Ok(())
    }

    async fn clear(&mut self, which: DeadLetterQueue) -> anyhow::Result<()> {
        let first = self.inspector.browse(which, self.plan.window).await?;
        // The dead letters that exist now are in the queue before all later ones.
        let mut there = first.total();
        self.progress.inc_length(there);
        let (mut next, mut last_progress) = (Ok(first), Instant::now());
        loop {
            let before = self.tally.total();
            let lost = match next {
                Ok(browser) => match self.pass(browser, there).await? {
                    Ok(left) => {
                        self.tally.left.add(left);
                        return Ok(());
                    }
                    Err(lost) => lost,
                },
                Err(lost) => lost,
            };
            let done = self.tally.total() - before;
            there = there.saturating_sub(done);
            if done > 0 {
                last_progress = Instant::now();
            }
            self.back.extend(self.latest.drain(..));
            self.wait_before_retry(&lost, last_progress).await?;
            self.wait_for_returned(which, there).await;
            next = self.inspector.browse(which, self.plan.window).await;
        }
    }

    /// Waits before the next attempt. Fails if the error is permanent or the time-out is over.
    async fn wait_before_retry(&self, lost: &QueueError, last_progress: Instant) -> anyhow::Result<()> {
        // A broker that is starting may not have all its queues yet.
        let passes = lost.is_transient() || matches!(lost, QueueError::Missing(_));
        if !passes || last_progress.elapsed() > self.plan.timeout || self.stop.is_cancelled() {
            bail!("{lost}. Nothing is lost: run it again to continue; {}", self.describe_rest());
        }
        self.progress.suspend(|| eprint_line!("warning: {}; going on", terminal::line(&lost.to_string())));
        self.stop.run_until_cancelled(sleep(RETRY_INTERVAL)).await;
        Ok(())
    }

    /// Waits until the broker has returned the dead letters that this process held when the connection was lost. They
    /// are returned to the front of the queue.
    async fn wait_for_returned(&self, which: DeadLetterQueue, there: u64) {
        for _ in 0..CHECKS {
            let back = self.inspector.count(which).await.map_or(true, |count| count >= there);
            if back || self.stop.is_cancelled() {
                return;
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    fn describe_rest(&self) -> String {
        match self.plan.action {
            Action::Redrive => format!("at most {} are redriven and not yet removed", self.plan.window),
            Action::Discard => "the remaining dead letters are still there".to_owned(),
        }
    }

    /// Reads at most `there` dead letters. The inner error is one of the broker, after which another pass is possible.
    async fn pass(&mut self, mut browser: Browser, mut there: u64) -> anyhow::Result<Result<Left, QueueError>> {
        self.batch.clear();
        let (mut left, mut read) = (Left::default(), 0);
        while read < there && !self.is_over() {
            let stored = match browser.next().await {
                Ok(Some(stored)) => stored,
                Ok(None) => {
                    left.held += there - read;
                    break;
                }
                Err(lost) => return Ok(Err(lost)),
            };
            read += 1;
            let letter = DeadLetter::read(stored);
            // It was not counted, because it was removed before the count.
            there += u64::from(self.is_back(&letter));
            match self.choose(&letter, &mut left) {
                Choice::Leave => {
                    browser.keep(&letter.stored);
                    continue;
                }
                Choice::Discard => self.add(letter.kind_name(), letter, None),
                Choice::Redrive(kind) => self.add(kind.as_str(), letter, Some(kind)),
            }
            if let Err(lost) = self.remove_if_due(&mut browser, &mut left).await? {
                return Ok(Err(lost));
            }
        }
        let ended = self.remove(&mut browser, &mut left).await?;
        Ok(match ended {
            Ok(()) => browser.close().await.map(|()| left),
            Err(lost) => Err(lost),
        })
    }

    fn add(&mut self, kind: &'static str, letter: DeadLetter, redriven_as: Option<Kind>) {
        self.latest.push_back(self.redriven.hash(&letter, letter.generation));
        let entry = self.audit.entry(&letter, redriven_as);
        let publication = redriven_as.map(|kind| letter.redrive(kind, &self.audit.operator));
        self.batch.push((kind, entry, Removal { stored: letter.stored, publication }));
    }

    fn is_over(&self) -> bool {
        let done = self.tally.total() + self.batch.len() as u64;
        self.stop.is_cancelled() || self.plan.limit.is_some_and(|limit| done >= limit)
    }

    /// Returns true if a dead letter was already removed and is in the queue again because the broker crashed. It
    /// cannot be distinguished from an equal one, so it is handled like any other: at most a window of them is
    /// duplicated.
    fn is_back(&mut self, letter: &DeadLetter) -> bool {
        let hash = self.redriven.hash(letter, letter.generation);
        let found = self.back.iter().position(|one| *one == hash);
        found.map(|index| self.back.swap_remove(index)).is_some()
    }

    fn choose(&mut self, letter: &DeadLetter, left: &mut Left) -> Choice {
        if letter.stored.published_before {
            return Choice::Discard;
        }
        if self.plan.filter.leaves_out(letter) {
            left.spared += 1;
            return Choice::Leave;
        }
        if !self.plan.filter.selects(letter, self.now) {
            left.others += 1;
            return Choice::Leave;
        }
        if self.plan.filter.excludes(letter) {
            left.foreign += 1;
            return Choice::Leave;
        }
        if self.plan.action == Action::Discard {
            return Choice::Discard;
        }
        let Some(kind) = letter.kind.or(self.plan.as_kind) else {
            left.without_kind += 1;
            return Choice::Leave;
        };
        if self.redriven.contains(letter) {
            left.came_back += 1;
            return Choice::Leave;
        }
        self.redriven.add(letter);
        Choice::Redrive(kind)
    }

    /// Removes the batch if it fills the window, or if the rate makes the next dead letter wait.
    async fn remove_if_due(
        &mut self,
        browser: &mut Browser,
        left: &mut Left,
    ) -> anyhow::Result<Result<(), QueueError>> {
        let mut ended = Ok(());
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.pace.turn()).await;
        if self.batch.len() >= self.plan.window || self.pace.is_ahead() {
            ended = self.remove(browser, left).await?;
        }
        Ok(ended)
    }

    /// Publishes and removes the batch. The inner error is one of the broker; the outer one ends the run.
    async fn remove(&mut self, browser: &mut Browser, left: &mut Left) -> anyhow::Result<Result<(), QueueError>> {
        if self.batch.is_empty() {
            return Ok(Ok(()));
        }
        self.audit.record_intents(self.batch.iter().map(|(_, entry, _)| entry)).await?;
        let (mut kinds, mut batch) = (Vec::new(), Vec::new());
        for (kind, entry, removal) in self.batch.drain(..) {
            kinds.push((kind, entry));
            batch.push(removal);
        }
        let Ok(removed) = timeout(self.plan.timeout, browser.remove(batch)).await else {
            let problem = self.inspector.trouble().unwrap_or_else(|| "the broker does not answer".to_owned());
            return Err(anyhow!("{problem}. Nothing is lost: run it again to continue; {}", self.describe_rest()));
        };
        let found = match removed {
            Ok(found) => found,
            Err(lost) => return Ok(Err(lost)),
        };
        left.gone += (kinds.len() - found) as u64;
        for (number, (kind, entry)) in kinds.into_iter().enumerate() {
            if number < found {
                *self.tally.done.entry(kind).or_default() += 1;
            }
            self.audit.record_effect(entry, number < found);
        }
        self.latest.drain(..self.latest.len().saturating_sub(self.plan.window));
        self.progress.set_position(self.tally.total());
        Ok(Ok(()))
    }
}

/// The dead letters that this run has redriven, as they would look if they failed again.
#[derive(Default)]
struct Redriven {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl Redriven {
    fn add(&mut self, letter: &DeadLetter) {
        let hash = self.hash(letter, letter.next_generation());
        self.hashes.insert(hash);
    }

    fn contains(&self, letter: &DeadLetter) -> bool {
        self.hashes.contains(&self.hash(letter, letter.generation))
    }

    fn hash(&self, letter: &DeadLetter, generation: u32) -> u64 {
        self.hasher.hash_one((letter.id.as_str(), generation, &letter.stored.message.body))
    }
}
