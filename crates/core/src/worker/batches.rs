//! Gathers jobs that end at about the same time, so that they are settled together: one sync of the audit, one burst of
//! publications, as few acknowledgements as their order permits.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Jobs that wait for the next batch.
#[derive(Debug)]
pub(crate) struct Batches<J>(Mutex<Gathered<J>>);

#[derive(Debug)]
struct Gathered<J> {
    jobs: Vec<J>,
    /// True while a task settles batches.
    running: bool,
}

impl<J> Default for Batches<J> {
    fn default() -> Self {
        Self(Mutex::new(Gathered { jobs: Vec::new(), running: false }))
    }
}

impl<J> Batches<J> {
    /// Adds a job to the next batch. Returns true if no task settles batches: then the caller has to, until
    /// [`Self::next`] returns `None`.
    pub(crate) fn add(&self, job: J) -> bool {
        let mut gathered = self.lock();
        gathered.jobs.push(job);
        !std::mem::replace(&mut gathered.running, true)
    }

    /// Takes the next batch; `None` if no job waits.
    pub(crate) fn next(&self) -> Option<Vec<J>> {
        let mut gathered = self.lock();
        gathered.running = !gathered.jobs.is_empty();
        gathered.running.then(|| std::mem::take(&mut gathered.jobs))
    }

    fn lock(&self) -> MutexGuard<'_, Gathered<J>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_settles_the_batches_until_no_job_waits_and_no_job_is_left_without() {
        let batches = Batches::default();
        assert!(batches.add(1), "the first settles them");
        assert!(!batches.add(2));
        assert_eq!(batches.next(), Some(vec![1, 2]));
        assert!(!batches.add(3), "a batch is being settled");
        assert_eq!(batches.next(), Some(vec![3]));
        assert_eq!(batches.next(), None);
        assert!(batches.add(4), "nobody settles them any more");
    }
}
