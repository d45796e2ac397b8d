//! The unconfirmed publications of one session: their confirms, returns and refusals, and overdue confirms.
//!
//! Returns. Everything is published with the mandatory flag. Not all exchanges have an alternate exchange. If a binding
//! is missing (for example because an exchange was deleted and declared again, before its bindings), the broker would
//! confirm an event that is in no queue; an alternate exchange for events would keep it where nobody looks for it. A
//! return means that the topology must be declared again, so the first return ends the session, and the next session
//! declares the topology before it publishes.
//!
//! lapin (4.12.3, `acknowledgement.rs`, `returned_messages.rs`) queues returned messages, and attaches the oldest one
//! to the next confirm that completes, whichever publication this confirm belongs to. The code need not know which
//! publication a return belongs to:
//!
//! 1. The broker sends a return before the confirm of the same publication, and lapin handles one frame after the
//!    other. So a returned publication's confirm carries a return itself, or finds none waiting: then one was carried by
//!    a confirm completed before it.
//! 2. [`Unconfirmed::take_resolved`] takes all confirms completed by now, among them all completed before the first one
//!    it was given, and looks for returns before any of them counts. While none was seen, all that is confirmed is
//!    durable.
//! 3. From the first return on nothing more is sent, and what is confirmed is in doubt. Once nothing is pending, every
//!    return has been carried: since the last time none waited, each confirm has carried one, and each return was followed
//!    by its confirm. Then all is durable whose exchange and key nothing came back from
//!    ([`Unconfirmed::may_have_been_returned`]). The rest, and all in doubt if not all confirms come, is published again: at
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

/// Time without any confirm after which the session ends, while publications are unconfirmed and the broker does not
/// block.
const SILENCE: Duration = Duration::from_secs(30);
/// Time without the confirm of one publication after which the session ends, although others are confirmed.
const OVERDUE: Duration = Duration::from_secs(120);
/// Bounds of the pause before a refused publication is sent again, with full jitter.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// The result of one publication.
pub(super) struct ResolvedConfirm {
    pub(super) number: u64,
    outcome: lapin::Result<Confirmation>,
}

/// The consequence of a confirm.
pub(super) enum ConfirmResult {
    /// The message is durable at the broker.
    Confirmed,
    /// The message is durable unless it was returned.
    InDoubt,
    /// The broker refused the message. It is sent again later.
    Refused,
    /// The session is over.
    Lost(SessionError),
}

struct RefusedPublication {
    since: Instant,
    due: Option<Instant>,
    waits: ExponentialBackoff,
}

/// The unconfirmed publications of one session.
pub(super) struct Unconfirmed {
    channel: Arc<Channel>,
    began: Instant,
    progress: Instant,
    /// The last time at which the broker blocked publications. Nothing was overdue until then.
    unblocked: Instant,
    confirms: FuturesUnordered<BoxFuture<'static, ResolvedConfirm>>,
    sent: BTreeMap<u64, Instant>,
    /// Exchanges and keys of the returned messages.
    returned: HashSet<(ShortString, ShortString)>,
    refused: BTreeMap<u64, RefusedPublication>,
    /// True if not all confirms will arrive.
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

    /// Sends a publication. Its frames are queued when this returns: lapin numbers a publication and queues its frames
    /// when the future is first polled.
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

    /// Returns true while publications are unconfirmed.
    pub(super) fn has_pending(&self) -> bool {
        !self.confirms.is_empty()
    }

    /// Waits for the next confirm. Never returns unless a publication [is pending](Self::has_pending).
    pub(super) async fn next(&mut self) -> ResolvedConfirm {
        match self.confirms.next().await {
            Some(resolved) => resolved,
            None => std::future::pending().await,
        }
    }

    /// Returns `first` and all other confirms that are completed now.
    pub(super) fn take_resolved(&mut self, first: Option<ResolvedConfirm>) -> Vec<ResolvedConfirm> {
        let mut confirms = Vec::with_capacity(self.confirms.len() + 1);
        confirms.extend(first);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        loop {
            woken.0.store(false, Ordering::Release);
            match self.confirms.poll_next_unpin(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(resolved)) => confirms.push(resolved),
                // It sometimes yields although more are ready, and wakes the task then.
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

    /// Decides the consequence of a confirm from [`Self::take_resolved`].
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
        let fresh =
            || RefusedPublication { since: Instant::now(), due: None, waits: retry::full_jitter(shortest, longest) };
        let refused = self.refused.entry(number).or_insert_with(fresh);
        refused.due = Some(Instant::now() + refused.waits.next_backoff().unwrap_or(longest));
        ConfirmResult::Refused
    }

    /// Returns the reason to end the session if a message was returned.
    pub(super) fn unroutable(&self) -> Option<SessionError> {
        let (exchange, key) = self.returned.iter().next()?;
        Some(format!("nothing is bound for exchange {:?}, key {:?}", exchange.as_str(), key.as_str()))
    }

    /// Returns true if `outgoing` may have been returned although it was confirmed.
    pub(super) fn may_have_been_returned(&self, outgoing: &OutgoingMessage) -> bool {
        let all_known = !self.broken && !self.has_pending();
        !all_known || self.returned.contains(&(outgoing.exchange.clone(), outgoing.key.clone()))
    }

    /// Returns the time of the next retry of a refused publication, and its number.
    pub(super) fn next_retry(&self) -> Option<(Instant, u64)> {
        self.refused.iter().filter_map(|(number, refused)| Some((refused.due?, *number))).min()
    }

    /// Returns the number of the publication that has been refused for the longest time, and that time.
    pub(super) fn longest_refused(&self) -> Option<(u64, Duration)> {
        let since = self.refused.iter().map(|(number, refused)| (refused.since, *number)).min();
        since.map(|(since, number)| (number, since.elapsed()))
    }

    /// Returns true if a publication failed.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// The age of the session.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns the reason to end the session if confirms are overdue.
    pub(super) fn check_overdue(&mut self, blocked: bool) -> Option<SessionError> {
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
