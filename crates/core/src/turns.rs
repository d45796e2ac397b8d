//! At most one job at a time in this process for each key, such as an organisation or a name. The others return to the
//! queue and hold no slot. A job that has begun goes before all others, so that what is begun ends. Of the others, one
//! that was turned away several times goes before those that come after it, so that none waits for ever.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::handler::JobContext;
use genfleet_job::{
    JobId,
    error::{ErrorClass, JobError},
};

/// Wait of a job that is not next.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// A job that was turned away this much more often than another goes before it.
const TURNED_AWAY_OFTEN: u32 = 10;
/// Time for which the next job is expected, because another process may have received it.
const EXPECTED_FOR: Duration = Duration::from_secs(5);
/// Time for which a turn is reserved for a job that returns from the resume queue.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The things that are at work, each for one job. Clones share them.
#[derive(Clone, Debug)]
pub struct Turns<K>(Arc<Mutex<All<K>>>);

#[derive(Debug)]
struct All<K> {
    holders: HashMap<K, Holder>,
    /// Jobs that were turned away and are expected back.
    waiting: HashMap<K, Vec<Waiting>>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(All { holders: HashMap::new(), waiting: HashMap::new() })))
    }
}

#[derive(Debug)]
struct Waiting {
    job: JobId,
    times: u32,
    until: Instant,
}

#[derive(Debug)]
struct Holder {
    job: JobId,
    /// `None` while the job is at work.
    kept_until: Option<Instant>,
}

/// The right to work for one thing; ends when it is dropped.
#[derive(Debug)]
pub struct Turn<K: Hash + Eq> {
    turns: Turns<K>,
    key: K,
    kept_until: Option<Instant>,
}

impl<K: Hash + Eq + Clone> Turns<K> {
    /// Gives `job` the right to work for `key`. While another job has it, the error lets the job wait for its turn,
    /// and no attempt counts; `code` and `message` say what it waits for. `has_begun`: an earlier attempt of it, here
    /// or in another process, came so far that it has something to go on from.
    #[expect(clippy::result_large_err, reason = "once per attempt")]
    pub fn enter(
        &self,
        key: &K,
        job: &JobContext,
        has_begun: bool,
        code: &'static str,
        message: impl FnOnce() -> String,
    ) -> Result<Turn<K>, JobError> {
        self.try_enter(key, &job.id, has_begun).ok_or_else(|| {
            let until = job.now().checked_add(BUSY_WAIT).unwrap_or(job.now());
            JobError::new(ErrorClass::Held { until, spread: Duration::ZERO }, code, message())
        })
    }

    fn try_enter(&self, key: &K, job: &JobId, has_begun: bool) -> Option<Turn<K>> {
        let mut all = self.lock();
        let is_free = all.holders.get(key).is_none_or(|holder| holder.lets_in(job));
        if !is_free || !(has_begun || all.is_next(key, job)) {
            all.turn_away(key, job);
            return None;
        }
        all.forget(key, job);
        all.holders.insert(key.clone(), Holder { job: job.clone(), kept_until: None });
        Some(Turn { turns: self.clone(), key: key.clone(), kept_until: None })
    }
}

impl<K> Turns<K> {
    fn lock(&self) -> MutexGuard<'_, All<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Clone> All<K> {
    /// Returns true if no other job was turned away so much more often that it goes first.
    fn is_next(&self, key: &K, job: &JobId) -> bool {
        let now = Instant::now();
        let Some(waiting) = self.waiting.get(key) else { return true };
        let most = waiting.iter().filter(|one| now < one.until).map(|one| one.times).max().unwrap_or(0);
        let own = waiting.iter().find(|one| one.job == *job).map_or(0, |one| one.times);
        own + TURNED_AWAY_OFTEN > most
    }

    fn turn_away(&mut self, key: &K, job: &JobId) {
        let now = Instant::now();
        let waiting = self.waiting.entry(key.clone()).or_default();
        waiting.retain(|one| now < one.until);
        let until = now + BUSY_WAIT + EXPECTED_FOR;
        match waiting.iter_mut().find(|one| one.job == *job) {
            Some(one) => (one.times, one.until) = (one.times + 1, until),
            None => waiting.push(Waiting { job: job.clone(), times: 1, until }),
        }
    }

    fn forget(&mut self, key: &K, job: &JobId) {
        let Some(waiting) = self.waiting.get_mut(key) else { return };
        waiting.retain(|one| one.job != *job);
        if waiting.is_empty() {
            self.waiting.remove(key);
        }
    }
}

