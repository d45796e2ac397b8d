//! The connections of an organisation: reads all of them, and checks them for conflicts with a new one. Pure except for
//! [`Inventory::read`].

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};

use genfleet_core::{
    error::{ErrorClass, JobError},
    handler::JobContext,
};
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{api, payload::InterfacePlan};

/// All connections of one organisation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    connections: Vec<Listed>,
    /// The total number, even if not every connection was listed.
    count: u64,
    /// The reason why conflicts cannot be excluded, if there is one.
    gap: Option<String>,
}

/// A connection as the API returns it. Members that cannot be read count as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    id: Option<String>,
    name: Option<String>,
    organization: Option<String>,
    local_ip: Option<Ipv4Addr>,
    remote_ip: Option<Ipv4Addr>,
    subnet: Option<Ipv4Net>,
    routing_table_id: Option<String>,
}

impl Inventory {
    /// Reads pages until all connections were returned, whatever page size the server chooses.
    pub(crate) async fn read(job: &JobContext, organization_id: Uuid) -> Result<Self, JobError> {
        let (mut entities, mut number) = (Vec::new(), 1);
        loop {
            let page = api::connections(job, organization_id, number).await?;
            let found = page.entities.unwrap_or_default();
            let is_last = found.is_empty();
            entities.extend(found);
            if is_last || entities.len() as u64 >= page.total {
                return Ok(Self::of(&entities, page.total, organization_id));
            }
            number += 1;
        }
    }

    /// Reads the inventory of one organisation from `entities`, which are some of `total`.
    pub(crate) fn of(entities: &[Value], total: u64, organization_id: Uuid) -> Self {
        let listed = entities.iter().map(|entity| (Listed::of(entity), entity));
        let (ours, others): (Vec<_>, Vec<_>) = listed.partition(|(one, _)| one.may_belong_to(organization_id));
        let listed = entities.len() as u64;
        let missing = || format!("the API says that there are {total} connections and shows {listed}");
        let gap = ours.iter().find_map(|(one, entity)| one.unreadable(entity)).or((listed < total).then(missing));
        let mut ids = HashSet::new();
        let is_new = |one: &Listed| one.id.as_ref().is_none_or(|id| ids.insert(id.clone()));
        let connections: Vec<Listed> = ours.into_iter().map(|(one, _)| one).filter(is_new).collect();
        let count = total.saturating_sub(others.len() as u64).max(connections.len() as u64);
        Self { connections, count, gap }
    }

    /// Adds interfaces that the inventory does not show yet.
    #[must_use]
    pub(crate) fn with(mut self, missing: &[InterfacePlan]) -> Self {
        self.connections.extend(missing.iter().map(Listed::of_plan));
        self.count += missing.len() as u64;
        self
    }

    /// Returns the total number.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the id of the interface that `plan` describes, if it exists.
    pub(crate) fn identical(&self, plan: &InterfacePlan) -> Option<&str> {
        self.connections.iter().find(|one| one.is(plan)).and_then(|one| one.id.as_deref())
    }

    /// Describes the first existing connection that conflicts with `plan`.
    pub(crate) fn conflict(&self, plan: &InterfacePlan) -> Option<JobError> {
        self.connections.iter().find_map(|one| Some(one.in_the_way(&one.address_conflict(plan)?)))
    }

    /// Describes why conflicts cannot be excluded: a connection cannot be read. This may change with the next read.
    pub(crate) fn unreadable(&self) -> Option<JobError> {
        let gap = self.gap.as_ref()?;
        let message = format!(
            "the organisation's connections cannot be read whole, so that a conflict could be missed: {gap}; correct or \
             remove it, or see what answers in place of the API"
        );
        Some(JobError::new(ErrorClass::Transient, "unexpected_response", message))
    }

    /// Returns the connection with the same name, which the API does not allow.
    pub(crate) fn namesake(&self, plan: &InterfacePlan) -> Option<JobError> {
        let named = |one: &&Listed| one.name.as_deref() == Some(&plan.name);
        self.connections.iter().find(named).map(|one| one.in_the_way(&format!("the name {:?} is that", plan.name)))
    }
}

