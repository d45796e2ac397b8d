//! What one session has published and not settled: confirms, returns, refusals, and what does not come.
//!
//! Returns: the broker sends an unroutable mandatory message back before it confirms it, but lapin (4.12.3,
//! `acknowledgement.rs`, `returned_messages.rs`) queues what comes back and lets the *next* confirm that
//! completes carry the oldest of it, whichever publication that confirm is of; an acknowledgement of several
//! completes them in the order of a hash map. So a return is matched by what was published, not by the confirm
//! that carried it, and nothing confirmed is believed before its return must have been seen:
//!
//! 1. Publications returned are confirmed in the order of their return: the broker handles a channel's
//!    publications one after the other, has nothing to wait for with an unroutable one, and sends the confirms
//!    it has gathered in the order of their numbers.
//! 2. A return adds one to lapin's queue and one to the returned publications not yet confirmed; a confirm
//!    takes one from the queue if there is any, and at most one from those publications. So the queue is never
//!    longer than they are many; it is first in, first out; by (1) those still unconfirmed came back last.
//!    Hence, when the frame that confirms a publication has been worked off, its return has left the queue: it
//!    was carried by a confirm of this frame or of an earlier one.
//! 3. lapin holds the lock of its acknowledgements while it works off one frame. [`Flight::complete`] therefore
//!    takes all confirms that have resolved, passes that lock once, and takes what resolved meanwhile, until a
//!    passage brings nothing new. Then every confirm taken is of a frame that was worked off, and with (2) all
//!    their returns are among what was taken.

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use backoff::{ExponentialBackoff, backoff::Backoff};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, options::BasicPublishOptions};
use tokio::time::Instant;

use super::{
    dial::why,
    outgoing::{Mark, Outgoing},
    session::Lost,
};
use crate::{metric, retry};

/// No confirm at all for this long, with something to confirm and the broker not blocking.
const SILENCE: Duration = Duration::from_secs(30);
/// One confirm not coming, though others do.
const OVERDUE: Duration = Duration::from_secs(120);
/// Between two tries of what a full queue refused: full jitter in these bounds.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A reply refused for this long is given up like one that nobody waits for.
const REPLY_HELD: Duration = Duration::from_secs(5);

/// The end of one sending.
pub(super) struct Resolved {
    pub(super) number: u64,
    outcome: lapin::Result<Confirmation>,
}

/// What follows from it.
pub(super) enum Verdict {
    /// It is safe at the broker, or was a reply that nobody waits for.
    Confirmed,
    /// The broker has no room for it now: it is sent again later.
    Held,
    /// No queue is bound where one has to be.
    Unroutable,
    /// The session is over.
    Lost(Lost),
}

struct Refused {
    since: Instant,
    due: Option<Instant>,
    waits: ExponentialBackoff,
}

/// See the module.
pub(super) struct Flight {
    channel: Channel,
    began: Instant,
    progress: Instant,
    /// While this long ago the broker blocked, nothing was overdue.
    unblocked: Instant,
    confirms: FuturesUnordered<BoxFuture<'static, Resolved>>,
    sent: BTreeMap<u64, Instant>,
    returned: HashMap<Mark, u32>,
    refused: BTreeMap<u64, Refused>,
}

