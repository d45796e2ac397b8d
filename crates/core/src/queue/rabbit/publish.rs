//! The publishing connection: every publication is kept until the broker has confirmed it, and sent again by
//! the next session where the last one ended before that.
//!
//! One task publishes. lapin numbers a publication and queues its frames in two steps under two locks, so two
//! tasks on one channel could exchange their confirms.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, interval, sleep_until},
};

use super::{
    Shared,
    delays::{Delay, Delays},
    flight::{Flight, Resolved, Verdict},
    health::Role,
    outgoing::Outgoing,
    session::{Link, Lost, Work},
};
use crate::{
    metric,
    queue::{Publication, QueueError},
};

/// Publications sent or about to be, and not confirmed.
const WINDOW: usize = 1024;
/// Publications taken up at once.
const BATCH: usize = 128;
/// Between two looks at what does not come.
const LOOK: Duration = Duration::from_secs(1);
/// A refusal this old is a problem; a session this old that saw none has none.
const LASTING: Duration = Duration::from_secs(5);
/// In the broker's words, where it forbids replies.
const NO_REPLIES: &str = "to exchange 'amq.default'";
/// What is unconfirmed when the queue closes gets this long.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Hands publications to the task that sends them.
pub(super) struct Publisher {
    prefix: String,
    window: Arc<Semaphore>,
    outgoing: mpsc::UnboundedSender<Entry>,
    pub(super) delays: Delays,
}

/// A publication until it is confirmed.
pub(super) struct Entry {
    outgoing: Arc<Outgoing>,
    confirmed: oneshot::Sender<()>,
    _place: OwnedSemaphorePermit,
}

impl Entry {
    /// Counted as one that nobody waits for; its publisher goes on.
    fn give_up(self) {
        metrics::counter!(metric::REPLIES_UNROUTABLE).increment(1);
        let _ = self.confirmed.send(());
    }
}

/// Whether a session ended because our user may not write to the default exchange: the broker is well, and the
/// next session sends no replies.
pub(super) fn forbids_replies(lost: &Lost) -> bool {
    lost.contains(NO_REPLIES)
}

impl Publisher {
    /// The handle, and what the sending task takes from.
    pub(super) fn new(prefix: &str) -> (Self, mpsc::UnboundedReceiver<Entry>) {
        let (outgoing, incoming) = mpsc::unbounded_channel();
        let window = Arc::new(Semaphore::new(WINDOW));
        (Self { prefix: prefix.to_owned(), window, outgoing, delays: Delays::new() }, incoming)
    }

    /// Returns once all are confirmed. Dropped before that, they are sent all the same.
    pub(super) async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let delays: Vec<_> = publications.iter().filter_map(|each| Delay::of(&each.to)).collect();
        let prepared = publications.into_iter().map(|publication| Outgoing::new(&self.prefix, publication));
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let mut confirms = Vec::with_capacity(prepared.len());
        for outgoing in prepared {
            let place = self.window.clone().acquire_owned().await.map_err(|_| QueueError::Closed)?;
            let (confirmed, confirm) = oneshot::channel();
            let entry = Entry { outgoing: Arc::new(outgoing), confirmed, _place: place };
            self.outgoing.send(entry).map_err(|_| QueueError::Closed)?;
            confirms.push(confirm);
        }
        for confirm in confirms {
            confirm.await.map_err(|_| QueueError::Closed)?;
        }
        self.delays.begun(delays, Instant::now());
        Ok(())
    }

    /// Takes nothing more.
    pub(super) fn stop(&self) {
        self.window.close();
    }
}

/// What the publishing connection is for.
pub(super) struct Publishing {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Entry>,
    /// In the order in which they came.
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Our user may not write to the default exchange: for the rest of the process no reply is sent.
    replies_forbidden: bool,
}

impl Publishing {
    pub(super) fn new(shared: &Arc<Shared>, incoming: mpsc::UnboundedReceiver<Entry>) -> Self {
        Self { shared: shared.clone(), incoming, entries: BTreeMap::new(), next: 0, replies_forbidden: false }
    }

