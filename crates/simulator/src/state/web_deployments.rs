//! Web messaging deployments and their configurations, with the flows that they lead to.
//!
//! A configuration has a draft and published versions. What was made or changed a moment ago is `Pending`, may be
//! missing in reads, and may be refused if another request names it. Any UUID is the flow of an inbound message unless
//! a test says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::errors::ApiError;
use crate::record::now_micros;

mod change;
mod deployments;

pub(crate) use self::deployments::Deployment;

const MOST_IN_A_PAGE: usize = 300;
const DRAFT: &str = "DRAFT";
/// The members that the platform sets itself.
const READ_ONLY: [&str; 8] =
    ["id", "version", "status", "dateCreated", "dateModified", "datePublished", "lastModifiedUser", "selfUri"];
const CONFIGURATIONS: &str = "/api/v2/webdeployments/configurations";
const DEPLOYMENTS: &str = "/api/v2/webdeployments/deployments";

/// Configurations and deployments, oldest first, and how they are shown.
#[derive(Debug)]
pub(crate) struct WebDeployments {
    configurations: Vec<Configuration>,
    deployments: Vec<Deployment>,
    flows: BTreeMap<String, Flow>,
    limits: BTreeMap<String, u64>,
    /// Time for which a new object is missing in reads.
    read_lag: Duration,
    /// Time for which a new or changed object is `Pending`.
    pending: Duration,
    /// Time for which a request that names a new object is refused with a 400.
    reference_lag: Duration,
    /// Time for which browsers get the previous version.
    edge_lag: Duration,
    /// Before so many of the next changes of something that is there, somebody else changes it.
    changed_by_others: u32,
    /// Objects that end in the status `Error`: `configuration`, `deployment`.
    failing: BTreeSet<String>,
    /// A name is taken by one deployment only.
    unique_names: bool,
}

impl Default for WebDeployments {
    fn default() -> Self {
        let limits = [("deployments.max", 100), ("configuration.max", 100)];
        Self {
            configurations: Vec::new(),
            deployments: Vec::new(),
            flows: BTreeMap::new(),
            limits: limits.map(|(key, value)| (key.to_owned(), value)).into(),
            read_lag: Duration::ZERO,
            pending: Duration::from_millis(1500),
            reference_lag: Duration::ZERO,
            edge_lag: Duration::ZERO,
            changed_by_others: 0,
            failing: BTreeSet::new(),
            unique_names: false,
        }
    }
}

/// A flow that is not what any other is.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Flow {
    /// There is none.
    missing: bool,
    #[serde(rename = "type")]
    kind: String,
    deleted: bool,
    published: bool,
    /// The queues that it uses; any without this.
    queues: Option<BTreeSet<String>>,
}

impl Default for Flow {
    fn default() -> Self {
        Self { missing: false, kind: "INBOUNDSHORTMESSAGE".to_owned(), deleted: false, published: true, queues: None }
    }
}

/// A configuration: its draft, and what was published.
#[derive(Debug)]
struct Configuration {
    id: String,
    created: Instant,
    changed: Instant,
    draft: Map<String, Value>,
    versions: Vec<(Map<String, Value>, Instant)>,
}

/// The query of a list with a cursor.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Cursor {
    page_size: Option<String>,
    after: Option<String>,
}

impl WebDeployments {
    /// A flow.
    pub(crate) fn flow(&self, id: &str) -> Result<Value, ApiError> {
        let flow = self.flow_of(id);
        if Uuid::try_parse(id).is_err() || flow.missing {
            return Err(ApiError::not_found());
        }
        let mut body = json!({
            "id": id, "name": format!("Flow {id}"), "type": flow.kind, "deleted": flow.deleted, "active": true,
        });
        if flow.published {
            body["publishedVersion"] = json!({"id": "1.0", "commitVersion": "1.0", "type": "PUBLISH"});
        }
        Ok(body)
    }

    fn flow_of(&self, id: &str) -> Flow {
        self.flows.get(&id.to_ascii_lowercase()).cloned().unwrap_or_default()
    }

