//! The deployments: which configuration version a page is given, and where its conversations go.

use std::time::Instant;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Cursor, DEPLOYMENTS, WebDeployments, page, timestamp_now};
use crate::errors::ApiError;

/// The members of a deployment in a list, which are fewer than in a read.
const LISTED: [&str; 8] =
    ["id", "name", "description", "allowAllDomains", "configuration", "flow", "dateCreated", "selfUri"];
const READ_ONLY: [&str; 6] = ["id", "snippet", "dateCreated", "dateModified", "lastModifiedUser", "selfUri"];

/// A deployment.
#[derive(Debug)]
pub(crate) struct Deployment {
    id: String,
    created: Instant,
    changed: Instant,
    members: Map<String, Value>,
    /// The configuration that was served before the last change.
    before: Value,
}

impl Deployment {
    pub(super) fn uses(&self, configuration: &str) -> bool {
        self.members["configuration"]["id"] == configuration
    }
}

impl WebDeployments {
    /// Returns one page of the deployments that reads show now.
    pub(crate) fn deployments(&self, cursor: &Cursor, now: Instant) -> Result<Value, ApiError> {
        let visible = self.deployments.iter().filter(|one| self.is_visible(one.created, now));
        let listed = |one: &Deployment| {
            let mut members = self.deployment_json(one, now);
            members.retain(|name, _| LISTED.contains(&name.as_str()) || name == "status");
            Value::Object(members)
        };
        page(visible.map(listed).collect(), cursor, DEPLOYMENTS)
    }

    /// A deployment that can be seen now.
    pub(crate) fn deployment(&self, id: &str, now: Instant) -> Result<Value, ApiError> {
        self.find_visible(id, now).map(|one| Value::Object(self.deployment_json(one, now)))
    }

    /// Makes a deployment.
    pub(crate) fn create_deployment(&mut self, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let mut members = self.check_deployment(body, None, now)?;
        self.may_have_another("deployments.max", self.deployments.len())?;
        let id = Uuid::new_v4().to_string();
        members.insert("id".to_owned(), id.as_str().into());
        members.insert("dateCreated".to_owned(), timestamp_now());
        members.insert("selfUri".to_owned(), format!("{DEPLOYMENTS}/{id}").into());
        let snippet = format!("<script type=\"text/javascript\">/* Messenger of deployment {id} */</script>");
        members.insert("snippet".to_owned(), snippet.into());
        self.deployments.push(Deployment { id, created: now, changed: now, members, before: Value::Null });
        Ok(Value::Object(self.deployments.last().map(|one| self.deployment_json(one, now)).unwrap_or_default()))
    }

    /// Replaces a deployment.
    pub(crate) fn put_deployment(&mut self, id: &str, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let id = self.find_visible(id, now)?.id.clone();
        let changes = self.check_deployment(body, Some(&id), now)?;
        if self.take_change_by_others() {
            let message = "The deployment was changed at the same time.";
            return Err(ApiError::new(StatusCode::CONFLICT, "conflict", message));
        }
        let one = self.deployments.iter_mut().find(|one| one.id == id).ok_or_else(ApiError::not_found)?;
        one.before = one.members["configuration"].clone();
        let is_kept = |name: &String| READ_ONLY.contains(&name.as_str());
        one.members.retain(|name, _| is_kept(name));
        one.members.extend(changes);
        one.changed = now;
        self.deployment(&id, now)
    }

    /// The configuration version that pages of a deployment are given.
    pub(crate) fn active_version(&self, id: &str, now: Instant) -> Result<Value, ApiError> {
        let one = self.find_visible(id, now)?;
        let is_pending = now.saturating_duration_since(one.changed) < self.pending;
        let reference = if is_pending { &one.before } else { &one.members["configuration"] };
        let (Some(configuration), Some(version)) = (reference["id"].as_str(), reference["version"].as_str()) else {
            return Err(ApiError::not_found());
        };
        let version = self.version(configuration, version, now)?;
        Ok(json!({"configurationVersion": version, "deployment": self.deployment_json(one, now)}))
    }

    /// Returns the configuration that browsers get: the version that an active deployment serves.
    pub(crate) fn edge(&self, id: &str, now: Instant) -> Option<Value> {
        let one = self.deployments.iter().find(|one| one.id.eq_ignore_ascii_case(id))?;
        let is_late = now.saturating_duration_since(one.changed) < self.edge_lag;
        let reference = if is_late { &one.before } else { &one.members["configuration"] };
        let version = reference["version"].as_str()?;
        Some(json!({"id": one.id, "version": version, "status": "Active"}))
    }

    fn find_visible(&self, id: &str, now: Instant) -> Result<&Deployment, ApiError> {
        let found = self.deployments.iter().find(|one| one.id.eq_ignore_ascii_case(id));
        found.filter(|one| self.is_visible(one.created, now)).ok_or_else(ApiError::not_found)
    }

    pub(super) fn deployment_json(&self, one: &Deployment, now: Instant) -> Map<String, Value> {
        let mut members = one.members.clone();
        let settled = members.get("status").and_then(Value::as_str).unwrap_or("Active").to_owned();
        members.insert("status".to_owned(), self.status("deployment", one.changed, &settled, now).into());
        members
    }

    /// The members of a deployment that may be made, or changed if it has `own` id.
    fn check_deployment(&self, body: &Value, own: Option<&str>, now: Instant) -> Result<Map<String, Value>, ApiError> {
        let mut members =
            body.as_object().cloned().ok_or_else(|| ApiError::invalid_value("the body must be an object"))?;
        members.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
        let Some(name) = body["name"].as_str().filter(|name| !name.is_empty()) else {
            return Err(ApiError::invalid_value("name is missing"));
        };
        let domains = body["allowedDomains"].as_array().map_or(0, Vec::len);
        if (body["allowAllDomains"] == true) != (domains == 0) {
            return Err(ApiError::invalid_value("either allowAllDomains or allowedDomains is to be given"));
        }
        let wanted = body["status"].as_str().unwrap_or("Active");
        if !["Active", "Inactive"].contains(&wanted) {
            return Err(ApiError::invalid_value("status is Active or Inactive"));
        }
        if body["flow"]["id"].as_str().is_none_or(|flow| self.flow(flow).is_err()) {
            return Err(ApiError::invalid_value("flow.id is missing or not known"));
        }
        self.check_reference(&body["configuration"], now)?;
        let is_taken = self.deployments.iter().any(|one| one.members["name"] == name && own != Some(one.id.as_str()));
        if self.unique_names && is_taken {
            return Err(ApiError::new(StatusCode::CONFLICT, "conflict", "A deployment of this name exists already."));
        }
        Ok(members)
    }

    /// Returns true if a published version is there; for a while after its publication it is refused.
    fn check_reference(&self, reference: &Value, now: Instant) -> Result<(), ApiError> {
        let id = reference["id"].as_str().unwrap_or_default();
        let found = self.configurations.iter().find(|one| one.id.eq_ignore_ascii_case(id));
        let mut versions = found.into_iter().flat_map(|one| &one.versions);
        let published = versions.find(|(version, _)| version["version"] == reference["version"]);
        match published {
            Some((_, at)) if now.saturating_duration_since(*at) >= self.reference_lag => Ok(()),
            _ => {
                let message = format!("There is no such version of configuration {id}.");
                Err(ApiError::bad_request(message))
            }
        }
    }
}
