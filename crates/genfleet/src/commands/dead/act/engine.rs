//! Takes letters off their shelves one after the other, and leaves the rest as it was.
//!
//! A letter is published and confirmed before it is taken off, and the queue has heard that it is taken off before
//! more are published than the window allows: killed anywhere, none is lost and at most a window of them is doubled. A
//! run sees what lay there when it began, and never again what it redrove itself: a job that fails at once does not go
//! round for ever.

use genfleet_core::tell;
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
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::{
    filter::Filter,
    pace::Pace,
    queues::existing,
    tally::{Action, Left, Tally},
};
use super::book::{Book, Entry};
use crate::commands::rate::Rate;

/// Between two tries to look again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is tried whether all is back that was held.
const TRIES: u32 = 10;

/// What is to be done.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What is done with each dead letter.
    pub action: Action,
    /// The dead letters.
    pub filter: Filter,
    /// The kind of messages that name none.
    pub as_kind: Option<Kind>,
    /// So many at most.
    pub limit: Option<u64>,
    /// So many a second at most.
    pub rate: Option<Rate>,
    /// Published and not yet taken off, at most.
    pub window: usize,
    /// How long the broker may be away or take nothing.
    pub patience: Duration,
}

/// See the module.
pub(super) struct Engine<'a> {
    shelves: &'a QueueInspector,
    book: &'a Book,
    plan: Plan,
    now: Timestamp,
    stop: CancellationToken,
    pace: Pace,
    own: Own,
    tally: Tally,
    /// Published and taken off next.
    batch: Vec<(&'static str, Entry, Removal)>,
    /// The last ones taken off, a window of them: a broker that crashes may not have written that down.
    latest: VecDeque<u64>,
    /// Of those, the ones that may lie there again since the broker was lost.
    back: Vec<u64>,
    progress: ProgressBar,
}

/// What is done with one dead letter.
enum Choice {
    Leave,
    Discard,
    Redrive(Kind),
}

impl<'a> Engine<'a> {
    /// Does nothing yet.
    pub(super) fn new(shelves: &'a QueueInspector, book: &'a Book, plan: Plan, stop: CancellationToken) -> Self {
        let (now, pace) = (SystemClock.now(), Pace::new(plan.rate));
        let (own, tally, progress) = (Own::default(), Tally::default(), progress());
        let (batch, latest, back) = (Vec::new(), VecDeque::new(), Vec::new());
        Self { shelves, book, plan, now, stop, pace, own, tally, batch, latest, back, progress }
    }

    /// What was done.
    pub(super) fn finish(self) -> Tally {
        self.progress.finish_and_clear();
        self.tally
    }

