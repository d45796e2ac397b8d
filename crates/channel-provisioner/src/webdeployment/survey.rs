//! The meaning of the API's answers for a job: existing objects, used names, and limits. Pure.
#![expect(clippy::result_large_err, reason = "once per step, and it goes no further than the worker")]

use std::time::Duration;

use genfleet_core::error::JobError;
use jiff::Timestamp;

use super::{
    api::{self, Listing, Object, published_version, text},
    plan::{DeploymentPlan, is_named},
};

/// The only type of flow that can handle conversations of the messenger.
const FLOW_TYPE: &str = "INBOUNDSHORTMESSAGE";
/// Age difference from which a configuration of another job does not come from a concurrent job.
const SAME_MOMENT: Duration = Duration::from_secs(600);

/// The existing objects before the job creates any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    /// All deployments.
    pub deployments: Listing,
    /// All configurations, if the job creates one.
    pub configurations: Option<Listing>,
}

/// A type of object with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    key: &'static str,
    what: &'static str,
    total: u64,
}

/// Returns the published version of a flow that can handle conversations.
pub(crate) fn published_flow(id: &str, flow: Option<&Object>) -> Result<String, JobError> {
    let is_deleted = |flow: &&Object| flow.get("deleted") == Some(&true.into());
    let Some(flow) = flow.filter(|flow| !is_deleted(flow)) else {
        let message = format!("there is no flow {id}: correct flowId");
        return Err(JobError { status: Some(404), ..JobError::permanent("flow_not_found", message) });
    };
    let kind = text(flow, "type").unwrap_or_default();
    if !kind.eq_ignore_ascii_case(FLOW_TYPE) {
        let message =
            format!("flow {id} is of type {kind}; only an inbound message flow ({FLOW_TYPE}) takes web messages");
        return Err(JobError::permanent("flow_wrong_type", message));
    }
    let version = flow.get("publishedVersion").and_then(|version| version.as_object());
    let named = version.and_then(|version| text(version, "id").or_else(|| text(version, "commitVersion")));
    let unpublished = || {
        JobError::permanent(
            "flow_not_published",
            format!("flow {id} has no published version: publish it in Architect"),
        )
    };
    named.map(str::to_owned).ok_or_else(unpublished)
}

/// Returns the deployment that the job has to update, if any; an error if its name is already used.
pub(crate) fn target(plan: &DeploymentPlan, deployments: &[Object]) -> Result<Option<String>, JobError> {
    let mut named = deployments.iter().filter(|one| is_named(one, &plan.name));
    if let Some(id) = &plan.deployment_id {
        let other = named.find(|one| text(one, "id").is_some_and(|found| !found.eq_ignore_ascii_case(id)));
        return other.map_or_else(|| Ok(Some(id.clone())), |other| Err(name_taken(plan, other)));
    }
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some(only), None) if plan.updates_existing => match api::id(only) {
            Some(id) => Ok(Some(id.to_owned())),
            None => Err(name_taken(plan, only)),
        },
        (Some(other), _) => Err(name_taken(plan, other)),
    }
}

/// Creates the error of a job whose name another deployment uses.
pub(crate) fn name_taken(plan: &DeploymentPlan, other: &Object) -> JobError {
    let id = text(other, "id").unwrap_or("without an id");
    let remedy = if plan.updates_existing {
        "name the one to update with deploymentId"
    } else {
        "choose another name, or update it with onExisting"
    };
    JobError::permanent("name_taken", format!("deployment {id} is named {:?}: {remedy}", plan.name))
}

/// Fails unless this job's configuration is the oldest of those that concurrent jobs created for this deployment's
/// name, so that only one of these jobs continues.
pub(crate) fn first_of_rivals(plan: &DeploymentPlan, own: &str, configurations: &[Object]) -> Result<(), JobError> {
    let created = |one: &Object| text(one, "dateCreated")?.parse::<Timestamp>().ok();
    let Some(own) = configurations.iter().find(|one| api::id(one) == Some(own)) else { return Ok(()) };
    let (Some(own_created), Some(own_id)) = (created(own), api::id(own)) else { return Ok(()) };
    let is_first = |one: &&Object| {
        let (Some(made), Some(id)) = (created(one), api::id(one)) else { return false };
        let apart = own_created.duration_since(made).unsigned_abs();
        is_named(one, plan.configuration_name())
            && plan.is_of_another_job(one)
            && apart < SAME_MOMENT
            && (made, id) < (own_created, own_id)
    };
    match configurations.iter().find(is_first) {
        None => Ok(()),
        Some(first) => {
            let id = text(first, "id").unwrap_or_default();
            let message = format!(
                "another job makes a deployment named {:?} with configuration {id}: choose another name",
                plan.name
            );
            Err(JobError::permanent("name_taken", message))
        }
    }
}

