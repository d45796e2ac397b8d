//! The publishing connection: every publication is kept until the broker has confirmed it, and sent again by
//! the next session where the last one ended before that.
//!
//! One task publishes. lapin numbers a publication and queues its frames in two steps under two locks, so two
//! tasks on one channel could exchange their confirms.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, interval, sleep_until, timeout},
};

use super::{
    Shared,
    delays::{Delay, Delays},
    health::Role,
    outgoing_message::OutgoingMessage,
    replies::{Replies, Reply},
    session::{Link, SessionError, Work},
    size_limit,
    unconfirmed::{ConfirmResult, ResolvedConfirm, Unconfirmed},
};
use crate::{Destination, Publication, QueueError, TooLarge, topology};
use genfleet_job::metric;

/// Publications sent or about to be, and not confirmed.
const WINDOW: usize = 1024;
/// Publications taken up at once.
const BATCH: usize = 128;
/// Between two looks at what does not come.
const LOOK: Duration = Duration::from_secs(1);
/// A refusal this old is a problem; a session this old that saw none, or that has nothing to send, has none.
const LASTING: Duration = Duration::from_secs(5);
/// A session whose publications are refused is rebuilt after [`LASTING`], the next after twice as long, at most this.
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// A session that has to end waits this long for what is under way: what is not confirmed is sent twice.
const ENDING: Duration = Duration::from_secs(2);
/// How long the broker's words for a fault may take that a publication has met.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What is unconfirmed when the queue closes gets this long.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// A session ended because its publications were refused.
const REFUSING: &str = "the broker refuses (nack)";

/// Hands publications to the task that sends them.
pub(super) struct Publisher {
    prefix: String,
    window: Arc<Semaphore>,
    outgoing: mpsc::UnboundedSender<Entry>,
    pub(super) delays: Delays,
    pub(super) replies: Replies,
}

/// What the sending tasks take from.
pub(super) struct Incoming {
    pub(super) publications: mpsc::UnboundedReceiver<Entry>,
    pub(super) replies: mpsc::UnboundedReceiver<Reply>,
}

/// A publication until it is confirmed.
pub(super) struct Entry {
    outgoing: Arc<OutgoingMessage>,
    confirmed: oneshot::Sender<Result<(), TooLarge>>,
    _place: OwnedSemaphorePermit,
}

/// Whether a session ended because its publications were refused: the broker is not away.
pub(super) fn refuses(lost: &SessionError) -> bool {
    lost.starts_with(REFUSING)
}

impl Publisher {
    /// The handle, and what the sending tasks take from.
    pub(super) fn new(prefix: &str) -> (Self, Incoming) {
        let (outgoing, publications) = mpsc::unbounded_channel();
        let window = Arc::new(Semaphore::new(WINDOW));
        let (replies, waiting) = Replies::new(prefix);
        let publisher = Self { prefix: prefix.to_owned(), window, outgoing, delays: Delays::new(), replies };
        (publisher, Incoming { publications, replies: waiting })
    }

    /// Returns once all are confirmed; replies are sent after that, and not waited for. Dropped before that, all but the
    /// replies are sent all the same. [`QueueError::TooLarge`] once all are confirmed but what is too large.
    pub(super) async fn publish(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let is_reply = |publication: &Publication| matches!(publication.to, Destination::Reply { .. });
        let (replies, publications): (Vec<_>, Vec<_>) = publications.into_iter().partition(is_reply);
        self.confirmed(publications).await?;
        for reply in replies {
            self.replies.offer(reply);
        }
        Ok(())
    }

