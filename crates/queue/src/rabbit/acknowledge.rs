//! The acknowledgements of one channel. Acknowledgements that become ready at about the same time are sent together, in
//! one frame if their delivery tags have no gap.
//!
//! A cumulative acknowledgement covers all deliveries of its channel up to a tag. It must not cover a delivery that is
//! not settled, or that this process has not seen yet: each consumer of a channel has its own buffer in lapin, so an
//! earlier delivery may still be buffered while later ones are settled. [`DeliveryTags`] decides what may be sent.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, try_join_all};
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use tokio::{runtime::Handle, sync::oneshot, task::yield_now, time::timeout};
use tokio_util::task::TaskTracker;

use super::{error::describe, link::Session};

/// Maximum time until lapin has written an acknowledgement. After that it is considered lost.
const WRITTEN: Duration = Duration::from_secs(10);

/// Acknowledges and rejects the deliveries of one channel.
pub(super) struct Acknowledger {
    channel: Channel,
    pub(super) session: Session,
    state: Mutex<AcknowledgerState>,
}

struct AcknowledgerState {
    tags: DeliveryTags,
    waiting: Vec<PendingAcknowledgement>,
    /// True while a task sends the pending acknowledgements.
    sending: bool,
}

/// A delivery that is to be acknowledged.
struct PendingAcknowledgement {
    tag: u64,
    /// Receives true when the acknowledgement is written.
    written: oneshot::Sender<bool>,
}

/// A frame that lapin has queued but not yet written. lapin queues a frame when it is first polled, so frames are
/// written in the order in which they are first polled.
type PendingFrame<'a> = BoxFuture<'a, lapin::Result<()>>;

impl Acknowledger {
    /// Creates the acknowledger of a channel that has no deliveries yet.
    pub(super) fn new(channel: Channel, session: &Session) -> Self {
        let state = AcknowledgerState { tags: DeliveryTags::new(), waiting: Vec::new(), sending: false };
        Self { channel, session: session.clone(), state: Mutex::new(state) }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Registers a delivery. Every delivery of the channel must be registered.
    pub(super) fn register(&self, tag: u64) {
        self.state().tags.register(tag);
    }

    /// Acknowledges a delivery together with all others that are ready, in a task of `tasks`. Returns true when the
    /// acknowledgement is written.
    pub(super) async fn acknowledge(self: &Arc<Self>, tag: u64, tasks: &TaskTracker, runtime: &Handle) -> bool {
        let (written, is_written) = oneshot::channel();
        {
            let mut state = self.state();
            state.waiting.push(PendingAcknowledgement { tag, written });
            if !std::mem::replace(&mut state.sending, true) {
                tasks.spawn_on(Arc::clone(self).send_waiting(), runtime);
            }
        }
        is_written.await.unwrap_or(false)
    }

    /// Rejects a delivery: the broker requeues or dead-letters it. Returns true when the rejection is written.
    pub(super) async fn reject(&self, tag: u64, requeue: bool) -> bool {
        if self.session.is_over() {
            return false;
        }
        let frame = {
            let mut state = self.state();
            state.tags.close(tag);
            let options = BasicNackOptions { requeue, multiple: false };
            start_frame(self.channel.basic_nack(tag, options))
        };
        self.wait_until_written([frame]).await
    }

    async fn send_waiting(self: Arc<Self>) {
        // Lets other deliveries that were confirmed at the same time become ready.
        yield_now().await;
        while let Some((waiting, frames)) = self.begin_waiting() {
            let is_written = self.wait_until_written(frames).await;
            for each in waiting {
                // The receiver may have been dropped.
                let _ = each.written.send(is_written);
            }
        }
    }

    /// Queues the frames for all pending acknowledgements; `None` if there are none.
    fn begin_waiting(&self) -> Option<(Vec<PendingAcknowledgement>, Vec<PendingFrame<'_>>)> {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        if waiting.is_empty() {
            state.sending = false;
            return None;
        }
        let tags = waiting.iter().map(|each| each.tag).collect();
        let Acknowledgement { up_to, single } = state.tags.acknowledge(tags);
        let frames = up_to.map(|tag| (tag, true)).into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        let begin = |(tag, multiple)| start_frame(self.channel.basic_ack(tag, BasicAckOptions { multiple }));
        Some((waiting, frames.map(begin).collect()))
    }

    /// Returns true when the frames are written. After an error it is unknown whether they were, so the session ends.
    async fn wait_until_written(&self, frames: impl IntoIterator<Item = PendingFrame<'_>>) -> bool {
        if self.session.is_over() {
            return false;
        }
        let fault = match timeout(WRITTEN, try_join_all(frames)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => describe(error),
            Err(_) => format!("an acknowledgement was not written within {WRITTEN:?}"),
        };
        self.session.end(fault);
        false
    }

