//! From a plan to the one interface it describes: adopted where it is there, created where it is not, and looked up
//! where nobody knows.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::error::ApiError,
    handler::JobContext,
};
use tokio::time::{Instant, sleep};

use crate::{api, gateway::Gateways, inventory::Inventory, payload::Plan};

/// How long a change may take to show in what is read.
pub const READ_LAG: Duration = Duration::from_secs(15);
/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What has to hold before an interface is created.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Interfaces an organisation may have.
    pub max_interfaces: u64,
    /// How gateways are probed.
    pub gateways: Gateways,
}

/// The id of the interface, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// It was there: it stays, whatever becomes of the job.
    Adopted(String),
    /// This job's own POST made it.
    Created(String),
}

/// Why it is looked up after a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// 409: somebody was there before.
    Refused,
    /// The POST may have had its effect.
    Unanswered,
}

/// Adopts the interface of `plan` or creates it.
pub async fn provide(job: &JobContext, plan: &Plan, rules: &Rules) -> Result<Interface, JobError> {
    let inventory = Inventory::read(job, plan.organization_id).await?;
    if let Some(id) = inventory.identical(plan) {
        return Ok(Interface::Adopted(id.to_owned()));
    }
    if inventory.count() >= rules.max_interfaces {
        return Err(limit_reached(plan, inventory.count(), rules.max_interfaces));
    }
    if let Some(conflict) = inventory.conflict(plan) {
        return Err(conflict);
    }
    rules.gateways.probe(job, plan).await?;
    match api::create(job, plan).await {
        Ok(id) => Ok(Interface::Created(id)),
        Err(error) => match doubt(&error) {
            Some(doubt) => look_again(job, plan, doubt, error).await,
            None => Err(error.into()),
        },
    }
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
async fn look_again(job: &JobContext, plan: &Plan, doubt: Doubt, error: ApiError) -> Result<Interface, JobError> {
    let deadline = Instant::now() + READ_LAG;
    loop {
        let inventory = Inventory::read(job, plan.organization_id).await?;
        if let Some(id) = inventory.identical(plan) {
            // It was not there when this attempt began, and one job of an organisation is worked at a time.
            return Ok(match doubt {
                Doubt::Unanswered => Interface::Created(id.to_owned()),
                Doubt::Refused => Interface::Adopted(id.to_owned()),
            });
        }
        if let Some(other) = inventory.conflict(plan).or_else(|| inventory.namesake(plan)) {
            return Err(JobError { status: error.status, request_id: error.request_id, ..other });
        }
        if Instant::now() >= deadline {
            return Err(not_found(doubt, error));
        }
        pause(job, LOOK_EVERY).await?;
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
    let told = format!(
        "organisation {} has {count} interfaces and may have {limit}: remove one, or raise --max-interfaces",
        plan.organization_id
    );
    let mut error = JobError::permanent("interface_limit_reached", told);
    error.details.insert("interfaces".to_owned(), count.into());
    error.details.insert("limit".to_owned(), limit.into());
    error
}

/// Waits, but not longer than the attempt lasts.
pub async fn pause(job: &JobContext, duration: Duration) -> Result<(), JobError> {
    job.stop.run_until_cancelled(sleep(duration)).await.ok_or_else(JobError::interrupted)
}
