//! Private connections and routing tables: uniqueness in an organisation, reads that lag, and tables that converge
//! after some reads.

mod addresses;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::errors::ApiError;

const TEXTS: [&str; 6] = ["name", "organizationId", "localIp", "remoteIp", "subnetCidr", "routingTableId"];
const DEFAULT_PAGE_SIZE: usize = 25;

/// Connections, routing tables, and their settings.
#[derive(Debug, Default)]
pub(crate) struct Network {
    connections: Vec<Connection>,
    created: u64,
    deleted: u64,
    tables: BTreeMap<String, Table>,
    manners: Manners,
}

#[derive(Debug)]
struct Connection {
    entity: Value,
    /// Time from which reads show it; `None` if a test has set it.
    shows_from: Option<Instant>,
}

/// A synchronised routing table.
#[derive(Debug, Default)]
struct Table {
    syncs: u64,
    looks: u64,
    looks_since_sync: u64,
    expected: String,
}

/// The settings, which a test can change.
#[derive(Clone, Debug)]
struct Manners {
    /// Maximum page size, even if `pageSize` is larger.
    page_cap: usize,
    /// Maximum number of connections of an organisation; `None` means no limit.
    limit: Option<usize>,
    read_lag: Duration,
    /// Number of reads after which a table has converged; `None` means never.
    converges_after: Option<u64>,
    missing_tables: BTreeSet<String>,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            page_cap: 200,
            limit: None,
            read_lag: Duration::ZERO,
            converges_after: Some(2),
            missing_tables: BTreeSet::new(),
        }
    }
}

/// The changes that a test or a rehearsal can make; members that are not given stay unchanged.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NetworkChange {
    /// Connections to add unchanged; those without an id get one.
    #[serde(default)]
    connections: Vec<Value>,
    page_cap: Option<usize>,
    limit: Option<usize>,
    read_lag_ms: Option<u64>,
    converges_after: Option<Convergence>,
    missing_tables: Option<BTreeSet<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Convergence {
    Looks(u64),
    Word(Never),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Never {
    Never,
}

/// A request for a page of connections.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing {
    organization_id: Option<String>,
    page_size: Option<usize>,
    page_number: Option<usize>,
}

