//! The bindings between exchanges and queues, which AMQP cannot read. If one is missing, jobs, delayed jobs or dead
//! letters go to `genfleet.unrouted`, or are dropped.

use std::collections::HashSet;

use genfleet_core::queue::topology::{Target, Topology};
use serde::Deserialize;

use super::finding::{Check, Finding, some};

/// A binding as `/api/bindings` reports it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportedBinding {
    source: String,
    destination: String,
    destination_type: String,
    routing_key: String,
}

/// Judges whether all `wanted` bindings exist whose queue is among the `existing` ones; missing queues are reported by
/// another check. Additional bindings are ignored.
pub(crate) fn judge(wanted: &Topology, reported: &[ReportedBinding], existing: &HashSet<&str>) -> Finding {
    let bound: HashSet<_> =
        reported.iter().map(|b| (&*b.source, &*b.destination, &*b.destination_type, &*b.routing_key)).collect();
    let missing = wanted.bindings.iter().filter(|binding| {
        // A binding between two exchanges belongs to a delay queue, which has the name of the source.
        let (target, queue) = match binding.destination_type {
            Target::Queue => ("queue", &binding.destination),
            Target::Exchange => ("exchange", &binding.source),
        };
        let key = (&*binding.source, &*binding.destination, target, &*binding.routing_key);
        existing.contains(queue.as_str()) && !bound.contains(&key)
    });
    let missing: Vec<String> = missing
        .map(|binding| format!("{} → {} ({})", binding.source, binding.destination, binding.routing_key))
        .collect();
    let check = Check::new("broker.bindings", format!("{} bindings", wanted.bindings.len()));
    if missing.is_empty() {
        let complete = wanted.queues.iter().all(|queue| existing.contains(queue.name.as_str()));
        return check.ok(if complete { "all exist" } else { "all bindings of the existing queues exist" });
    }
    check.failed(
        format!("{} are missing: {}", missing.len(), some(&missing)),
        "start a worker with --topology declare, or import the output of genfleet topology: until then, messages do not \
         reach the queues of these bindings",
    )
}

#[cfg(test)]
mod tests {
    use genfleet_core::queue::topology::topology;

    use super::{super::finding::Level, *};

    const REPORTED: &str = include_str!("samples/bindings.json");

    #[test]
    fn every_binding_is_checked_and_a_missing_one_is_named() {
        let mut reported: Vec<ReportedBinding> = serde_json::from_str(REPORTED).unwrap();
        let wanted = topology("genfleet");
        let existing = wanted.queues.iter().map(|queue| queue.name.as_str()).collect();
        assert_eq!(judge(&wanted, &reported, &existing).level, Level::Ok);
        reported
            .retain(|binding| binding.destination != "genfleet.jobs.cdn.purge" || binding.source != "genfleet.jobs");
        let finding = judge(&wanted, &reported, &existing);
        assert_eq!(finding.level, Level::Failed);
        assert!(finding.found.contains("genfleet.jobs → genfleet.jobs.cdn.purge (cdn.purge)"), "{}", finding.found);
        assert_eq!(judge(&wanted, &[], &HashSet::new()).level, Level::Ok, "no queue, no binding");
        let one = judge(&wanted, &[], &HashSet::from(["genfleet.delay.03"]));
        assert!(one.found.starts_with("2 are missing"), "{}", one.found);
    }
}
