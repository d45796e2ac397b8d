//! The typed API calls of this kind, and the meaning of their answers. The callers decide when to make them.
#![expect(clippy::result_large_err, reason = "once per step, and it goes no further than the worker")]

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::{ApiAnswer, ApiError, ApiRequest, Listing as Pages},
    handler::JobContext,
};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The permissions that an administrator grants to the role of the OAuth client.
pub(crate) const PERMISSIONS: &[&str] = &[
    "webDeployments:configuration:view",
    "webDeployments:configuration:add",
    "webDeployments:configuration:edit",
    "webDeployments:configuration:delete",
    "webDeployments:deployment:view",
    "webDeployments:deployment:add",
    "webDeployments:deployment:edit",
    "architect:flow:view",
    "routing:queue:view",
    "architect:dependencyTracking:view",
];

pub(crate) const CONFIGURATIONS: &str = "/api/v2/webdeployments/configurations";
pub(crate) const DEPLOYMENTS: &str = "/api/v2/webdeployments/deployments";
pub(crate) const PUBLISH: &str = "/api/v2/webdeployments/configurations/{configurationId}/versions/draft/publish";
const CONFIGURATION: &str = "/api/v2/webdeployments/configurations/{configurationId}";
const VERSIONS: &str = "/api/v2/webdeployments/configurations/{configurationId}/versions";
const DRAFT: &str = "/api/v2/webdeployments/configurations/{configurationId}/versions/draft";
const DEPLOYMENT: &str = "/api/v2/webdeployments/deployments/{deploymentId}";
const ACTIVE: &str = "/api/v2/webdeployments/deployments/{deploymentId}/configurations";
const FLOW: &str = "/api/v2/flows/{flowId}";
const QUEUE: &str = "/api/v2/routing/queues/{queueId}";
const CONSUMED: &str = "/api/v2/architect/dependencytracking/consumedresources";
const LIMITS: &str = "/api/v2/organizations/limits/namespaces/web.deployments";

/// The statuses of a read whose object exists or does not exist (yet).
const THERE_OR_NOT: &[u16] = &[200, 404, 408, 410];
/// The name of the unpublished version.
const DRAFT_VERSION: &str = "DRAFT";

/// An object as the API returns it.
pub(crate) type Object = Map<String, Value>;

/// All objects of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// The objects in the API's order.
    pub entities: Vec<Object>,
    /// The total number of objects.
    pub total: u64,
}

/// The result of creating an object.
#[derive(Clone, Debug)]
pub(crate) enum Ordered {
    /// It was made.
    Made(Object),
    /// The result is unknown: the answer was lost, or does not contain the object.
    Lost(JobError),
    /// The object was not created.
    Refused(JobError),
}

/// The result of changing an object.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time per job, and never in a collection")]
pub(crate) enum Changed {
    /// It was made.
    Done,
    /// Somebody else has changed the object first.
    Stale(JobError),
}

/// The result of deleting an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// The object is deleted.
    Removed,
    /// The object does not exist, or reads do not show it yet.
    NotThere,
}

#[derive(Deserialize)]
struct Limit {
    key: Option<String>,
    value: Option<f64>,
}

#[derive(Deserialize)]
struct Limits {
    #[serde(default)]
    entities: Vec<Limit>,
}

/// The API, on behalf of one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenesysWebDeployments<'a> {
    job: &'a JobContext,
}

impl<'a> GenesysWebDeployments<'a> {
    /// Creates a client for `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }

    /// Reads the flow, if it exists.
    pub(crate) async fn flow(&self, id: &str) -> Result<Option<Object>, JobError> {
        self.object(ApiRequest::get(FLOW).ids(&[id]).expect_member("id", id)).await
    }

    /// Checks whether this routing queue exists.
    pub(crate) async fn has_queue(&self, id: &str) -> Result<bool, JobError> {
        Ok(self.object(ApiRequest::get(QUEUE).ids(&[id]).expect_member("id", id)).await?.is_some())
    }

