//! Our queues as the management API tells them: their arguments, where AMQP could not compare them, and their replicas.

use std::collections::HashMap;

use genfleet_core::queue::topology::{Queue, Topology};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    finding::{Finding, some},
    nodes::Node,
};

/// More than so many make every publication slower, and nothing safer.
const REPLICAS: usize = 3;

/// A queue, as `/api/queues` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SeenQueue {
    name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    online: Vec<String>,
    /// What it gave up and nobody has taken over yet.
    #[serde(default)]
    messages_dlx: u64,
}

impl SeenQueue {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Messages whose time in it is over, and that did not get on.
    pub(crate) fn overdue(&self) -> u64 {
        self.messages_dlx
    }
}

/// What is there with other arguments than it should have.
pub(crate) fn differences(wanted: &Topology, seen: &[SeenQueue]) -> Vec<String> {
    ours(wanted, seen).flat_map(|(wanted, seen)| differing(wanted, seen)).collect()
}

fn ours<'a>(wanted: &'a Topology, seen: &'a [SeenQueue]) -> impl Iterator<Item = (&'a Queue, &'a SeenQueue)> {
    let by_name: HashMap<_, _> = seen.iter().map(|queue| (queue.name.as_str(), queue)).collect();
    wanted.queues.iter().filter_map(move |queue| Some((queue, *by_name.get(queue.name.as_str())?)))
}

fn differing(wanted: &Queue, seen: &SeenQueue) -> Vec<String> {
    let wanted_arguments: Map<String, Value> =
        wanted.arguments.iter().map(|(name, argument)| ((*name).to_owned(), json!(argument))).collect();
    let shown = |value: Option<&Value>| value.map_or("not set".to_owned(), ToString::to_string);
    let mut names: Vec<_> = wanted_arguments.keys().chain(seen.arguments.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names.into_iter().filter(|name| wanted_arguments.get(*name) != seen.arguments.get(*name));
    differing
        .map(|name| {
            let (is, should) = (shown(seen.arguments.get(name)), shown(wanted_arguments.get(name)));
            format!("queue {}: {name} is {is} and should be {should}", wanted.name)
        })
        .collect()
}

/// Judges how many members they have, and how many of those are there.
pub(crate) fn replicas(wanted: &Topology, seen: &[SeenQueue], nodes: &[Node]) -> Vec<Finding> {
    const CHECK: &str = "broker.replicas";
    let looked_at = "the queues' replicas";
    let ours: Vec<&SeenQueue> = ours(wanted, seen).map(|(_, seen)| seen).collect();
    let names = |wanted: &dyn Fn(&SeenQueue) -> bool| -> Vec<String> {
        ours.iter().filter(|queue| wanted(queue)).map(|queue| queue.name.clone()).collect()
    };
    // Who may not see the nodes sees those that have members.
    let with_members: std::collections::BTreeSet<_> = ours.iter().flat_map(|queue| &queue.members).collect();
    let nodes = nodes.len().max(with_members.len());
    let enough = nodes.min(REPLICAS);
    let still = names(&|queue| queue.online.len() * 2 <= queue.members.len() && !queue.members.is_empty());
    let degraded = names(&|queue| queue.online.len() < queue.members.len() && !still.contains(&queue.name));
    let few = names(&|queue| queue.members.len() < enough);
    let mut findings = Vec::new();
    if !still.is_empty() {
        let found = format!("no majority of their members is there, so they stand still: {}", some(&still));
        findings.push(Finding::failed(CHECK, looked_at, found, "start the nodes that are down"));
    }
    if !degraded.is_empty() {
        let found = format!("a member is away: {}", some(&degraded));
        findings.push(Finding::warning(
            CHECK,
            looked_at,
            found,
            "start the node that is down: one more, and they may stand still",
        ));
    }
    if !few.is_empty() {
        let found = format!("fewer than {enough} members on {nodes} nodes: {}", some(&few));
        let remedy = "rabbitmq-queues grow NODE all --queue-pattern '^genfleet\\.', for each node that lacks them";
        findings.push(Finding::warning(CHECK, looked_at, found, remedy));
    }
    if findings.is_empty() && !ours.is_empty() {
        let least = ours.iter().map(|queue| queue.members.len()).min().unwrap_or(0);
        let found = format!("{} queues, members of each: {least} or more, all there; nodes: {nodes}", ours.len());
        findings.push(Finding::ok(CHECK, looked_at, found));
    }
    findings
}

#[cfg(test)]
mod tests {
    use genfleet_core::queue::topology::topology;

    use super::{super::finding::Level, *};

    fn seen() -> Vec<SeenQueue> {
        serde_json::from_str(include_str!("samples/queues.json")).unwrap()
    }

    fn nodes(count: usize) -> Vec<Node> {
        let nodes: Vec<Value> = (0..count).map(|n| json!({"name": format!("rabbit@{n}"), "running": true})).collect();
        serde_json::from_value(Value::Array(nodes)).unwrap()
    }

    #[test]
    fn an_argument_that_differs_is_named_with_what_it_should_be() {
        let mut queues = seen();
        assert_eq!(differences(&topology("genfleet"), &queues), Vec::<String>::new());
        let queue = queues.iter_mut().find(|queue| queue.name == "genfleet.jobs.cdn.purge").unwrap();
        queue.arguments.insert("x-delivery-limit".to_owned(), json!(3));
        queue.arguments.insert("x-max-length".to_owned(), json!(10));
        queue.arguments.remove("x-overflow");
        assert_eq!(
            differences(&topology("genfleet"), &queues),
            [
                "queue genfleet.jobs.cdn.purge: x-delivery-limit is 3 and should be 20",
                "queue genfleet.jobs.cdn.purge: x-max-length is 10 and should be not set",
                "queue genfleet.jobs.cdn.purge: x-overflow is not set and should be \"reject-publish\"",
            ]
        );
    }

    #[test]
    fn replicas_are_as_many_as_there_can_be_up_to_three() {
        let levels = |queues: &[SeenQueue], count| -> Vec<Level> {
            replicas(&topology("genfleet"), queues, &nodes(count)).iter().map(|finding| finding.level).collect()
        };
        let mut queues = seen();
        assert_eq!(levels(&queues, 1), [Level::Ok]);
        assert_eq!(levels(&queues, 3), [Level::Warning]);
        let members = |count: usize| (0..count).map(|n| format!("rabbit@{n}")).collect::<Vec<_>>();
        for queue in &mut queues {
            (queue.members, queue.online) = (members(3), members(3));
        }
        assert_eq!(levels(&queues, 5), [Level::Ok]);
        queues[0].online = members(2);
        assert_eq!(levels(&queues, 3), [Level::Warning]);
        queues[0].online = members(1);
        assert_eq!(levels(&queues, 3), [Level::Failed]);
    }
}
