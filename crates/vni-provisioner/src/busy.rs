//! One job of an organisation at a time in this process: the others come again later and hold no slot.

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
/// How long an organisation is kept for a job that is on its way through the resume queue.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// The organisations that are worked for.
#[derive(Clone, Debug, Default)]
pub struct Organisations(Arc<Mutex<HashMap<Uuid, Holder>>>);

#[derive(Debug)]
struct Holder {
    job: JobId,
    /// `None` while the job is at work.
    kept_until: Option<Instant>,
}

/// The right to work for one organisation; ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    organisations: Organisations,
    organisation: Uuid,
    kept_until: Option<Instant>,
}

impl Organisations {
    /// The right for `job` to work for `organisation`; `None` while another job has it.
    pub fn enter(&self, organisation: Uuid, job: &JobId) -> Option<Turn> {
        let mut holders = self.lock();
        let is_free = holders.get(&organisation).is_none_or(|holder| holder.lets_in(job));
        is_free.then(|| {
            holders.insert(organisation, Holder { job: job.clone(), kept_until: None });
            Turn { organisations: self.clone(), organisation, kept_until: None }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Holder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn lets_in(&self, job: &JobId) -> bool {
        self.kept_until.is_some_and(|until| self.job == *job || until <= Instant::now())
    }
}

impl Turn {
    /// Keeps the organisation for this job, which comes back at once.
    pub fn keep(mut self) {
        self.kept_until = Some(Instant::now() + KEPT_FOR);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut holders = self.organisations.lock();
        match (self.kept_until, holders.get_mut(&self.organisation)) {
            (Some(until), Some(holder)) => holder.kept_until = Some(until),
            _ => drop(holders.remove(&self.organisation)),
        }
    }
}

/// What a job is told whose organisation is busy. Burns nothing.
pub fn busy(job: &JobContext, organisation: Uuid) -> JobError {
    let until = job.now().checked_add(BUSY_WAIT).unwrap_or(job.now());
    let told = format!("another job of organisation {organisation} is at work");
    JobError::new(ErrorClass::Held { until, spread: Duration::ZERO }, "organization_busy", told)
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
        let turn = organisations.enter(one, &id("a")).unwrap();
        assert!(organisations.enter(one, &id("b")).is_none());
        assert!(organisations.enter(one, &id("a")).is_none(), "not even the same id twice");
        let other = organisations.enter(two, &id("b")).unwrap();
        drop(turn);
        assert!(organisations.enter(one, &id("b")).is_some());
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn between_two_steps_it_is_kept_for_the_job_that_comes_back_but_not_for_ever() {
        let organisations = Organisations::default();
        let one = Uuid::from_u128(1);
        organisations.enter(one, &id("a")).unwrap().keep();
        assert!(organisations.enter(one, &id("b")).is_none());
        let back = organisations.enter(one, &id("a")).unwrap();
        assert!(organisations.enter(one, &id("b")).is_none());
        back.keep();
        tokio::time::advance(KEPT_FOR).await;
        assert!(organisations.enter(one, &id("b")).is_some());
    }
}
