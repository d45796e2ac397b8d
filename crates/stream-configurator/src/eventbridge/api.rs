//! The remote calls of this kind, and what their answers mean to it. When which call is due is not decided here.

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::{ApiAnswer, ApiError, ApiRequest, Listing},
    handler::JobContext,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{Config, Identity};

/// The permissions that the calls need.
pub(crate) const PERMISSIONS: [&str; 3] =
    ["integrations:integration:view", "integrations:integration:add", "integrations:integration:edit"];
/// Where integrations are created and listed.
pub(crate) const INTEGRATIONS: &str = "/api/v2/integrations";
const INTEGRATION: &str = "/api/v2/integrations/{integrationId}";
/// Where a configuration is.
pub(crate) const CONFIG: &str = "/api/v2/integrations/{integrationId}/config/current";
const TYPE: &str = "/api/v2/integrations/types/{typeId}";
const ORGANIZATION: &str = "/api/v2/organizations/me";
const EVENTBRIDGE: &str = "amazon-eventbridge-source";
/// "Not there (yet)", as the platform says it.
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

/// How an integration fares.
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

/// What became of an order for an integration.
#[derive(Debug)]
pub(crate) enum Ordered {
    /// It was created, with this id.
    Made(String),
    /// Somebody else has the name: 409.
    Taken(JobError),
    /// Nobody knows: the answer was lost.
    Lost(JobError),
    /// It was not created.
    Refused(JobError),
}

/// What became of a configuration that was sent.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// It is stored, with this version if the API says so.
    Done(Option<i64>),
    /// Another version is there than the one that was named.
    Stale(ApiError),
}

impl Integration {
    /// The event source that it feeds, if the list told its configuration.
    pub(crate) fn identity(&self) -> Option<Identity> {
        Identity::told(self.config.as_ref()?.current.as_ref()?.properties.as_ref()?)
    }

    /// The code of its reported state, in capitals; empty if it has none.
    pub(crate) fn reported(&self) -> String {
        let code = self.reported_state.as_ref().and_then(|state| state.code.as_deref());
        code.unwrap_or_default().to_ascii_uppercase()
    }

    /// Why it is in its reported state, for people.
    pub(crate) fn reason(&self) -> &str {
        let Some(state) = &self.reported_state else { return "the platform gives no reason" };
        let detail = state.detail.as_ref();
        let told = detail.and_then(|detail| detail.message_with_params.as_ref().or(detail.message.as_ref()));
        told.or(state.effective.as_ref()).map_or("the platform gives no reason", String::as_str)
    }

    /// Counts for an organisation: of this type, and not deleted.
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
    /// Calls on behalf of `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }

    /// All integrations of this type.
    pub(crate) async fn list(&self) -> Result<Vec<Integration>, JobError> {
        let request = ApiRequest::get(INTEGRATIONS).query("integrationType", EVENTBRIDGE);
        let listing = Listing::by_number(request.query("expand", "config.current"));
        let mut all: Vec<Integration> = self.job.list(listing).await?.entities;
        all.retain(Integration::is_ours);
        Ok(all)
    }

    /// How many integrations of this type the organisation may have, if the API says so.
    pub(crate) async fn max_instances(&self) -> Result<Option<u64>, JobError> {
        let request = ApiRequest::get(TYPE).at(format!("/api/v2/integrations/types/{EVENTBRIDGE}"));
        Ok(self.job.send(request.about("id", EVENTBRIDGE)).await?.json::<IntegrationType>()?.max_instances)
    }

    /// Orders an integration. Sent once: who does not know what became of it looks.
    pub(crate) async fn create(&self, name: &str) -> Ordered {
        let body = json!({ "name": name, "integrationType": { "id": EVENTBRIDGE } });
        match self.job.send(ApiRequest::post(INTEGRATIONS).json(&body)).await {
            // A success that is no integration may have made one all the same.
            Ok(answer) => match answer.json::<Integration>() {
                Ok(made) if !made.id.is_empty() => Ordered::Made(made.id),
                Ok(_) => Ordered::Lost(nameless(&answer)),
                Err(error) => Ordered::Lost(error.into()),
            },
            Err(error) => match (error.class, error.status) {
                (ErrorClass::Permanent, Some(409)) => Ordered::Taken(error.into()),
                (ErrorClass::Ambiguous, _) => Ordered::Lost(error.into()),
                // Too long to be read.
                (ErrorClass::Permanent, None) if error.code == "unexpected_response" => Ordered::Lost(error.into()),
                _ => Ordered::Refused(error.into()),
            },
        }
    }

