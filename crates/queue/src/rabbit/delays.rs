//! Counters that show whether delayed jobs return: jobs whose delay is over by the clock of the process that delayed
//! them, and jobs that returned from a delay, counted by the process that receives them. If the fleet's first counter
//! grows, the second does not, and no jobs wait, a delay step is stuck.
//!
//! Only started jobs are counted: they return to their own queue, where a backlog of new jobs at most doubles their
//! wait.
//!
//! The broker's own counts do not show this: an expired message is no longer counted in its queue, even if it is stuck
//! there.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::BasicProperties;
use tokio::time::Instant;

use crate::{message::Destination, topology};
use genfleet_job::{Kind, message::Lane, metric};

/// The broker's header with the queue from which a message was first dead-lettered.
const FIRST_DEATH: &str = "x-first-death-queue";

/// A delay of a started job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay {
    kind: Kind,
    step: &'static str,
    duration: Duration,
}

impl Delay {
    /// Returns the delay of a message for `to`, if it is a started job with a delay.
    pub(super) fn of(to: &Destination) -> Option<Self> {
        let Destination::Lane { kind, lane: Lane::Resume, .. } = to else { return None };
        let (step, seconds) = topology::delay(to)?;
        Some(Self { kind: *kind, step, duration: Duration::from_secs(seconds.into()) })
    }
}

/// Number of jobs by kind and delay step.
type DelayCounts = BTreeMap<(Kind, &'static str), u64>;

/// Running delays by the second in which they end. There is at most one entry for each second of the longest delay.
#[derive(Debug)]
pub(super) struct Delays {
    created: Instant,
    running: Mutex<BTreeMap<u64, DelayCounts>>,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self { created: Instant::now(), running: Mutex::default() }
    }

    /// Adds delays that begin at `now`.
    pub(super) fn add(&self, delays: Vec<Delay>, now: Instant) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for Delay { kind, step, duration } in delays {
            let over = self.second(now + duration) + 1;
            *running.entry(over).or_default().entry((kind, step)).or_default() += 1;
        }
    }

    /// Counts the delays that are over.
    pub(super) fn count_due(&self, now: Instant) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let later = running.split_off(&(self.second(now) + 1));
        for ((kind, step), count) in std::mem::replace(&mut *running, later).into_values().flatten() {
            metrics::counter!(metric::DELAYS_DUE, "kind" => kind.as_str(), "queue" => step).increment(count);
        }
    }

    fn second(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.created).as_secs()
    }
}

/// Counts a message that returned from a delay, if it arrived in the lane of started jobs.
pub(super) fn count_ended(prefix: &str, (kind, lane): (Kind, Lane), properties: &BasicProperties) {
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
            delays.add(five.clone(), begin + Duration::from_millis(10 * number));
        }
        assert!(delays.running.lock().unwrap().len() <= 2, "a second is an entry");
        assert_eq!(delay(Duration::ZERO), None);
        delays.count_due(begin + Duration::from_millis(4_999));
        assert!(!shown.render().contains("genfleet_delays_due_total{"), "none is over");
        delays.count_due(begin + Duration::from_secs(8));
        delays.count_due(begin + Duration::from_secs(9));
        let line = r#"genfleet_delays_due_total{kind="file.scan",queue="02"} 100000"#;
        assert!(shown.render().contains(line), "{}", shown.render());
    }
}
