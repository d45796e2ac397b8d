//! What each key of a policy does to each sort of queue (SPEC 6.1), as one table.
//!
//! How a policy and an argument of the same name meet is the broker's: of numbers the lower counts, of `overflow` and
//! `expires` the policy's, of everything about dead letters the argument's.

use genfleet_core::{
    job::Kind,
    message::Lane,
    queue::topology::{dead_queue, events, lane_queue, unknown_kinds_queue, unrouted},
};
use serde_json::Value;

use crate::finding::Level;

/// What our queues have by themselves.
const WORK_DELIVERY_LIMIT: u64 = 20;
const SHELF_DELIVERY_LIMIT: u64 = 1_000_000;
const WINDOW_LENGTH: u64 = 1_000_000;
const WINDOW_BYTES: u64 = 1 << 30;

/// Sorts of queues that differ in what weakens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// New jobs of producers, which the broker refuses where it is full.
    Jobs,
    /// What workers put back: begun jobs, suspects, webhooks.
    Begun,
    /// Dead letters, and what was unrouted.
    Shelf,
    /// The inspection window of the events, and what is still to be answered of the unrouted: the oldest go.
    Window,
    /// A step of the delays, of so many milliseconds.
    Delay(u64),
}

impl Class {
    /// Of a queue of the topology under `prefix`.
    pub(crate) fn of(prefix: &str, queue: &str) -> Self {
        if queue == events(prefix) || queue == unknown_kinds_queue(prefix) {
            return Self::Window;
        }
        if queue == unrouted(prefix) || Kind::ALL.iter().any(|kind| queue == dead_queue(prefix, *kind)) {
            return Self::Shelf;
        }
        if Kind::ALL.iter().any(|kind| !kind.is_internal() && queue == lane_queue(prefix, Lane::Jobs, *kind)) {
            return Self::Jobs;
        }
        let step = queue.rsplit_once("delay.").and_then(|(_, step)| step.parse::<u32>().ok());
        step.map_or(Self::Begun, |step| Self::Delay(1000 << step))
    }

    const fn holds_jobs(self) -> bool {
        match self {
            Self::Jobs | Self::Begun => true,
            Self::Shelf | Self::Window | Self::Delay(_) => false,
        }
    }
}

/// What `key` of this value does to a queue, where it weakens it.
pub(crate) fn weakening(class: Class, key: &str, value: &Value) -> Option<(Level, String)> {
    let number = value.as_u64();
    match key {
        "message-ttl" => time_to_live(class, number.unwrap_or(0)),
        "expires" => Some(failed("unused for so many ms, the queue is deleted with all that is in it")),
        "max-length" => length(class, number.unwrap_or(0), WINDOW_LENGTH),
        "max-length-bytes" => length(class, number.unwrap_or(0), WINDOW_BYTES),
        "overflow" => overflow(class, value.as_str().unwrap_or_default()),
        "delivery-limit" => delivery_limit(class, number?),
        "dead-letter-exchange" if matches!(class, Class::Shelf | Class::Window) => {
            Some(warning("what is dropped there goes to that exchange, and nobody of ours knows"))
        }
        "dead-letter-routing-key" if !matches!(class, Class::Shelf | Class::Window) => {
            Some(failed("dead letters and delayed jobs lose their kind, and end in the unrouted queue"))
        }
        _ => None,
    }
}

fn time_to_live(class: Class, milliseconds: u64) -> Option<(Level, String)> {
    match class {
        Class::Jobs | Class::Begun => {
            Some(failed("jobs that wait longer are given up by the broker: not run, and without an event"))
        }
        Class::Shelf => Some(failed("dead letters are gone after that")),
        Class::Window => Some(warning("events can be looked at for so many ms only")),
        Class::Delay(own) => (milliseconds < own).then(|| failed("delays end early: retries come too soon")),
    }
}

fn length(class: Class, value: u64, window: u64) -> Option<(Level, String)> {
    match class {
        // Producers are refused, and slow down: that is what such a policy is for.
        Class::Jobs => None,
        Class::Begun | Class::Delay(_) => {
            Some(warning("when it is full, workers cannot put jobs back: they wait, and their jobs come again"))
        }
        Class::Shelf => Some(failed("when it is full, the oldest dead letters are dropped")),
        Class::Window => (value < window).then(|| warning("fewer of the past events can be looked at")),
    }
}