impl Holder {
    fn lets_in(&self, job: &JobId) -> bool {
        self.kept_until.is_some_and(|until| self.job == *job || until <= Instant::now())
    }
}

impl<K: Hash + Eq> Turn<K> {
    /// Keeps the turn for this job, which comes back in `due_in`.
    pub fn keep(mut self, due_in: Duration) {
        self.kept_until = Some(Instant::now() + due_in + KEPT_FOR);
    }
}

impl<K: Hash + Eq> Drop for Turn<K> {
    fn drop(&mut self) {
        let holders = &mut self.turns.lock().holders;
        match (self.kept_until, holders.get_mut(&self.key)) {
            (Some(until), Some(holder)) => holder.kept_until = Some(until),
            _ => drop(holders.remove(&self.key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[tokio::test]
    async fn an_organisation_is_worked_for_by_one_job_at_a_time_and_others_meanwhile() {
        let turns = Turns::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let turn = turns.try_enter(&one, &id("a"), false).unwrap();
        assert!(turns.try_enter(&one, &id("b"), false).is_none());
        assert!(turns.try_enter(&one, &id("a"), false).is_none(), "not even the same id twice");
        let other = turns.try_enter(&two, &id("b"), false).unwrap();
        drop(turn);
        assert!(turns.try_enter(&one, &id("b"), false).is_some());
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_was_turned_away_often_goes_before_newer_ones_unless_it_does_not_come() {
        let turns = Turns::default();
        let one = Uuid::from_u128(1);
        let turn = turns.try_enter(&one, &id("a"), false);
        (1..TURNED_AWAY_OFTEN).for_each(|_| assert!(turns.try_enter(&one, &id("old"), false).is_none()));
        drop(turn);
        let turn = turns.try_enter(&one, &id("new"), false);
        assert!(turn.is_some(), "not that often");
        assert!(turns.try_enter(&one, &id("old"), false).is_none());
        drop(turn);
        assert!(turns.try_enter(&one, &id("newer"), false).is_none(), "the old one is next");
        drop(turns.try_enter(&one, &id("old"), false).expect("it is next"));
        assert!(turns.try_enter(&one, &id("newer"), false).is_some());

        let turn = turns.try_enter(&Uuid::from_u128(2), &id("a"), false);
        (0..TURNED_AWAY_OFTEN)
            .for_each(|_| assert!(turns.try_enter(&Uuid::from_u128(2), &id("gone"), false).is_none()));
        drop(turn);
        assert!(turns.try_enter(&Uuid::from_u128(2), &id("new"), false).is_none());
        tokio::time::advance(BUSY_WAIT + EXPECTED_FOR).await;
        assert!(turns.try_enter(&Uuid::from_u128(2), &id("new"), false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_steps_it_is_kept_for_the_job_that_comes_back_but_not_for_ever() {
        let turns = Turns::default();
        let one = Uuid::from_u128(1);
        turns.try_enter(&one, &id("a"), false).unwrap().keep(Duration::ZERO);
        assert!(turns.try_enter(&one, &id("b"), false).is_none());
        let back = turns.try_enter(&one, &id("a"), true).unwrap();
        assert!(turns.try_enter(&one, &id("b"), false).is_none());
        back.keep(Duration::ZERO);
        tokio::time::advance(KEPT_FOR).await;
        assert!(turns.try_enter(&one, &id("b"), false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_has_begun_goes_on_however_often_others_were_turned_away_meanwhile() {
        let turns = Turns::default();
        let one = Uuid::from_u128(1);
        turns.try_enter(&one, &id("a"), false).unwrap().keep(Duration::ZERO);
        // Its next round is late, as after a lost session.
        (0..2 * TURNED_AWAY_OFTEN).for_each(|_| assert!(turns.try_enter(&one, &id("old"), false).is_none()));
        let turn = turns.try_enter(&one, &id("a"), true).expect("it has begun");
        assert!(turns.try_enter(&one, &id("old"), false).is_none());
        drop(turn);

        // It began in another process, which is gone.
        let turn = turns.try_enter(&one, &id("b"), true).expect("it has begun");
        assert!(turns.try_enter(&one, &id("c"), true).is_none(), "one at a time, begun or not");
        drop(turn);
        assert!(turns.try_enter(&one, &id("new"), false).is_none(), "the old one is next");
        assert!(turns.try_enter(&one, &id("old"), false).is_some());
    }
}
