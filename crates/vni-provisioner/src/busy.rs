//! One job of an organisation at a time in this process: the others come again later and hold no slot. A job that has begun
//! goes before all others, so that what is begun ends. Of the others, one that was turned away several times goes before
//! those that come after it, so that none waits for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use genfleet_core::{
    error::{ErrorClass, JobError},
    handler::JobContext,
    job::JobId,
};
use tokio::time::Instant;
use uuid::Uuid;

/// How long a job waits whose organisation is busy.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// A job that was turned away this much more often than another goes before it.
const TURNED_AWAY_OFTEN: u32 = 10;
/// How long such a job is waited for, in case that it went to another process.
const EXPECTED_FOR: Duration = Duration::from_secs(5);
/// How long an organisation is kept for a job that is on its way through the resume queue.
const KEPT_FOR: Duration = Duration::from_secs(10);

/// The organisations that are worked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Organisations(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    holders: HashMap<Uuid, Holder>,
    /// Jobs that were turned away and are expected back.
    waiting: HashMap<Uuid, Vec<Waiting>>,
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

/// The right to work for one organisation; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    organisations: Organisations,
    organisation: Uuid,
    kept_until: Option<Instant>,
}

impl Organisations {
    /// The right for `job` to work for `organisation`; `None` while another job has it. `has_begun`: an earlier attempt
    /// of it, here or in another process, came so far that it has something to go on from.
    pub(crate) fn enter(&self, organisation: Uuid, job: &JobId, has_begun: bool) -> Option<Turn> {
        let mut all = self.lock();
        let is_free = all.holders.get(&organisation).is_none_or(|holder| holder.lets_in(job));
        if !is_free || !(has_begun || all.is_next(organisation, job)) {
            all.turn_away(organisation, job);
            return None;
        }
        all.forget(organisation, job);
        all.holders.insert(organisation, Holder { job: job.clone(), kept_until: None });
        Some(Turn { organisations: self.clone(), organisation, kept_until: None })
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Whether no other job was turned away so much more often that it goes first.
    fn is_next(&self, organisation: Uuid, job: &JobId) -> bool {
        let now = Instant::now();
        let Some(waiting) = self.waiting.get(&organisation) else { return true };
        let most = waiting.iter().filter(|one| now < one.until).map(|one| one.times).max().unwrap_or(0);
        let own = waiting.iter().find(|one| one.job == *job).map_or(0, |one| one.times);
        own + TURNED_AWAY_OFTEN > most
    }

    fn turn_away(&mut self, organisation: Uuid, job: &JobId) {
        let now = Instant::now();
        let waiting = self.waiting.entry(organisation).or_default();
        waiting.retain(|one| now < one.until);
        let until = now + BUSY_WAIT + EXPECTED_FOR;
        match waiting.iter_mut().find(|one| one.job == *job) {
            Some(one) => (one.times, one.until) = (one.times + 1, until),
            None => waiting.push(Waiting { job: job.clone(), times: 1, until }),
        }
    }

    fn forget(&mut self, organisation: Uuid, job: &JobId) {
        let Some(waiting) = self.waiting.get_mut(&organisation) else { return };
        waiting.retain(|one| one.job != *job);
        if waiting.is_empty() {
            self.waiting.remove(&organisation);
        }
    }
}

impl Holder {
    fn lets_in(&self, job: &JobId) -> bool {
        self.kept_until.is_some_and(|until| self.job == *job || until <= Instant::now())
    }
}

impl Turn {
    /// Keeps the organisation for this job, which comes back at once.
    pub(crate) fn keep(mut self) {
        self.kept_until = Some(Instant::now() + KEPT_FOR);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let holders = &mut self.organisations.lock().holders;
        match (self.kept_until, holders.get_mut(&self.organisation)) {
            (Some(until), Some(holder)) => holder.kept_until = Some(until),
            _ => drop(holders.remove(&self.organisation)),
        }
    }
}

/// The error of a job whose organisation is busy. Burns nothing.
pub(crate) fn busy(job: &JobContext, organisation: Uuid) -> JobError {
    let until = job.now().checked_add(BUSY_WAIT).unwrap_or(job.now());
    let message = format!("another job of organisation {organisation} is at work");
    JobError::new(ErrorClass::Held { until, spread: Duration::ZERO }, "organization_busy", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> JobId {
        JobId::parse(text).unwrap()
    }

    #[tokio::test]
    async fn an_organisation_is_worked_for_by_one_job_at_a_time_and_others_meanwhile() {
        let organisations = Organisations::default();
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let turn = organisations.enter(one, &id("a"), false).unwrap();
        assert!(organisations.enter(one, &id("b"), false).is_none());
        assert!(organisations.enter(one, &id("a"), false).is_none(), "not even the same id twice");
        let other = organisations.enter(two, &id("b"), false).unwrap();
        drop(turn);
        assert!(organisations.enter(one, &id("b"), false).is_some());
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_was_turned_away_often_goes_before_newer_ones_unless_it_does_not_come() {
        let organisations = Organisations::default();
        let one = Uuid::from_u128(1);
        let turn = organisations.enter(one, &id("a"), false);
        (1..TURNED_AWAY_OFTEN).for_each(|_| assert!(organisations.enter(one, &id("old"), false).is_none()));
        drop(turn);
        let turn = organisations.enter(one, &id("new"), false);
        assert!(turn.is_some(), "not that often");
        assert!(organisations.enter(one, &id("old"), false).is_none());
        drop(turn);
        assert!(organisations.enter(one, &id("newer"), false).is_none(), "the old one is next");
        drop(organisations.enter(one, &id("old"), false).expect("it is next"));
        assert!(organisations.enter(one, &id("newer"), false).is_some());

        let turn = organisations.enter(Uuid::from_u128(2), &id("a"), false);
        (0..TURNED_AWAY_OFTEN)
            .for_each(|_| assert!(organisations.enter(Uuid::from_u128(2), &id("gone"), false).is_none()));
        drop(turn);
        assert!(organisations.enter(Uuid::from_u128(2), &id("new"), false).is_none());
        tokio::time::advance(BUSY_WAIT + EXPECTED_FOR).await;
        assert!(organisations.enter(Uuid::from_u128(2), &id("new"), false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_steps_it_is_kept_for_the_job_that_comes_back_but_not_for_ever() {
        let organisations = Organisations::default();
        let one = Uuid::from_u128(1);
        organisations.enter(one, &id("a"), false).unwrap().keep();
        assert!(organisations.enter(one, &id("b"), false).is_none());
        let back = organisations.enter(one, &id("a"), true).unwrap();
        assert!(organisations.enter(one, &id("b"), false).is_none());
        back.keep();
        tokio::time::advance(KEPT_FOR).await;
        assert!(organisations.enter(one, &id("b"), false).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_has_begun_goes_on_however_often_others_were_turned_away_meanwhile() {
        let organisations = Organisations::default();
        let one = Uuid::from_u128(1);
        organisations.enter(one, &id("a"), false).unwrap().keep();
        // Its next round is late, as after a lost session.
        (0..2 * TURNED_AWAY_OFTEN).for_each(|_| assert!(organisations.enter(one, &id("old"), false).is_none()));
        let turn = organisations.enter(one, &id("a"), true).expect("it has begun");
        assert!(organisations.enter(one, &id("old"), false).is_none());
        drop(turn);

        // It began in another process, which is gone.
        let turn = organisations.enter(one, &id("b"), true).expect("it has begun");
        assert!(organisations.enter(one, &id("c"), true).is_none(), "one at a time, begun or not");
        drop(turn);
        assert!(organisations.enter(one, &id("new"), false).is_none(), "the old one is next");
        assert!(organisations.enter(one, &id("old"), false).is_some());
    }
}
