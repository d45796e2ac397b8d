//! A CDN in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use genfleet_core::{
    error::{ErrorClass, JobError},
    job::JobId,
};

use crate::api::{Aboard, Accepted, Cdn, Refusal, RefusedFor};

/// What happens to a request in place of its effect.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Only to the requests with these numbers, from 1; to all where there are none.
    pub only: Vec<usize>,
    pub with: RefusedFor,
    pub error: JobError,
}

#[derive(Debug, Default)]
pub struct Books {
    /// The bodies, in order.
    pub requests: Vec<Vec<String>>,
    pub purged: BTreeMap<String, u32>,
    /// A request with one of these is refused for its content.
    pub bad: BTreeSet<String>,
    pub fault: Option<Fault>,
    /// What a permit is answered.
    pub permit: Option<JobError>,
    pub permit_waits: Duration,
    pub forbidden: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct FakeCdn {
    latency: Duration,
    books: Arc<Mutex<Books>>,
}

impl FakeCdn {
    pub fn new(latency: Duration) -> Self {
        Self { latency, books: Arc::default() }
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    pub fn set_bad<'a>(&self, paths: impl IntoIterator<Item = &'a str>) {
        self.books().bad = paths.into_iter().map(str::to_owned).collect();
    }

    fn judge(&self, paths: &[Arc<str>]) -> Result<Accepted, Box<Refusal>> {
        let mut books = self.books();
        books.requests.push(paths.iter().map(ToString::to_string).collect());
        let number = books.requests.len();
        let refusal = |with, error| Box::new(Refusal { with, error, requests: 1 });
        if let Some(fault) = books.fault.clone().filter(|fault| fault.only.is_empty() || fault.only.contains(&number)) {
            return Err(refusal(fault.with, fault.error));
        }
        if paths.iter().any(|path| books.bad.contains(&**path)) {
            return Err(refusal(RefusedFor::Content, JobError::permanent("rejected", "one of the paths is invalid")));
        }
        for path in paths {
            *books.purged.entry(path.to_string()).or_default() += 1;
        }
        Ok(Accepted { status: 202, request_id: Some(format!("r-{number}")), requests: 1 })
    }
}

impl Cdn for FakeCdn {
    type Permit = ();

    async fn permit(&self, _: &Aboard) -> Result<(), JobError> {
        let wait = self.books().permit_waits;
        tokio::time::sleep(wait).await;
        self.books().permit.clone().map_or(Ok(()), Err)
    }

    async fn purge(&self, (): (), paths: &[Arc<str>], _: &Aboard) -> Result<Accepted, Refusal> {
        assert!(!paths.is_empty() && paths.len() <= 100);
        let answer = self.judge(paths);
        let order = self.books().requests.len() % 3;
        // Answers do not come in the order of the requests.
        tokio::time::sleep(if order == 0 { self.latency } else { self.latency.mul_f64(0.9) }).await;
        answer.map_err(|refusal| *refusal)
    }

    /// The first two fail, the others wait.
    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError {
        let mut books = self.books();
        books.forbidden.push(job.to_string());
        let class = if books.forbidden.len() <= 2 { ErrorClass::Permanent } else { ErrorClass::Credentials };
        JobError { class, ..error.clone() }
    }
}