    /// Does it, through any number of losses of the broker.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        for shelf in existing(self.shelves, self.plan.filter.shelves()).await? {
            self.clear(shelf).await?;
        }
        Ok(())
    }

    async fn clear(&mut self, which: DeadLetterQueue) -> anyhow::Result<()> {
        let first = self.shelves.browse(which, self.plan.window).await?;
        // What is left of that comes first, whatever comes meanwhile.
        let mut there = first.total();
        self.progress.inc_length(there);
        let (mut next, mut well) = (Ok(first), Instant::now());
        loop {
            let before = self.tally.total();
            let lost = match next {
                Ok(look) => match self.pass(look, there).await? {
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
                well = Instant::now();
            }
            self.back.extend(self.latest.drain(..));
            self.wait_out(&lost, well).await?;
            self.until_back(which, there).await;
            next = self.shelves.browse(which, self.plan.window).await;
        }
    }

    /// Until it is tried again; the error where there is no more patience, or nothing to wait for.
    async fn wait_out(&self, lost: &QueueError, well: Instant) -> anyhow::Result<()> {
        // A broker that begins may not have all its queues yet.
        let passes = lost.may_pass() || matches!(lost, QueueError::Missing(_));
        if !passes || well.elapsed() > self.plan.patience || self.stop.is_cancelled() {
            bail!("{lost}. Nothing is lost: run it again to go on; {}", self.doubled());
        }
        self.progress.suspend(|| tell!("warning: {}; going on", crate::terminal::line(&lost.to_string())));
        self.stop.run_until_cancelled(sleep(AGAIN)).await;
        Ok(())
    }

    /// What this process held when it lost the broker comes back in a moment, and is waited for: it lies before all that
    /// came since.
    async fn until_back(&self, which: DeadLetterQueue, there: u64) {
        for _ in 0..TRIES {
            let back = self.shelves.count(which).await.map_or(true, |count| count >= there);
            if back || self.stop.is_cancelled() {
                return;
            }
            sleep(AGAIN).await;
        }
    }

    fn doubled(&self) -> String {
        match self.plan.action {
            Action::Redrive => format!("at most {} may be redriven and lie there still", self.plan.window),
            Action::Discard => "what was not discarded lies there still".to_owned(),
        }
    }

    /// One look, over at most `there` letters. An error within is one of the broker: another look may go on.
    async fn pass(&mut self, mut look: Browser, mut there: u64) -> anyhow::Result<Result<Left, QueueError>> {
        self.batch.clear();
        let (mut left, mut seen) = (Left::default(), 0);
        while seen < there && !self.is_over() {
            let shelved = match look.next().await {
                Ok(Some(shelved)) => shelved,
                Ok(None) => {
                    left.held += there - seen;
                    break;
                }
                Err(lost) => return Ok(Err(lost)),
            };
            seen += 1;
            let letter = DeadLetter::read(shelved);
            // It is one more than was counted.
            there += u64::from(self.is_back(&letter));
            match self.choose(&letter, &mut left) {
                Choice::Leave => {
                    look.keep(&letter.stored);
                    continue;
                }
                Choice::Discard => self.add(letter.kind_name(), letter, None),
                Choice::Redrive(kind) => self.add(kind.as_str(), letter, Some(kind)),
            }
            if let Err(lost) = self.keep_pace(&mut look, &mut left).await? {
                return Ok(Err(lost));
            }
        }
        let ended = self.remove(&mut look, &mut left).await?;
        Ok(match ended {
            Ok(()) => look.close().await.map(|()| left),
            Err(lost) => Err(lost),
        })
    }

    fn add(&mut self, kind: &'static str, letter: DeadLetter, redriven_as: Option<Kind>) {
        self.latest.push_back(self.own.hash(&letter, letter.generation));
        let entry = self.book.entry(&letter, redriven_as);
        self.batch.push((kind, entry, taken(letter, redriven_as, self.book.operator())));
    }

    fn is_over(&self) -> bool {
        let done = self.tally.total() + self.batch.len() as u64;
        self.stop.is_cancelled() || self.plan.limit.is_some_and(|limit| done >= limit)
    }

    /// Whether it was taken off already, and lies there again since the broker crashed. It cannot be distinguished from another
    /// one like it, so it is treated like any letter: none is lost, and at most a window of them is doubled.
    fn is_back(&mut self, letter: &DeadLetter) -> bool {
        let hash = self.own.hash(letter, letter.generation);
        let found = self.back.iter().position(|one| *one == hash);
        found.map(|index| self.back.swap_remove(index)).is_some()
    }

    fn choose(&mut self, letter: &DeadLetter, left: &mut Left) -> Choice {
        if letter.stored.published_before {
            return Choice::Discard;
        }
        if self.plan.filter.spares(letter) {
            left.spared += 1;
            return Choice::Leave;
        }
        if !self.plan.filter.names(letter, self.now) {
            left.others += 1;
            return Choice::Leave;
        }
        if self.plan.filter.bars(letter) {
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
        if self.own.holds(letter) {
            left.came_back += 1;
            return Choice::Leave;
        }
        self.own.add(letter);
        Choice::Redrive(kind)
    }

    /// Takes off what is chosen once there is a window of it, or the next has to wait.
    async fn keep_pace(&mut self, look: &mut Browser, left: &mut Left) -> anyhow::Result<Result<(), QueueError>> {
        let mut ended = Ok(());
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.pace.turn()).await;
        if self.batch.len() >= self.plan.window || self.pace.is_ahead() {
            ended = self.remove(look, left).await?;
        }
        Ok(ended)
    }

    /// An error without is one that waiting does not mend.
    async fn remove(&mut self, look: &mut Browser, left: &mut Left) -> anyhow::Result<Result<(), QueueError>> {
        if self.batch.is_empty() {
            return Ok(Ok(()));
        }
        self.book.intends(self.batch.iter().map(|(_, entry, _)| entry)).await?;
        let (mut kinds, mut batch) = (Vec::new(), Vec::new());
        for (kind, entry, taken) in self.batch.drain(..) {
            kinds.push((kind, entry));
            batch.push(taken);
        }
        let taking = timeout(self.plan.patience, look.remove(batch)).await;
        let Ok(taken) = taking else {
            let trouble = self.shelves.trouble().unwrap_or_else(|| "the broker takes nothing".to_owned());
            return Err(anyhow!("{trouble}. Nothing is lost: run it again to go on; {}", self.doubled()));
        };
        let found = match taken {
            Ok(found) => found,
            Err(lost) => return Ok(Err(lost)),
        };
        left.gone += (kinds.len() - found) as u64;
        for (number, (kind, entry)) in kinds.into_iter().enumerate() {
            if number < found {
                *self.tally.done.entry(kind).or_default() += 1;
            }
            self.book.did(entry, number < found);
        }
        self.latest.drain(..self.latest.len().saturating_sub(self.plan.window));
        self.progress.set_position(self.tally.total());
        Ok(Ok(()))
    }
}

fn taken(letter: DeadLetter, redriven_as: Option<Kind>, operator: &str) -> Removal {
    let publication = redriven_as.map(|kind| letter.redrive(kind, operator));
    Removal { stored: letter.stored, publication }
}

/// What this run redrove, as it would come back.
#[derive(Default)]
struct Own {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl Own {
    fn add(&mut self, letter: &DeadLetter) {
        let hash = self.hash(letter, letter.next_generation());
        self.seen.insert(hash);
    }

    fn holds(&self, letter: &DeadLetter) -> bool {
        self.seen.contains(&self.hash(letter, letter.generation))
    }

    fn hash(&self, letter: &DeadLetter, generation: u32) -> u64 {
        self.hasher.hash_one((letter.id.as_str(), generation, &letter.stored.message.body))
    }
}

fn progress() -> ProgressBar {
    let target = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        ProgressDrawTarget::stderr_with_hz(10)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    match ProgressStyle::with_template("{bar:30} {pos} done of {len} there  {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
