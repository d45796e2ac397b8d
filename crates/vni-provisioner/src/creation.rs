//! Provides the interface of a plan: finds an existing one, creates a missing one, and looks it up if the result is
//! unknown. The job's state decides who created it.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::ApiError,
    handler::JobContext,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    api::{self, READ_LAG},
    gateway::Gateways,
    inventory::Inventory,
    payload::InterfacePlan,
    recent::Recent,
};

/// Interval of checking for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The conditions for creating an interface.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Maximum number of interfaces of an organisation.
    pub max_interfaces: u64,
    /// The rules for probing gateways.
    pub gateways: Gateways,
}

/// The way in which a created interface was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// The answer contained its id.
    Made(String),
    /// The answer was lost, and the interface was found.
    Found(String),
    /// The request was refused because the interface already existed.
    Before(String),
}

/// A creation that failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unordered {
    /// The error.
    pub error: JobError,
    /// True if an interface may exist that reads do not show yet.
    pub may_be_made: bool,
}

/// The reason why the interface is looked up after a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// The POST was refused with 409, because something already exists.
    Refused,
    /// The POST may have had its effect.
    Unanswered,
}

impl Rules {
    /// Returns the error if `plan` cannot be created in addition to the existing objects.
    fn refusal(&self, plan: &InterfacePlan, inventory: &Inventory) -> Option<JobError> {
        if inventory.count() >= self.max_interfaces {
            return Some(limit_reached(plan, inventory.count(), self.max_interfaces));
        }
        inventory.conflict(plan).or_else(|| inventory.unreadable())
    }
}

/// Reads the existing objects. Returns the id of the interface if it exists, and `None` if it can be created. Because
/// reads lag behind writes, it waits while a recently created interface that would conflict may be missing. Interfaces
/// of another process are unknown, so it waits for the whole lag after a takeover.
pub(crate) async fn survey(
    job: &JobContext,
    plan: &InterfacePlan,
    rules: &Rules,
    recent: &Recent,
) -> Result<Option<String>, JobError> {
    loop {
        let looked = Instant::now();
        let inventory = Inventory::read(job, plan.organization_id).await?;
        if let Some(id) = inventory.identical(plan) {
            return Ok(Some(id.to_owned()));
        }
        if let Some(refusal) = rules.refusal(plan, &inventory) {
            return Err(refusal);
        }
        if let Some(until) = job.reads_settled_at.filter(|until| looked < *until) {
            job.unless_stopped(sleep_until(until)).await?;
            continue;
        }
        let missing = recent.missing_in(&inventory, plan.organization_id);
        let in_the_way = missing.filter(|(missing, _)| rules.refusal(plan, &inventory.with(missing)).is_some());
        let Some((_, until)) = in_the_way else { return Ok(None) };
        job.unless_stopped(sleep_until(until.min(Instant::now() + LOOK_EVERY))).await?;
    }
}

/// Creates the interface of `plan` with one request, and looks it up if the result is unknown.
pub(crate) async fn order(job: &JobContext, plan: &InterfacePlan, recent: &Recent) -> Result<Ordered, Unordered> {
    recent.record_order(plan);
    let error = match api::create(job, plan).await {
        Ok(id) => {
            recent.record_possible_creation(plan);
            return Ok(Ordered::Made(id));
        }
        Err(error) => error,
    };
    let Some(doubt) = doubt(&error) else {
        recent.record_absent(plan);
        return Err(Unordered { error: error.into(), may_be_made: false });
    };
    recent.record_possible_creation(plan);
    look_again(job, plan, doubt, error).await
}

fn doubt(error: &ApiError) -> Option<Doubt> {
    match error.class {
        ErrorClass::Ambiguous => Some(Doubt::Unanswered),
        // An answer that could not be read may have been a success.
        ErrorClass::Permanent if error.code == "unexpected_response" => Some(Doubt::Unanswered),
        ErrorClass::Permanent if error.status == Some(409) => Some(Doubt::Refused),
        ErrorClass::Permanent
        | ErrorClass::Transient
        | ErrorClass::Held { .. }
        | ErrorClass::Credentials
        | ErrorClass::Interrupted => None,
    }
}

/// Checks until the interface exists, something conflicts with it, or reads can no longer lag.
async fn look_again(
    job: &JobContext,
    plan: &InterfacePlan,
    doubt: Doubt,
    error: ApiError,
) -> Result<Ordered, Unordered> {
    let deadline = Instant::now() + READ_LAG;
    let unseen = |error| Unordered { error, may_be_made: doubt == Doubt::Unanswered };
    loop {
        let looked = Instant::now();
        let inventory = Inventory::read(job, plan.organization_id).await.map_err(unseen)?;
        if let Some(id) = inventory.identical(plan) {
            // It did not exist when this attempt began, and only one job of an organisation is worked at a time.
            return Ok(match doubt {
                Doubt::Unanswered => Ordered::Found(id.to_owned()),
                Doubt::Refused => Ordered::Before(id.to_owned()),
            });
        }
        if let Some(other) = inventory.conflict(plan).or_else(|| inventory.namesake(plan)) {
            let error = JobError { status: error.status, request_id: error.request_id, ..other };
            return Err(Unordered { error, may_be_made: false });
        }
        if looked >= deadline {
            return Err(Unordered { error: not_found(doubt, error), may_be_made: false });
        }
        job.unless_stopped(sleep(LOOK_EVERY)).await.map_err(unseen)?;
    }
}

fn not_found(doubt: Doubt, error: ApiError) -> JobError {
    let error = JobError::from(error);
    match doubt {
        Doubt::Unanswered => error,
        Doubt::Refused => JobError { code: "ip_conflict", ..error },
    }
}

fn limit_reached(plan: &InterfacePlan, count: u64, limit: u64) -> JobError {
    let message = format!(
        "organisation {} has {count} interfaces and may have {limit}: remove one, or raise --max-interfaces",
        plan.organization_id
    );
    let mut error = JobError::permanent("interface_limit_reached", message);
    error.details.insert("interfaces".to_owned(), count.into());
    error.details.insert("limit".to_owned(), limit.into());
    error
}
