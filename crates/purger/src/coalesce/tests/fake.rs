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
use tokio::time::Instant;

use crate::api::{Aboard, Accepted, Cdn, Refusal, RefusedFor};

/// What happens to a request in place of its effect.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Only to the requests with these numbers, from 1; to all where there are none.
    pub only: Vec<usize>,
    pub with: RefusedFor,
    pub error: JobError,
}

/// "Later": the gate shuts, and the request is sent again when it opens, as the client does it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    /// To the first so many requests.
    pub first: usize,
    pub wait: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// The bodies, in order.
    pub requests: Vec<Vec<String>>,
    pub purged: BTreeMap<String, u32>,
    /// A request with one of these is refused for its content.
    pub bad: BTreeSet<String>,
    pub fault: Option<Fault>,
    /// What a permit is answered.
    pub permit: Option<JobError>,
    pub permit_waits: Duration,
    /// Permits that are being waited for.
    pub permits_awaited: usize,
    pub throttle: Option<Throttle>,
    /// When the gate opens.
    pub opens: Option<Instant>,
    pub forbidden: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct FakeCdn {
    latency: Duration,
    books: Arc<Mutex<Books>>,
}

impl FakeCdn {
    pub(super) fn new(latency: Duration) -> Self {
        Self { latency, books: Arc::default() }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    pub(super) fn set_bad<'a>(&self, paths: impl IntoIterator<Item = &'a str>) {
        self.books().bad = paths.into_iter().map(str::to_owned).collect();
    }

    fn judge(&self, paths: &[Arc<str>]) -> Verdict {
        let mut books = self.books();
        books.requests.push(paths.iter().map(ToString::to_string).collect());
        let number = books.requests.len();
        if let Some(throttle) = books.throttle.filter(|throttle| number <= throttle.first) {
            return Verdict::Later(throttle.wait);
        }
        if let Some(fault) = books.fault.clone().filter(|fault| fault.only.is_empty() || fault.only.contains(&number)) {
            return Verdict::Refused(fault.with, fault.error.into());
        }
        if paths.iter().any(|path| books.bad.contains(&**path)) {
            let error = JobError::permanent("rejected", "one of the paths is invalid");
            return Verdict::Refused(RefusedFor::Content, error.into());
        }
        for path in paths {
            *books.purged.entry(path.to_string()).or_default() += 1;
        }
        Verdict::Accepted(format!("r-{number}"))
    }

    /// Waits, but not longer than somebody wants it.
    async fn wait_at_gate(&self, aboard: &Aboard) -> Result<(), JobError> {
        loop {
            if aboard.stop.is_cancelled() {
                return Err(JobError::interrupted());
            }
            let Some(opens) = self.books().opens.filter(|opens| Instant::now() < *opens) else { return Ok(()) };
            tokio::select! {
                () = aboard.stop.cancelled() => {}
                () = tokio::time::sleep_until(opens) => {}
            }
        }
    }
}

enum Verdict {
    Accepted(String),
    Refused(RefusedFor, Box<JobError>),
    Later(Duration),
}

/// Counts a permit that is being waited for.
struct Awaited<'a>(&'a FakeCdn);

impl<'a> Awaited<'a> {
    fn new(cdn: &'a FakeCdn) -> Self {
        cdn.books().permits_awaited += 1;
        Self(cdn)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.books().permits_awaited -= 1;
    }
}

impl Cdn for FakeCdn {
    type Permit = ();

    async fn permit(&self, aboard: &Aboard) -> Result<(), JobError> {
        let _awaited = Awaited::new(self);
        let wait = self.books().permit_waits;
        tokio::select! {
            () = aboard.stop.cancelled() => return Err(JobError::interrupted()),
            () = tokio::time::sleep(wait) => {}
        }
        self.wait_at_gate(aboard).await?;
        self.books().permit.clone().map_or(Ok(()), Err)
    }

    async fn purge(&self, (): (), paths: &[Arc<str>], aboard: &Aboard) -> Result<Accepted, Refusal> {
        assert!(!paths.is_empty() && paths.len() <= 100);
        let mut requests = 0;
        loop {
            if let Err(error) = self.wait_at_gate(aboard).await {
                return Err(Refusal { with: RefusedFor::Nothing, error, requests });
            }
            requests += 1;
            let verdict = self.judge(paths);
            let order = self.books().requests.len() % 3;
            // Answers do not come in the order of the requests.
            tokio::time::sleep(if order == 0 { self.latency } else { self.latency.mul_f64(0.9) }).await;
            match verdict {
                Verdict::Accepted(id) => {
                    return Ok(Accepted { status: 202, request_id: Some(id), requests, trace: None });
                }
                Verdict::Refused(with, error) => return Err(Refusal { with, error: *error, requests }),
                Verdict::Later(wait) => self.books().opens = Some(Instant::now() + wait),
            }
        }
    }

    /// The first two fail, the others wait.
    fn forbidden(&self, error: &JobError, job: &JobId) -> JobError {
        let mut books = self.books();
        books.forbidden.push(job.to_string());
        let class = if books.forbidden.len() <= 2 { ErrorClass::Permanent } else { ErrorClass::Credentials };
        JobError { class, ..error.clone() }
    }
}
