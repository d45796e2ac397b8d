//! The typed API calls of this kind, and the meaning of their answers. The callers decide when to make them.

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::{ApiAnswer, ApiError, ApiRequest, Listing},
    handler::JobContext,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{IntegrationConfig, SourceIdentity};

/// The permissions that the calls need.
pub(crate) const PERMISSIONS: [&str; 3] =
    ["integrations:integration:view", "integrations:integration:add", "integrations:integration:edit"];
/// The endpoint at which integrations are created and listed.
pub(crate) const INTEGRATIONS: &str = "/api/v2/integrations";
const INTEGRATION: &str = "/api/v2/integrations/{integrationId}";
/// The endpoint of a configuration.
pub(crate) const CONFIG: &str = "/api/v2/integrations/{integrationId}/config/current";
const TYPE: &str = "/api/v2/integrations/types/{typeId}";
const ORGANIZATION: &str = "/api/v2/organizations/me";
const EVENTBRIDGE: &str = "amazon-eventbridge-source";
/// The statuses of an object that does not exist (yet).
const NOT_THERE: [u16; 3] = [404, 408, 410];

/// An integration as the API returns it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Integration {
    pub id: String,
    pub name: Option<String>,
    #[serde(rename = "integrationType")]
    kind: Option<IntegrationType>,
    pub intended_state: Option<String>,
    pub reported_state: Option<ReportedState>,
    config: Option<Current>,
}

