//! The payload of a job, and the rules for an interface's addresses. Pure: other modules check whether an address is
//! free and a gateway answers.

use std::net::{IpAddr, Ipv4Addr};

use genfleet_core::job::Violation;
use ipnet::Ipv4Net;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

/// The prefixes that a subnet may have.
pub(crate) const PREFIXES: [u8; 3] = [8, 16, 24];

const REQUIRED: [&str; 7] =
    ["name", "organizationId", "localIp", "remoteIp", "subnetCidr", "dnsServers", "routingTableId"];

/// The virtual network interface to create.
///
/// A missing member is parsed as an empty one: the schema reports that it is missing, and the others are still checked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = require_members)]
pub struct Payload {
    /// Name of the interface.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Organisation that owns the interface.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"), extend("x-rule" = "must be a UUID, in 36 characters, e.g. 3f2504e0-4f89-41d3-9a0c-0305e82c3301"))]
    pub organization_id: String,
    /// Its own IPv4 address, inside `subnetCidr`.
    #[serde(default)]
    pub local_ip: String,
    /// The IPv4 address of its gateway.
    #[serde(default)]
    pub remote_ip: String,
    /// Its IPv4 network: no host bits, prefix 8, 16 or 24.
    #[serde(default)]
    pub subnet_cidr: String,
    /// IPv4 or IPv6 addresses of name servers.
    #[serde(default)]
    #[schemars(length(min = 1, max = 10_000))]
    pub dns_servers: Vec<String>,
    /// The routing table to synchronise.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub routing_table_id: String,
    /// Purpose of the interface.
    pub description: Option<String>,
    /// The TCP port at which the gateway has to answer.
    #[serde(default = "https", deserialize_with = "port")]
    #[schemars(with = "u16", range(min = 1, max = 65_535))]
    pub gateway_port: u16,
    /// True to remove the interface again if its routing table never converges.
    #[serde(default = "yes")]
    pub rollback: bool,
}

const fn https() -> u16 {
    443
}

const fn yes() -> bool {
    true
}

/// Parses any number. The schema reports invalid ones, and in JSON Schema `443.0` is a whole number.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1–65,535 by the schema")]
    f64::deserialize(deserializer).map(|number| number as u16)
}

/// Adds to the schema the rules that [`Payload`] does not check.
fn require_members(schema: &mut Schema) {
    schema.insert("required".to_owned(), json!(REQUIRED));
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        if let Some(property) = property.as_object_mut().filter(|_| REQUIRED.contains(&name.as_str())) {
            property.remove("default");
        }
    }
}

/// The parsed payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfacePlan {
    /// The name of the interface.
    pub name: String,
    /// The organisation that owns the interface.
    pub organization_id: Uuid,
    /// Its own address.
    pub local_ip: Ipv4Addr,
    /// Its gateway's.
    pub remote_ip: Ipv4Addr,
    /// Its network.
    pub subnet: Ipv4Net,
    /// Its name servers.
    pub dns_servers: Vec<IpAddr>,
    /// The routing table to synchronise.
    pub routing_table_id: String,
    /// The purpose of the interface.
    pub description: Option<String>,
    /// The port on which the gateway must answer.
    pub gateway_port: u16,
    /// True to remove it again if the routing table never converges.
    pub rollback: bool,
}

impl InterfacePlan {
    /// Returns true if both describe the same interface. The other members may differ.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let names = |plan: &Self| (plan.organization_id, plan.local_ip, plan.subnet);
        names(self) == names(other) && self.name == other.name && self.routing_table_id == other.routing_table_id
    }
}

impl Payload {
    /// Returns the plan, or all violations of the payload.
    pub(crate) fn plan(&self) -> Result<InterfacePlan, Vec<Violation>> {
        let mut found = Findings::default();
        let organization_id = found.read("organizationId", uuid(&self.organization_id));
        let local_ip = found.read("localIp", ipv4(&self.local_ip));
        let remote_ip = found.read("remoteIp", ipv4(&self.remote_ip));
        let subnet = found.read("subnetCidr", subnet(&self.subnet_cidr));
        found.read("localIp", inside(local_ip, subnet));
        let dns_servers = self.dns_servers.iter().enumerate();
        let dns_servers: Vec<IpAddr> =
            dns_servers.filter_map(|(at, one)| found.read(&format!("dnsServers/{at}"), address(one))).collect();
        found.read("dnsServers", rule(!self.dns_servers.is_empty(), "must have at least 1 entry"));
        found.read("name", rule((1..=128).contains(&self.name.chars().count()), "must have 1 to 128 characters"));
        found.read("routingTableId", table_id(&self.routing_table_id));
        found.read("gatewayPort", rule(self.gateway_port > 0, "must be at least 1"));
        match (organization_id, local_ip, remote_ip, subnet) {
            (Some(organization_id), Some(local_ip), Some(remote_ip), Some(subnet)) if found.0.is_empty() => {
                Ok(InterfacePlan {
                    name: self.name.clone(),
                    organization_id,
                    local_ip,
                    remote_ip,
                    subnet,
                    dns_servers,
                    routing_table_id: self.routing_table_id.clone(),
                    description: self.description.clone(),
                    gateway_port: self.gateway_port,
                    rollback: self.rollback,
                })
            }
            _ => Err(found.0),
        }
    }

    /// Returns all violations.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.plan().err().unwrap_or_default()
    }
}

#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn read<T>(&mut self, member: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|message| self.0.push(Violation::new(format!("/payload/{member}"), message))).ok()
    }
}

fn rule(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
}

fn uuid(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "must be a UUID, in 36 characters, e.g. 3f2504e0-4f89-41d3-9a0c-0305e82c3301".to_owned())
}

fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "must be an IPv4 address, e.g. 10.0.50.1".to_owned())
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "must be an IPv4 or IPv6 address".to_owned())
}

fn subnet(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text.parse().map_err(|_| "must be an IPv4 network, e.g. 10.0.50.0/24".to_owned())?;
    if !PREFIXES.contains(&net.prefix_len()) {
        return Err(format!("its prefix must be 8, 16 or 24, found {}", net.prefix_len()));
    }
    // Host bits, but also a leading zero, which some read as octal.
    let network = net.trunc();
    if network.to_string() == text { Ok(network) } else { Err(format!("must be the network's address: {network}")) }
}

/// Reported only if both can be parsed.
fn inside(local_ip: Option<Ipv4Addr>, subnet: Option<Ipv4Net>) -> Result<(), String> {
    match local_ip.zip(subnet) {
        Some((local_ip, subnet)) if !subnet.contains(&local_ip) => Err(format!("must lie inside subnetCidr, {subnet}")),
        _ => Ok(()),
    }
}

/// Checks the id of a routing table. It becomes a segment of a path, where `.` and `..` lead elsewhere, even if
/// encoded.
fn table_id(text: &str) -> Result<(), String> {
    rule(!["", ".", ".."].contains(&text), "must be the id of a routing table")
}

#[cfg(test)]
mod tests;
