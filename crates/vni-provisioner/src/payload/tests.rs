use std::time::Duration;

use genfleet_core::{
    job::{Kind, schema::JobSchema},
    worker::{JobRules, validate_job},
};
use proptest::prelude::*;

use super::*;
use crate::{VniOptions, VniProvisioner};

fn good() -> Value {
    json!({
        "name": "arch-vni-prod-01",
        "organizationId": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
        "localIp": "10.0.50.1",
        "remoteIp": "203.0.113.10",
        "subnetCidr": "10.0.50.0/24",
        "dnsServers": ["8.8.8.8", "2001:4860:4860::8844"],
        "routingTableId": "rt-9876543210",
    })
}

/// [`good`] with `change` over it; `null` takes a member out.
fn with(change: &Value) -> Value {
    let mut payload = good();
    for (member, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(payload.as_object_mut().unwrap().remove(member)),
            value => payload[member] = value.clone(),
        }
    }
    payload
}

fn options() -> VniOptions {
    let (gateway_timeout, routing_poll_interval) = (Duration::from_secs(5), Duration::from_secs(1));
    VniOptions { max_interfaces: 50, gateway_allow: Vec::new(), gateway_timeout, routing_poll_interval }
}

/// Every violation of a job with this payload, as the worker finds them, sorted.
fn violations(payload: &Value) -> Vec<(String, String)> {
    let rules = JobRules::new::<Payload>(Kind::VniProvision, |_| vec![]);
    let body = json!({ "payload": payload }).to_string();
    let found = match validate_job::<VniProvisioner>(&rules, &options(), body.as_bytes(), Some("job"), None) {
        Ok(_) => Vec::new(),
        Err(rejection) => rejection.violations.to_vec(),
    };
    let mut found: Vec<_> = found.into_iter().map(|one| (one.pointer, one.message)).collect();
    found.sort();
    found
}

fn pointers(payload: &Value) -> Vec<String> {
    violations(payload).into_iter().map(|(pointer, _)| pointer).collect()
}

#[test]
fn every_rule_is_told_at_its_place() {
    let table: Vec<(Value, &[&str])> = vec![
        (json!({}), &[]),
        (json!({"description": "prod", "gatewayPort": 8443, "rollback": false}), &[]),
        (json!({"gatewayPort": 1}), &[]),
        (json!({"gatewayPort": 65_535.0}), &[]),
        (json!({"name": "x".repeat(128)}), &[]),
        (json!({"name": "ü".repeat(128)}), &[]),
        (json!({"organizationId": "00000000-0000-0000-0000-000000000000"}), &[]),
        (json!({"organizationId": "A1B2C3D4-E5F6-7890-ABCD-EF1234567890"}), &[]),
        (json!({"subnetCidr": "10.0.0.0/8"}), &[]),
        (json!({"subnetCidr": "10.0.0.0/16"}), &[]),
        (json!({"dnsServers": ["::1"]}), &[]),
        (json!({"name": null}), &["/payload/name"]),
        (json!({"name": ""}), &["/payload/name"]),
        (json!({"name": "x".repeat(129)}), &["/payload/name"]),
        (json!({"name": 7}), &["/payload/name"]),
        (json!({"organizationId": "a1b2c3d4"}), &["/payload/organizationId"]),
        (json!({"organizationId": "a1b2c3d4e5f67890abcdef1234567890"}), &["/payload/organizationId"]),
        (json!({"localIp": "10.0.51.1"}), &["/payload/localIp"]),
        (json!({"localIp": "10.0.50.256"}), &["/payload/localIp"]),
        (json!({"localIp": "10.0.050.1"}), &["/payload/localIp"]),
        (json!({"localIp": "2001:db8::1"}), &["/payload/localIp"]),
        (json!({"remoteIp": "gateway.example"}), &["/payload/remoteIp"]),
        (json!({"remoteIp": "2001:db8::1"}), &["/payload/remoteIp"]),
        (json!({"subnetCidr": "10.0.50.0"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "10.0.50.0/25"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "10.0.50.0/33"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "0.0.0.0/0"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "10.0.50.1/24"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "10.0.50.0/16"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "010.0.0.0/8"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "10.0.0.0/08"}), &["/payload/subnetCidr"]),
        (json!({"subnetCidr": "2001:db8::/16"}), &["/payload/subnetCidr"]),
        (json!({"dnsServers": null}), &["/payload/dnsServers"]),
        (json!({"dnsServers": []}), &["/payload/dnsServers"]),
        (json!({"dnsServers": "8.8.8.8"}), &["/payload/dnsServers"]),
        (
            json!({"dnsServers": ["8.8.8.8", "dns", 1, "8.8.4.4/32"]}),
            &["/payload/dnsServers/1", "/payload/dnsServers/2", "/payload/dnsServers/3"],
        ),
        (json!({"routingTableId": ""}), &["/payload/routingTableId"]),
        (json!({"routingTableId": ".."}), &["/payload/routingTableId"]),
        (json!({"gatewayPort": 0}), &["/payload/gatewayPort"]),
        (json!({"gatewayPort": 65_536}), &["/payload/gatewayPort"]),
        (json!({"gatewayPort": -1}), &["/payload/gatewayPort"]),
        (json!({"gatewayPort": 443.5}), &["/payload/gatewayPort"]),
        (json!({"gatewayPort": "443"}), &["/payload/gatewayPort"]),
        (json!({"rollback": "yes"}), &["/payload/rollback"]),
        (json!({"type": "ipconnect"}), &["/payload/type"]),
    ];
    for (change, expected) in table {
        assert_eq!(pointers(&with(&change)), expected, "{change}");
    }
}

