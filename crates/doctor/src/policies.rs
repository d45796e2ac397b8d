//! Policies and operator policies that apply to genfleet's queues and would weaken them. [`weakening`] says what each
//! key does to each sort of queue. The broker applies one policy and one operator policy to a queue: of those that
//! match, the one with the highest priority.

use std::collections::BTreeMap;

use genfleet_core::queue::topology::Topology;
use regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::weakening::{Class, weakening};
use super::finding::{Check, Finding, Level, some};

mod weakening;

fn check() -> Check {
    Check::new("broker.policies", "the policies on genfleet's queues")
}

/// A policy as `/api/policies` and `/api/operator-policies` report it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Policy {
    name: String,
    pattern: String,
    #[serde(rename = "apply-to", default = "everything")]
    apply_to: String,
    #[serde(default)]
    priority: i64,
    definition: Map<String, Value>,
}

fn everything() -> String {
    "all".to_owned()
}

/// True if users or operators set a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Author {
    User,
    Operator,
}

impl Author {
    const fn word(self) -> &'static str {
        match self {
            Self::User => "policy",
            Self::Operator => "operator policy",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::User => {
                "remove that key from it (rabbitmqctl set_policy), or give genfleet's queues a policy of a higher priority without it"
            }
            Self::Operator => {
                "remove that key from it (rabbitmqctl set_operator_policy), or exclude genfleet's queues by its pattern"
            }
        }
    }
}

/// The effect of one key of one policy: its level, the author, the key with its value, and the explanation.
type Effect = (Level, Author, String, String);

/// Judges the policies that apply to the queues of `wanted`.
pub(crate) fn judge(wanted: &Topology, prefix: &str, user: &[Policy], operator: &[Policy]) -> Vec<Finding> {
    let (user, mut findings) = readable(user, Author::User);
    let (operator, unreadable) = readable(operator, Author::Operator);
    findings.extend(unreadable);
    let mut effects: BTreeMap<Effect, Vec<String>> = BTreeMap::new();
    let mut applying = std::collections::BTreeSet::new();
    for queue in &wanted.queues {
        let class = Class::of(prefix, &queue.name);
        for (author, policies) in [(Author::User, &user), (Author::Operator, &operator)] {
            let Some(policy) = find_applied(policies, &queue.name) else { continue };
            applying.insert((author, policy.name.clone()));
            for (key, value) in &policy.definition {
                let Some((level, why)) = weakening(class, key, value) else { continue };
                let what = format!("{} {} sets {key} to {}", author.word(), policy.name, value_text(value));
                effects.entry((level, author, what, why)).or_default().push(queue.name.clone());
            }
        }
    }
    findings.extend(effects.into_iter().rev().map(|((level, author, what, why), queues)| {
        let found = format!("{what} on {}: {why}", some(&queues));
        check().of(level, found, author.remedy())
    }));
    if findings.is_empty() {
        let names: Vec<String> = applying.into_iter().map(|(_, name)| name).collect();
        let found =
            if names.is_empty() { "none".to_owned() } else { format!("{}: without harmful effects", some(&names)) };
        findings.push(check().ok(found));
    }
    findings
}

/// Returns the value of `key` that applies to `queue`; the lower one if a policy and an operator policy set it.
pub(crate) fn lowest(user: &[Policy], operator: &[Policy], queue: &str, key: &str) -> Option<u64> {
    let value = |(policies, author)| {
        let (readable, _) = readable(policies, author);
        find_applied(&readable, queue)?.definition.get(key)?.as_u64()
    };
    [(user, Author::User), (operator, Author::Operator)].into_iter().filter_map(value).min()
}

/// Returns the value of `key` of the policy that applies to `exchange`.
pub(crate) fn of_exchange<'a>(policies: &'a [Policy], exchange: &str, key: &str) -> Option<&'a Value> {
    let matching = policies.iter().filter(|policy| {
        let pattern = Regex::new(&policy.pattern);
        ["all", "exchanges"].contains(&&*policy.apply_to) && pattern.is_ok_and(|pattern| pattern.is_match(exchange))
    });
    matching.max_by_key(|policy| policy.priority)?.definition.get(key)
}