    async fn fly(&mut self, link: &Link, flight: &mut Flight) -> Lost {
        let closing = self.shared.closing.clone();
        let mut look = interval(LOOK);
        let mut last_moment: Option<Instant> = None;
        let mut fresh = Vec::with_capacity(BATCH);
        loop {
            let until = last_moment.unwrap_or_else(Instant::now);
            let (due, held) = flight.due().unzip();
            let lost = tokio::select! {
                reason = link.session.ended() => Some(reason),
                _ = self.incoming.recv_many(&mut fresh, BATCH) => {
                    self.send_all(flight, &mut fresh);
                    None
                }
                resolved = flight.next(), if flight.flies() => self.judge(flight, resolved).err(),
                () = sleep_until(due.unwrap_or(until)), if due.is_some() => {
                    self.send_again(flight, held);
                    None
                }
                _ = look.tick() => self.look(flight),
                () = closing.cancelled(), if last_moment.is_none() => {
                    last_moment = Some(Instant::now() + LAST_MOMENT);
                    None
                }
                () = sleep_until(until), if last_moment.is_some() => Some("the process is stopping".to_owned()),
            };
            if let Some(lost) = lost {
                return lost;
            }
            if last_moment.is_some() && self.entries.is_empty() && self.incoming.is_empty() {
                return "the process is stopping".to_owned();
            }
        }
    }

    fn send_all(&mut self, flight: &mut Flight, fresh: &mut Vec<Entry>) {
        for entry in fresh.drain(..) {
            if self.replies_forbidden && entry.outgoing.is_reply() {
                entry.give_up();
                continue;
            }
            flight.send(self.next, &entry.outgoing);
            self.entries.insert(self.next, entry);
            self.next += 1;
        }
        self.tell();
    }

    fn send_again(&self, flight: &mut Flight, held: Option<u64>) {
        if let Some((number, entry)) = held.and_then(|number| self.entries.get_key_value(&number)) {
            flight.send(*number, &entry.outgoing);
        }
    }

    /// All that is known to be confirmed is done with before a fault among them is told.
    fn judge(&mut self, flight: &mut Flight, first: Resolved) -> Result<(), Lost> {
        let mut outcome = Ok(());
        for resolved in flight.complete(first) {
            let number = resolved.number;
            let Some(entry) = self.entries.get(&number) else { continue };
            match flight.verdict(resolved, &entry.outgoing) {
                Verdict::Confirmed => self.done(number),
                Verdict::Held => {}
                Verdict::Unroutable => {
                    let refused = format!("nothing is bound for {}", entry.outgoing.shown());
                    self.shared.board.refuses(Some(refused.clone()));
                    outcome = Err(refused);
                }
                // Of all that a closed channel takes along, only the reply may say why it was closed.
                Verdict::Lost(_) if outcome.as_ref().is_err_and(forbids_replies) => {}
                Verdict::Lost(reason) => outcome = Err(reason),
            }
        }
        self.tell();
        outcome
    }

    fn done(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            // Whoever published may have gone away: the message is there all the same.
            let _ = entry.confirmed.send(());
        }
    }

    /// Where our user may not write to the default exchange, the first reply closes the channel, as would every
    /// one after it: they are given up like those that nobody waits for, and the session is not lost over another.
    fn give_up_replies(&mut self, lost: &Lost) {
        if !forbids_replies(lost) {
            return;
        }
        if !self.replies_forbidden {
            tracing::warn!(
                reason = lost,
                "no reply is sent from now on: our user may not write to the default exchange"
            );
            self.replies_forbidden = true;
        }
        let all = std::mem::take(&mut self.entries).into_iter();
        let (replies, others): (Vec<_>, Vec<_>) = all.partition(|(_, entry)| entry.outgoing.is_reply());
        self.entries = others.into_iter().collect();
        for (_, reply) in replies {
            reply.give_up();
        }
    }

    fn look(&self, flight: &mut Flight) -> Option<Lost> {
        match flight.refused_longest() {
            Some((number, time)) if time > LASTING => {
                let what = self.entries.get(&number).map(|entry| entry.outgoing.shown()).unwrap_or_default();
                let refused = format!(
                    "the broker has refused a publication to {what} for {} s: its queue is full",
                    time.as_secs()
                );
                self.shared.board.refuses(Some(refused));
            }
            _ if flight.age() > LASTING => self.shared.board.refuses(None),
            _ => {}
        }
        flight.stuck(self.shared.board.is_blocked())
    }

    fn tell(&self) {
        #[expect(clippy::cast_precision_loss, reason = "never more than the window")]
        metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(self.entries.len() as f64);
    }
}

impl Work for Publishing {
    const ROLE: Role = Role::Publish;

    /// Connected from the start: the process is ready once it can publish.
    async fn wanted(&mut self) {}

    async fn run(&mut self, link: Arc<Link>) -> Lost {
        let channel = match link.confirming_channel().await {
            Ok(channel) => channel,
            Err(lost) => return lost,
        };
        let mut flight = Flight::new(channel);
        for (number, entry) in &self.entries {
            flight.send(*number, &entry.outgoing);
        }
        let lost = self.fly(&link, &mut flight).await;
        self.give_up_replies(&lost);
        lost
    }
}
