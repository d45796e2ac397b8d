//! The publications of one session that are not confirmed: confirms, returns, refusals, and what does not come.
//!
//! Returns. Everything is published mandatory. Not all our exchanges have an alternate, and where a binding is missing
//! (an exchange was deleted and declared again, bindings follow later) the broker would confirm an event that no queue
//! has; an alternate for the events would keep it where nobody looks for it. A return means that the topology has to be
//! declared again, so the session ends over the first one, and the next declares before it publishes.
//!
//! lapin (4.12.3, `acknowledgement.rs`, `returned_messages.rs`) queues what comes back and lets the next confirm that
//! completes carry the oldest of it, whichever publication that confirm is of. It need not be known whose a return is:
//!
//! 1. The broker sends a return before the confirm of the same publication, and lapin handles one frame after the
//!    other. So
//!    a returned publication's confirm carries a return itself, or finds none waiting: then one was carried by a confirm
//!    completed before it.
//! 2. [`Unconfirmed::take_resolved`] takes all confirms completed by now, among them all completed before the first one
//!    it
//!    was given, and looks for returns before any of them counts. While none was seen, all that is confirmed is durable.
//! 3. From the first return on nothing more is sent, and what is confirmed is in doubt. Once nothing is pending, every
//!    return has been carried: since the last time none waited, each confirm has carried one, and each return was followed
//!    by its confirm. Then all is durable whose exchange and key nothing came back from
//!    ([`Unconfirmed::may_have_come_back`]). The rest, and all in doubt if not all confirms come, is published again: at
//!    least once, under the same id.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use backoff::{ExponentialBackoff, backoff::Backoff};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{Channel, Confirmation, options::BasicPublishOptions, types::ShortString};
use tokio::time::Instant;

use super::{error::describe, link::SessionError, outgoing_message::OutgoingMessage};
use genfleet_job::{metric, retry};

/// Time without any confirm, with something to confirm and the broker not blocking, after which the session ends.
const SILENCE: Duration = Duration::from_secs(30);
/// Time without one confirm, though others come, after which the session ends.
const OVERDUE: Duration = Duration::from_secs(120);
/// Bounds of the pause between two tries of what was refused, with full jitter.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The end of one publication.
pub(super) struct ResolvedConfirm {
    pub(super) number: u64,
    outcome: lapin::Result<Confirmation>,
}

/// What follows from a confirm.
pub(super) enum ConfirmResult {
    /// It is durable at the broker.
    Confirmed,
    /// It is durable unless it came back.
    InDoubt,
    /// The broker does not take it now: it is sent again later.
    Refused,
    /// The session is over.
    Lost(SessionError),
}

struct Refused {
    since: Instant,
    due: Option<Instant>,
    waits: ExponentialBackoff,
}

/// The unconfirmed publications of one session.
pub(super) struct Unconfirmed {
    channel: Arc<Channel>,
    began: Instant,
    progress: Instant,
    /// Time until which the broker blocked: nothing was overdue then.
    unblocked: Instant,
    confirms: FuturesUnordered<BoxFuture<'static, ResolvedConfirm>>,
    sent: BTreeMap<u64, Instant>,
    /// Exchange and key of what came back.
    returned: HashSet<(ShortString, ShortString)>,
    refused: BTreeMap<u64, Refused>,
    /// Not all confirms will come.
    broken: bool,
}

impl Unconfirmed {
    pub(super) fn new(channel: Channel) -> Self {
        let now = Instant::now();
        Self {
            channel: Arc::new(channel),
            began: now,
            progress: now,
            unblocked: now,
            confirms: FuturesUnordered::new(),
            sent: BTreeMap::new(),
            returned: HashSet::new(),
            refused: BTreeMap::new(),
            broken: false,
        }
    }