fn overflow(class: Class, value: &str) -> Option<(Level, String)> {
    match class {
        Class::Jobs | Class::Begun | Class::Delay(_) => (value != "reject-publish")
            .then(|| failed("it wins over the queue's own: a full queue gives up its oldest jobs without an event, and dead letters can be lost")),
        Class::Window => (value != "drop-head").then(|| failed("a full window refuses events, so that no job can end")),
        Class::Shelf => None,
    }
}

fn delivery_limit(class: Class, value: u64) -> Option<(Level, String)> {
    if class.holds_jobs() && value < WORK_DELIVERY_LIMIT {
        return Some(failed(
            "a job that came back so often, also by restarts, is given up by the broker: without an event",
        ));
    }
    match class {
        Class::Shelf if value < SHELF_DELIVERY_LIMIT => {
            Some(failed("letters that were looked at so often are dropped"))
        }
        Class::Window if value < SHELF_DELIVERY_LIMIT => {
            Some(warning("events that were looked at so often are dropped from the window"))
        }
        Class::Jobs | Class::Begun | Class::Shelf | Class::Window | Class::Delay(_) => None,
    }
}

fn failed(why: &str) -> (Level, String) {
    (Level::Failed, why.to_owned())
}

fn warning(why: &str) -> (Level, String) {
    (Level::Warning, why.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_queue_of_the_topology_has_its_class() {
        for (queue, class) in [
            ("g.jobs.cdn.purge", Class::Jobs),
            ("g.jobs.webhook.deliver", Class::Begun),
            ("g.resume.file.scan", Class::Begun),
            ("g.suspect.file.scan", Class::Begun),
            ("g.dead.vni.provision", Class::Shelf),
            ("g.unrouted", Class::Shelf),
            ("g.events", Class::Window),
            ("g.delay.00", Class::Delay(1000)),
            ("g.delay.15", Class::Delay(32_768_000)),
        ] {
            assert_eq!(Class::of("g", queue), class, "{queue}");
        }
    }

    #[test]
    fn each_key_weakens_what_it_weakens() {
        use Level::{Failed, Warning};
        const DELAY: Class = Class::Delay(8000);
        let table = [
            ("message-ttl", json!(60_000), [Some(Failed), Some(Failed), Some(Failed), Some(Warning), None]),
            ("message-ttl", json!(7_999), [Some(Failed), Some(Failed), Some(Failed), Some(Warning), Some(Failed)]),
            ("expires", json!(1), [Some(Failed); 5]),
            ("max-length", json!(10), [None, Some(Warning), Some(Failed), Some(Warning), Some(Warning)]),
            ("max-length", json!(2_000_000), [None, Some(Warning), Some(Failed), None, Some(Warning)]),
            ("max-length-bytes", json!(4_u64 << 30), [None, Some(Warning), Some(Failed), None, Some(Warning)]),
            ("overflow", json!("drop-head"), [Some(Failed), Some(Failed), None, None, Some(Failed)]),
            ("overflow", json!("reject-publish"), [None, None, None, Some(Failed), None]),
            ("delivery-limit", json!(5), [Some(Failed), Some(Failed), Some(Failed), Some(Warning), None]),
            ("delivery-limit", json!(20), [None, None, Some(Failed), Some(Warning), None]),
            ("delivery-limit", json!(-1), [None; 5]),
            ("delivery-limit", json!(1_000_000), [None; 5]),
            ("dead-letter-exchange", json!("x"), [None, None, Some(Warning), Some(Warning), None]),
            ("dead-letter-routing-key", json!("x"), [Some(Failed), Some(Failed), None, None, Some(Failed)]),
            ("queue-leader-locator", json!("balanced"), [None; 5]),
            ("ha-mode", json!("all"), [None; 5]),
        ];
        for (key, value, levels) in table {
            let classes = [Class::Jobs, Class::Begun, Class::Shelf, Class::Window, DELAY];
            let found = classes.map(|class| weakening(class, key, &value).map(|(level, _)| level));
            assert_eq!(found, levels, "{key} {value}");
        }
    }
}
