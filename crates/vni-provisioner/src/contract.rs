//! The contract of `vni.provision` jobs beyond the shape of their types. The rules themselves are in
//! [`payload`](crate::payload).

use genfleet_core::contract::{
    ContractTerms, ErrorCode, UnstatedRule,
    pattern::{octets, whole},
};
use serde_json::{Map, Value, json};

/// Returns the terms of the worker; see the module.
pub(crate) fn terms() -> ContractTerms {
    ContractTerms {
        examples: examples(),
        load: json!({
            "name": "genfleet-load-{run}-{number}", "organizationId": "{uuid}", "localIp": "{net}.1",
            "remoteIp": "203.0.113.10", "subnetCidr": "{net}.0/24", "dnsServers": ["192.0.2.53"],
            "routingTableId": "genfleet-load-{run}-{number}",
        }),
        rules: rules(),
        unstated: vec![UnstatedRule {
            at: "/payload/localIp",
            rule: "localIp lies inside subnetCidr.",
            message: "must lie inside subnetCidr",
        }],
        codes: vec![
            ErrorCode::new("interface_limit_reached", "The organisation has as many interfaces as it may have."),
            ErrorCode::new("ip_conflict", "Another interface has the address, or a subnet that overlaps."),
            ErrorCode::new(
                "gateway_refused",
                "The gateway's address is loopback, link-local, multicast, unspecified or that of a metadata service.",
            ),
            ErrorCode::new("gateway_unreachable", "The gateway did not accept a connection. Only a cause."),
            ErrorCode::new(
                "routing_not_converged",
                "The routing table did not become what was asked for. Only a cause.",
            ),
        ],
        error_members: error_members(),
    }
}

fn examples() -> Vec<Value> {
    let least = json!({
        "name": "lab",
        "organizationId": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
        "localIp": "10.0.40.1",
        "remoteIp": "203.0.113.10",
        "subnetCidr": "10.0.40.0/24",
        "dnsServers": ["8.8.8.8", "2001:4860:4860::8844"],
        "routingTableId": "rt-9876543210",
    });
    let mut most = least.clone();
    most["description"] = "Lab in Vienna".into();
    most["gatewayPort"] = 8443.into();
    most["rollback"] = false.into();
    vec![json!({ "payload": least }), json!({ "id": "vni-lab", "payload": most })]
}

/// Returns the pattern of a network without host bits, which can be stated because there are only three prefixes.
fn rules() -> Value {
    let ipv4 = json!({ "format": "ipv4", "pattern": whole(&[octets(4)]) });
    let networks =
        [format!("{}\\.0\\.0\\.0/8", octets(1)), format!("{}\\.0\\.0/16", octets(2)), format!("{}\\.0/24", octets(3))];
    let ipv6 = json!({ "format": "ipv6", "pattern": "^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$" });
    json!({
        "properties": {
            "localIp": ipv4,
            "remoteIp": ipv4,
            "subnetCidr": { "pattern": whole(&networks) },
            "dnsServers": { "items": { "anyOf": [ipv4, ipv6] } },
            "routingTableId": { "not": { "enum": [".", ".."] } },
        },
    })
}

fn error_members() -> Map<String, Value> {
    let members = json!({
        "conflictsWith": {
            "description": "vni.provision: the interface in the way.",
            "type": "object",
            "properties": {
                "id": { "type": ["string", "null"] },
                "name": { "type": ["string", "null"] },
                "localIp": { "type": ["string", "null"] },
                "remoteIp": { "type": ["string", "null"] },
                "subnetCidr": { "type": ["string", "null"] },
            },
        },
        "interfaces": { "type": "integer", "description": "vni.provision: how many the organisation has." },
        "limit": { "type": "integer", "description": "vni.provision: how many it may have." },
        "interfaceId": { "type": "string", "description": "vni.provision: the interface whose routing failed." },
        "rolledBack": { "type": "boolean", "description": "vni.provision: whether it was removed again." },
    });
    members.as_object().cloned().unwrap_or_default()
}
