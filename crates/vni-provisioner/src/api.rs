//! The typed API calls of this worker. The callers decide what an answer means for a job.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use genfleet_core::{
    genesys::{ApiError, ApiRequest},
    handler::JobContext,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::payload::InterfacePlan;

/// The scopes that the calls need.
pub(crate) const SCOPES: &[&str] =
    &["privateconnectivity:write", "privateconnectivity:read", "analytics:read", "interface:read"];

/// Maximum time until a change shows in reads.
pub(crate) const READ_LAG: Duration = Duration::from_secs(15);

/// The endpoint at which connections are created and listed.
pub(crate) const CONNECTIONS: &str = "/api/v2/organization/privateconnectivity/connections";
const CONNECTION: &str = "/api/v2/organization/privateconnectivity/connections/{id}";
const TABLE: &str = "/api/v2/architect/networking/routingtables/{id}";
const SYNC: &str = "/api/v2/architect/networking/routingtables/{id}/sync";
const PAGE_SIZE: u32 = 200;

/// A page of connections.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// The connections on the page, if given; fewer than requested if the server limits its pages.
    pub entities: Option<Vec<Value>>,
    /// The total number on all pages.
    pub total: u64,
}

/// The result of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// It existed and is deleted.
    Removed,
    /// It did not exist (404).
    NotThere,
}

/// Reads the page with this number (from 1) of an organisation's connections.
pub(crate) async fn connections(job: &JobContext, organization_id: Uuid, number: u32) -> Result<Page, ApiError> {
    let request = ApiRequest::get(CONNECTIONS)
        .query("organizationId", organization_id)
        .query("pageSize", PAGE_SIZE)
        .query("pageNumber", number);
    job.send(request).await?.json()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection<'a> {
    name: &'a str,
    organization_id: Uuid,
    r#type: &'static str,
    local_ip: Ipv4Addr,
    remote_ip: Ipv4Addr,
    subnet_cidr: String,
    dns_servers: &'a [IpAddr],
    routing_table_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

#[derive(Deserialize)]
struct Created {
    id: InterfaceId,
}

/// The id of an interface, which can be used in a path.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct InterfaceId(String);

impl TryFrom<String> for InterfaceId {
    type Error = &'static str;

    fn try_from(id: String) -> Result<Self, &'static str> {
        if id.is_empty() { Err("the id of a connection is not empty") } else { Ok(Self(id)) }
    }
}

/// Creates a connection and returns its id. Look it up before sending the request again.
pub(crate) async fn create(job: &JobContext, plan: &InterfacePlan) -> Result<String, ApiError> {
    let body = Connection {
        name: &plan.name,
        organization_id: plan.organization_id,
        r#type: "ipconnect",
        local_ip: plan.local_ip,
        remote_ip: plan.remote_ip,
        subnet_cidr: plan.subnet.to_string(),
        dns_servers: &plan.dns_servers,
        routing_table_id: &plan.routing_table_id,
        description: plan.description.as_deref(),
    };
    let request =
        ApiRequest::post(CONNECTIONS).json(&body).expect_member("organizationId", plan.organization_id.to_string());
    let answer = job.send(request).await?;
    Ok(answer.json::<Created>()?.id.0)
}

/// Deletes a connection.
pub(crate) async fn delete(job: &JobContext, interface_id: &str) -> Result<Deleted, ApiError> {
    let request = ApiRequest::delete(CONNECTION).ids(&[interface_id]).expect(&[200, 202, 204, 404]);
    let answer = job.send(request).await?;
    Ok(if answer.status == 404 { Deleted::NotThere } else { Deleted::Removed })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syncing {
    expected_hash: String,
}

/// Starts the synchronisation of a routing table, and returns its expected hash. Safe to repeat.
pub(crate) async fn sync(job: &JobContext, table_id: &str) -> Result<String, ApiError> {
    let request = ApiRequest::post(SYNC).ids(&[table_id]).json(&json!({ "forceSync": true })).safe_to_repeat();
    Ok(job.send(request).await?.json::<Syncing>()?.expected_hash)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    current_hash: Option<String>,
}

/// Reads the current hash of a routing table, without retries, because a failed check counts as one.
pub(crate) async fn current_hash(job: &JobContext, table_id: &str) -> Result<Option<String>, ApiError> {
    let request = ApiRequest::get(TABLE).ids(&[table_id]).expect_member("id", table_id).without_retries();
    Ok(job.send(request).await?.json::<Table>()?.current_hash)
}
