//! From a plan to the one interface it describes: found if it is there, created if it is not, and looked up where
//! nobody knows. Does not decide whose it is: that follows from what the job remembers of its own orders.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::ApiError,
    handler::JobContext,
};
use tokio::time::{Instant, sleep};

use crate::{
    api::{self, READ_LAG},
    gateway::Gateways,
    inventory::Inventory,
    payload::Plan,
    recent::Recent,
};

/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What has to hold before an interface is created.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Interfaces an organisation may have.
    pub max_interfaces: u64,
    /// How gateways are probed.
    pub gateways: Gateways,
}

/// What there is of what a plan asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Survey {
    /// The interface itself, with this id.
    There(String),
    /// Nothing that is in its way.
    Free,
}

/// How an interface came to be known after it was ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// The order was answered with its id.
    Made(String),
    /// The answer was lost, and it was found.
    Found(String),
    /// The order was refused, because it was there before.
    Before(String),
}

/// An order that did not lead to an interface.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unordered {
    /// Why.
    pub error: JobError,
    /// There may be one all the same: reads had not the time to show it.
    pub may_be_made: bool,
}

/// Why it is looked up after a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// 409: somebody was there before.
    Refused,
    /// The POST may have had its effect.
    Unanswered,
}

impl Rules {
    /// Why `plan` cannot be created beside what is there.
    fn refusal(&self, plan: &Plan, inventory: &Inventory) -> Option<JobError> {
        if inventory.count() >= self.max_interfaces {
            return Some(limit_reached(plan, inventory.count(), self.max_interfaces));
        }
        inventory.conflict(plan).or_else(|| inventory.unreadable())
    }
}

/// Looks what is there. Reads lag writes: while something that was created a moment ago may be missing, and would be in
/// the way, it is waited for; what another process created is not known, so that after a takeover all is waited for.
pub(crate) async fn survey(job: &JobContext, plan: &Plan, rules: &Rules, recent: &Recent) -> Result<Survey, JobError> {
    loop {
        let looked = Instant::now();
        let inventory = Inventory::read(job, plan.organization_id).await?;
        if let Some(id) = inventory.identical(plan) {
            return Ok(Survey::There(id.to_owned()));
        }
        if let Some(refusal) = rules.refusal(plan, &inventory) {
            return Err(refusal);
        }
        if let Some(until) = job.reads_settled_at().filter(|until| looked < *until) {
            pause(job, until.saturating_duration_since(Instant::now())).await?;
            continue;
        }
        let missing = recent.missing_in(&inventory, plan.organization_id);
        let in_the_way = missing.filter(|(missing, _)| rules.refusal(plan, &inventory.with(missing)).is_some());
        let Some((_, until)) = in_the_way else { return Ok(Survey::Free) };
        pause(job, LOOK_EVERY.min(until.saturating_duration_since(Instant::now()))).await?;
    }
}

/// Creates the interface of `plan`, once, and looks it up if nobody knows what became of that.
pub(crate) async fn order(job: &JobContext, plan: &Plan, recent: &Recent) -> Result<Ordered, Unordered> {
    recent.orders(plan);
    let error = match api::create(job, plan).await {
        Ok(id) => {
            recent.may_be_made(plan);
            return Ok(Ordered::Made(id));
        }
        Err(error) => error,
    };
    let Some(doubt) = doubt(&error) else {
        recent.is_not_there(plan);
        return Err(Unordered { error: error.into(), may_be_made: false });
    };
    recent.may_be_made(plan);
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

/// Looks until it is there, something else is in its place, or reads cannot lag any more.
async fn look_again(job: &JobContext, plan: &Plan, doubt: Doubt, error: ApiError) -> Result<Ordered, Unordered> {
    let deadline = Instant::now() + READ_LAG;
    let unseen = |error| Unordered { error, may_be_made: doubt == Doubt::Unanswered };
    loop {
        let looked = Instant::now();
        let inventory = Inventory::read(job, plan.organization_id).await.map_err(unseen)?;
        if let Some(id) = inventory.identical(plan) {
            // It was not there when this attempt began, and one job of an organisation is worked at a time.
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
        pause(job, LOOK_EVERY).await.map_err(unseen)?;
    }
}

fn not_found(doubt: Doubt, error: ApiError) -> JobError {
    let error = JobError::from(error);
    match doubt {
        Doubt::Unanswered => error,
        Doubt::Refused => JobError { code: "ip_conflict", ..error },
    }
}

fn limit_reached(plan: &Plan, count: u64, limit: u64) -> JobError {
    let message = format!(
        "organisation {} has {count} interfaces and may have {limit}: remove one, or raise --max-interfaces",
        plan.organization_id
    );
    let mut error = JobError::permanent("interface_limit_reached", message);
    error.details.insert("interfaces".to_owned(), count.into());
    error.details.insert("limit".to_owned(), limit.into());
    error
}

/// Waits, but not longer than the attempt lasts.
pub(crate) async fn pause(job: &JobContext, duration: Duration) -> Result<(), JobError> {
    job.stop().run_until_cancelled(sleep(duration)).await.ok_or_else(JobError::interrupted)
}
