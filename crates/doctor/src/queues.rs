//! The topology's queues as the management API reports them: their arguments, for users who may not compare them over
//! AMQP, and their replicas.

use std::collections::{BTreeSet, HashMap};

use genfleet_core::queue::topology::{Queue, Topology};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    finding::{Check, Finding, some},
    nodes::Node,
};

/// The useful number of replicas. More make every publication slower without making it safer.
const REPLICAS: usize = 3;

/// A queue as `/api/queues` reports it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportedQueue {
    pub name: String,
    #[serde(default)]
    arguments: Map<String, Value>,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    online: Vec<String>,
    /// Messages that it dead-letters and that no other queue has confirmed yet.
    #[serde(default)]
    pub messages_dlx: u64,
}

/// Describes all arguments that differ from the wanted ones.
pub(crate) fn differences(wanted: &Topology, reported: &[ReportedQueue]) -> Vec<String> {
    ours(wanted, reported).flat_map(|(wanted, reported)| differing(wanted, reported)).collect()
}

fn ours<'a>(
    wanted: &'a Topology,
    reported: &'a [ReportedQueue],
) -> impl Iterator<Item = (&'a Queue, &'a ReportedQueue)> {
    let by_name: HashMap<_, _> = reported.iter().map(|queue| (queue.name.as_str(), queue)).collect();
    wanted.queues.iter().filter_map(move |queue| Some((queue, *by_name.get(queue.name.as_str())?)))
}

fn differing(wanted: &Queue, reported: &ReportedQueue) -> Vec<String> {
    let arguments: Map<String, Value> =
        wanted.arguments.iter().map(|(name, argument)| ((*name).to_owned(), json!(argument))).collect();
    let describe = |value: Option<&Value>| value.map_or("not set".to_owned(), ToString::to_string);
    let names: BTreeSet<_> = arguments.keys().chain(reported.arguments.keys()).collect();
    let differing = names.into_iter().filter(|name| arguments.get(*name) != reported.arguments.get(*name));
    differing
        .map(|name| {
            let (is, should) = (describe(reported.arguments.get(name)), describe(arguments.get(name)));
            format!("queue {}: {name} is {is} and should be {should}", wanted.name)
        })
        .collect()
}

/// Judges how many members the queues have, and how many of these are running.
pub(crate) fn replicas(wanted: &Topology, reported: &[ReportedQueue], nodes: &[Node]) -> Vec<Finding> {
    let check = Check::new("broker.replicas", "the queues' replicas");
    let ours: Vec<&ReportedQueue> = ours(wanted, reported).map(|(_, reported)| reported).collect();
    let names = |matches: &dyn Fn(&ReportedQueue) -> bool| -> Vec<String> {
        ours.iter().filter(|queue| matches(queue)).map(|queue| queue.name.clone()).collect()
    };
    // A user who may not list the nodes sees those that have members.
    let with_members: BTreeSet<_> = ours.iter().flat_map(|queue| &queue.members).collect();
    let nodes = nodes.len().max(with_members.len());
    let enough = nodes.min(REPLICAS);
    let unavailable = names(&|queue| queue.online.len() * 2 <= queue.members.len() && !queue.members.is_empty());
    let degraded = names(&|queue| queue.online.len() < queue.members.len() && !unavailable.contains(&queue.name));
    let few = names(&|queue| queue.members.len() < enough);
    let mut findings = Vec::new();
    if !unavailable.is_empty() {
        let found = format!("unavailable, because no majority of their members is running: {}", some(&unavailable));
        findings.push(check.failed(found, "start the nodes that are down"));
    }
    if !degraded.is_empty() {
        let remedy = "start the node that is down: if another one fails, these queues may become unavailable";
        findings.push(check.warning(format!("a member is not running: {}", some(&degraded)), remedy));
    }
    if !few.is_empty() {
        let found = format!("fewer than {enough} members on {nodes} nodes: {}", some(&few));
        let remedy = "rabbitmq-queues grow NODE all --queue-pattern '^genfleet\\.', for each node that lacks them";
        findings.push(check.warning(found, remedy));
    }
    if findings.is_empty() && !ours.is_empty() {
        let least = ours.iter().map(|queue| queue.members.len()).min().unwrap_or(0);
        let found = format!("{} queues, each with {least} members or more, all running; nodes: {nodes}", ours.len());
        findings.push(check.ok(found));
    }
    findings
}

#[cfg(test)]
mod tests {
    use genfleet_core::queue::topology::topology;

    use super::{super::finding::Level, *};

    fn reported() -> Vec<ReportedQueue> {
        serde_json::from_str(include_str!("samples/queues.json")).unwrap()
    }

    fn nodes(count: usize) -> Vec<Node> {
        let nodes: Vec<Value> = (0..count).map(|n| json!({"name": format!("rabbit@{n}"), "running": true})).collect();
        serde_json::from_value(Value::Array(nodes)).unwrap()
    }

    #[test]
    fn an_argument_that_differs_is_named_with_what_it_should_be() {
        let mut queues = reported();
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
    fn queues_need_a_replica_on_each_of_up_to_three_nodes() {
        let levels = |queues: &[ReportedQueue], count| -> Vec<Level> {
            replicas(&topology("genfleet"), queues, &nodes(count)).iter().map(|finding| finding.level).collect()
        };
        let mut queues = reported();
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