    fn state(&self) -> MutexGuard<'_, AcknowledgerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_frame<'a>(send: impl Future<Output = lapin::Result<()>> + Send + 'a) -> PendingFrame<'a> {
    let mut frame = send.boxed();
    match (&mut frame).now_or_never() {
        None => frame,
        Some(result) => std::future::ready(result).boxed(),
    }
}

/// The frames for deliveries that are acknowledged together.
#[derive(Debug, PartialEq, Eq)]
struct Acknowledgement {
    /// Acknowledges all deliveries up to this tag.
    up_to: Option<u64>,
    /// Tags that are acknowledged one by one.
    single: Vec<u64>,
}

/// The delivery tags of one channel. The broker numbers deliveries from 1.
#[derive(Debug)]
struct DeliveryTags {
    /// All lower tags have been received.
    next: u64,
    /// Received tags above `next`.
    ahead: BTreeSet<u64>,
    /// Received tags that are neither acknowledged nor rejected.
    open: BTreeSet<u64>,
}

impl DeliveryTags {
    fn new() -> Self {
        Self { next: 1, ahead: BTreeSet::new(), open: BTreeSet::new() }
    }

    fn register(&mut self, tag: u64) {
        self.open.insert(tag);
        self.ahead.insert(tag);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }

    fn close(&mut self, tag: u64) {
        self.open.remove(&tag);
    }

    /// Acknowledges `tags`, which must be open.
    fn acknowledge(&mut self, tags: Vec<u64>) -> Acknowledgement {
        for tag in &tags {
            self.close(*tag);
        }
        // All lower tags are received and settled.
        let end = self.open.first().map_or(self.next, |first| self.next.min(*first));
        let (settled, single): (Vec<_>, Vec<_>) = tags.into_iter().partition(|tag| *tag < end);
        Acknowledgement { up_to: settled.into_iter().max(), single }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acknowledged(tags: &mut DeliveryTags, these: &[u64]) -> (Option<u64>, Vec<u64>) {
        let Acknowledgement { up_to, single } = tags.acknowledge(these.to_vec());
        (up_to, single)
    }

    #[test]
    fn what_is_settled_in_order_needs_one_frame() {
        let mut tags = DeliveryTags::new();
        (1..=6).for_each(|tag| tags.register(tag));
        assert_eq!(acknowledged(&mut tags, &[2, 1, 3]), (Some(3), vec![]));
        assert_eq!(acknowledged(&mut tags, &[6, 5]), (None, vec![6, 5]), "4 is not settled");
        assert_eq!(acknowledged(&mut tags, &[4]), (Some(4), vec![]));
    }

    #[test]
    fn a_delivery_that_did_not_come_yet_is_not_acknowledged_with_later_ones() {
        let mut tags = DeliveryTags::new();
        tags.register(2);
        assert_eq!(acknowledged(&mut tags, &[2]), (None, vec![2]));
        tags.register(1);
        assert_eq!(acknowledged(&mut tags, &[1]), (Some(1), vec![]));
    }

    /// Acknowledges `these`, and removes from `broker` the deliveries that the frames cover.
    fn acknowledge(
        tags: &mut DeliveryTags,
        these: Vec<u64>,
        broker: &mut BTreeSet<u64>,
        settled: &mut BTreeSet<u64>,
    ) -> Result<(), TestCaseError> {
        settled.extend(&these);
        let Acknowledgement { up_to, single } = tags.acknowledge(these);
        if let Some(up_to) = up_to {
            prop_assert!(broker.contains(&up_to), "{up_to} is unknown to the broker");
            let later = broker.split_off(&(up_to + 1));
            let gone = std::mem::replace(broker, later);
            prop_assert!(gone.is_subset(settled), "of {gone:?} only {settled:?} are settled");
        }
        for tag in single {
            prop_assert!(broker.remove(&tag), "{tag} is unknown to the broker");
        }
        Ok(())
    }

    proptest! {
        /// Deliveries arrive in any order, and are acknowledged or rejected in any groups. The broker removes only
        /// settled deliveries, each of them once, and in the end all of them.
        #[test]
        fn only_what_was_settled_is_acknowledged_and_all_of_it(
            order in Just((1..=24_u64).collect::<Vec<_>>()).prop_shuffle(),
            steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 1..6_usize), 0..60),
        ) {
            let mut tags = DeliveryTags::new();
            let (mut to_come, mut held) = (order.into_iter(), Vec::new());
            let mut broker: BTreeSet<u64> = (1..=24).collect();
            let mut settled = BTreeSet::new();
            for (step, index, count) in steps {
                match step {
                    0 => for tag in to_come.by_ref().take(count) {
                        tags.register(tag);
                        held.push(tag);
                    },
                    1 if !held.is_empty() => {
                        let at = index.index(held.len());
                        let these = held.drain(at..held.len().min(at + count)).collect();
                        acknowledge(&mut tags, these, &mut broker, &mut settled)?;
                    }
                    _ => if let Some(tag) = held.pop() {
                        // A rejection is written before later acknowledgements.
                        tags.close(tag);
                        broker.remove(&tag);
                    },
                }
            }
            for tag in to_come {
                tags.register(tag);
                held.push(tag);
            }
            acknowledge(&mut tags, held, &mut broker, &mut settled)?;
            prop_assert!(broker.is_empty() && tags.open.is_empty() && tags.ahead.is_empty());
        }
    }
}
