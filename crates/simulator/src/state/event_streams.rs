//! Event stream definitions with versions (`ETag`). A definition can be replaced only with its current version.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::ApiError;

/// Maximum length of a definition in bytes.
pub(crate) const MOST_BYTES: usize = 262_144;
const MEMBERS: [&str; 6] =
    ["id", "eventStreamType", "configuration", "filters", "transformations", "attributeMappings"];
const OPERATORS: [&str; 5] = ["eq", "neq", "in", "gte", "lte"];
const TRANSFORMATIONS: [&str; 3] = ["direct", "extract", "transform"];
/// The regions that another client sets.
const OTHER_REGIONS: [&str; 2] = ["eu-west-1", "eu-central-1"];

/// All definitions.
#[derive(Debug, Default)]
pub(crate) struct EventStreams {
    definitions: BTreeMap<String, Version>,
    /// Number of versions of all definitions so far, so that an `ETag` is never reused.
    versions: u64,
    /// Number of the next changes with a version before which another client changes the definition.
    changed_by_others: u32,
}

/// The current state of a definition.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    number: u64,
    definition: Value,
    /// Number of changes, including the first.
    changes: u64,
}

impl Version {
    /// The `ETag` of this version, with quotes.
    pub(crate) fn etag(&self) -> String {
        format!("\"v{}\"", self.number)
    }

    /// Returns the definition as the API shows it.
    pub(crate) fn json(&self) -> Value {
        let mut details = self.definition.clone();
        details["version"] = self.number.into();
        details
    }

    /// Returns true if the definition is new.
    pub(crate) fn is_first(&self) -> bool {
        self.changes == 1
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EventStreamsChange {
    definition: Option<Value>,
    changed_by_others: Option<u32>,
}

impl EventStreams {
    /// Returns the state for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        let definition = |version: &Version| json!({"etag": version.etag(), "changes": version.changes, "definition": version.definition});
        let definitions: BTreeMap<&String, Value> =
            self.definitions.iter().map(|(id, version)| (id, definition(version))).collect();
        json!({"definitions": definitions, "changedByOthers": self.changed_by_others})
    }

    /// `{"definition": {…}}` registers a definition as another client would. `{"changedByOthers": 3}`: before each of
    /// the next three changes with the current version, another client changes the definition, so that they conflict.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let change = EventStreamsChange::deserialize(change).map_err(|error| error.to_string())?;
        if let Some(definition) = change.definition {
            let id = definition["id"].as_str().unwrap_or_default().to_owned();
            self.put(&id, Some("*"), &definition).map_err(|error| error.message)?;
        }
        self.changed_by_others = change.changed_by_others.unwrap_or(self.changed_by_others);
        Ok(())
    }

    /// Returns the definition, or a 404.
    pub(crate) fn get(&self, id: &str) -> Result<&Version, ApiError> {
        self.definitions.get(id).ok_or_else(ApiError::not_found)
    }

    /// Replaces the version of a definition that `if_match` names; `*` means any version or none.
    pub(crate) fn put(&mut self, id: &str, if_match: Option<&str>, body: &Value) -> Result<&Version, ApiError> {
        check(id, body).map_err(ApiError::invalid_value)?;
        let Some(if_match) = if_match else {
            let message = "If-Match is required";
            return Err(ApiError::new(StatusCode::PRECONDITION_REQUIRED, "precondition.required", message));
        };
        if if_match != "*" {
            self.let_others_change(id, if_match);
            if self.definitions.get(id).is_none_or(|there| there.etag() != if_match) {
                let message = "The definition has another version than If-Match says";
                return Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "precondition.failed", message));
            }
        }
        Ok(self.store(id, body.clone()))
    }

    /// Changes the definition as another client would, but only before a change that would succeed.
    fn let_others_change(&mut self, id: &str, if_match: &str) {
        let spoiled = self.definitions.get(id).filter(|there| there.etag() == if_match);
        let (Some(there), true) = (spoiled, self.changed_by_others > 0) else { return };
        let mut definition = there.definition.clone();
        let region = OTHER_REGIONS.iter().find(|region| definition["configuration"]["region"] != **region);
        definition["configuration"]["region"] = region.copied().into();
        self.changed_by_others -= 1;
        self.store(id, definition);
    }

    fn store(&mut self, id: &str, definition: Value) -> &Version {
        self.versions += 1;
        let first = Version { number: 0, definition: Value::Null, changes: 0 };
        let version = self.definitions.entry(id.to_owned()).or_insert(first);
        *version = Version { number: self.versions, definition, changes: version.changes + 1 };
        version
    }
}

/// Checks a body.
fn check(id: &str, body: &Value) -> Result<(), String> {
    let members = body.as_object().ok_or("the definition must be an object")?;
    if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(format!("{unknown} is not known"));
    }
    let says = |ok: bool, why: &str| if ok { Ok(()) } else { Err(why.to_owned()) };
    says(body["id"] == id, "id must be the one in the path")?;
    says(body["eventStreamType"] == "aws-eventbridge", "eventStreamType must be aws-eventbridge")?;
    let configuration = &body["configuration"];
    let account = configuration["awsAccountId"].as_str().unwrap_or_default();
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    says(is_account, "configuration.awsAccountId must have 12 digits")?;
    let role = configuration["roleArn"].as_str().unwrap_or_default();
    says(role.starts_with("arn:aws") && role.contains(account), "configuration.roleArn must be of the account")?;
    says(is_text(&configuration["region"]), "configuration.region is required")?;
    says(body["filters"].as_array().is_some_and(|filters| !filters.is_empty()), "filters must not be empty")?;
    each(body, "filters", is_filter)?;
    each(body, "transformations", is_transformation)?;
    each(body, "attributeMappings", |one| is_text(&one["source"]) && is_text(&one["target"]))
}

fn each(of: &Value, list: &str, is_good: impl Fn(&Value) -> bool) -> Result<(), String> {
    let entries = of[list].as_array().ok_or_else(|| format!("{list} must be a list"))?;
    match entries.iter().position(|entry| !is_good(entry)) {
        Some(index) => Err(format!("{list}[{index}] is invalid")),
        None => Ok(()),
    }
}

fn is_filter(filter: &Value) -> bool {
    is_text(&filter["eventType"]) && each(filter, "conditions", is_condition).is_ok()
}

fn is_condition(condition: &Value) -> bool {
    let value = &condition["value"];
    let fits = match condition["operator"].as_str() {
        Some("in") => value.as_array().is_some_and(|entries| !entries.is_empty()),
        Some("gte" | "lte") => value.is_number() || value.is_string(),
        operator => operator.is_some_and(|operator| OPERATORS.contains(&operator)),
    };
    is_text(&condition["field"]) && fits
}

fn is_transformation(one: &Value) -> bool {
    let kind = one["type"].as_str().unwrap_or_default();
    let has_what_it_needs = match kind {
        "extract" => one["path"].as_str().is_some_and(|path| path.starts_with("[].")),
        "transform" => one["format"] == "iso8601",
        _ => true,
    };
    TRANSFORMATIONS.contains(&kind) && has_what_it_needs && is_text(&one["sourceField"]) && is_text(&one["targetField"])
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}
