//! The publishing connection: every publication is kept until the broker has confirmed it, and sent again by the next
//! session if the last one ended before that.
//!
//! One task publishes. lapin numbers a publication and queues its frames in two steps under two locks, so two tasks on
//! one channel could exchange their confirms.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until, timeout},
};

use super::{
    link::{ConnectionRole, Link, SessionError, SessionWork},
    missing::warn_of_missing_events,
    publisher::PendingPublication,
    shared::Shared,
    size_limit,
    unconfirmed::{ConfirmResult, ResolvedConfirm, Unconfirmed},
};
use genfleet_job::metric;

/// Publications received at once.
const BATCH: usize = 128;
/// Interval of looking for confirms that do not come.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A refusal this old is a problem; a session this old that saw none, or that has nothing to send, has none.
const LASTING: Duration = Duration::from_secs(5);
/// A session whose publications are refused is rebuilt after [`LASTING`], the next after twice as long, at most this.
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// A session that has to end waits this long for confirms: what is not confirmed is sent twice.
const ENDING: Duration = Duration::from_secs(2);
/// Maximum wait for the broker's own description of a fault that a publication has met.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Time for what is unconfirmed when the queue closes.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// Beginning of the reason of a session that ended because its publications were refused.
const REFUSING: &str = "the broker refuses (nack)";

/// Returns true if a session ended because its publications were refused: the broker is not away.
pub(super) fn refuses(reason: &SessionError) -> bool {
    reason.starts_with(REFUSING)
}

/// The work of the publishing connection.
pub(super) struct PublisherConnection {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<PendingPublication>,
    /// In the order in which they came.
    pending: BTreeMap<u64, PendingPublication>,
    next: u64,
    /// Confirmed in this session, and perhaps returned.
    in_doubt: Vec<u64>,
    refusal: Option<Refusal>,
}

/// The broker's refusals, through all sessions.
struct Refusal {
    since: Instant,
    /// Time for which one session bears them.
    patience: Duration,
}

struct EndingSession {
    reason: SessionError,
    /// Latest time of its end.
    until: Instant,
}

impl EndingSession {
    fn after_confirms(reason: SessionError) -> Self {
        Self { reason, until: Instant::now() + ENDING }
    }
}

impl PublisherConnection {
    pub(super) fn new(shared: &Arc<Shared>, incoming: mpsc::UnboundedReceiver<PendingPublication>) -> Self {
        let (pending, in_doubt) = (BTreeMap::new(), Vec::new());
        Self { shared: shared.clone(), incoming, pending, next: 0, in_doubt, refusal: None }
    }

    async fn publish_until_lost(&mut self, link: &Link, unconfirmed: &mut Unconfirmed) -> SessionError {
        let closing = self.shared.closing.clone();
        let mut check = interval(CHECK_EVERY);
        let mut last_moment: Option<Instant> = None;
        let mut ending: Option<EndingSession> = None;
        let mut fresh = Vec::with_capacity(BATCH);
        loop {
            let sends = ending.is_none();
            let (due, refused) = unconfirmed.due().filter(|_| sends).unzip();
            let end = ending.as_ref().map(|ending| ending.until).or(last_moment);
            let now = Instant::now();
            tokio::select! {
                reason = link.session.ended() => return reason,
                _ = self.incoming.recv_many(&mut fresh, BATCH), if sends => self.send_all(unconfirmed, &mut fresh),
                resolved = unconfirmed.next(), if unconfirmed.has_pending() => {
                    if let Err(reason) = self.take_confirms(unconfirmed, Some(resolved)) {
                        return reason;
                    }
                }
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => self.send_again(unconfirmed, refused),
                _ = check.tick() => {
                    if let Some(reason) = unconfirmed.stuck(self.shared.health.is_blocked()) {
                        return reason;
                    }
                    ending = ending.or(self.check_refusals(unconfirmed).map(EndingSession::after_confirms));
                }
                () = closing.cancelled(), if last_moment.is_none() => last_moment = Some(now + LAST_MOMENT),
                () = sleep_until(end.unwrap_or(now)), if end.is_some() => {
                    return ending.map_or_else(stopping, |ending| ending.reason);
                }
            }
            if ending.is_none() {
                ending = self.check_returns(unconfirmed).map(EndingSession::after_confirms);
            }
            if let Some(EndingSession { reason, .. }) = ending.take_if(|_| !unconfirmed.has_pending()) {
                return reason;
            }
            if last_moment.is_some() && self.pending.is_empty() && self.incoming.is_empty() {
                return stopping();
            }
        }
    }

    fn send_all(&mut self, unconfirmed: &mut Unconfirmed, fresh: &mut Vec<PendingPublication>) {
        for publication in fresh.drain(..) {
            unconfirmed.send(self.next, &publication.outgoing);
            self.pending.insert(self.next, publication);
            self.next += 1;
        }
        self.gauge();
    }

