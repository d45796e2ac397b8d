//! That the published schema of `cdn.purge` and its worker agree on every job.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../core/tests/agreement/mod.rs"]
mod agreement;

use agreement::{Places, agree, lists, some, texts, unstated_rules_can_be_broken};
use genfleet_purger::Purger;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

#[test]
fn schema_and_worker_agree() {
    agree::<Purger>(places());
}

#[test]
fn every_unstated_rule_is_one_that_a_job_can_break_alone() {
    unstated_rules_can_be_broken::<Purger>(witnesses());
}

/// Changes of the richest example, each of which breaks unstated rules only.
fn witnesses() -> Vec<Value> {
    vec![json!({ "/payload/paths": [format!("/{}", "é".repeat(1500))] })]
}

fn places() -> Places {
    let near = "/[a-z*.?# é/\u{a0}\u{85}\u{2028}]{0,8}\\*?|[a-z/.*]{0,5}";
    let long = (prop_oneof![2040_usize..2055, 1020_usize..1030], select(vec!["a", "é", "€"]))
        .prop_map(|(count, letter)| format!("/{}", letter.repeat(count)));
    let fixed = some(&["/*", "/", "//", "/.", "/..", "/...", "/a/.", "/a/../b", "/*/", "/a*\n", "/a*b", "/.*"]);
    let path = prop_oneof![6 => near.prop_map(String::from), 2 => fixed, 1 => long];
    vec![
        ("/payload/paths", lists(texts(path), 4)),
        ("/payload/allowPurgeAll", prop_oneof![any::<bool>().prop_map(Value::from), Just(Value::Null)].boxed()),
    ]
}