impl Listed {
    fn of(entity: &Value) -> Self {
        let text = |member: &str| entity.get(member).and_then(Value::as_str).filter(|text| !text.is_empty());
        let owned = |member: &str| text(member).map(str::to_owned);
        Self {
            id: owned("id"),
            name: owned("name"),
            organization: owned("organizationId"),
            local_ip: text("localIp").and_then(|ip| ip.parse().ok()),
            remote_ip: text("remoteIp").and_then(|ip| ip.parse().ok()),
            subnet: text("subnetCidr").and_then(|net| net.parse().ok()).map(|net: Ipv4Net| net.trunc()),
            routing_table_id: owned("routingTableId"),
        }
    }

    /// Returns the required member of `entity` that cannot be read. Connections of other types have no addresses, or no
    /// IPv4.
    fn unreadable(&self, entity: &Value) -> Option<String> {
        if !entity.is_object() {
            return Some(format!("an entity is no connection: {}", truncate(entity)));
        }
        let (member, found) = ["localIp", "remoteIp", "subnetCidr"].into_iter().find_map(|member| {
            let found = entity.get(member).filter(|value| !value.is_null() && value.as_str() != Some(""))?;
            let is_readable = |text: &str| match member {
                "subnetCidr" => text.parse::<IpNet>().is_ok(),
                _ => text.parse::<IpAddr>().is_ok(),
            };
            (!found.as_str().is_some_and(is_readable)).then_some((member, found))
        })?;
        let wanted = if member == "subnetCidr" { "subnet" } else { "IP address" };
        let (id, name) = self.names();
        Some(format!("{member} of interface {id} ({name:?}) is no {wanted}: {}", truncate(found)))
    }

    fn names(&self) -> (&str, &str) {
        (self.id.as_deref().unwrap_or("without an id"), self.name.as_deref().unwrap_or_default())
    }

    /// Creates the entry that is expected after the creation.
    fn of_plan(plan: &InterfacePlan) -> Self {
        Self {
            id: None,
            name: Some(plan.name.clone()),
            organization: Some(plan.organization_id.to_string()),
            local_ip: Some(plan.local_ip),
            remote_ip: Some(plan.remote_ip),
            subnet: Some(plan.subnet),
            routing_table_id: Some(plan.routing_table_id.clone()),
        }
    }

    /// Returns true if the connection may belong to the organisation. One without an organisation may.
    fn may_belong_to(&self, organization_id: Uuid) -> bool {
        self.organization.as_ref().is_none_or(|named| named.parse() == Ok(organization_id))
    }

    fn is(&self, plan: &InterfacePlan) -> bool {
        self.id.is_some()
            && self.name.as_deref() == Some(&plan.name)
            && self.local_ip == Some(plan.local_ip)
            && self.subnet == Some(plan.subnet)
            && self.routing_table_id.as_deref() == Some(&plan.routing_table_id)
    }

    fn address_conflict(&self, plan: &InterfacePlan) -> Option<String> {
        let ip = plan.local_ip;
        if self.local_ip == Some(ip) {
            return Some(format!("localIp {ip} is the local IP"));
        }
        if self.remote_ip == Some(ip) {
            return Some(format!("localIp {ip} is the remote IP"));
        }
        let subnet = self.subnet.filter(|subnet| overlap(*subnet, plan.subnet))?;
        Some(format!("subnetCidr {} overlaps {subnet}, the subnet", plan.subnet))
    }

    fn in_the_way(&self, what: &str) -> JobError {
        let (id, name) = self.names();
        let mut error = JobError::permanent("ip_conflict", format!("{what} of interface {id} ({name:?})"));
        let text = |text: Option<String>| text.map_or(Value::Null, Value::String);
        let other = json!({
            "id": self.id,
            "name": self.name,
            "localIp": text(self.local_ip.map(|ip| ip.to_string())),
            "remoteIp": text(self.remote_ip.map(|ip| ip.to_string())),
            "subnetCidr": text(self.subnet.map(|net| net.to_string())),
        });
        error.details.insert("conflictsWith".to_owned(), other);
        error
    }
}

/// Returns the beginning of a value.
fn truncate(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

/// Returns true if two networks have an address in common.
pub(crate) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests;