#[test]
fn everything_wrong_is_told_at_once_also_beside_what_is_missing() {
    let broken = json!({
        "localIp": "10.1.0.1", "subnetCidr": "10.0.50.0/24", "remoteIp": "x", "dnsServers": ["y"],
        "gatewayPort": 70_000, "rollback": 1, "colour": "red",
    });
    let expected = [
        "colour",
        "dnsServers/0",
        "gatewayPort",
        "localIp",
        "name",
        "organizationId",
        "remoteIp",
        "rollback",
        "routingTableId",
    ];
    assert_eq!(pointers(&broken), expected.map(|member| format!("/payload/{member}")));
    let missing = pointers(&json!({}));
    let mut all = REQUIRED.map(|member| format!("/payload/{member}"));
    all.sort();
    assert_eq!(missing, all);
}

#[test]
fn a_violation_says_what_would_be_right() {
    for (change, details) in [
        (json!({"subnetCidr": "10.0.50.7/24"}), "10.0.50.0/24"),
        (json!({"subnetCidr": "10.0.50.0/25"}), "8, 16 or 24"),
        (json!({"localIp": "10.1.50.1"}), "10.0.50.0/24"),
        (json!({"dnsServers": ["dns.example"]}), "IPv6"),
    ] {
        let found = violations(&with(&change));
        assert!(found.len() == 1 && found[0].1.contains(details), "{found:?}");
    }
}

#[test]
fn what_is_not_said_is_443_and_rollback() {
    let payload: Payload = serde_json::from_value(good()).unwrap();
    let plan = payload.plan().unwrap();
    assert_eq!((plan.gateway_port, plan.rollback, plan.description), (443, true, None));
    let document = JobSchema::new::<Payload>(Kind::VniProvision).document().clone();
    let properties = &document["properties"]["payload"]["properties"];
    assert_eq!(
        (&properties["gatewayPort"]["default"], &properties["rollback"]["default"]),
        (&json!(443), &json!(true))
    );
    assert!(properties["name"].get("default").is_none());
    assert_eq!(payload.violations(), []);
}

proptest! {
    #[test]
    fn an_address_is_inside_where_its_first_bits_are_the_networks(
        local in any::<u32>(), network in any::<u32>(), near in any::<bool>(), prefix in prop::sample::select(PREFIXES.to_vec()),
    ) {
        let mask = u32::MAX << (32 - prefix);
        let network = network & mask;
        let local = if near { network | (local & !mask) } else { local };
        let change = json!({
            "localIp": Ipv4Addr::from(local).to_string(),
            "subnetCidr": format!("{}/{prefix}", Ipv4Addr::from(network)),
        });
        let payload: Payload = serde_json::from_value(with(&change)).unwrap();
        prop_assert_eq!(payload.plan().is_ok(), local & mask == network, "{}", change);
    }

    #[test]
    fn a_network_with_any_host_bit_is_none(
        address in any::<u32>(), bit in 0_u32..32, prefix in prop::sample::select(PREFIXES.to_vec()),
    ) {
        let mask = u32::MAX << (32 - prefix);
        let address = (address & mask) | (1 << bit);
        let text = format!("{}/{prefix}", Ipv4Addr::from(address));
        prop_assert_eq!(subnet(&text).is_ok(), address & !mask == 0, "{}", text);
    }

    #[test]
    fn any_text_is_judged(text in any::<String>()) {
        let payload = with(&json!({"localIp": text, "subnetCidr": text, "dnsServers": [text], "organizationId": text}));
        prop_assert!(serde_json::from_value::<Payload>(payload).unwrap().plan().is_err());
    }
}
