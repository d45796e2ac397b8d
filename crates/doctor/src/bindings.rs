//! The bindings between exchanges and queues, which AMQP cannot look at: a missing one sends jobs, delays or dead letters
//! to `genfleet.unrouted`, or nowhere.

use std::collections::HashSet;

use genfleet_core::queue::topology::{Target, Topology};
use serde::Deserialize;

use super::finding::{Finding, some};

/// A binding, as `/api/bindings` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SeenBinding {
    source: String,
    destination: String,
    destination_type: String,
    routing_key: String,
}

/// Judges whether all of `wanted` are there, of queues that are `there`: others are reported missing elsewhere. More
/// than those are a matter of their owners.
pub(crate) fn judge(wanted: &Topology, seen: &[SeenBinding], there: &HashSet<&str>) -> Finding {
    const CHECK: &str = "broker.bindings";
    let bound: HashSet<_> =
        seen.iter().map(|b| (&*b.source, &*b.destination, &*b.destination_type, &*b.routing_key)).collect();
    let missing = wanted.bindings.iter().filter(|binding| {
        // Where one exchange leads to another, a step of the delays begins, which has a queue of the same name.
        let (target, queue) = match binding.destination_type {
            Target::Queue => ("queue", &binding.destination),
            Target::Exchange => ("exchange", &binding.source),
        };
        let key = (&*binding.source, &*binding.destination, target, &*binding.routing_key);
        there.contains(queue.as_str()) && !bound.contains(&key)
    });
    let missing: Vec<String> = missing
        .map(|binding| format!("{} → {} ({})", binding.source, binding.destination, binding.routing_key))
        .collect();
    let looked_at = format!("{} bindings", wanted.bindings.len());
    if missing.is_empty() {
        let whole = wanted.queues.iter().all(|queue| there.contains(queue.name.as_str()));
        return Finding::ok(CHECK, looked_at, if whole { "all there" } else { "those of the queues that are there" });
    }
    let found = format!("{} are missing: {}", missing.len(), some(&missing));
    let remedy = "start a worker with --topology declare, or import what genfleet topology prints: what is published \
                  meanwhile goes astray";
    Finding::failed(CHECK, looked_at, found, remedy)
}

#[cfg(test)]
mod tests {
    use genfleet_core::queue::topology::topology;

    use super::{super::finding::Level, *};

    const SEEN: &str = include_str!("samples/bindings.json");

    #[test]
    fn every_binding_is_looked_for_and_a_missing_one_is_named() {
        let mut seen: Vec<SeenBinding> = serde_json::from_str(SEEN).unwrap();
        let wanted = topology("genfleet");
        let there = wanted.queues.iter().map(|queue| queue.name.as_str()).collect();
        assert_eq!(judge(&wanted, &seen, &there).level, Level::Ok);
        seen.retain(|binding| binding.destination != "genfleet.jobs.cdn.purge" || binding.source != "genfleet.jobs");
        let finding = judge(&wanted, &seen, &there);
        assert_eq!(finding.level, Level::Failed);
        assert!(finding.found.contains("genfleet.jobs → genfleet.jobs.cdn.purge (cdn.purge)"), "{}", finding.found);
        assert_eq!(judge(&wanted, &[], &HashSet::new()).level, Level::Ok, "no queue, no binding");
        let one = judge(&wanted, &[], &HashSet::from(["genfleet.delay.03"]));
        assert!(one.found.starts_with("2 are missing"), "{}", one.found);
    }
}
