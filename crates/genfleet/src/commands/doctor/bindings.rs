//! The bindings between exchanges and queues, which AMQP cannot look at: a missing one sends jobs, delays or dead letters
//! to `genfleet.unrouted`, or nowhere.

use std::collections::HashSet;

use genfleet_core::queue::topology::{Target, Topology};
use serde::Deserialize;

use super::finding::{Finding, some};

/// A binding, as `/api/bindings` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct SeenBinding {
    source: String,
    destination: String,
    destination_type: String,
    routing_key: String,
}

/// Judges whether all of `wanted` are there. More than those are a matter of their owners.
pub fn judge(wanted: &Topology, seen: &[SeenBinding]) -> Finding {
    const CHECK: &str = "broker.bindings";
    let there: HashSet<_> =
        seen.iter().map(|b| (&*b.source, &*b.destination, &*b.destination_type, &*b.routing_key)).collect();
    let missing = wanted.bindings.iter().filter(|binding| {
        let target = match binding.destination_type {
            Target::Queue => "queue",
            Target::Exchange => "exchange",
        };
        !there.contains(&(&*binding.source, &*binding.destination, target, &*binding.routing_key))
    });
    let missing: Vec<String> = missing
        .map(|binding| format!("{} → {} ({})", binding.source, binding.destination, binding.routing_key))
        .collect();
    let looked_at = format!("{} bindings", wanted.bindings.len());
    if missing.is_empty() {
        return Finding::ok(CHECK, looked_at, "all there");
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
        assert_eq!(judge(&wanted, &seen).level, Level::Ok);
        seen.retain(|binding| binding.destination != "genfleet.jobs.cdn.purge" || binding.source != "genfleet.jobs");
        let finding = judge(&wanted, &seen);
        assert_eq!(finding.level, Level::Failed);
        assert!(finding.found.contains("genfleet.jobs → genfleet.jobs.cdn.purge (cdn.purge)"), "{}", finding.found);
    }
}