    /// Sends a publication. It is on its way when this returns: lapin numbers a publication and queues its frames when
    /// it is first polled.
    pub(super) fn send(&mut self, number: u64, outgoing: &Arc<OutgoingMessage>) {
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

    /// Returns true while something is to be confirmed.
    pub(super) fn has_pending(&self) -> bool {
        !self.confirms.is_empty()
    }

    /// The next confirm. Never returns unless a publication [is pending](Self::has_pending).
    pub(super) async fn next(&mut self) -> ResolvedConfirm {
        match self.confirms.next().await {
            Some(resolved) => resolved,
            None => std::future::pending().await,
        }
    }

    /// Takes `first` and all other confirms completed by now.
    pub(super) fn take_resolved(&mut self, first: Option<ResolvedConfirm>) -> Vec<ResolvedConfirm> {
        let mut confirms: Vec<_> = first.into_iter().collect();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        loop {
            woken.0.store(false, Ordering::Release);
            match self.confirms.poll_next_unpin(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(resolved)) => confirms.push(resolved),
                // It gives way now and then although more is there, and says so.
                Poll::Pending if woken.0.load(Ordering::Acquire) => {}
                Poll::Pending | Poll::Ready(None) => break,
            }
        }
        if !confirms.is_empty() {
            self.progress = Instant::now();
        }
        for each in &mut confirms {
            self.take_return(each);
        }
        confirms
    }

    fn take_return(&mut self, resolved: &mut ResolvedConfirm) {
        if let Ok(Confirmation::Ack(carried) | Confirmation::Nack(carried)) = &mut resolved.outcome
            && let Some(message) = carried.take()
        {
            self.returned.insert((message.exchange.clone(), message.routing_key.clone()));
        }
    }

    /// Decides what follows from a confirm that [`Self::take_resolved`] gave.
    pub(super) fn confirm_result(&mut self, resolved: ResolvedConfirm) -> ConfirmResult {
        let took = self.sent.remove(&resolved.number).map(|sent| sent.elapsed()).unwrap_or_default();
        match resolved.outcome {
            Err(error) => {
                self.broken = true;
                return ConfirmResult::Lost(describe(error));
            }
            Ok(Confirmation::Nack(_)) => return self.retry_later(resolved.number),
            Ok(Confirmation::NotRequested) => return ConfirmResult::Lost("the channel does not confirm".to_owned()),
            Ok(Confirmation::Ack(_)) => {}
        }
        metrics::histogram!(metric::PUBLISH_CONFIRM).record(took.as_secs_f64());
        self.refused.remove(&resolved.number);
        if self.returned.is_empty() { ConfirmResult::Confirmed } else { ConfirmResult::InDoubt }
    }

    fn retry_later(&mut self, number: u64) -> ConfirmResult {
        let (shortest, longest) = REFUSED;
        let fresh = || Refused { since: Instant::now(), due: None, waits: retry::full_jitter(shortest, longest) };
        let refused = self.refused.entry(number).or_insert_with(fresh);
        refused.due = Some(Instant::now() + refused.waits.next_backoff().unwrap_or(longest));
        ConfirmResult::Refused
    }

    /// The reason to end the session if something came back.
    pub(super) fn unroutable(&self) -> Option<SessionError> {
        let (exchange, key) = self.returned.iter().next()?;
        Some(format!("nothing is bound for exchange {:?}, key {:?}", exchange.as_str(), key.as_str()))
    }

    /// Returns true if it is possible that `outgoing` came back although it was confirmed.
    pub(super) fn may_have_come_back(&self, outgoing: &OutgoingMessage) -> bool {
        let all_known = !self.broken && !self.has_pending();
        !all_known || self.returned.contains(&(outgoing.exchange.clone(), outgoing.key.clone()))
    }

    /// The time of the next retry of what was refused, and its number.
    pub(super) fn due(&self) -> Option<(Instant, u64)> {
        self.refused.iter().filter_map(|(number, refused)| Some((refused.due?, *number))).min()
    }

    /// The number of what is refused longest, and the time since.
    pub(super) fn refused_longest(&self) -> Option<(u64, Duration)> {
        let since = self.refused.iter().map(|(number, refused)| (refused.since, *number)).min();
        since.map(|(since, number)| (number, since.elapsed()))
    }

    /// Returns true if a publication met a fault.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The age of the session.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The reason to end the session if confirms do not come.
    pub(super) fn stuck(&mut self, blocked: bool) -> Option<SessionError> {
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

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

async fn publish(channel: Arc<Channel>, number: u64, outgoing: Arc<OutgoingMessage>) -> ResolvedConfirm {
    let OutgoingMessage { exchange, key, properties, body } = &*outgoing;
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let written = channel.basic_publish(exchange.clone(), key.clone(), options, body, properties.clone()).await;
    let outcome = match written {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    ResolvedConfirm { number, outcome }
}