    /// The configuration, if it can be seen. `name` is the integration's.
    pub(crate) async fn config(&self, id: &str, name: &str) -> Result<Option<Config>, JobError> {
        let request = ApiRequest::get(CONFIG).at(config_path(id)).expect(&[200, 404, 408, 410]);
        let answer = self.job.send(request).await?;
        if NOT_THERE.contains(&answer.status) {
            return Ok(None);
        }
        Config::read(answer.json()?, name).map(Some).map_err(|why| {
            let message = format!("the configuration of integration {id} is not what was promised: {why}");
            JobError { status: Some(answer.status), ..JobError::permanent("unexpected_response", message) }
        })
    }

    /// Puts `config` in the place of the version that it names. Safe to repeat: of a repeat after an answer that was
    /// lost, the worst is that its own change made its version stale.
    pub(crate) async fn replace(&self, id: &str, config: &Config) -> Result<Replaced, ApiError> {
        match self.job.send(ApiRequest::put(CONFIG).at(config_path(id)).json(config)).await {
            Ok(answer) => {
                let told: Map<String, Value> = answer.json()?;
                Ok(Replaced::Done(told.get("version").and_then(Value::as_i64)))
            }
            Err(error) if is_stale(&error) => Ok(Replaced::Stale(error)),
            Err(error) => Err(error),
        }
    }

    /// Says which state the integration is to have: `ENABLED` or `DISABLED`.
    pub(crate) async fn intend(&self, id: &str, state: &str) -> Result<(), JobError> {
        let request = ApiRequest::patch(INTEGRATION).at(path(id)).json(&json!({ "intendedState": state }));
        self.job.send(request).await?;
        Ok(())
    }

    /// The integration, if it can be seen.
    pub(crate) async fn look(&self, id: &str) -> Result<Option<Integration>, JobError> {
        let request = ApiRequest::get(INTEGRATION).at(path(id)).about("id", id).expect(&[200, 404, 408, 410]);
        let answer = self.job.send(request).await?;
        Ok(if NOT_THERE.contains(&answer.status) { None } else { Some(answer.json()?) })
    }

    /// The id of the organisation.
    pub(crate) async fn organization(&self) -> Result<String, JobError> {
        let answer = self.job.send(ApiRequest::get(ORGANIZATION)).await?;
        let told: Map<String, Value> = answer.json()?;
        match told.get("id").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            Some(id) => Ok(id.to_owned()),
            None => Err(nameless(&answer)),
        }
    }
}

/// 409, or a 400 that says so.
fn is_stale(error: &ApiError) -> bool {
    let told = |member: &str| error.details.get(member).and_then(Value::as_str).unwrap_or_default().to_lowercase();
    let says_so = |text: String| text.contains("does not match") && text.contains("version");
    error.class == ErrorClass::Permanent
        && match error.status {
            Some(409) => true,
            Some(400) => ["message", "messageWithParams"].iter().any(|member| says_so(told(member))),
            _ => false,
        }
}

fn nameless(answer: &ApiAnswer) -> JobError {
    let message = format!("the API answered {} with a body that has no id", answer.status);
    let error = JobError::permanent("unexpected_response", message);
    JobError { status: Some(answer.status), request_id: answer.request_id.clone(), ..error }
}

fn path(id: &str) -> String {
    format!("{INTEGRATIONS}/{}", encoded(id))
}

fn config_path(id: &str) -> String {
    format!("{}/config/current", path(id))
}

/// An id of the platform is a UUID; any other is made fit for a path.
fn encoded(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    id.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
