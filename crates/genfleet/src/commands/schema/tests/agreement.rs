//! That the published schema and the worker agree on every job, but for the rules that are published as unstated.

use std::{cell::Cell, collections::BTreeSet};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::json;

use super::{samples::Samples, *};

/// Enough to find each of the known ways to disagree in a second or two; `PROPTEST_CASES` makes it more.
const CASES: u32 = 600;

fn agree(kind: Kind) {
    let contract = contracts().into_iter().find(|contract| contract.kind == kind).unwrap();
    let judges = Judges::of(&contract);
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { CASES };
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..default });
    let taken = Cell::new(0);
    let ran = runner.run(&Samples::of(&contract).jobs(), |job| {
        let judgement = judges.judge(&job);
        taken.set(taken.get() + u32::from(judgement == Judgement::BothTake));
        match judgement {
            Judgement::Contradiction(why) => Err(TestCaseError::fail(format!("{why}\n{job}"))),
            Judgement::BothTake | Judgement::BothRefuse | Judgement::UnstatedRule(_) => Ok(()),
        }
    });
    ran.unwrap_or_else(|error| panic!("{kind}: {error}"));
    let shares = cases / 20..cases - cases / 20;
    assert!(shares.contains(&taken.get()), "{} of {cases} jobs taken: so one-sided they prove little", taken.get());
}

#[test]
fn schema_and_worker_agree_on_cdn_purge() {
    agree(Kind::CdnPurge);
}

#[test]
fn schema_and_worker_agree_on_stream_configure() {
    agree(Kind::StreamConfigure);
}

#[test]
fn schema_and_worker_agree_on_channel_provision() {
    agree(Kind::ChannelProvision);
}

#[test]
fn schema_and_worker_agree_on_vni_provision() {
    agree(Kind::VniProvision);
}

#[test]
fn schema_and_worker_agree_on_file_scan() {
    agree(Kind::FileScan);
}

/// A list of exceptions that nobody checks only grows.
#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    for contract in contracts() {
        let judges = Judges::of(&contract);
        let mut broken = BTreeSet::new();
        for change in witnesses(contract.kind) {
            let mut job = contract.terms.examples.last().unwrap().clone();
            for (pointer, value) in change.as_object().unwrap() {
                let (parent, member) = pointer.rsplit_once('/').unwrap();
                job.pointer_mut(parent).unwrap()[member] = value.clone();
            }
            match judges.judge(&job) {
                Judgement::UnstatedRule(rules) => broken.extend(rules.iter().map(|rule| rule.rule)),
                other => panic!("{other:?}: {job}"),
            }
        }
        let unstated: BTreeSet<_> = judges.unstated.iter().map(|rule| rule.rule).collect();
        assert_eq!(broken, unstated, "{}", contract.kind);
    }
}

fn entries(count: usize, entry: &dyn Fn(usize) -> Value) -> Vec<Value> {
    (0..count).map(entry).collect()
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses(kind: Kind) -> Vec<Value> {
    let mut all = vec![
        json!({ "/notBefore": "2026-01-02T00:00:00Z", "/deadline": "2026-01-01T00:00:00Z" }),
        json!({ "/webhook": { "url": "http://hooks.example/a" } }),
    ];
    let long_host = "a.".repeat(130) + "example";
    let quoted = format!("\"{}\"@shop.example", "\\a".repeat(40));
    let own = match kind {
        Kind::CdnPurge => vec![json!({ "/payload/paths": [format!("/{}", "é".repeat(1500))] })],
        Kind::StreamConfigure => vec![
            json!({ "/payload/configuration/awsAccountId": "210987654321" }),
            json!({ "/payload/transformations": [{ "sourceField": "id", "targetField": "medium.x", "type": "direct" },
                { "sourceField": "id", "targetField": "medium", "type": "direct" }] }),
            json!({ "/payload/attributeMappings": [{ "source": "id", "target": "agents" }] }),
            json!({ "/payload/transformations": [{ "sourceField": "id", "targetField": "t", "type": "transform", "format": "iso8601" }] }),
            json!({ "/payload/transformations": [{ "sourceField": "ids", "targetField": "t", "type": "direct" }] }),
            json!({ "/payload/attributeMappings": [{ "source": "ids", "target": "t" }] }),
            json!({ "/payload/filters": [{ "eventType": "e".repeat(262_200), "conditions": [] }] }),
            json!({ "/payload/transformations": entries(5_000, &|n| json!({ "sourceField": "id", "targetField": format!("t{n}"), "type": "direct" })),
                "/payload/attributeMappings": entries(5_000, &|n| json!({ "source": "id", "target": format!("m{n}") })) }),
            json!({ "/payload/sampleEvent/big": "x".repeat(500_000), "/payload/attributeMappings":
                entries(9, &|n| json!({ "source": "big", "target": format!("m{n}") })) }),
        ],
        Kind::ChannelProvision => vec![
            json!({ "/payload/maxConcurrentSessions": 501 }),
            json!({ "/payload/routingEmail": "a@xn--a.example" }),
            json!({ "/payload/routingEmail": "a@[IPv6:1::2::3]" }),
            json!({ "/payload/routingEmail": quoted }),
            json!({ "/payload/routingEmail": format!("abcdefghij@{}bücher", "abcdefgh.".repeat(26)) }),
            json!({ "/payload/security/allowedDomains": ["xn--a.example"] }),
            json!({ "/payload/security/allowedDomains": ["127.0.0.１"] }),
            json!({ "/payload/security/allowedDomains": entries(10_000, &|n| json!(format!("d{n}.example"))) }),
            json!({ "/payload/security/cspHeaders": [format!("img-src {long_host}")] }),
        ],
        Kind::VniProvision => vec![json!({ "/payload/localIp": "10.0.41.1" })],
        Kind::FileScan => vec![json!({ "/payload/metadata": { "note": "x".repeat(17_000) } })],
        Kind::WebhookDeliver => vec![],
    };
    all.extend(own);
    all
}