/// Returns the objects that the job adds, with the number of existing ones as far as it was listed.
pub(crate) fn count_added(makes_deployment: bool, listed: &Listed) -> Vec<Counted> {
    let deployments = makes_deployment.then_some(Counted {
        key: "deployments.max",
        what: "web deployments",
        total: listed.deployments.total,
    });
    let configurations = listed.configurations.as_ref().map(|listing| Counted {
        key: "configuration.max",
        what: "configurations of web deployments",
        total: listing.total,
    });
    deployments.into_iter().chain(configurations).collect()
}

/// Returns warnings if one more of each is allowed; otherwise an error.
pub(crate) fn within_limits(wanted: &[Counted], limits: &[(String, u64)]) -> Result<Vec<String>, JobError> {
    let mut warnings = Vec::new();
    for Counted { key, what, total } in wanted {
        match limits.iter().find(|(known, _)| known == key) {
            Some((_, most)) if total >= most => {
                let message = format!(
                    "the organisation has {total} {what} and may have {most} ({key}): delete one, or ask for more"
                );
                return Err(JobError::permanent("deployment_limit_reached", message));
            }
            Some(_) => {}
            None => warnings.push(format!("the platform does not tell how many {what} there may be ({key})")),
        }
    }
    Ok(warnings)
}

/// Chooses the version of a configuration to deploy among the published ones.
pub(crate) fn choose_version(id: &str, wanted: Option<&str>, published: &[Object]) -> Result<String, JobError> {
    let found = match wanted {
        Some(wanted) => published.iter().filter_map(published_version).find(|version| version == wanted),
        None => newest(published),
    };
    found.ok_or_else(|| {
        let which =
            wanted.map_or_else(|| "a published version".to_owned(), |wanted| format!("the published version {wanted}"));
        let message =
            format!("there is no configuration {id} with {which}: correct configuration.id or configuration.version");
        JobError { status: Some(404), ..JobError::permanent("configuration_not_found", message) }
    })
}

/// Returns the newest of these versions.
pub(crate) fn newest(published: &[Object]) -> Option<String> {
    let number = |version: &String| version.parse::<u64>().ok();
    published.iter().filter_map(published_version).filter(|version| number(version).is_some()).max_by_key(number)
}

/// Returns the status of an object, in lower case.
pub(crate) fn status(object: Option<&Object>) -> Option<&'static str> {
    const KNOWN: [&str; 5] = ["active", "inactive", "pending", "error", "deleting"];
    let status = text(object?, "status")?;
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(status))
}

