//! Counters that show whether delayed jobs come back: jobs whose delay is over by the clock of the process that delayed
//! them, and jobs that came out of the delays, as seen by the process that gets them. Where the first counter of the
//! fleet grows and the other does not, and nothing waits, a step of the delays is stuck.
//!
//! Only started jobs are counted: they come back to a queue of their own, which a backlog of new ones delays at most
//! twice.
//!
//! The broker's own count cannot tell: a message whose time is over is no longer counted in its queue, also if it
//! does not get on from there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::BasicProperties;
use tokio::time::Instant;

use crate::{message::Destination, topology};
use genfleet_job::{Kind, message::Lane, metric};

/// The broker's header with the queue out of which a message was dead-lettered first.
const FIRST_DEATH: &str = "x-first-death-queue";

/// A delay of a started job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay {
    kind: Kind,
    step: &'static str,
    lasts: Duration,
}

impl Delay {
    /// The delay of what goes to `to`, if that is a started job and delayed.
    pub(super) fn of(to: &Destination) -> Option<Self> {
        let Destination::Lane { kind, lane: Lane::Resume, .. } = to else { return None };
        let (step, seconds) = topology::delay(to)?;
        Some(Self { kind: *kind, step, lasts: Duration::from_secs(seconds.into()) })
    }
}

/// Number of jobs by kind and step.
type Counts = BTreeMap<(Kind, &'static str), u64>;

/// Running delays by the second in which they end: no more entries than the longest delay has seconds.
#[derive(Debug)]
pub(super) struct Delays {
    born: Instant,
    going_on: Mutex<BTreeMap<u64, Counts>>,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self { born: Instant::now(), going_on: Mutex::default() }
    }

    /// Adds delays that begin now.
    pub(super) fn begun(&self, delays: Vec<Delay>, now: Instant) {
        let mut going_on = self.going_on.lock().unwrap_or_else(PoisonError::into_inner);
        for Delay { kind, step, lasts } in delays {
            let over = self.second(now + lasts) + 1;
            *going_on.entry(over).or_default().entry((kind, step)).or_default() += 1;
        }
    }

    /// Counts the delays that are over.
    pub(super) fn count_due(&self, now: Instant) {
        let mut going_on = self.going_on.lock().unwrap_or_else(PoisonError::into_inner);
        let later = going_on.split_off(&(self.second(now) + 1));
        for ((kind, step), count) in std::mem::replace(&mut *going_on, later).into_values().flatten() {
            metrics::counter!(metric::DELAYS_DUE, "kind" => kind.as_str(), "queue" => step).increment(count);
        }
    }

    fn second(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.born).as_secs()
    }
}

/// Counts a message that came out of the delays by `lane`, if that is the one of started jobs.
pub(super) fn ended(prefix: &str, (kind, lane): (Kind, Lane), properties: &BasicProperties) {
    if lane != Lane::Resume {
        return;
    }
    let first = properties.headers().as_ref().and_then(|headers| headers.inner().get(FIRST_DEATH)?.as_long_string());
    let step = first.and_then(|queue| topology::delay_step(prefix, std::str::from_utf8(queue.as_bytes()).ok()?));
    if let Some(step) = step {
        metrics::counter!(metric::DELAYS_ENDED, "kind" => kind.as_str(), "queue" => step).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn delay(after: Duration) -> Option<Delay> {
        Delay::of(&Destination::Lane { kind: Kind::FileScan, lane: Lane::Resume, after })
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_counted_when_it_is_over_and_once() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        let _local = metrics::set_default_local_recorder(&recorder);
        let (delays, begin) = (Delays::new(), Instant::now());
        let five: Vec<_> = (0..1000).filter_map(|_| delay(Duration::from_secs(5))).collect();
        for number in 0..100 {
            delays.begun(five.clone(), begin + Duration::from_millis(10 * number));
        }
        assert!(delays.going_on.lock().unwrap().len() <= 2, "a second is an entry");
        assert_eq!(delay(Duration::ZERO), None);
        delays.count_due(begin + Duration::from_millis(4_999));
        assert!(!shown.render().contains("genfleet_delays_due_total{"), "none is over");
        delays.count_due(begin + Duration::from_secs(8));
        delays.count_due(begin + Duration::from_secs(9));
        let line = r#"genfleet_delays_due_total{kind="file.scan",queue="02"} 100000"#;
        assert!(shown.render().contains(line), "{}", shown.render());
    }
}
