//! Amazon `EventBridge` integrations: created by name, configured by version, switched on and off; shown late and
//! active late, as on the platform.
//!
//! The platform does not say that names are unique, so here they are not.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::errors::ApiError;

/// The one type of integration that there is.
const TYPE: &str = "amazon-eventbridge-source";
const MOST_IN_A_PAGE: usize = 100;
/// The members that a configuration has to have.
const MEMBERS: [&str; 6] = ["name", "version", "properties", "advanced", "notes", "credentials"];
const READ_ONLY: [&str; 2] = ["id", "selfUri"];

/// The integrations, oldest first, and how they behave.
#[derive(Debug)]
pub(crate) struct Integrations {
    all: Vec<Integration>,
    organization: String,
    max_instances: Option<usize>,
    /// Time for which a new integration is missing in lists.
    list_lag: Duration,
    /// Time for which it is missing in all other answers.
    read_lag: Duration,
    /// Time until it becomes active or inactive.
    activation: Duration,
    /// If set, no integration becomes active, and this is the reported reason.
    failure: Option<String>,
    /// Before so many of the next changes, somebody else changes the configuration.
    changed_by_others: u32,
    /// A stale version is told by this status.
    stale_status: StatusCode,
}

#[derive(Debug)]
struct Integration {
    id: String,
    created: Instant,
    /// Its members as they are told, `version` included.
    config: Value,
    intended: &'static str,
    /// Since when it is on its way to what is intended.
    since: Instant,
    /// Changes of its configuration.
    changes: u64,
}

/// The changes that a test may make; missing members are not changed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IntegrationsChange {
    /// Added as somebody else would: `{"name": …, "properties": …, "intendedState": …}`.
    integration: Option<Seeded>,
    max_instances: Option<usize>,
    list_lag_ms: Option<u64>,
    read_lag_ms: Option<u64>,
    activation_ms: Option<u64>,
    /// Empty: activation works again.
    failure: Option<String>,
    changed_by_others: Option<u32>,
    stale_status: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Seeded {
    name: String,
    #[serde(default)]
    properties: Value,
    #[serde(default)]
    advanced: Value,
    #[serde(default)]
    credentials: Value,
    #[serde(default)]
    notes: String,
    #[serde(default)]
    enabled: bool,
}

/// The requested page of the integrations.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing {
    integration_type: Option<String>,
    expand: Option<String>,
    page_size: Option<usize>,
    page_number: Option<usize>,
}

impl Listing {
    /// Returns true if configurations are to be told with integrations.
    pub(crate) fn expands(&self) -> bool {
        self.expand.as_deref().is_some_and(|expand| expand.contains("config.current"))
    }
}

impl Default for Integrations {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            organization: Uuid::new_v4().to_string(),
            max_instances: Some(50),
            list_lag: Duration::ZERO,
            read_lag: Duration::ZERO,
            activation: Duration::ZERO,
            failure: None,
            changed_by_others: 0,
            stale_status: StatusCode::CONFLICT,
        }
    }
}

