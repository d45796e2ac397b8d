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
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    cdn::{Capacity, Cdn, PurgeAccepted, PurgeRefusal, RefusalCause, RequestContext},
    progress::PurgeStatus,
};

/// A fault that a request meets in place of its effect.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Only to the requests with these numbers, from 1; to all if there are none.
    pub only: Vec<usize>,
    pub with: RefusalCause,
    pub error: JobError,
}

/// A pause, after which the request is sent again, as the client does it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    /// Applies to this number of first requests.
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
    /// The refusal of permits.
    pub permit: Option<JobError>,
    pub permit_waits: Duration,
    /// Permits that are being waited for.
    pub permits_awaited: usize,
    pub throttle: Option<Throttle>,
    /// The end of a pause.
    pub paused_until: Option<Instant>,
    pub forbidden: Vec<String>,
    pub in_flight: usize,
    pub most_in_flight: usize,
}

#[derive(Clone, Debug)]
pub(super) struct FakeCdn {
    latency: Duration,
    capacity: Capacity,
    /// The permits for requests in flight, as limited by the client's budget and slow start.
    slots: Arc<Semaphore>,
    books: Arc<Mutex<Books>>,
}

impl FakeCdn {
    /// A CDN that admits 16 requests at once.
    pub(super) fn new(latency: Duration) -> Self {
        Self::admitting(16, latency)
    }

    pub(super) fn admitting(requests: usize, latency: Duration) -> Self {
        let slots = Arc::new(Semaphore::new(requests));
        Self { latency, capacity: Capacity::of(100), slots, books: Arc::default() }
    }

    /// A CDN whose requests take so much.
    pub(super) fn taking(capacity: Capacity, latency: Duration) -> Self {
        Self { capacity, ..Self::new(latency) }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    pub(super) fn set_bad<'a>(&self, paths: impl IntoIterator<Item = &'a str>) {
        self.books().bad = paths.into_iter().map(str::to_owned).collect();
    }

    fn judge(&self, paths: &[Arc<str>]) -> Answer {
        let mut books = self.books();
        books.requests.push(paths.iter().map(ToString::to_string).collect());
        let number = books.requests.len();
        if let Some(throttle) = books.throttle.filter(|throttle| number <= throttle.first) {
            return Answer::Later(throttle.wait);
        }
        if let Some(fault) = books.fault.clone().filter(|fault| fault.only.is_empty() || fault.only.contains(&number)) {
            return Answer::Refused(fault.with, fault.error.into());
        }
        if paths.iter().any(|path| books.bad.contains(&**path)) {
            let error = JobError::permanent("rejected", "one of the paths is invalid");
            return Answer::Refused(RefusalCause::Content, error.into());
        }
        for path in paths {
            *books.purged.entry(path.to_string()).or_default() += 1;
        }
        Answer::Accepted(format!("r-{number}"))
    }

    /// Waits for the end of a pause, but not longer than somebody wants it.
    async fn wait_for_pause(&self, context: &RequestContext) -> Result<(), JobError> {
        loop {
            if context.stop.is_cancelled() {
                return Err(JobError::interrupted());
            }
            let Some(opens) = self.books().paused_until.filter(|opens| Instant::now() < *opens) else { return Ok(()) };
            tokio::select! {
                () = context.stop.cancelled() => {}
                () = tokio::time::sleep_until(opens) => {}
            }
        }
    }
}

enum Answer {
    Accepted(String),
    Refused(RefusalCause, Box<JobError>),
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

/// Counts a request in flight.
struct InFlight<'a>(&'a FakeCdn);

impl<'a> InFlight<'a> {
    fn new(cdn: &'a FakeCdn) -> Self {
        let mut books = cdn.books();
        books.in_flight += 1;
        books.most_in_flight = books.most_in_flight.max(books.in_flight);
        Self(cdn)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.books().in_flight -= 1;
    }
}

impl Cdn for FakeCdn {
    type Permit = OwnedSemaphorePermit;

    fn permit_now(&self, context: &RequestContext) -> Option<OwnedSemaphorePermit> {
        let books = self.books();
        let is_open = books.permit_waits.is_zero() && books.permit.is_none() && books.paused_until.is_none();
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        Some(slot).filter(|_| is_open && !context.stop.is_cancelled())
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    async fn permit(&self, context: &RequestContext) -> Result<OwnedSemaphorePermit, JobError> {
        let _awaited = Awaited::new(self);
        let wait = self.books().permit_waits;
        tokio::select! {
            () = context.stop.cancelled() => return Err(JobError::interrupted()),
            () = tokio::time::sleep(wait) => {}
        }
        let slot = tokio::select! {
            () = context.stop.cancelled() => return Err(JobError::interrupted()),
            slot = Arc::clone(&self.slots).acquire_owned() => slot.unwrap(),
        };
        self.wait_for_pause(context).await?;
        self.books().permit.clone().map_or(Ok(slot), Err)
    }

    async fn purge(
        &self,
        _slot: OwnedSemaphorePermit,
        paths: &[Arc<str>],
        context: &RequestContext,
    ) -> Result<PurgeAccepted, PurgeRefusal> {
        assert!(!paths.is_empty() && paths.len() <= self.capacity.paths);
        let _in_flight = InFlight::new(self);
        let mut requests = 0;
        loop {
            if let Err(error) = self.wait_for_pause(context).await {
                return Err(PurgeRefusal { cause: RefusalCause::Stopped, error, requests });
            }
            requests += 1;
            let answer = self.judge(paths);
            let order = self.books().requests.len() % 3;
            // Answers do not come in the order of the requests.
            tokio::time::sleep(if order == 0 { self.latency } else { self.latency.mul_f64(0.9) }).await;
            match answer {
                Answer::Accepted(id) => {
                    return Ok(PurgeAccepted {
                        status: PurgeStatus::Code(202),
                        request_ids: vec![id],
                        requests,
                        trace: None,
                    });
                }
                Answer::Refused(with, error) => return Err(PurgeRefusal { cause: with, error: *error, requests }),
                Answer::Later(wait) => self.books().paused_until = Some(Instant::now() + wait),
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