fn readable(policies: &[Policy], author: Author) -> (Vec<(Regex, &Policy)>, Vec<Finding>) {
    let (mut readable, mut findings) = (Vec::new(), Vec::new());
    for policy in policies.iter().filter(|policy| ["all", "queues", "quorum_queues"].contains(&&*policy.apply_to)) {
        let Ok(pattern) = Regex::new(&policy.pattern) else {
            let (author, Policy { name, pattern, .. }) = (author.word(), policy);
            let found = format!("{author} {name} has a pattern that genfleet cannot read: {pattern}");
            let remedy = "check whether it applies: rabbitmqctl list_queues name policy operator_policy";
            findings.push(check().warning(found, remedy));
            continue;
        };
        readable.push((pattern, policy));
    }
    (readable, findings)
}

fn find_applied<'a>(policies: &[(Regex, &'a Policy)], queue: &str) -> Option<&'a Policy> {
    let matching = policies.iter().filter(|(pattern, _)| pattern.is_match(queue));
    matching.map(|(_, policy)| *policy).max_by_key(|policy| policy.priority)
}

fn value_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use genfleet_core::queue::topology::topology;

    use super::*;

    fn policies(name: &str) -> Vec<Policy> {
        let text = match name {
            "user" => include_str!("samples/policies.json"),
            "operator" => include_str!("samples/operator-policies.json"),
            other => other,
        };
        serde_json::from_str(text).unwrap()
    }

    fn judged(user: &str, operator: &str) -> Vec<Finding> {
        judge(&topology("genfleet"), "genfleet", &policies(user), &policies(operator))
    }

    fn one(definition: &str) -> String {
        format!(
            r#"[{{"name":"p","pattern":"^genfleet\\.","apply-to":"queues","priority":1,"definition":{definition}}}]"#
        )
    }

    #[test]
    fn policies_of_a_real_broker_are_judged() {
        let findings = judged("user", "operator");
        let failed = |words: &[&str]| {
            findings.iter().any(|f| f.level == Level::Failed && words.iter().all(|word| f.found.contains(word)))
        };
        assert!(failed(&["policy ttl-all sets message-ttl to 60000", "genfleet.jobs.cdn.purge"]), "{findings:#?}");
        assert!(failed(&["policy everything sets expires to 3600000", "genfleet.dead.cdn.purge"]), "{findings:#?}");
        assert!(failed(&["operator policy ops sets delivery-limit to 3", "genfleet.dead."]), "{findings:#?}");
        // Only one policy applies to a queue: the jobs' is that of the higher priority.
        assert!(!failed(&["policy everything sets expires", "genfleet.jobs.cdn.purge"]));
    }

    #[test]
    fn without_policies_or_with_harmless_ones_all_is_well() {
        for harmless in [
            "[]",
            &one(r#"{"queue-leader-locator":"balanced","max-in-memory-length":10}"#),
            &one(r#"{"overflow":"reject-publish"}"#).replace("genfleet", "other"),
            &one(r#"{"expires":1}"#).replace("queues", "exchanges"),
            &one(r#"{"max-length-bytes":4294967296}"#).replace(r"^genfleet\\.", r"^genfleet\\.jobs\\.(cdn|file)"),
        ] {
            let findings = judged(harmless, "[]");
            assert_eq!(findings.len(), 1, "{findings:#?}");
            assert_eq!(findings[0].level, Level::Ok, "{harmless}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_reported() {
        let lookahead = one(r#"{"expires":1}"#).replace("^genfleet", "^(?!other)genfleet");
        let findings = judged(&lookahead, "[]");
        assert!(findings[0].level == Level::Warning && findings[0].found.contains("cannot read"), "{findings:?}");
    }

    #[test]
    fn the_lowest_value_counts() {
        let (user, operator) = (policies(&one(r#"{"x":7}"#)), policies(&one(r#"{"x":5}"#)));
        assert_eq!(lowest(&user, &operator, "genfleet.jobs.cdn.purge", "x"), Some(5));
        assert_eq!(lowest(&user, &[], "other", "x"), None);
    }
}