impl Integrations {
    /// Returns the content for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        let now = Instant::now();
        let one = |one: &Integration| {
            let mut integration = self.integration_json(one, true, now);
            integration["changes"] = one.changes.into();
            integration
        };
        json!({
            "organizationId": self.organization,
            "integrations": self.all.iter().map(one).collect::<Vec<_>>(),
            "changedByOthers": self.changed_by_others,
        })
    }

    /// Changes what a test or a rehearsal may change; says what is wrong with `change`.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let change = IntegrationsChange::deserialize(change).map_err(|error| error.to_string())?;
        if let Some(status) = change.stale_status {
            let known = [StatusCode::CONFLICT, StatusCode::BAD_REQUEST].into_iter().find(|one| one.as_u16() == status);
            self.stale_status = known.ok_or("staleStatus is 409 or 400")?;
        }
        if let Some(seeded) = change.integration {
            self.seed(seeded);
        }
        self.max_instances = change.max_instances.or(self.max_instances);
        self.list_lag = change.list_lag_ms.map_or(self.list_lag, Duration::from_millis);
        self.read_lag = change.read_lag_ms.map_or(self.read_lag, Duration::from_millis);
        self.activation = change.activation_ms.map_or(self.activation, Duration::from_millis);
        self.failure = change.failure.map_or(self.failure.take(), |reason| Some(reason).filter(|one| !one.is_empty()));
        self.changed_by_others = change.changed_by_others.unwrap_or(self.changed_by_others);
        Ok(())
    }

    fn seed(&mut self, seeded: Seeded) {
        let Seeded { name, properties, advanced, credentials, notes, enabled } = seeded;
        let object = |value: Value| if value.is_null() { json!({}) } else { value };
        let now = Instant::now();
        // Old enough for every read.
        let created = now.checked_sub(Duration::from_secs(3600)).unwrap_or(now);
        let config = json!({
            "name": name,
            "version": 1,
            "properties": object(properties),
            "advanced": object(advanced),
            "notes": notes,
            "credentials": object(credentials),
        });
        let intended = if enabled { "ENABLED" } else { "DISABLED" };
        let id = Uuid::new_v4().to_string();
        self.all.push(Integration { id, created, config, intended, since: created, changes: 0 });
    }

    /// The organisation.
    pub(crate) fn organization(&self) -> Value {
        json!({"id": self.organization, "name": "Simulated organisation", "version": 1, "state": "active"})
    }

    /// A type of integration.
    pub(crate) fn integration_type(&self, id: &str) -> Result<Value, ApiError> {
        if id != TYPE {
            return Err(ApiError::not_found());
        }
        let mut kind = json!({"id": TYPE, "name": "Amazon EventBridge Source", "vendorName": "Genesys"});
        if let Some(most) = self.max_instances {
            kind["maxInstances"] = most.into();
        }
        Ok(kind)
    }

    /// Returns one page of the integrations that lists show now.
    pub(crate) fn list(&self, listing: &Listing, now: Instant) -> Result<Value, ApiError> {
        let (size, number) = (listing.page_size.unwrap_or(25), listing.page_number.unwrap_or(1));
        if !(1..=MOST_IN_A_PAGE).contains(&size) || number == 0 {
            return Err(ApiError::invalid_value(format!("pageSize is 1 to {MOST_IN_A_PAGE}, pageNumber at least 1")));
        }
        let is_wanted = listing.integration_type.as_deref().is_none_or(|wanted| wanted == TYPE);
        let listed = |one: &&Integration| is_wanted && now.saturating_duration_since(one.created) >= self.list_lag;
        let all: Vec<&Integration> = self.all.iter().filter(listed).collect();
        let expands = listing.expands();
        let page = all.iter().skip(size.saturating_mul(number - 1)).take(size);
        Ok(json!({
            "entities": page.map(|one| self.integration_json(one, expands, now)).collect::<Vec<_>>(),
            "pageSize": size,
            "pageNumber": number,
            "total": all.len(),
            "pageCount": all.len().div_ceil(size),
        }))
    }

    /// Creates an integration, not configured and not enabled.
    pub(crate) fn create(&mut self, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let name = body["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ApiError::invalid_value("name is required"))?;
        if body["integrationType"]["id"] != TYPE {
            return Err(ApiError::invalid_value("integrationType.id is not known"));
        }
        if self.max_instances.is_some_and(|most| self.all.len() >= most) {
            let message = "The organization has the maximum number of integrations of this type";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "max.instances", message));
        }
        let config = json!({
            "name": name, "version": 1, "properties": {}, "advanced": {}, "notes": "", "credentials": {},
        });
        let id = Uuid::new_v4().to_string();
        let made = Integration { id, created: now, config, intended: "DISABLED", since: now, changes: 0 };
        let answer = self.integration_json(&made, false, now);
        self.all.push(made);
        Ok(answer)
    }

    /// An integration that reads show now.
    pub(crate) fn get(&self, id: &str, expands: bool, now: Instant) -> Result<Value, ApiError> {
        Ok(self.integration_json(&self.all[self.find(id, now)?], expands, now))
    }

    /// Its configuration.
    pub(crate) fn config(&self, id: &str, now: Instant) -> Result<Value, ApiError> {
        let one = &self.all[self.find(id, now)?];
        let mut config = one.config.clone();
        config["id"] = one.id.as_str().into();
        Ok(config)
    }

    /// Replaces the configuration of the version that `body` names.
    pub(crate) fn replace(&mut self, id: &str, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let index = self.find(id, now)?;
        check(body).map_err(ApiError::invalid_value)?;
        self.let_others_change(index, body);
        let one = &mut self.all[index];
        if one.config["version"] != body["version"] {
            let message =
                format!("The version {} does not match the current version {}", body["version"], one.config["version"]);
            return Err(ApiError::new(self.stale_status, "version.mismatch", message));
        }
        let mut config = body.clone();
        if let Some(members) = config.as_object_mut() {
            members.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
        }
        one.change(config, now);
        self.config(id, now)
    }

    /// Switches it on or off.
    pub(crate) fn intend(&mut self, id: &str, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let index = self.find(id, now)?;
        let known = ["ENABLED", "DISABLED"].into_iter().find(|state| body["intendedState"] == *state);
        let intended = known.ok_or_else(|| ApiError::invalid_value("intendedState is ENABLED or DISABLED"))?;
        let one = &mut self.all[index];
        if one.intended != intended {
            (one.intended, one.since) = (intended, now);
        }
        Ok(self.integration_json(&self.all[index], false, now))
    }

    /// Only a change that would go through is spoiled.
    fn let_others_change(&mut self, index: usize, body: &Value) {
        let one = &mut self.all[index];
        if self.changed_by_others == 0 || one.config["version"] != body["version"] {
            return;
        }
        self.changed_by_others -= 1;
        let mut config = one.config.clone();
        config["properties"]["eventFilter"] = json!([format!("v2.others.{}", one.changes)]);
        one.change(config, Instant::now());
    }

    fn find(&self, id: &str, now: Instant) -> Result<usize, ApiError> {
        let is_it = |one: &Integration| {
            one.id.eq_ignore_ascii_case(id) && now.saturating_duration_since(one.created) >= self.read_lag
        };
        self.all.iter().position(is_it).ok_or_else(ApiError::not_found)
    }

    fn integration_json(&self, one: &Integration, expands: bool, now: Instant) -> Value {
        let (code, detail) = self.reported_state(one, now);
        let mut json = json!({
            "id": one.id,
            "name": one.config["name"],
            "integrationType": {"id": TYPE, "name": "Amazon EventBridge Source"},
            "notes": one.config["notes"],
            "intendedState": one.intended,
            "reportedState": {"code": code, "effective": code},
        });
        if let Some(message) = detail {
            json["reportedState"]["detail"] = json!({"message": message});
        }
        if expands {
            json["config"]["current"] = one.config.clone();
            json["config"]["current"]["id"] = one.id.as_str().into();
        }
        json
    }

    fn reported_state<'a>(&'a self, one: &'a Integration, now: Instant) -> (&'static str, Option<&'a str>) {
        let arrived = now.saturating_duration_since(one.since) >= self.activation;
        match (one.intended, arrived) {
            ("ENABLED", false) => ("ACTIVATING", None),
            ("ENABLED", true) => {
                let is_configured = is_text(&one.config["properties"]["eventSourceSuffix"]);
                let unconfigured = (!is_configured).then_some("The integration is not configured");
                match self.failure.as_deref().or(unconfigured) {
                    Some(reason) => ("ERROR", Some(reason)),
                    None => ("ACTIVE", None),
                }
            }
            (_, false) if one.since > one.created => ("DEACTIVATING", None),
            _ => ("INACTIVE", None),
        }
    }
}

