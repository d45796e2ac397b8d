//! The acknowledgements of one channel. Those that are ready at about the same time are sent together, and by one frame
//! as far as the broker's numbers (delivery tags) have no gap.
//!
//! A cumulative acknowledgement is of all deliveries of its channel up to a tag. It may never be of one that is not
//! settled, nor of one that this process has not looked at yet: the consumers of a channel hand over each on its own,
//! so a delivery may still be in the library's hands while later ones are settled. [`Tags`] decides what may be sent.

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

/// lapin resolves an acknowledgement when it is written; one that is not by then never will be.
const WRITTEN: Duration = Duration::from_secs(10);

/// Tells the broker about the deliveries of one channel.
pub(super) struct Acknowledger {
    channel: Channel,
    pub(super) session: Session,
    state: Mutex<State>,
}

struct State {
    tags: Tags,
    waiting: Vec<Waiting>,
    /// A task sends what waits.
    sending: bool,
}

/// A delivery that is to be acknowledged.
struct Waiting {
    tag: u64,
    /// Gets true once the acknowledgement is written.
    written: oneshot::Sender<bool>,
}

/// A frame on its way: lapin queues it when it is first polled, so frames are written in the order in which they are
/// begun.
type Frame<'a> = BoxFuture<'a, lapin::Result<()>>;

impl Acknowledger {
    /// For a channel on which nothing was delivered yet.
    pub(super) fn new(channel: Channel, session: &Session) -> Self {
        let state = State { tags: Tags::new(), waiting: Vec::new(), sending: false };
        Self { channel, session: session.clone(), state: Mutex::new(state) }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Notes a delivery. Every delivery of the channel has to be noted.
    pub(super) fn came(&self, tag: u64) {
        self.state().tags.came(tag);
    }

    /// Acknowledges a delivery with all others that are ready by then, in a task of `tasks`. Returns true once that is
    /// written.
    pub(super) async fn acknowledge(self: &Arc<Self>, tag: u64, tasks: &TaskTracker, runtime: &Handle) -> bool {
        let (written, is_written) = oneshot::channel();
        {
            let mut state = self.state();
            state.waiting.push(Waiting { tag, written });
            if !std::mem::replace(&mut state.sending, true) {
                tasks.spawn_on(Arc::clone(self).send_waiting(), runtime);
            }
        }
        is_written.await.unwrap_or(false)
    }

    /// Rejects a delivery: it goes back to its queue, or the broker dead-letters it. Returns true once that is written.
    pub(super) async fn reject(&self, tag: u64, requeue: bool) -> bool {
        if self.session.is_over() {
            return false;
        }
        let frame = {
            let mut state = self.state();
            state.tags.told(tag);
            let options = BasicNackOptions { requeue, multiple: false };
            begun(self.channel.basic_nack(tag, options))
        };
        self.written([frame]).await
    }

    async fn send_waiting(self: Arc<Self>) {
        // Whatever was confirmed at the same time gets ready meanwhile.
        yield_now().await;
        while let Some((waiting, frames)) = self.begin_waiting() {
            let is_written = self.written(frames).await;
            for each in waiting {
                // Whoever waited may have gone away.
                let _ = each.written.send(is_written);
            }
        }
    }

    /// Begins the frames for all that wait; `None` if nothing does.
    fn begin_waiting(&self) -> Option<(Vec<Waiting>, Vec<Frame<'_>>)> {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        if waiting.is_empty() {
            state.sending = false;
            return None;
        }
        let tags = waiting.iter().map(|each| each.tag).collect();
        let Acknowledgement { up_to, single } = state.tags.acknowledge(tags);
        let frames = up_to.map(|tag| (tag, true)).into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        let begin = |(tag, multiple)| begun(self.channel.basic_ack(tag, BasicAckOptions { multiple }));
        Some((waiting, frames.map(begin).collect()))
    }

    /// Returns true once the broker was told. After a fault nobody knows whether it was, so the session ends.
    async fn written(&self, frames: impl IntoIterator<Item = Frame<'_>>) -> bool {
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begun<'a>(sending: impl Future<Output = lapin::Result<()>> + Send + 'a) -> Frame<'a> {
    let mut frame = sending.boxed();
    match (&mut frame).now_or_never() {
        None => frame,
        Some(sent) => std::future::ready(sent).boxed(),
    }
}