/// The reported state of an integration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ReportedState {
    pub code: Option<String>,
    effective: Option<String>,
    detail: Option<Detail>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Detail {
    message: Option<String>,
    message_with_params: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IntegrationType {
    id: Option<String>,
    max_instances: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Current {
    current: Option<Properties>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Properties {
    properties: Option<Map<String, Value>>,
}

/// The result of creating an integration.
#[derive(Debug)]
pub(crate) enum Ordered {
    /// The integration was created, with this id.
    Made(String),
    /// The name is already used (409).
    Taken(JobError),
    /// The result is unknown, because the answer was lost.
    Lost(JobError),
    /// The integration was not created.
    Refused(JobError),
}

/// The result of sending a configuration.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// The configuration is stored, with this version if the API reports it.
    Done(Option<i64>),
    /// The existing version is not the given one.
    Stale(ApiError),
}

impl Integration {
    /// Returns the event source that it feeds, if the list contains its configuration.
    pub(crate) fn identity(&self) -> Option<SourceIdentity> {
        SourceIdentity::read(self.config.as_ref()?.current.as_ref()?.properties.as_ref()?)
    }

    /// Returns the code of its reported state, in capitals; empty if it has none.
    pub(crate) fn reported_state(&self) -> String {
        let code = self.reported_state.as_ref().and_then(|state| state.code.as_deref());
        code.unwrap_or_default().to_ascii_uppercase()
    }

    /// Returns the reason for its reported state, for people.
    pub(crate) fn reason(&self) -> &str {
        let Some(state) = &self.reported_state else { return "the platform gives no reason" };
        let detail = state.detail.as_ref();
        let message = detail.and_then(|detail| detail.message_with_params.as_ref().or(detail.message.as_ref()));
        message.or(state.effective.as_ref()).map_or("the platform gives no reason", String::as_str)
    }

    /// Returns true if it has this type and is not deleted.
    fn is_ours(&self) -> bool {
        let kind = self.kind.as_ref().and_then(|kind| kind.id.as_deref());
        kind.is_none_or(|kind| kind == EVENTBRIDGE) && self.intended_state.as_deref() != Some("DELETED")
    }
}

/// The integrations of Genesys Cloud, for one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Integrations<'a> {
    job: &'a JobContext,
}

impl<'a> Integrations<'a> {
    /// Creates a client for `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }

    /// Lists all integrations of this type.
    pub(crate) async fn list(&self) -> Result<Vec<Integration>, JobError> {
        let request = ApiRequest::get(INTEGRATIONS).query("integrationType", EVENTBRIDGE);
        let listing = Listing::by_number(request.query("expand", "config.current"));
        let mut all: Vec<Integration> = self.job.list(listing).await?.entities;
        all.retain(Integration::is_ours);
        Ok(all)
    }

    /// Reads the maximum number of integrations of this type, if the API reports it.
    pub(crate) async fn max_instances(&self) -> Result<Option<u64>, JobError> {
        let request = ApiRequest::get(TYPE).ids(&[EVENTBRIDGE]);
        Ok(self.job.send(request.expect_member("id", EVENTBRIDGE)).await?.json::<IntegrationType>()?.max_instances)
    }

    /// Creates an integration. The request is sent only once: if the result is unknown, the caller looks it up.
    pub(crate) async fn create(&self, name: &str) -> Ordered {
        let body = json!({ "name": name, "integrationType": { "id": EVENTBRIDGE } });
        match self.job.send(ApiRequest::post(INTEGRATIONS).json(&body)).await {
            // A success without an integration may still have created one.
            Ok(answer) => match answer.json::<Integration>() {
                Ok(made) if !made.id.is_empty() => Ordered::Made(made.id),
                Ok(_) => Ordered::Lost(nameless(&answer)),
                Err(error) => Ordered::Lost(error.into()),
            },
            Err(error) => match (error.class, error.status) {
                (ErrorClass::Permanent, Some(409)) => Ordered::Taken(error.into()),
                (ErrorClass::Ambiguous, _) => Ordered::Lost(error.into()),
                // The answer is too long to be parsed.
                (ErrorClass::Permanent, None) if error.code == "unexpected_response" => Ordered::Lost(error.into()),
                _ => Ordered::Refused(error.into()),
            },
        }
    }

    /// Reads the configuration, if reads show it. `name` is the integration's.
    pub(crate) async fn config(&self, id: &str, name: &str) -> Result<Option<IntegrationConfig>, JobError> {
        let request = ApiRequest::get(CONFIG).ids(&[id]).expect(&[200, 404, 408, 410]);
        let answer = self.job.send(request).await?;
        if NOT_THERE.contains(&answer.status) {
            return Ok(None);
        }
        IntegrationConfig::read(answer.json()?, name).map(Some).map_err(|why| {
            let message = format!("the configuration of integration {id} is not what was promised: {why}");
            JobError { status: Some(answer.status), ..JobError::permanent("unexpected_response", message) }
        })
    }

    /// Replaces the version in `config` by `config`. Safe to repeat: after a lost answer, a repeat can only find that
    /// its own change has made its version stale.
    pub(crate) async fn replace(&self, id: &str, config: &IntegrationConfig) -> Result<Replaced, ApiError> {
        match self.job.send(ApiRequest::put(CONFIG).ids(&[id]).json(config)).await {
            Ok(answer) => {
                let body: Map<String, Value> = answer.json()?;
                Ok(Replaced::Done(body.get("version").and_then(Value::as_i64)))
            }
            Err(error) if is_stale(&error) => Ok(Replaced::Stale(error)),
            Err(error) => Err(error),
        }
    }

    /// Sets the requested state of the integration: `ENABLED` or `DISABLED`.
    pub(crate) async fn intend(&self, id: &str, state: &str) -> Result<(), JobError> {
        let request = ApiRequest::patch(INTEGRATION).ids(&[id]).json(&json!({ "intendedState": state }));
        self.job.send(request).await?;
        Ok(())
    }

    /// Reads the integration, if reads show it.
    pub(crate) async fn read(&self, id: &str) -> Result<Option<Integration>, JobError> {
        let request = ApiRequest::get(INTEGRATION).ids(&[id]).expect_member("id", id).expect(&[200, 404, 408, 410]);
        let answer = self.job.send(request).await?;
        Ok(if NOT_THERE.contains(&answer.status) { None } else { Some(answer.json()?) })
    }

    /// Reads the id of the organisation.
    pub(crate) async fn organization(&self) -> Result<String, JobError> {
        let answer = self.job.send(ApiRequest::get(ORGANIZATION)).await?;
        let body: Map<String, Value> = answer.json()?;
        match body.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(id) => Ok(id.to_owned()),
            None => Err(nameless(&answer)),
        }
    }
}

/// Returns true for a conflict: a 409, or a 400 that describes one.
fn is_stale(error: &ApiError) -> bool {
    let detail = |member: &str| error.details.get(member).and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let says_so = |text: String| text.contains("does not match") && text.contains("version");
    error.class == ErrorClass::Permanent
        && match error.status {
            Some(409) => true,
            Some(400) => ["message", "messageWithParams"].iter().any(|member| says_so(detail(member))),
            _ => false,
        }
}

fn nameless(answer: &ApiAnswer) -> JobError {
    let message = format!("the API answered {} with a body that has no id", answer.status);
    let error = JobError::permanent("unexpected_response", message);
    JobError { status: Some(answer.status), request_id: answer.request_id.clone(), ..error }
}