impl Flight {
    pub(super) fn new(channel: Channel) -> Self {
        let now = Instant::now();
        Self {
            channel,
            began: now,
            progress: now,
            unblocked: now,
            confirms: FuturesUnordered::new(),
            sent: BTreeMap::new(),
            returned: HashMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// On its way when this returns: lapin numbers a publication and queues its frames when it is first polled.
    pub(super) fn send(&mut self, number: u64, outgoing: &Arc<Outgoing>) {
        if self.sent.is_empty() {
            self.progress = Instant::now();
        }
        self.sent.insert(number, Instant::now());
        if let Some(refused) = self.refused.get_mut(&number) {
            refused.due = None;
        }
        let mut confirm = publish(self.channel.clone(), number, outgoing.clone()).boxed();
        match (&mut confirm).now_or_never() {
            None => self.confirms.push(confirm),
            Some(resolved) => self.confirms.push(std::future::ready(resolved).boxed()),
        }
    }

    /// Whether something is to be confirmed.
    pub(super) fn flies(&self) -> bool {
        !self.confirms.is_empty()
    }

    /// The next confirm; only while something [flies](Self::flies).
    pub(super) async fn next(&mut self) -> Resolved {
        match self.confirms.next().await {
            Some(resolved) => resolved,
            None => std::future::pending().await,
        }
    }

    /// `first` and all other confirms whose returns are known; see the module.
    pub(super) fn complete(&mut self, first: Resolved) -> Vec<Resolved> {
        let mut resolved = vec![first];
        loop {
            let before = resolved.len();
            self.pass_frame();
            while let Some(Some(next)) = self.confirms.next().now_or_never() {
                resolved.push(next);
            }
            if resolved.len() == before {
                break;
            }
        }
        self.progress = Instant::now();
        for each in &mut resolved {
            self.take_return(each);
        }
        resolved
    }

    /// Takes and leaves the lock under which lapin works off a frame of confirms; nothing else of this call is
    /// wanted, and it is not waited for.
    fn pass_frame(&self) {
        let _ = pin!(self.channel.wait_for_confirms()).now_or_never();
    }

    fn take_return(&mut self, resolved: &mut Resolved) {
        let carried = match &mut resolved.outcome {
            Ok(Confirmation::Ack(carried) | Confirmation::Nack(carried)) => carried.take(),
            Ok(Confirmation::NotRequested) | Err(_) => None,
        };
        if let Some(message) = carried {
            *self.returned.entry(Mark::of(&message)).or_default() += 1;
        }
    }

    /// What follows for `outgoing`. Only for what [`Self::complete`] gave.
    pub(super) fn verdict(&mut self, resolved: Resolved, outgoing: &Outgoing) -> Verdict {
        let took = self.sent.remove(&resolved.number).map(|sent| sent.elapsed()).unwrap_or_default();
        match resolved.outcome {
            Err(error) => return Verdict::Lost(why(&error)),
            Ok(Confirmation::Nack(_)) => return self.hold(resolved.number, outgoing),
            Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => {}
        }
        metrics::histogram!(metric::PUBLISH_CONFIRM).record(took.as_secs_f64());
        self.refused.remove(&resolved.number);
        match (self.was_returned(&outgoing.mark), outgoing.is_reply()) {
            (false, _) => Verdict::Confirmed,
            (true, false) => Verdict::Unroutable,
            (true, true) => {
                metrics::counter!(metric::REPLIES_UNROUTABLE).increment(1);
                Verdict::Confirmed
            }
        }
    }

    fn was_returned(&mut self, mark: &Mark) -> bool {
        let Some(times) = self.returned.get_mut(mark) else { return false };
        *times -= 1;
        if *times == 0 {
            self.returned.remove(mark);
        }
        true
    }

    fn hold(&mut self, number: u64, outgoing: &Outgoing) -> Verdict {
        let (shortest, longest) = REFUSED;
        let fresh = || Refused { since: Instant::now(), due: None, waits: retry::full_jitter(shortest, longest) };
        let refused = self.refused.entry(number).or_insert_with(fresh);
        // Somebody else's queue, and nobody empties it: no job of ours waits for that.
        if outgoing.is_reply() && refused.since.elapsed() > REPLY_HELD {
            self.refused.remove(&number);
            metrics::counter!(metric::REPLIES_UNROUTABLE).increment(1);
            return Verdict::Confirmed;
        }
        refused.due = Some(Instant::now() + refused.waits.next_backoff().unwrap_or(longest));
        Verdict::Held
    }

    /// What of the refused is to be sent again next, and when.
    pub(super) fn due(&self) -> Option<(Instant, u64)> {
        self.refused.iter().filter_map(|(number, refused)| Some((refused.due?, *number))).min()
    }

    /// What is refused longest, and for how long.
    pub(super) fn refused_longest(&self) -> Option<(u64, Duration)> {
        let since = self.refused.iter().map(|(number, refused)| (refused.since, *number)).min();
        since.map(|(since, number)| (number, since.elapsed()))
    }

    /// How long this session lasts.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Why the session has to end although nothing failed: confirms do not come.
    pub(super) fn stuck(&mut self, blocked: bool) -> Option<Lost> {
        if blocked {
            (self.progress, self.unblocked) = (Instant::now(), Instant::now());
        }
        let oldest = self.sent.values().min()?;
        if self.progress.elapsed() > SILENCE {
            return Some(format!("nothing was confirmed for {SILENCE:?}"));
        }
        let overdue = oldest.max(&self.unblocked).elapsed() > OVERDUE;
        overdue.then(|| format!("a publication was not confirmed within {OVERDUE:?}"))
    }
}

async fn publish(channel: Channel, number: u64, outgoing: Arc<Outgoing>) -> Resolved {
    let Outgoing { exchange, key, properties, body, .. } = &*outgoing;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let written = channel.basic_publish(exchange.clone(), key.clone(), options, body, properties.clone()).await;
    let outcome = match written {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    Resolved { number, outcome }
}
