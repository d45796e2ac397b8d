//! Counts of what waits in the queues of a kind, for the metrics, and the watchdog: messages that wait although they
//! could be delivered end the session (SPEC 5.10).

use std::{sync::Arc, time::Duration};

use lapin::Channel;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    buffer::{ConsumeState, DeliveryBuffer},
    depth,
    error::describe,
    flow::KindFlows,
    link::{Link, SessionError},
    shared::Shared,
};
use crate::topology::{DELAY_STEPS, dead_queue, delay_queues, lane_queue, unrouted};
use genfleet_job::{Kind, message::Lane, metric};

/// Interval of the counts.
const EVERY: Duration = Duration::from_secs(10);
/// Counts within the time of the watchdog, at least.
const COUNTS: u32 = 4;

fn every(shared: &Shared) -> Duration {
    EVERY.min(shared.watchdog / COUNTS).max(Duration::from_millis(100))
}

/// Counts until the session ends, or ends it where messages wait in vain.
pub(super) async fn count(
    shared: Arc<Shared>,
    buffer: Arc<DeliveryBuffer>,
    link: Arc<Link>,
    flows: Arc<KindFlows>,
) -> SessionError {
    let channel = match link.channel(0).await {
        Ok(channel) => channel,
        Err(lost) => return lost,
    };
    let mut due = interval(every(&shared));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _gauges = KindGauges(buffer.kind);
    let mut watched = [(Lane::Jobs, Stall::default()), (Lane::Resume, Stall::default())];
    loop {
        due.tick().await;
        let waiting = match all(&shared, &buffer, &channel).await {
            Ok(waiting) => waiting,
            Err(lost) => return lost,
        };
        let open = *buffer.state.borrow() == ConsumeState::Open;
        for (lane, stall) in &mut watched {
            let flow = flows.of(*lane);
            let ready = if *lane == Lane::Jobs { waiting.jobs } else { waiting.resume };
            let in_vain = open && ready > 0 && flow.unsettled() < usize::from(buffer.prefetch);
            if stall.lasts(in_vain, flow.delivered(), Instant::now()) >= shared.watchdog {
                let (kind, patience) = (buffer.kind, shared.watchdog);
                return format!("{ready} messages wait in {lane}.{kind} and none was delivered for {patience:?}");
            }
        }
    }
}

struct Waiting {
    jobs: u32,
    resume: u32,
}

async fn all(shared: &Shared, buffer: &DeliveryBuffer, channel: &Channel) -> Result<Waiting, SessionError> {
    let lane = |lane| lane_queue(&shared.prefix, lane, buffer.kind);
    let kind = buffer.kind.as_str();
    let jobs = one(channel, (kind, "jobs"), &lane(Lane::Jobs)).await?;
    let resume = one(channel, (kind, "resume"), &lane(Lane::Resume)).await?;
    one(channel, (kind, "suspect"), &lane(Lane::Suspect)).await?;
    one(channel, (kind, "dead"), &dead_queue(&shared.prefix, buffer.kind)).await?;
    shared.settlements.publisher.delays.count_due(Instant::now());
    Ok(Waiting { jobs, resume })
}

/// Labels of [`metric::QUEUE_MESSAGES`]: kind and queue.
type Labels = (&'static str, &'static str);

async fn one(channel: &Channel, labels: Labels, queue: &str) -> Result<u32, SessionError> {
    let ready = depth::ready(channel, queue).await.map_err(|error| format!("counting {queue}: {}", describe(error)))?;
    gauge(labels, ready.into());
    Ok(ready)
}

fn gauge((kind, queue): Labels, messages: f64) {
    metrics::gauge!(metric::QUEUE_MESSAGES, "kind" => kind, "queue" => queue).set(messages);
}

/// Clears the gauges when dropped: another process may count now.
struct KindGauges(Kind);

impl Drop for KindGauges {
    fn drop(&mut self) {
        let of_kind = ["jobs", "resume", "suspect", "dead"].map(|queue| (self.0.as_str(), queue));
        for labels in of_kind {
            gauge(labels, f64::NAN);
        }
    }
}

/// Counts what is of no kind until the session ends: unrouted and delayed messages.
pub(super) async fn count_others(shared: Arc<Shared>, link: Arc<Link>) -> SessionError {
    let channel = match link.channel(0).await {
        Ok(channel) => channel,
        Err(lost) => return lost,
    };
    let mut due = interval(every(&shared));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _gauges = OtherGauges;
    loop {
        due.tick().await;
        if let Err(lost) = others(&shared.prefix, &channel).await {
            return lost;
        }
    }
}

async fn others(prefix: &str, channel: &Channel) -> Result<(), SessionError> {
    one(channel, UNROUTED, &unrouted(prefix)).await?;
    for (step, queue) in DELAY_STEPS.into_iter().zip(delay_queues(prefix)) {
        let ready =
            depth::ready(channel, &queue).await.map_err(|error| format!("counting {queue}: {}", describe(error)))?;
        gauge_delayed(step, ready.into());
    }
    Ok(())
}

/// The labels of unrouted messages, which are of no kind.
const UNROUTED: Labels = ("", "unrouted");

fn gauge_delayed(step: &'static str, messages: f64) {
    metrics::gauge!(metric::DELAYED_MESSAGES, "queue" => step).set(messages);
}

/// As [`KindGauges`].
struct OtherGauges;

impl Drop for OtherGauges {
    fn drop(&mut self) {
        gauge(UNROUTED, f64::NAN);
        for step in DELAY_STEPS {
            gauge_delayed(step, f64::NAN);
        }
    }
}

/// Time for which messages waited in vain, at every count.
#[derive(Debug, Default)]
struct Stall {
    since: Option<Instant>,
    delivered: u64,
}

impl Stall {
    fn lasts(&mut self, in_vain: bool, delivered: u64, now: Instant) -> Duration {
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
        assert_eq!(stall.lasts(true, 0, after(0)), Duration::ZERO);
        assert_eq!(stall.lasts(true, 0, after(50)), Duration::from_secs(50));
        assert_eq!(stall.lasts(true, 0, after(60)), Duration::from_secs(60));
    }

    #[test]
    fn a_delivery_or_an_empty_queue_ends_it() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        stall.lasts(true, 0, after(0));
        assert_eq!(stall.lasts(true, 1, after(50)), Duration::ZERO, "one was delivered");
        assert_eq!(stall.lasts(true, 1, after(70)), Duration::from_secs(20));
        assert_eq!(stall.lasts(false, 1, after(80)), Duration::ZERO, "nothing waits, or all places are taken");
        assert_eq!(stall.lasts(true, 1, after(90)), Duration::ZERO);
    }
}