    /// Checks whether this version of a flow uses the queue; `None` if the platform does not report it.
    pub(crate) async fn uses_queue(&self, flow: &str, version: &str, queue: &str) -> Result<Option<bool>, JobError> {
        let request = ApiRequest::get(CONSUMED).query("id", flow).query("version", version);
        let request = request.query("objectType", "INBOUNDSHORTMESSAGEFLOW").query("resourceType", "QUEUE");
        match self.job.list(Pages::<Object>::by_number(request)).await {
            Ok(listed) => {
                let is_queue = |one: &Object| text(one, "id").is_some_and(|id| id.eq_ignore_ascii_case(queue));
                Ok(Some(listed.entities.iter().any(is_queue)))
            }
            Err(error) if matches!(error.status, Some(404 | 409 | 410)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lists all deployments. The list shows fewer members than a read of one.
    pub(crate) async fn deployments(&self) -> Result<Listing, JobError> {
        self.list(ApiRequest::get(DEPLOYMENTS)).await
    }

    /// Lists the drafts of all configurations.
    pub(crate) async fn configurations(&self) -> Result<Listing, JobError> {
        self.list(ApiRequest::get(CONFIGURATIONS)).await
    }

    /// Lists the published versions of a configuration. Empty if it does not exist.
    pub(crate) async fn published_versions(&self, id: &str) -> Result<Vec<Object>, JobError> {
        let mut versions = match self.list(ApiRequest::get(VERSIONS).ids(&[id])).await {
            Ok(listing) => listing.entities,
            Err(error) if error.class == ErrorClass::Permanent && error.status == Some(404) => Vec::new(),
            Err(error) => return Err(error),
        };
        versions.retain(|one| published_version(one).is_some());
        Ok(versions)
    }

    /// Reads the limits of the organisation by key. Empty if the platform does not report them.
    pub(crate) async fn limits(&self) -> Result<Vec<(String, u64)>, JobError> {
        let answer = self.job.send(ApiRequest::get(LIMITS).expect(&[200, 404])).await?;
        if answer.status != 200 {
            return Ok(Vec::new());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates; a limit is a small count"
        )]
        let limit = |one: Limit| Some((one.key?, one.value? as u64));
        Ok(answer.json::<Limits>()?.entities.into_iter().filter_map(limit).collect())
    }

    /// Creates a configuration.
    pub(crate) async fn create_configuration(&self, body: &Value) -> Ordered {
        self.order(ApiRequest::post(CONFIGURATIONS).json(body)).await
    }

    /// Reads the draft of a configuration, if reads show it.
    pub(crate) async fn draft(&self, id: &str) -> Result<Option<Object>, JobError> {
        self.object(ApiRequest::get(DRAFT).ids(&[id]).expect_member("id", id)).await
    }

    /// Changes the draft of a configuration.
    pub(crate) async fn put_draft(&self, id: &str, body: &Object) -> Result<Changed, JobError> {
        self.put(ApiRequest::put(DRAFT).ids(&[id]).json(body)).await
    }

    /// Publishes the draft of a configuration.
    pub(crate) async fn publish(&self, id: &str) -> Ordered {
        match self.order(ApiRequest::post(PUBLISH).ids(&[id])).await {
            Ordered::Made(version) if published_version(&version).is_none() => {
                Ordered::Lost(ambiguous_answer("the answer to publishing shows no published version"))
            }
            other => other,
        }
    }

    /// Deletes a configuration.
    pub(crate) async fn delete_configuration(&self, id: &str) -> Result<Deleted, JobError> {
        let request = ApiRequest::delete(CONFIGURATION).ids(&[id]).expect(&[200, 202, 204, 404, 410]);
        let answer = self.job.send(request.allow_empty_body()).await?;
        Ok(if matches!(answer.status, 404 | 410) { Deleted::NotThere } else { Deleted::Removed })
    }

    /// Creates a deployment.
    pub(crate) async fn create_deployment(&self, body: &Object) -> Ordered {
        self.order(ApiRequest::post(DEPLOYMENTS).json(body)).await
    }

    /// Reads the deployment, if reads show it.
    pub(crate) async fn deployment(&self, id: &str) -> Result<Option<Object>, JobError> {
        self.object(ApiRequest::get(DEPLOYMENT).ids(&[id]).expect_member("id", id)).await
    }

    /// Changes a deployment.
    pub(crate) async fn put_deployment(&self, id: &str, body: &Object) -> Result<Changed, JobError> {
        self.put(ApiRequest::put(DEPLOYMENT).ids(&[id]).json(body)).await
    }

    /// Reads the configuration version that a deployment serves, if it serves one.
    pub(crate) async fn served_version(&self, id: &str) -> Result<Option<Object>, JobError> {
        let served = self.object(ApiRequest::get(ACTIVE).ids(&[id])).await?;
        Ok(served.and_then(|answer| answer.get("configurationVersion")?.as_object().cloned()))
    }

    async fn object(&self, request: ApiRequest) -> Result<Option<Object>, JobError> {
        let answer = self.job.send(request.expect(THERE_OR_NOT)).await?;
        Ok(if answer.status == 200 { Some(answer.json()?) } else { None })
    }

    /// Reads all pages of a list with a cursor.
    async fn list(&self, request: ApiRequest) -> Result<Listing, JobError> {
        let listed = self.job.list(Pages::<Object>::by_cursor(request)).await?;
        let counted = listed.entities.len() as u64;
        Ok(Listing { total: listed.total.unwrap_or(0).max(counted), entities: listed.entities })
    }

    /// Sends a request that creates an object. It is sent only once: if the result is unknown, the caller looks it up.
    async fn order(&self, request: ApiRequest) -> Ordered {
        match self.job.send(request.expect(&[200, 201, 202])).await {
            Ok(answer) => parse_created(&answer).map_or_else(Ordered::Lost, Ordered::Made),
            Err(error) if is_lost(&error) => Ordered::Lost(error.into()),
            Err(error) => Ordered::Refused(error.into()),
        }
    }

    async fn put(&self, request: ApiRequest) -> Result<Changed, JobError> {
        match self.job.send(request).await {
            Ok(_) => Ok(Changed::Done),
            Err(error) if error.is_stale_version(&Method::PUT) => Ok(Changed::Stale(error.into())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the id of an object, if it can be used in a path.
pub(crate) fn id(object: &Object) -> Option<&str> {
    let fits = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text(object, "id").filter(fits)
}

/// Returns a member that is a text.
pub(crate) fn text<'a>(object: &'a Object, member: &str) -> Option<&'a str> {
    object.get(member).and_then(Value::as_str)
}

/// Returns the version of a configuration, if it is a published one. The platform declares it as text.
pub(crate) fn published_version(object: &Object) -> Option<String> {
    let version = match object.get("version")? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!version.is_empty() && !version.eq_ignore_ascii_case(DRAFT_VERSION)).then_some(version)
}

fn parse_created(answer: &ApiAnswer) -> Result<Object, JobError> {
    let object: Object = answer.json()?;
    match id(&object) {
        Some(_) => Ok(object),
        None => Err(ambiguous_answer("the answer to a request that makes something shows no id")),
    }
}

fn ambiguous_answer(what: &str) -> JobError {
    JobError::new(ErrorClass::Ambiguous, "unexpected_response", what)
}

/// Returns true if the request may have had its effect although it failed.
fn is_lost(error: &ApiError) -> bool {
    let unreadable =
        error.class == ErrorClass::Permanent && error.status.is_none() && error.code == "unexpected_response";
    error.class == ErrorClass::Ambiguous || unreadable
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn only_a_published_version_is_one() {
        for (version, found) in [
            (json!("3"), Some("3")),
            (json!(3), Some("3")),
            (json!("DRAFT"), None),
            (json!("draft"), None),
            (json!(""), None),
            (json!(null), None),
        ] {
            assert_eq!(published_version(&object(&json!({"version": version}))).as_deref(), found, "{version}");
        }
        assert_eq!(published_version(&Object::new()), None);
    }

    #[test]
    fn an_id_fits_into_a_path() {
        let of = |id: Value| super::id(&object(&json!({"id": id}))).map(str::to_owned);
        assert_eq!(
            of(json!("3f2504e0-4f89-41d3-9a0c-0305e82c3301")).as_deref(),
            Some("3f2504e0-4f89-41d3-9a0c-0305e82c3301")
        );
        for wrong in [json!(""), json!("a/b"), json!("../x"), json!(1), json!("a?b"), json!("x".repeat(129))] {
            assert_eq!(of(wrong.clone()), None, "{wrong}");
        }
    }
}
