//! The effect of each key of a policy on each sort of queue (SPEC 6.1).
//!
//! If a policy and an argument of the queue set the same key, the broker uses the lower number, for `overflow` and
//! `expires` the policy's value, and for everything about dead letters the argument's value.

use genfleet_core::{
    job::Kind,
    message::Lane,
    queue::topology::{dead_queue, events, lane_queue, unknown_kinds_queue, unrouted},
};
use serde_json::Value;

use crate::finding::Level;

/// The arguments that the topology gives the queues.
const JOB_DELIVERY_LIMIT: u64 = 20;
const DEAD_DELIVERY_LIMIT: u64 = 1_000_000;
const WINDOW_LENGTH: u64 = 1_000_000;
const WINDOW_BYTES: u64 = 1 << 30;

/// Sorts of queues by the settings that weaken them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// New jobs of producers. If the queue is full, the broker refuses them.
    Jobs,
    /// Jobs that workers publish: begun jobs, suspects, webhook deliveries.
    Begun,
    /// Dead letters and unrouted messages.
    Dead,
    /// The inspection queue of the events, and the unrouted messages that still need an event. The oldest are dropped.
    Window,
    /// A delay queue, with its delay in milliseconds.
    Delay(u64),
}

impl Class {
    /// The class of a queue of the topology with `prefix`.
    pub(crate) fn of(prefix: &str, queue: &str) -> Self {
        if queue == events(prefix) || queue == unknown_kinds_queue(prefix) {
            return Self::Window;
        }
        if queue == unrouted(prefix) || Kind::ALL.iter().any(|kind| queue == dead_queue(prefix, *kind)) {
            return Self::Dead;
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
            Self::Dead | Self::Window | Self::Delay(_) => false,
        }
    }
}

/// Returns the effect of `key` with this value on a queue; `None` if it does not weaken the queue.
pub(crate) fn weakening(class: Class, key: &str, value: &Value) -> Option<(Level, String)> {
    let number = value.as_u64();
    match key {
        "message-ttl" => time_to_live(class, number.unwrap_or(0)),
        "expires" => Some(failed("after so many ms without use, the queue is deleted with all its messages")),
        "max-length" => length(class, number.unwrap_or(0), WINDOW_LENGTH),
        "max-length-bytes" => length(class, number.unwrap_or(0), WINDOW_BYTES),
        "overflow" => overflow(class, value.as_str().unwrap_or_default()),
        "delivery-limit" => delivery_limit(class, number?),
        "dead-letter-exchange" if matches!(class, Class::Dead | Class::Window) => {
            Some(warning("dropped messages go to that exchange, which genfleet does not know"))
        }
        "dead-letter-routing-key" if !matches!(class, Class::Dead | Class::Window) => {
            Some(failed("dead letters and delayed jobs lose their kind, and go to the unrouted queue"))
        }
        _ => None,
    }
}

fn time_to_live(class: Class, milliseconds: u64) -> Option<(Level, String)> {
    match class {
        Class::Jobs | Class::Begun => {
            Some(failed("the broker drops jobs that wait longer: they are not run, and there is no event"))
        }
        Class::Dead => Some(failed("dead letters are dropped after so many ms")),
        Class::Window => Some(warning("events can be inspected for so many ms only")),
        Class::Delay(own) => (milliseconds < own).then(|| failed("delays end early, so that retries run too soon")),
    }
}

fn length(class: Class, value: u64, window: u64) -> Option<(Level, String)> {
    match class {
        // The broker refuses producers, so they slow down. This is the purpose of such a policy.
        Class::Jobs => None,
        Class::Begun | Class::Delay(_) => {
            Some(warning("when it is full, workers cannot publish jobs to it: they wait, and their jobs run again"))
        }
        Class::Dead => Some(failed("when it is full, the oldest dead letters are dropped")),
        Class::Window => (value < window).then(|| warning("fewer past events can be inspected")),
    }
}

fn overflow(class: Class, value: &str) -> Option<(Level, String)> {
    match class {
        Class::Jobs | Class::Begun | Class::Delay(_) => (value != "reject-publish")
            .then(|| failed("it overrides the queue's own setting: a full queue drops its oldest jobs without an event, and dead letters can be lost")),
        Class::Window => (value != "drop-head").then(|| failed("when it is full, it refuses events, so that no job can be completed")),
        Class::Dead => None,
    }
}

fn delivery_limit(class: Class, value: u64) -> Option<(Level, String)> {
    if class.holds_jobs() && value < JOB_DELIVERY_LIMIT {
        return Some(failed(
            "the broker drops a job that was redelivered so often, also by restarts, without an event",
        ));
    }
    match class {
        Class::Dead if value < DEAD_DELIVERY_LIMIT => Some(failed("dead letters that were read so often are dropped")),
        Class::Window if value < DEAD_DELIVERY_LIMIT => {
            Some(warning("events that were read so often are dropped from this queue"))
        }
        Class::Jobs | Class::Begun | Class::Dead | Class::Window | Class::Delay(_) => None,
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
            ("g.dead.vni.provision", Class::Dead),
            ("g.unrouted", Class::Dead),
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
            let classes = [Class::Jobs, Class::Begun, Class::Dead, Class::Window, DELAY];
            let found = classes.map(|class| weakening(class, key, &value).map(|(level, _)| level));
            assert_eq!(found, levels, "{key} {value}");
        }
    }
}