impl Integration {
    /// A change of an enabled integration takes effect as its activation does.
    fn change(&mut self, mut config: Value, now: Instant) {
        let version = self.config["version"].as_u64().unwrap_or(0) + 1;
        config["version"] = version.into();
        self.config = config;
        self.changes += 1;
        if self.intended == "ENABLED" {
            self.since = now;
        }
    }
}

/// The rules of a configuration.
fn check(body: &Value) -> Result<(), String> {
    let members = body.as_object().ok_or("the configuration must be an object")?;
    if let Some(missing) = MEMBERS.iter().find(|name| members.get(**name).is_none_or(Value::is_null)) {
        return Err(format!("{missing} is required"));
    }
    let is_known = |name: &str| MEMBERS.contains(&name) || READ_ONLY.contains(&name);
    if let Some(unknown) = members.keys().find(|name| !is_known(name)) {
        return Err(format!("{unknown} is not known"));
    }
    let says = |ok: bool, why: &str| if ok { Ok(()) } else { Err(why.to_owned()) };
    says(is_text(&body["name"]), "name must not be empty")?;
    says(body["version"].is_u64(), "version must be a whole number")?;
    says(body["notes"].is_string(), "notes must be a text")?;
    says(["properties", "advanced", "credentials"].iter().all(|name| body[name].is_object()), "an object is required")?;
    let properties = &body["properties"];
    let account = properties["awsAccountId"].as_str().unwrap_or_default();
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    says(is_account, "properties.awsAccountId must have 12 digits")?;
    says(is_text(&properties["awsAccountRegion"]), "properties.awsAccountRegion is required")?;
    let suffix = properties["eventSourceSuffix"].as_str().unwrap_or_default();
    let is_suffix = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    says((1..=64).contains(&suffix.len()) && suffix.bytes().all(is_suffix), "properties.eventSourceSuffix is invalid")?;
    let topics = properties["eventFilter"].as_array();
    let is_topic = |topic: &Value| topic.as_str().is_some_and(|topic| topic.starts_with("v2."));
    says(
        topics.is_some_and(|topics| !topics.is_empty() && topics.iter().all(is_topic)),
        "properties.eventFilter must name topics",
    )
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}
