//! That the published schema of `vni.provision` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, anything, lists, some, texts, unstated_rules_can_be_broken, uuid};
use genfleet_vni_provisioner::VniProvisioner;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<VniProvisioner>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<VniProvisioner>(witnesses());
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses() -> Vec<Value> {
    vec![json!({ "/payload/localIp": "10.0.41.1" })]
}

fn ipv4() -> BoxedStrategy<String> {
    prop_oneof![
        3 => "[1-9]?[0-9]\\.[0-9]{1,3}\\.0\\.[0-9]{1,2}",
        1 => "(10|127|255|256|00|1e)(\\.([0-9]{1,2}|2[0-9]{2})){2,4}",
        1 => some(&["10.0.40.1", "0.0.0.0", "255.255.255.255", "10.0.40.01", "10.0.40.1 ", "１0.0.0.1", "0x0a.0.0.1", "167772161"]),
    ]
    .boxed()
}

fn places() -> Places {
    let ipv6 = prop_oneof![
        "[0-9a-fA-F:.]{2,24}",
        some(&[
            "::",
            "::1",
            "1::2::3",
            "::ffff:1.2.3.4",
            "::1.2.3",
            "fe80::1%eth0",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "1:2:3:4:5:6:7:8:9",
            "12345::",
            "[::1]",
            "::1/64",
            "1:2:3:4:5:6:1.2.3.4"
        ]),
    ];
    let network = prop_oneof![
        (ipv4(), "/(8|16|24|08|32|0|9|24 |)").prop_map(|(ip, prefix)| ip + &prefix),
        some(&["10.0.40.0/24", "10.0.0.0/16", "10.0.0.0/8", "10.0.40.1/24", "10.0.40.0/16", "010.0.0.0/8", "10.0.0/8"]),
    ];
    vec![
        ("/payload/name", texts("[a-zé ]{0,3}|é{127,129}")),
        ("/payload/organizationId", texts(uuid())),
        ("/payload/localIp", texts(ipv4())),
        ("/payload/remoteIp", texts(ipv4())),
        ("/payload/subnetCidr", texts(network)),
        ("/payload/dnsServers", lists(texts(prop_oneof![ipv4(), ipv6]), 3)),
        ("/payload/routingTableId", texts("\\.{0,3}|[a-z/ ]{0,3}")),
        ("/payload/gatewayPort", anything().boxed()),
        ("/payload/rollback", anything().boxed()),
    ]
}