    /// The queues that a flow uses; `asked` is one of them if the flow uses any.
    pub(crate) fn consumed_resources(&self, flow: &str) -> Value {
        let queues = self.flow_of(flow).queues.unwrap_or_default();
        let queue = |id: &String| json!({"id": id, "name": format!("Queue {id}"), "type": "QUEUE", "version": "1"});
        let entities: Vec<Value> = queues.iter().map(queue).collect();
        json!({"entities": entities, "pageSize": 100, "pageNumber": 1, "total": entities.len(), "pageCount": 1})
    }

    /// Returns the limits of the organisation.
    pub(crate) fn limits(&self, namespace: &str) -> Result<Value, ApiError> {
        if namespace != "web.deployments" {
            return Err(ApiError::not_found());
        }
        let limit = |(key, value): (&String, &u64)| json!({"key": key, "namespace": namespace, "value": value});
        Ok(json!({"entities": self.limits.iter().map(limit).collect::<Vec<_>>()}))
    }

    /// Returns one page of the drafts that reads show now.
    pub(crate) fn configurations(&self, cursor: &Cursor, now: Instant) -> Result<Value, ApiError> {
        let visible = self.configurations.iter().filter(|one| self.is_visible(one.created, now));
        let all = visible.map(|one| Value::Object(self.draft_of(one, now))).collect();
        page(all, cursor, CONFIGURATIONS)
    }

    /// Makes a configuration: a draft.
    pub(crate) fn create_configuration(&mut self, body: &Value, now: Instant) -> Result<Value, ApiError> {
        let mut draft = document(body)?;
        self.may_have_another("configuration.max", self.configurations.len())?;
        let id = Uuid::new_v4().to_string();
        draft.insert("id".to_owned(), id.as_str().into());
        draft.insert("dateCreated".to_owned(), timestamp_now());
        self.configurations.push(Configuration { id, created: now, changed: now, draft, versions: Vec::new() });
        Ok(Value::Object(self.configurations.last().map(|one| self.draft_of(one, now)).unwrap_or_default()))
    }

    /// Returns all versions of a configuration, including the draft.
    pub(crate) fn versions(&self, id: &str, cursor: &Cursor, now: Instant) -> Result<Value, ApiError> {
        let one = self.configuration(id, now)?;
        let published = one.versions.iter().rev().filter(|(_, at)| self.is_visible(*at, now));
        let published = published.map(|(version, _)| Value::Object(version.clone()));
        let all = [Value::Object(self.draft_of(one, now))].into_iter().chain(published).collect();
        page(all, cursor, &format!("{CONFIGURATIONS}/{id}/versions"))
    }

    /// Returns one version of a configuration, or its draft.
    pub(crate) fn version(&self, id: &str, version: &str, now: Instant) -> Result<Value, ApiError> {
        let one = self.configuration(id, now)?;
        if version.eq_ignore_ascii_case(DRAFT) {
            return Ok(Value::Object(self.draft_of(one, now)));
        }
        let found =
            one.versions.iter().find(|(published, at)| published["version"] == version && self.is_visible(*at, now));
        found.map(|(published, _)| Value::Object(published.clone())).ok_or_else(ApiError::not_found)
    }

    /// Replaces a draft, if it is the one that `body` was read from.
    pub(crate) fn put_draft(&mut self, id: &str, body: &Value, now: Instant) -> Result<Value, ApiError> {
        self.configuration(id, now)?;
        let changes = document(body)?;
        let is_stale = self.take_change_by_others() || body["version"] != DRAFT;
        let one = self.configurations.iter_mut().find(|one| one.id == id).ok_or_else(ApiError::not_found)?;
        if is_stale {
            let message = "The version of the request does not match the version of the draft.";
            return Err(ApiError::bad_request(message));
        }
        one.draft.extend(changes);
        one.changed = now;
        let one = self.configuration(id, now)?;
        Ok(Value::Object(self.draft_of(one, now)))
    }

    /// Publishes a draft.
    pub(crate) fn publish(&mut self, id: &str, now: Instant) -> Result<Value, ApiError> {
        let one = self.configuration(id, now)?;
        if now.saturating_duration_since(one.changed) < self.reference_lag {
            return Err(ApiError::bad_request(format!("There is no draft of configuration {id}.")));
        }
        let mut version = self.draft_of(one, now);
        if version["status"] != "Active" {
            return Err(ApiError::bad_request("The draft is not active."));
        }
        version.insert("version".to_owned(), (one.versions.len() + 1).to_string().into());
        version.insert("datePublished".to_owned(), timestamp_now());
        let one = self.configurations.iter_mut().find(|one| one.id == id).ok_or_else(ApiError::not_found)?;
        one.versions.push((version.clone(), now));
        Ok(Value::Object(version))
    }