    fn send_again(&self, unconfirmed: &mut Unconfirmed, refused: Option<u64>) {
        if let Some((number, publication)) = refused.and_then(|number| self.pending.get_key_value(&number)) {
            unconfirmed.send(*number, &publication.outgoing);
        }
    }

    /// Resolves all that is known to be confirmed before it returns a fault among the confirms.
    fn take_confirms(
        &mut self,
        unconfirmed: &mut Unconfirmed,
        first: Option<ResolvedConfirm>,
    ) -> Result<(), SessionError> {
        let mut fault = Ok(());
        for resolved in unconfirmed.take_resolved(first) {
            let number = resolved.number;
            match unconfirmed.confirm_result(resolved) {
                ConfirmResult::Confirmed => self.resolve(number),
                ConfirmResult::InDoubt => self.in_doubt.push(number),
                ConfirmResult::Refused => {}
                ConfirmResult::Lost(reason) => fault = Err(reason),
            }
        }
        self.gauge();
        fault
    }

    fn resolve(&mut self, number: u64) {
        if let Some(publication) = self.pending.remove(&number) {
            publication.resolve(Ok(()));
        }
    }

    /// Resolves at the end of a session all that can be known to be durable.
    fn settle_confirms(&mut self, unconfirmed: &mut Unconfirmed) {
        // The reason of the end is known already.
        let _ = self.take_confirms(unconfirmed, None);
        for number in std::mem::take(&mut self.in_doubt) {
            if self.pending.get(&number).is_some_and(|one| !unconfirmed.may_have_come_back(&one.outgoing)) {
                self.resolve(number);
            }
        }
        self.gauge();
    }

    /// Gives up what the broker closed the channel over, so that it is not sent again.
    fn give_up_too_large(&mut self, reason: &SessionError) {
        let Some(sizes) = size_limit::refused(reason) else { return };
        let bodies = self.pending.iter().map(|(number, one)| (*number, one.outgoing.body.len())).collect();
        for (number, size) in size_limit::too_large(&bodies, sizes) {
            let Some(publication) = self.pending.remove(&number) else { continue };
            tracing::warn!(to = publication.outgoing.describe(), "not published: {size}");
            publication.resolve(Err(size));
        }
        self.gauge();
    }

    fn check_returns(&self, unconfirmed: &Unconfirmed) -> Option<SessionError> {
        let unroutable = unconfirmed.unroutable()?;
        self.shared.health.set_refusal(Some(unroutable.clone()));
        Some(unroutable)
    }

    /// A full queue refuses publications, but so does one whose leader is being elected, and then goes on refusing what
    /// comes by the same channel. The two cannot be told apart: for the second case the session is rebuilt.
    fn check_refusals(&mut self, unconfirmed: &Unconfirmed) -> Option<SessionError> {
        let Some((number, time)) = unconfirmed.refused_longest() else {
            if unconfirmed.age() > LASTING || self.pending.is_empty() {
                self.shared.health.set_refusal(None);
                self.refusal = None;
            }
            return None;
        };
        if time <= LASTING {
            return None;
        }
        let begun = || Refusal { since: Instant::now() - time, patience: LASTING };
        let refusal = self.refusal.get_or_insert_with(begun);
        let to = self.pending.get(&number).map(|one| one.outgoing.describe()).unwrap_or_default();
        let seconds = refusal.since.elapsed().as_secs();
        let reason = format!("{REFUSING} publications to {to} for {seconds} s: the queue is full or has no leader");
        self.shared.health.set_refusal(Some(reason.clone()));
        if time <= refusal.patience {
            return None;
        }
        refusal.patience = (refusal.patience * 2).min(MOST_PATIENCE);
        Some(reason)
    }

    fn gauge(&self) {
        #[expect(clippy::cast_precision_loss, reason = "never more than the window")]
        metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(self.pending.len() as f64);
    }
}

fn stopping() -> SessionError {
    "the process is stopping".to_owned()
}

impl SessionWork for PublisherConnection {
    const ROLE: ConnectionRole = ConnectionRole::Publish;

    /// Connects from the start: the process is ready once it can publish.
    async fn wanted(&mut self) {}

    async fn run(&mut self, link: Arc<Link>) -> SessionError {
        let channel = match link.confirming_channel().await {
            Ok(channel) => channel,
            Err(reason) => return reason,
        };
        let mut unconfirmed = Unconfirmed::new(channel);
        for (number, publication) in &self.pending {
            unconfirmed.send(*number, &publication.outgoing);
        }
        let mut reason = self.publish_until_lost(&link, &mut unconfirmed).await;
        self.settle_confirms(&mut unconfirmed);
        if unconfirmed.is_broken() {
            // A publication met the closed channel; the broker's own description is on its way.
            reason = timeout(LAST_WORDS, link.session.ended()).await.unwrap_or(reason);
        }
        self.give_up_too_large(&reason);
        warn_of_missing_events(&self.shared.prefix, &reason);
        reason
    }
}
