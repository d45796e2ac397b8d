//! Gathers jobs that end at about the same time, so that they are settled together: one sync of the audit, one burst of
//! publications, as few acknowledgements as their order permits.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Jobs that wait for the next round.
#[derive(Debug)]
pub(crate) struct Rounds<J>(Mutex<Gathered<J>>);

#[derive(Debug)]
struct Gathered<J> {
    jobs: Vec<J>,
    /// Somebody runs the rounds.
    running: bool,
}

impl<J> Default for Rounds<J> {
    fn default() -> Self {
        Self(Mutex::new(Gathered { jobs: Vec::new(), running: false }))
    }
}

impl<J> Rounds<J> {
    /// Adds a job to the next round. Returns true where the caller has to run it and all that follow, until there is none.
    pub(crate) fn add(&self, job: J) -> bool {
        let mut gathered = self.lock();
        gathered.jobs.push(job);
        !std::mem::replace(&mut gathered.running, true)
    }

    /// Takes the jobs of the next round. `None` where there are none: then nobody runs the rounds any more.
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
    fn one_runs_the_rounds_until_no_job_waits_and_no_job_is_left_without() {
        let rounds = Rounds::default();
        assert!(rounds.add(1), "the first runs them");
        assert!(!rounds.add(2));
        assert_eq!(rounds.next(), Some(vec![1, 2]));
        assert!(!rounds.add(3), "a round is being settled");
        assert_eq!(rounds.next(), Some(vec![3]));
        assert_eq!(rounds.next(), None);
        assert!(rounds.add(4), "nobody runs them any more");
    }
}