    /// Removes a configuration that no deployment uses.
    pub(crate) fn delete_configuration(&mut self, id: &str, now: Instant) -> Result<(), ApiError> {
        self.configuration(id, now)?;
        if self.deployments.iter().any(|one| one.uses(id)) {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "conflict",
                format!("A deployment uses configuration {id}."),
            ));
        }
        self.configurations.retain(|one| one.id != id);
        Ok(())
    }

    fn configuration(&self, id: &str, now: Instant) -> Result<&Configuration, ApiError> {
        let found = self.configurations.iter().find(|one| one.id.eq_ignore_ascii_case(id));
        found.filter(|one| self.is_visible(one.created, now)).ok_or_else(ApiError::not_found)
    }

    fn draft_of(&self, one: &Configuration, now: Instant) -> Map<String, Value> {
        let mut draft = one.draft.clone();
        draft.insert("version".to_owned(), DRAFT.into());
        draft.insert("status".to_owned(), self.status("configuration", one.changed, "Active", now).into());
        draft.insert("selfUri".to_owned(), format!("{CONFIGURATIONS}/{}/versions/draft", one.id).into());
        draft
    }

    fn status<'a>(&self, what: &str, changed: Instant, settled: &'a str, now: Instant) -> &'a str {
        match now.saturating_duration_since(changed) < self.pending {
            true => "Pending",
            false if self.failing.contains(what) => "Error",
            false => settled,
        }
    }

    fn is_visible(&self, created: Instant, now: Instant) -> bool {
        now.saturating_duration_since(created) >= self.read_lag
    }

    fn may_have_another(&self, key: &str, count: usize) -> Result<(), ApiError> {
        let most = self.limits.get(key).and_then(|most| usize::try_from(*most).ok());
        if most.is_none_or(|most| count < most) {
            return Ok(());
        }
        Err(ApiError::new(StatusCode::BAD_REQUEST, "limit.exceeded", format!("{key} is reached.")))
    }

    fn take_change_by_others(&mut self) -> bool {
        let is_changed = self.changed_by_others > 0;
        self.changed_by_others = self.changed_by_others.saturating_sub(1);
        is_changed
    }
}

/// The members of a configuration that a request may set.
fn document(body: &Value) -> Result<Map<String, Value>, ApiError> {
    let mut members = body.as_object().cloned().ok_or_else(|| ApiError::invalid_value("the body must be an object"))?;
    members.retain(|name, _| !READ_ONLY.contains(&name.as_str()));
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !members.get("name").is_some_and(is_text) {
        return Err(ApiError::invalid_value("name is missing"));
    }
    let enabled = members.get("messenger").is_some_and(|messenger| messenger["enabled"] == true);
    if enabled && !(members.contains_key("languages") && members.contains_key("defaultLanguage")) {
        return Err(ApiError::invalid_value("languages and defaultLanguage are required"));
    }
    Ok(members)
}

/// Returns one page of `all`, after the entity at the cursor.
fn page(all: Vec<Value>, cursor: &Cursor, path: &str) -> Result<Value, ApiError> {
    let size = cursor.page_size.as_deref().map_or(Ok(MOST_IN_A_PAGE), str::parse).ok();
    let size = size.filter(|size| (1..=MOST_IN_A_PAGE).contains(size));
    let start = cursor.after.as_deref().map_or(Ok(0), str::parse).ok();
    let (Some(size), Some(start)) = (size, start) else {
        return Err(ApiError::invalid_value(format!("pageSize is 1 to {MOST_IN_A_PAGE}, and after is a cursor")));
    };
    let total = all.len();
    let entities: Vec<Value> = all.into_iter().skip(start).take(size).collect();
    let end = start + entities.len();
    let mut answer = json!({"entities": entities, "total": total, "selfUri": path});
    if end < total {
        answer["nextUri"] = format!("{path}?pageSize={size}&after={end}").into();
    }
    Ok(answer)
}

fn timestamp_now() -> Value {
    let micros = i64::try_from(now_micros()).unwrap_or(i64::MAX);
    Timestamp::from_microsecond(micros).unwrap_or_default().to_string().into()
}
