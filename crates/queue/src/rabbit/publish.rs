//! The publishing connection. Every publication is kept until the broker has confirmed it. If the session ends before
//! that, the next session sends it again.
//!
//! Only one task publishes. lapin numbers a publication and queues its frames in two steps under two locks, so the
//! confirms of two tasks on one channel could be mixed up.

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

/// Maximum number of publications that are received at once.
const BATCH: usize = 128;
/// Interval of checking for overdue confirms.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Time after which a refusal is reported as a problem, and after which a session without a refusal, or with nothing to
/// send, ends the problem.
const LASTING: Duration = Duration::from_secs(5);
/// Maximum time until a session whose publications are refused is rebuilt. The first is rebuilt after [`LASTING`], each
/// further one after twice as long.
const MOST_PATIENCE: Duration = Duration::from_secs(60);
/// Time for which a session that has to end waits for confirms. Unconfirmed publications are sent twice.
const ENDING: Duration = Duration::from_secs(2);
/// Maximum wait for the broker's description of an error of a publication.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Time for unconfirmed publications when the queue closes.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// Beginning of the reason when a session ends because its publications are refused.
const REFUSING: &str = "the broker refuses (nack)";

/// Returns true if a session ended because its publications were refused, which means that the broker is reachable.
pub(super) fn is_refusal(reason: &SessionError) -> bool {
    reason.starts_with(REFUSING)
}

/// The work of the publishing connection.
pub(super) struct PublisherConnection {
    shared: Arc<Shared>,
    incoming: mpsc::UnboundedReceiver<PendingPublication>,
    /// All unconfirmed publications, in their order.
    pending: BTreeMap<u64, PendingPublication>,
    next: u64,
    /// Publications that were confirmed in this session, but may have been returned.
    in_doubt: Vec<u64>,
    refusal: Option<Refusal>,
}

/// The broker's refusals, over all sessions.
struct Refusal {
    since: Instant,
    /// Time after which the session is rebuilt.
    patience: Duration,
}

struct EndingSession {
    reason: SessionError,
    /// The latest time at which it ends.
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
            let (due, refused) = unconfirmed.next_retry().filter(|_| sends).unzip();
            let end = ending.as_ref().map(|ending| ending.until).or(last_moment);
            let now = Instant::now();
            tokio::select! {
                reason = link.session.wait_until_ended() => return reason,
                _ = self.incoming.recv_many(&mut fresh, BATCH), if sends => self.send_all(unconfirmed, &mut fresh),
                resolved = unconfirmed.next(), if unconfirmed.has_pending() => {
                    if let Err(reason) = self.take_confirms(unconfirmed, Some(resolved)) {
                        return reason;
                    }
                }
                () = sleep_until(due.unwrap_or(now)), if due.is_some() => self.send_again(unconfirmed, refused),
                _ = check.tick() => {
                    if let Some(reason) = unconfirmed.check_overdue(self.shared.health.is_blocked()) {
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
        self.set_gauge();
    }

    fn send_again(&self, unconfirmed: &mut Unconfirmed, refused: Option<u64>) {
        if let Some((number, publication)) = refused.and_then(|number| self.pending.get_key_value(&number)) {
            unconfirmed.send(*number, &publication.outgoing);
        }
    }

    /// Resolves all confirmed publications, and then returns an error if there was one among the confirms.
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
        self.set_gauge();
        fault
    }

    fn resolve(&mut self, number: u64) {
        if let Some(publication) = self.pending.remove(&number) {
            publication.resolve(Ok(()));
        }
    }

    /// Resolves all publications that are known to be durable at the end of a session.
    fn settle_confirms(&mut self, unconfirmed: &mut Unconfirmed) {
        // The reason for the end is already known.
        let _ = self.take_confirms(unconfirmed, None);
        for number in std::mem::take(&mut self.in_doubt) {
            if self.pending.get(&number).is_some_and(|one| !unconfirmed.may_have_been_returned(&one.outgoing)) {
                self.resolve(number);
            }
        }
        self.set_gauge();
    }

    /// Gives up the publications over which the broker closed the channel, so that they are not sent again.
    fn give_up_too_large(&mut self, reason: &SessionError) {
        let Some(sizes) = size_limit::parse_refusal(reason) else { return };
        let bodies = self.pending.iter().map(|(number, one)| (*number, one.outgoing.body.len())).collect();
        for (number, size) in size_limit::too_large(&bodies, sizes) {
            let Some(publication) = self.pending.remove(&number) else { continue };
            tracing::warn!(to = publication.outgoing.describe(), "not published: {size}");
            publication.resolve(Err(size));
        }
        self.set_gauge();
    }

    fn check_returns(&self, unconfirmed: &Unconfirmed) -> Option<SessionError> {
        let unroutable = unconfirmed.unroutable()?;
        self.shared.health.set_refusal(Some(unroutable.clone()));
        Some(unroutable)
    }

    /// Checks for lasting refusals. A full queue refuses publications, but so does a queue whose leader is being
    /// elected, which afterwards still refuses those of the same channel. The two cannot be distinguished, so the
    /// session is rebuilt.
    fn check_refusals(&mut self, unconfirmed: &Unconfirmed) -> Option<SessionError> {
        let Some((number, time)) = unconfirmed.longest_refused() else {
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

    fn set_gauge(&self) {
        #[expect(clippy::cast_precision_loss, reason = "never more than the window")]
        metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(self.pending.len() as f64);
    }
}

fn stopping() -> SessionError {
    "the process is stopping".to_owned()
}

impl SessionWork for PublisherConnection {
    const ROLE: ConnectionRole = ConnectionRole::Publish;

    /// Connects at once, because the process is ready only when it can publish.
    async fn wait_until_wanted(&mut self) {}

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
            // A publication failed on the closed channel. The broker's description follows.
            reason = timeout(LAST_WORDS, link.session.wait_until_ended()).await.unwrap_or(reason);
        }
        self.give_up_too_large(&reason);
        warn_of_missing_events(&self.shared.prefix, &reason);
        reason
    }
}
