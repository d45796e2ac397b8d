//! Counts the messages in the queues of a kind, for the metrics and the watchdog: if messages wait although they could
//! be delivered, the session ends (SPEC 5.10).

use std::{sync::Arc, time::Duration};

use lapin::Channel;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    buffer::{ConsumeState, DeliveryBuffer},
    depth,
    error::describe,
    flow::KindFlows,
    link::{Link, SessionError, SessionTaskEnd},
    shared::Shared,
};
use crate::topology::{DELAY_STEPS, dead_queue, delay_queues, lane_queue, unrouted};
use genfleet_job::{Kind, message::Lane, metric};

/// Interval of the counts.
const EVERY: Duration = Duration::from_secs(10);
/// Minimum number of counts within the time of the watchdog.
const COUNTS: u32 = 4;

fn count_interval(shared: &Shared) -> Duration {
    EVERY.min(shared.watchdog / COUNTS).max(Duration::from_millis(100))
}

/// Counts until the session ends. Ends it if messages wait without being delivered.
pub(super) async fn count(
    shared: Arc<Shared>,
    buffer: Arc<DeliveryBuffer>,
    link: Arc<Link>,
    flows: Arc<KindFlows>,
) -> SessionTaskEnd {
    let channel = link.channel(0).await?;
    let mut due = interval(count_interval(&shared));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _gauges = KindGauges(buffer.kind);
    let mut watched = [(Lane::Jobs, Stall::default()), (Lane::Resume, Stall::default())];
    loop {
        due.tick().await;
        let waiting = count_kind(&shared, &buffer, &channel).await?;
        let open = *buffer.state.borrow() == ConsumeState::Open;
        for (lane, stall) in &mut watched {
            let flow = flows.of(*lane);
            let ready = if *lane == Lane::Jobs { waiting.jobs } else { waiting.resume };
            let in_vain = open && ready > 0 && flow.unsettled() < usize::from(buffer.prefetch);
            if stall.update(in_vain, flow.delivered(), Instant::now()) >= shared.watchdog {
                let (kind, patience) = (buffer.kind, shared.watchdog);
                return Err(format!("{ready} messages wait in {lane}.{kind} and none was delivered for {patience:?}"));
            }
        }
    }
}

struct WaitingJobs {
    jobs: u32,
    resume: u32,
}

async fn count_kind(shared: &Shared, buffer: &DeliveryBuffer, channel: &Channel) -> Result<WaitingJobs, SessionError> {
    let lane = |lane| lane_queue(&shared.prefix, lane, buffer.kind);
    let kind = buffer.kind.as_str();
    let jobs = count_queue(channel, (kind, "jobs"), &lane(Lane::Jobs)).await?;
    let resume = count_queue(channel, (kind, "resume"), &lane(Lane::Resume)).await?;
    count_queue(channel, (kind, "suspect"), &lane(Lane::Suspect)).await?;
    count_queue(channel, (kind, "dead"), &dead_queue(&shared.prefix, buffer.kind)).await?;
    shared.settlements.publisher.delays.count_due(Instant::now());
    Ok(WaitingJobs { jobs, resume })
}

/// The labels of [`metric::QUEUE_MESSAGES`]: kind and queue.
type Labels = (&'static str, &'static str);

async fn count_queue(channel: &Channel, labels: Labels, queue: &str) -> Result<u32, SessionError> {
    let ready = depth::ready(channel, queue).await.map_err(|error| format!("counting {queue}: {}", describe(error)))?;
    set_gauge(labels, ready.into());
    Ok(ready)
}

fn set_gauge((kind, queue): Labels, messages: f64) {
    metrics::gauge!(metric::QUEUE_MESSAGES, "kind" => kind, "queue" => queue).set(messages);
}

/// Clears the gauges when dropped, because another process may count now.
struct KindGauges(Kind);

impl Drop for KindGauges {
    fn drop(&mut self) {
        let of_kind = ["jobs", "resume", "suspect", "dead"].map(|queue| (self.0.as_str(), queue));
        for labels in of_kind {
            set_gauge(labels, f64::NAN);
        }
    }
}

/// Counts the queues that belong to no kind until the session ends: unrouted and delayed messages.
pub(super) async fn count_others(shared: Arc<Shared>, link: Arc<Link>) -> SessionTaskEnd {
    let channel = link.channel(0).await?;
    let mut due = interval(count_interval(&shared));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _gauges = OtherGauges;
    loop {
        due.tick().await;
        count_unassigned(&shared.prefix, &channel).await?;
    }
}

async fn count_unassigned(prefix: &str, channel: &Channel) -> Result<(), SessionError> {
    count_queue(channel, UNROUTED, &unrouted(prefix)).await?;
    for (step, queue) in DELAY_STEPS.into_iter().zip(delay_queues(prefix)) {
        let ready =
            depth::ready(channel, &queue).await.map_err(|error| format!("counting {queue}: {}", describe(error)))?;
        set_delayed_gauge(step, ready.into());
    }
    Ok(())
}

/// The labels of unrouted messages, which have no kind.
const UNROUTED: Labels = ("", "unrouted");

fn set_delayed_gauge(step: &'static str, messages: f64) {
    metrics::gauge!(metric::DELAYED_MESSAGES, "queue" => step).set(messages);
}

/// Clears the gauges of the queues that belong to no kind; see [`KindGauges`].
struct OtherGauges;

impl Drop for OtherGauges {
    fn drop(&mut self) {
        set_gauge(UNROUTED, f64::NAN);
        for step in DELAY_STEPS {
            set_delayed_gauge(step, f64::NAN);
        }
    }
}

/// The time for which messages have been waiting without a delivery.
#[derive(Debug, Default)]
struct Stall {
    since: Option<Instant>,
    delivered: u64,
}

impl Stall {
    fn update(&mut self, in_vain: bool, delivered: u64, now: Instant) -> Duration {
        if !in_vain || delivered != self.delivered {
            self.since = None;
            self.delivered = delivered;
        }
        if !in_vain {
            return Duration::ZERO;
        }
        now.duration_since(*self.since.get_or_insert(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_lasts_from_the_first_look_in_vain() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        assert_eq!(stall.update(true, 0, after(0)), Duration::ZERO);
        assert_eq!(stall.update(true, 0, after(50)), Duration::from_secs(50));
        assert_eq!(stall.update(true, 0, after(60)), Duration::from_secs(60));
    }

    #[test]
    fn a_delivery_or_an_empty_queue_ends_it() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        stall.update(true, 0, after(0));
        assert_eq!(stall.update(true, 1, after(50)), Duration::ZERO, "one was delivered");
        assert_eq!(stall.update(true, 1, after(70)), Duration::from_secs(20));
        assert_eq!(stall.update(false, 1, after(80)), Duration::ZERO, "nothing waits, or all places are taken");
        assert_eq!(stall.update(true, 1, after(90)), Duration::ZERO);
    }
}