/// Returns true if a deployment serves this version of this configuration.
pub(crate) fn serves(served: Option<&Object>, id: &str, version: &str) -> bool {
    served.is_some_and(|served| {
        api::id(served).is_some_and(|found| found.eq_ignore_ascii_case(id))
            && published_version(served).as_deref() == Some(version)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(value: Value) -> Object {
        match value {
            Value::Object(members) => members,
            other => panic!("{other} is no object"),
        }
    }

    fn plan(job: &str, more: Value) -> DeploymentPlan {
        let mut payload = object(json!({
            "name": "Shop", "flowId": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "allowedDomains": ["shop.example"],
            "configuration": {"document": {}},
        }));
        payload.extend(object(more));
        DeploymentPlan::of(format!("[genfleet:{job:0>16}]"), serde_json::from_value(Value::Object(payload)).unwrap())
    }

    #[test]
    fn only_a_published_inbound_message_flow_takes_conversations() {
        let flow = |change: Value| {
            let mut flow = object(
                json!({"id": "f", "type": "INBOUNDSHORTMESSAGE", "deleted": false, "publishedVersion": {"id": "3.0"}}),
            );
            flow.extend(object(change));
            published_flow("f", Some(&flow)).map_err(|error| error.code)
        };
        assert_eq!(flow(json!({})).as_deref(), Ok("3.0"));
        assert_eq!(flow(json!({"publishedVersion": {"commitVersion": "2.0"}})).as_deref(), Ok("2.0"));
        for (change, code) in [
            (json!({"deleted": true}), "flow_not_found"),
            (json!({"type": "INBOUNDCALL"}), "flow_wrong_type"),
            (json!({"type": null}), "flow_wrong_type"),
            (json!({"publishedVersion": null}), "flow_not_published"),
            (json!({"publishedVersion": {}}), "flow_not_published"),
        ] {
            assert_eq!(flow(change.clone()), Err(code), "{change}");
        }
        assert_eq!(published_flow("f", None).unwrap_err().code, "flow_not_found");
    }

    #[test]
    fn a_name_is_taken_or_its_deployment_is_the_one_to_update() {
        let there = |id: &str, name: &str| object(json!({"id": id, "name": name}));
        let uuid = "3f2504e0-4f89-41d3-9a0c-0305e82c3302";
        let shops = [there("d1", "Shop"), there("d2", "Shop"), there("d3", "shop")];
        let of = |more: Value, there: &[Object]| target(&plan("a", more), there).map_err(|error| error.code);
        assert_eq!(of(json!({}), &[]), Ok(None));
        assert_eq!(of(json!({}), &shops[2..]), Ok(None), "another name");
        assert_eq!(of(json!({}), &shops[..1]), Err("name_taken"));
        assert_eq!(of(json!({"onExisting": "update"}), &shops[..1]), Ok(Some("d1".to_owned())));
        assert_eq!(of(json!({"onExisting": "update"}), &shops), Err("name_taken"), "which of the two?");
        assert_eq!(of(json!({"deploymentId": uuid}), &[there(uuid, "Shop")]), Ok(Some(uuid.to_owned())));
        assert_eq!(of(json!({"deploymentId": uuid}), &[]), Ok(Some(uuid.to_owned())));
        assert_eq!(of(json!({"deploymentId": uuid}), &shops), Err("name_taken"));
    }

    #[test]
    fn of_jobs_of_one_name_the_one_with_the_oldest_configuration_goes_on() {
        let (one, other) = (plan("a", json!({})), plan("b", json!({})));
        let made = |plan: &DeploymentPlan, id: &str, at: &str| {
            object(json!({"id": id, "name": "Shop", "description": plan.marker, "dateCreated": at}))
        };
        let of = |there: &[Object]| first_of_rivals(&one, "own", there).map_err(|error| error.code);
        let own = made(&one, "own", "2026-01-01T00:00:10Z");
        assert_eq!(of(std::slice::from_ref(&own)), Ok(()));
        assert_eq!(of(&[own.clone(), made(&other, "x", "2026-01-01T00:00:09Z")]), Err("name_taken"));
        assert_eq!(of(&[own.clone(), made(&other, "x", "2026-01-01T00:00:11Z")]), Ok(()));
        assert_eq!(of(&[own.clone(), made(&other, "a", "2026-01-01T00:00:10Z")]), Err("name_taken"), "the ids decide");
        assert_eq!(of(&[own.clone(), made(&other, "x", "2025-12-31T23:00:00Z")]), Ok(()), "long ago");
        let unmarked = object(json!({"id": "x", "name": "Shop", "dateCreated": "2026-01-01T00:00:09Z"}));
        assert_eq!(of(&[own, unmarked]), Ok(()), "nobody's");
        assert_eq!(of(&[]), Ok(()), "it does not show yet");
    }

    #[test]
    fn what_is_one_too_many_is_not_made() {
        let listed = Listed {
            deployments: Listing { total: 5, ..Listing::default() },
            configurations: Some(Listing { total: 9, ..Listing::default() }),
        };
        let limits = |deployments: u64, configurations: u64| {
            vec![("deployments.max".to_owned(), deployments), ("configuration.max".to_owned(), configurations)]
        };
        let of = |makes, limits: &[(String, u64)]| {
            within_limits(&count_added(makes, &listed), limits).map_err(|error| error.code)
        };
        assert_eq!(of(true, &limits(6, 10)), Ok(vec![]));
        assert_eq!(of(true, &limits(5, 10)), Err("deployment_limit_reached"));
        assert_eq!(of(false, &limits(5, 10)), Ok(vec![]), "none is made");
        assert_eq!(of(true, &limits(6, 9)), Err("deployment_limit_reached"));
        let warnings = of(true, &[]).unwrap();
        assert!(warnings.len() == 2 && warnings[0].contains("deployments.max"), "{warnings:?}");
        assert_eq!(count_added(false, &Listed::default()), []);
    }

    #[test]
    fn the_newest_published_version_is_the_highest_number() {
        let versions = ["2", "10", "9"].map(|version| object(json!({"version": version})));
        assert_eq!(newest(&versions).as_deref(), Some("10"));
        assert_eq!(choose_version("c", Some("9"), &versions).as_deref(), Ok("9"));
        assert_eq!(choose_version("c", Some("3"), &versions).unwrap_err().code, "configuration_not_found");
        assert_eq!(choose_version("c", None, &[]).unwrap_err().code, "configuration_not_found");
    }

    #[test]
    fn a_status_and_a_served_version_are_read_as_the_platform_writes_them() {
        assert_eq!(status(Some(&object(json!({"status": "Active"})))), Some("active"));
        assert_eq!(status(Some(&object(json!({"status": "Odd"})))), None);
        assert_eq!(status(None), None);
        let served = object(json!({"id": "C", "version": "3"}));
        assert!(serves(Some(&served), "c", "3") && !serves(Some(&served), "c", "2") && !serves(None, "c", "3"));
    }
}