impl Network {
    /// Returns the state for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        let table = |(id, table): (&String, &Table)| {
            (id.clone(), json!({"syncs": table.syncs, "looks": table.looks, "expectedHash": table.expected}))
        };
        json!({
            "connections": self.connections.iter().map(|one| &one.entity).collect::<Vec<_>>(),
            "created": self.created,
            "deleted": self.deleted,
            "routingTables": self.tables.iter().map(table).collect::<serde_json::Map<_, _>>(),
        })
    }

    /// Changes the settings. Fails with a message if `change` is invalid.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let change = NetworkChange::deserialize(change).map_err(|error| error.to_string())?;
        for entity in change.connections {
            let id = entity.get("id").cloned().unwrap_or_else(|| Uuid::new_v4().to_string().into());
            self.connections.push(Connection { entity: with_id(entity, id)?, shows_from: None });
        }
        let manners = &mut self.manners;
        manners.page_cap = change.page_cap.unwrap_or(manners.page_cap).max(1);
        manners.limit = change.limit.or(manners.limit);
        manners.read_lag = change.read_lag_ms.map_or(manners.read_lag, Duration::from_millis);
        manners.converges_after = match change.converges_after {
            Some(Convergence::Looks(looks)) => Some(looks),
            Some(Convergence::Word(Never::Never)) => None,
            None => manners.converges_after,
        };
        manners.missing_tables = change.missing_tables.unwrap_or_else(|| manners.missing_tables.clone());
        Ok(())
    }

    /// Returns a page of the connections that reads show.
    pub(crate) fn list(&self, listing: &Listing, now: Instant) -> Value {
        let wanted = |one: &&Connection| {
            listing.organization_id.as_ref().is_none_or(|id| text(&one.entity, "organizationId") == Some(id))
        };
        let all: Vec<&Connection> = self.connections.iter().filter(|one| one.shows(now)).filter(wanted).collect();
        let size = listing.page_size.unwrap_or(DEFAULT_PAGE_SIZE).clamp(1, self.manners.page_cap);
        let number = listing.page_number.unwrap_or(1).max(1);
        let page = all.iter().skip(size.saturating_mul(number - 1)).take(size);
        json!({
            "entities": page.map(|one| &one.entity).collect::<Vec<_>>(),
            "pageSize": size,
            "pageNumber": number,
            "total": all.len(),
            "pageCount": all.len().div_ceil(size),
        })
    }

    /// Creates a connection, unless its name or an address is already used in its organisation.
    pub(crate) fn create(&mut self, body: &Value, now: Instant) -> Result<Value, ApiError> {
        check_form(body)?;
        let organisation = text(body, "organizationId");
        let theirs = || self.connections.iter().filter(|one| text(&one.entity, "organizationId") == organisation);
        if self.manners.limit.is_some_and(|limit| theirs().count() >= limit) {
            let message = "The organization has reached its limit of connections.";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "limit.exceeded", message));
        }
        if let Some(what) = theirs().find_map(|one| clash(body, &one.entity)) {
            let message = format!("The {what} is already in use by a connection.");
            return Err(ApiError::new(StatusCode::CONFLICT, "conflict", message));
        }
        let entity = with_id(body.clone(), Uuid::new_v4().to_string().into()).map_err(ApiError::invalid_value)?;
        self.created += 1;
        let shows_from = Some(now + self.manners.read_lag);
        self.connections.push(Connection { entity: entity.clone(), shows_from });
        Ok(entity)
    }

    /// Removes a connection, if reads show it.
    pub(crate) fn delete(&mut self, id: &str, now: Instant) -> Result<(), ApiError> {
        let found = self.connections.iter().position(|one| text(&one.entity, "id") == Some(id) && one.shows(now));
        let at = found.ok_or_else(ApiError::not_found)?;
        self.connections.remove(at);
        self.deleted += 1;
        Ok(())
    }

    /// Starts the synchronisation of a routing table with its connections.
    pub(crate) fn synchronise(&mut self, id: &str, body: &Value) -> Result<Value, ApiError> {
        if !body.get("forceSync").is_some_and(Value::is_boolean) {
            return Err(ApiError::invalid_value("forceSync must be true or false"));
        }
        let expected = self.hash(id)?;
        let table = self.tables.entry(id.to_owned()).or_default();
        table.syncs += 1;
        table.looks_since_sync = 0;
        table.expected.clone_from(&expected);
        Ok(json!({"id": id, "expectedHash": expected}))
    }

    /// Reads a routing table. Each read brings it closer to convergence.
    pub(crate) fn look_at(&mut self, id: &str) -> Result<Value, ApiError> {
        let settled = self.hash(id)?;
        let converges_after = self.manners.converges_after;
        let Some(table) = self.tables.get_mut(id) else { return Ok(json!({"id": id, "currentHash": settled})) };
        table.looks += 1;
        table.looks_since_sync += 1;
        let is_there = converges_after.is_some_and(|looks| table.looks_since_sync >= looks);
        let current = if is_there { table.expected.clone() } else { format!("before-sync-{}", table.syncs) };
        Ok(json!({"id": id, "currentHash": current}))
    }

    /// Computes a hash of a table's routes, which follow from its connections.
    fn hash(&self, id: &str) -> Result<String, ApiError> {
        if self.manners.missing_tables.contains(id) {
            return Err(ApiError::not_found());
        }
        let users = self.connections.iter().filter(|one| text(&one.entity, "routingTableId") == Some(id));
        let routes: BTreeSet<&str> = users.filter_map(|one| text(&one.entity, "id")).collect();
        let all: Vec<&str> = [id].into_iter().chain(routes).collect();
        Ok(Uuid::new_v5(&Uuid::NAMESPACE_URL, all.join(" ").as_bytes()).simple().to_string())
    }
}

impl Connection {
    fn shows(&self, now: Instant) -> bool {
        self.shows_from.is_none_or(|from| from <= now)
    }
}

fn text<'a>(entity: &'a Value, member: &str) -> Option<&'a str> {
    entity.get(member).and_then(Value::as_str)
}

fn with_id(mut entity: Value, id: Value) -> Result<Value, String> {
    let members = entity.as_object_mut().ok_or("a connection is a JSON object")?;
    members.insert("id".to_owned(), id);
    Ok(entity)
}

fn check_form(body: &Value) -> Result<(), ApiError> {
    if let Some(member) = TEXTS.iter().find(|member| text(body, member).is_none_or(str::is_empty)) {
        return Err(ApiError::invalid_value(format!("{member} is required")));
    }
    if text(body, "type") != Some("ipconnect") {
        return Err(ApiError::invalid_value("type must be ipconnect"));
    }
    if body.get("dnsServers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(ApiError::invalid_value("dnsServers must hold at least one address"));
    }
    let range = text(body, "subnetCidr").and_then(addresses::range);
    range.map(|_| ()).ok_or_else(|| ApiError::invalid_value("subnetCidr must be an IPv4 network"))
}

/// Returns the name or address of `new` that `old` already uses.
fn clash(new: &Value, old: &Value) -> Option<&'static str> {
    let local = text(new, "localIp");
    let range = |entity| text(entity, "subnetCidr").and_then(addresses::range);
    if text(new, "name") == text(old, "name") {
        return Some("name");
    }
    if local == text(old, "localIp") || local == text(old, "remoteIp") {
        return Some("localIp");
    }
    range(new).zip(range(old)).is_some_and(|(one, other)| addresses::overlap(one, other)).then_some("subnetCidr")
}
