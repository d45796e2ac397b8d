//! Runs sessions one after the other: connects, prepares the topology, runs the task, closes, pauses, and starts again.
//! lapin's own recovery is disabled.

use std::{sync::Arc, time::Duration};

use backoff::{ExponentialBackoff, backoff::Backoff};
use futures_util::{FutureExt, Stream, StreamExt};
use lapin::Event;
use tokio::time::{Instant, interval, sleep};

use super::{
    connect::BrokerHost,
    declare,
    error::describe,
    link::{ConnectionRole, Link, Session, SessionError, SessionWork},
    lock,
    publish::is_refusal,
    shared::Shared,
    size_limit, unknown_kinds,
};
use genfleet_job::{metric, retry};

/// Duration of a session after which the next pause is short again, because the broker is reachable.
const LASTED: Duration = Duration::from_secs(2);
/// The longest pause between two sessions.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Interval of checking the connection's status, because not every loss of a connection causes an event.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The waits between connection attempts to the broker: full jitter, 0.5–30 s, without end (SPEC 5.8).
pub(super) fn reconnect() -> ExponentialBackoff {
    retry::full_jitter(Duration::from_millis(500), LONGEST_PAUSE)
}

/// Runs sessions for `work`, one after the other, until the queue is closed.
pub(super) async fn supervise<W: SessionWork>(shared: &Arc<Shared>, work: &mut W) {
    let closing = shared.closing.clone();
    if closing.run_until_cancelled(work.wait_until_wanted()).await.is_none() {
        return;
    }
    shared.health.set_needed(W::ROLE);
    let mut waits = reconnect();
    for host in shared.broker.rotation() {
        let Some(opened) = closing.run_until_cancelled(open(shared, W::ROLE, &host)).await else { return };
        let reason = match opened {
            Ok(link) => run(shared, work, link, &mut waits).await,
            Err(reason) => reason,
        };
        shared.health.set_down(W::ROLE, reason.clone());
        if closing.is_cancelled() {
            return;
        }
        let pause = waits.next_backoff().unwrap_or(LONGEST_PAUSE);
        tracing::warn!(role = W::ROLE.as_str(), reason, ?pause, "no session with the broker");
        closing.run_until_cancelled(sleep(pause)).await;
    }
}

async fn run<W: SessionWork>(shared: &Shared, work: &mut W, link: Arc<Link>, waits: &mut impl Backoff) -> SessionError {
    let began = Instant::now();
    shared.health.set_up(W::ROLE);
    if W::ROLE == ConnectionRole::Publish {
        shared.settlements.publisher.replies.retry_forbidden();
    }
    let reason = work.run(link.clone()).await;
    link.close(&reason).await;
    if W::ROLE == ConnectionRole::Publish {
        shared.health.set_blocked(false);
    }
    if !shared.closing.is_cancelled() {
        metrics::counter!(metric::BROKER_RECONNECTS, "role" => W::ROLE.as_str()).increment(1);
    }
    // The broker is also reachable if a queue refuses publications or a message is too large.
    if began.elapsed() >= LASTED || is_refusal(&reason) || size_limit::parse_refusal(&reason).is_some() {
        waits.reset();
    }
    reason
}

async fn open(shared: &Arc<Shared>, role: ConnectionRole, host: &BrokerHost) -> Result<Arc<Link>, SessionError> {
    let link = Link::new(shared.broker.connect(host, role.as_str()).await?);
    let events = link.connection().events_listener();
    if let Err(reason) = declare::prepare(shared, link.connection()).await {
        link.close(&reason).await;
        return Err(reason);
    }
    tracing::info!(role = role.as_str(), broker = host.display_name, "connected to the broker");
    watch(shared, role, &link, events);
    Ok(Arc::new(link))
}

/// Handles the events of a connection. There is only one listener, because lapin passes each event to one listener
/// only.
///
/// Errors from before the session are ignored: a check of the topology may have closed a channel, and the connection's
/// status shows all others.
fn watch(
    shared: &Arc<Shared>,
    role: ConnectionRole,
    link: &Link,
    mut events: impl Stream<Item = Event> + Send + Unpin + 'static,
) {
    let (session, status) = (link.session.clone(), link.connection().status().clone());
    while let Some(Some(event)) = events.next().now_or_never() {
        if !matches!(event, Event::Error(_)) {
            handle(shared, role, &session, event);
        }
    }
    let task_shared = shared.clone();
    shared.spawn(async move {
        let mut check = interval(CHECK_EVERY);
        loop {
            tokio::select! {
                biased;
                _ = session.wait_until_ended() => return,
                event = events.next() => match event {
                    Some(event) => handle(&task_shared, role, &session, event),
                    None => session.end("the connection is gone"),
                },
                _ = check.tick() => if !status.connected() {
                    session.end("the connection was closed");
                },
            }
        }
    });
}

/// Handles an event. The broker blocks only connections that publish.
fn handle(shared: &Shared, role: ConnectionRole, session: &Session, event: Event) {
    match event {
        // This closed only the channel on which the lock was requested.
        Event::Error(error) if lock::is_held(&error) || lock::is_unmarked(&error) => {}
        // This closed the channel of a check of the topology. A consumer of a missing queue gets its own error.
        Event::Error(error) if role == ConnectionRole::Consume && declare::is_objection(&error) => {}
        // No job depends on these messages.
        Event::Error(error) if unknown_kinds::is_refused(&error, &shared.prefix) => {}
        Event::Error(error) => session.end(describe(error)),
        Event::ConnectionBlocked(reason) => {
            tracing::warn!(reason, "the broker takes no publications");
            shared.health.set_blocked(true);
        }
        Event::ConnectionUnblocked => {
            tracing::info!("the broker takes publications again");
            shared.health.set_blocked(false);
        }
        _ => {}
    }
}