    async fn confirmed(&self, publications: Vec<Publication>) -> Result<(), QueueError> {
        let delays: Vec<_> = publications.iter().filter_map(|each| Delay::of(&each.to)).collect();
        let prepared = publications.into_iter().map(|publication| OutgoingMessage::new(&self.prefix, publication));
        let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
        let mut confirms = Vec::with_capacity(prepared.len());
        for outgoing in prepared {
            let place = self.window.clone().acquire_owned().await.map_err(|_| QueueError::Closed)?;
            let (confirmed, confirm) = oneshot::channel();
            let entry = Entry { outgoing: Arc::new(outgoing), confirmed, _place: place };
            self.outgoing.send(entry).map_err(|_| QueueError::Closed)?;
            confirms.push(confirm);
        }
        let mut refused = None;
        for confirm in confirms {
            refused = confirm.await.map_err(|_| QueueError::Closed)?.err().or(refused);
        }
        if let Some(size) = refused {
            return Err(QueueError::TooLarge { size, settler: None });
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
pub(super) struct PublisherConnection {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<Entry>,
    /// In the order in which they came.
    entries: BTreeMap<u64, Entry>,
    next: u64,
    /// Confirmed in this session, and perhaps returned.
    in_doubt: Vec<u64>,
    refusal: Option<Refusal>,
}

/// What the broker refuses, through all sessions.
struct Refusal {
    since: Instant,
    /// For this long one session bears it.
    patience: Duration,
}

/// A session that has to end, and when it does at the latest.
struct EndingSession {
    why: SessionError,
    until: Instant,
}

impl EndingSession {
    fn over(why: SessionError) -> Self {
        Self { why, until: Instant::now() + ENDING }
    }
}

impl PublisherConnection {
    pub(super) fn new(shared: &Arc<Shared>, incoming: mpsc::UnboundedReceiver<Entry>) -> Self {
        let (entries, in_doubt) = (BTreeMap::new(), Vec::new());
        Self { shared: shared.clone(), incoming, entries, next: 0, in_doubt, refusal: None }
    }

    async fn publish_until_lost(&mut self, link: &Link, unconfirmed: &mut Unconfirmed) -> SessionError {
        let closing = self.shared.closing.clone();
        let mut look = interval(LOOK);
        let mut last_moment: Option<Instant> = None;
        let mut ending: Option<EndingSession> = None;
        let mut fresh = Vec::with_capacity(BATCH);
        loop {
            let sends = ending.is_none();
            let (due, held) = unconfirmed.due().filter(|_| sends).unzip();
            let end = ending.as_ref().map(|ending| ending.until).or(last_moment);
            let now = Instant::now();
            tokio::select! {
                reason = link.session.ended() => return reason,
                _ = self.incoming.recv_many(&mut fresh, BATCH), if sends => self.send_all(unconfirmed, &mut fresh),
                resolved = unconfirmed.next(), if unconfirmed.has_pending() => if let Err(lost) = self.judge(unconfirmed, Some(resolved)) {
                    return lost;
                },
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => self.send_again(unconfirmed, held),
                _ = look.tick() => {
                    if let Some(lost) = unconfirmed.stuck(self.shared.board.is_blocked()) {
                        return lost;
                    }
                    ending = ending.or(self.look_at_refusals(unconfirmed).map(EndingSession::over));
                }
                () = closing.cancelled(), if last_moment.is_none() => last_moment = Some(now + LAST_MOMENT),
                () = sleep_until(end.unwrap_or(now)), if end.is_some() => {
                    return ending.map_or_else(stopping, |ending| ending.why);
                }
            }
            if ending.is_none() {
                ending = self.look_at_returns(unconfirmed).map(EndingSession::over);
            }
            if let Some(EndingSession { why, .. }) = ending.take_if(|_| !unconfirmed.has_pending()) {
                return why;
            }
            if last_moment.is_some() && self.entries.is_empty() && self.incoming.is_empty() {
                return stopping();
            }
        }
    }

    fn send_all(&mut self, unconfirmed: &mut Unconfirmed, fresh: &mut Vec<Entry>) {
        for entry in fresh.drain(..) {
            unconfirmed.send(self.next, &entry.outgoing);
            self.entries.insert(self.next, entry);
            self.next += 1;
        }
        self.tell();
    }

    fn send_again(&self, unconfirmed: &mut Unconfirmed, held: Option<u64>) {
        if let Some((number, entry)) = held.and_then(|number| self.entries.get_key_value(&number)) {
            unconfirmed.send(*number, &entry.outgoing);
        }
    }

    /// All that is known to be confirmed is done with before a fault among them is told.
    fn judge(&mut self, unconfirmed: &mut Unconfirmed, first: Option<ResolvedConfirm>) -> Result<(), SessionError> {
        let mut outcome = Ok(());
        for resolved in unconfirmed.settled(first) {
            let number = resolved.number;
            match unconfirmed.confirm_result(resolved) {
                ConfirmResult::Confirmed => self.done(number),
                ConfirmResult::InDoubt => self.in_doubt.push(number),
                ConfirmResult::Held => {}
                ConfirmResult::Lost(reason) => outcome = Err(reason),
            }
        }
        self.tell();
        outcome
    }

    fn done(&mut self, number: u64) {
        if let Some(entry) = self.entries.remove(&number) {
            // Whoever published may have gone away: the message is there all the same.
            let _ = entry.confirmed.send(Ok(()));
        }
    }

    /// At the end of a session: what can be known to be safe is.
    fn settle_confirms(&mut self, unconfirmed: &mut Unconfirmed) {
        // The end is known already.
        let _ = self.judge(unconfirmed, None);
        for number in std::mem::take(&mut self.in_doubt) {
            if self.entries.get(&number).is_some_and(|entry| !unconfirmed.came_back(&entry.outgoing)) {
                self.done(number);
            }
        }
        self.tell();
    }

    /// What the broker closed the channel over is not sent again.
    fn give_up_too_large(&mut self, lost: &SessionError) {
        let Some(sizes) = size_limit::refused(lost) else { return };
        let bodies = self.entries.iter().map(|(number, entry)| (*number, entry.outgoing.body.len())).collect();
        for (number, size) in size_limit::too_large(&bodies, sizes) {
            let Some(entry) = self.entries.remove(&number) else { continue };
            tracing::warn!(to = entry.outgoing.describe(), "not published: {size}");
            // Whoever published may have gone away.
            let _ = entry.confirmed.send(Err(size));
        }
        self.tell();
    }

    fn look_at_returns(&self, unconfirmed: &Unconfirmed) -> Option<SessionError> {
        let unroutable = unconfirmed.unroutable()?;
        self.shared.board.refuses(Some(unroutable.clone()));
        Some(unroutable)
    }

    /// A queue that is full refuses, but so does one whose leader is being elected, and then goes on refusing what comes
    /// by the same channel. Which of the two it is cannot be seen: for the second case the session is rebuilt.
    fn look_at_refusals(&mut self, unconfirmed: &Unconfirmed) -> Option<SessionError> {
        let Some((number, time)) = unconfirmed.refused_longest() else {
            if unconfirmed.age() > LASTING || self.entries.is_empty() {
                self.shared.board.refuses(None);
                self.refusal = None;
            }
            return None;
        };
        if time <= LASTING {
            return None;
        }
        let begun = || Refusal { since: Instant::now() - time, patience: LASTING };
        let refusal = self.refusal.get_or_insert_with(begun);
        let what = self.entries.get(&number).map(|entry| entry.outgoing.describe()).unwrap_or_default();
        let seconds = refusal.since.elapsed().as_secs();
        let told = format!("{REFUSING} publications to {what} for {seconds} s: the queue is full or has no leader");
        self.shared.board.refuses(Some(told.clone()));
        let borne = time <= refusal.patience;
        if !borne {
            refusal.patience = (refusal.patience * 2).min(MOST_PATIENCE);
        }
        (!borne).then_some(told)
    }

    fn tell(&self) {
        #[expect(clippy::cast_precision_loss, reason = "never more than the window")]
        metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(self.entries.len() as f64);
    }
}

/// The exchange of events that is gone took the bindings of others with it, and only ours are made anew.
pub(super) fn tell_of_missing_events(prefix: &str, lost: &str) {
    let events = topology::events(prefix);
    if lost.contains(&format!("no exchange '{events}'")) {
        tracing::error!(
            exchange = events,
            "the exchange of events was deleted: queues that others had bound to it get nothing until they are bound \
             again; what they miss is in our own queue of events"
        );
    }
}

fn stopping() -> SessionError {
    "the process is stopping".to_owned()
}

impl Work for PublisherConnection {
    const ROLE: Role = Role::Publish;

    /// Connected from the start: the process is ready once it can publish.
    async fn wanted(&mut self) {}

    async fn run(&mut self, link: Arc<Link>) -> SessionError {
        let channel = match link.confirming_channel().await {
            Ok(channel) => channel,
            Err(lost) => return lost,
        };
        let mut unconfirmed = Unconfirmed::new(channel);
        for (number, entry) in &self.entries {
            unconfirmed.send(*number, &entry.outgoing);
        }
        let mut lost = self.publish_until_lost(&link, &mut unconfirmed).await;
        self.settle_confirms(&mut unconfirmed);
        if unconfirmed.is_broken() {
            // What was published as the channel closed knows only that; the broker's own words are on their way.
            lost = timeout(LAST_WORDS, link.session.ended()).await.unwrap_or(lost);
        }
        self.give_up_too_large(&lost);
        tell_of_missing_events(&self.shared.prefix, &lost);
        lost
    }
}