/// What is sent for deliveries that are acknowledged together.
#[derive(Debug, PartialEq, Eq)]
struct Acknowledgement {
    /// All up to this tag.
    up_to: Option<u64>,
    /// Each of these.
    single: Vec<u64>,
}

/// The delivery tags of one channel, which the broker counts from 1.
#[derive(Debug)]
struct Tags {
    /// All below this one came.
    next: u64,
    /// Those above `next` that came.
    ahead: BTreeSet<u64>,
    /// Those that came, and that the broker was not told about.
    open: BTreeSet<u64>,
}

impl Tags {
    fn new() -> Self {
        Self { next: 1, ahead: BTreeSet::new(), open: BTreeSet::new() }
    }

    fn came(&mut self, tag: u64) {
        self.open.insert(tag);
        self.ahead.insert(tag);
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }

    fn told(&mut self, tag: u64) {
        self.open.remove(&tag);
    }

    /// Acknowledges `tags`, which came and are open.
    fn acknowledge(&mut self, tags: Vec<u64>) -> Acknowledgement {
        for tag in &tags {
            self.told(*tag);
        }
        // Below this, all came and are settled.
        let end = self.open.first().map_or(self.next, |first| self.next.min(*first));
        let (settled, single): (Vec<_>, Vec<_>) = tags.into_iter().partition(|tag| *tag < end);
        Acknowledgement { up_to: settled.into_iter().max(), single }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acknowledged(tags: &mut Tags, these: &[u64]) -> (Option<u64>, Vec<u64>) {
        let Acknowledgement { up_to, single } = tags.acknowledge(these.to_vec());
        (up_to, single)
    }

    #[test]
    fn what_is_settled_in_order_needs_one_frame() {
        let mut tags = Tags::new();
        (1..=6).for_each(|tag| tags.came(tag));
        assert_eq!(acknowledged(&mut tags, &[2, 1, 3]), (Some(3), vec![]));
        assert_eq!(acknowledged(&mut tags, &[6, 5]), (None, vec![6, 5]), "4 is not settled");
        assert_eq!(acknowledged(&mut tags, &[4]), (Some(4), vec![]));
    }

    #[test]
    fn a_delivery_that_did_not_come_yet_is_not_acknowledged_with_later_ones() {
        let mut tags = Tags::new();
        tags.came(2);
        assert_eq!(acknowledged(&mut tags, &[2]), (None, vec![2]));
        tags.came(1);
        assert_eq!(acknowledged(&mut tags, &[1]), (Some(1), vec![]));
    }

    /// Acknowledges `these`, and removes from `broker` what the frames are of.
    fn acknowledge(
        tags: &mut Tags,
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
        /// Deliveries come in any order, and are acknowledged or rejected in any groups. The broker removes what a
        /// frame is of: only what was settled, and each once; at the end all of it.
        #[test]
        fn only_what_was_settled_is_acknowledged_and_all_of_it(
            order in Just((1..=24_u64).collect::<Vec<_>>()).prop_shuffle(),
            steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 1..6_usize), 0..60),
        ) {
            let mut tags = Tags::new();
            let (mut to_come, mut held) = (order.into_iter(), Vec::new());
            let mut broker: BTreeSet<u64> = (1..=24).collect();
            let mut settled = BTreeSet::new();
            for (step, index, count) in steps {
                match step {
                    0 => for tag in to_come.by_ref().take(count) {
                        tags.came(tag);
                        held.push(tag);
                    },
                    1 if !held.is_empty() => {
                        let at = index.index(held.len());
                        let these = held.drain(at..held.len().min(at + count)).collect();
                        acknowledge(&mut tags, these, &mut broker, &mut settled)?;
                    }
                    _ => if let Some(tag) = held.pop() {
                        // A rejection is written before what is acknowledged later.
                        tags.told(tag);
                        broker.remove(&tag);
                    },
                }
            }
            for tag in to_come {
                tags.came(tag);
                held.push(tag);
            }
            acknowledge(&mut tags, held, &mut broker, &mut settled)?;
            prop_assert!(broker.is_empty() && tags.open.is_empty() && tags.ahead.is_empty());
        }
    }
}
