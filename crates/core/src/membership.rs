//! Membership in the fleet: all processes with the same OAuth client share its limit (SPEC 6.4). Each sends a heartbeat
//! with its status every second, and at once on important changes; each computes its own share of the client's limit
//! from them.
//!
//! ```text
//! Membership ─ apply_share    share of the limit → genesys, gauges; every quarter of a second
//!            └ hold_sessions  one session after another: on RabbitMQ heartbeats, on the embedded queue a status file
//! ```
//!
//! [`message`] and [`status`] define what is sent, [`authenticate`] what of it is accepted ([`signature`]: by whom it
//! is sent; [`replay`]: when), [`members`] who is alive and what each may send, [`shares`] how a limit is divided.
//! Nothing here disturbs the work: a session that is lost, or panics, is built again, and meanwhile the rule of
//! [`members`] for silence holds. Does not count requests: that is [`genfleet_genesys::Budget`].

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::gauge;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use self::{
    authenticate::Authenticator,
    members::{Members, OwnLimits},
    message::MemberMessage,
    status::millis,
};
use crate::{webhook::FailingReceivers, worker::activity::Activity};
use genfleet_genesys::{ActiveHold, ClientStatus, GenesysClient, LimitShare};
use genfleet_job::{Kind, clock::SharedClock, metric};
use genfleet_queue::Queue;

mod authenticate;
mod broadcast;
mod listener;
mod members;
mod message;
pub(crate) mod rejection;
mod replay;
mod routing;
mod shares;
mod signature;
pub(crate) mod status;
mod status_file;

pub use self::{
    listener::FleetListener,
    status::{HoldStatus, KindStatus, MemberStatus, ReceiverStatus},
    status_file::read_live_status,
};

/// The interval between two computations of the share.
const SHARE_INTERVAL: Duration = Duration::from_millis(250);
/// The time after its last request during which a process counts as working.
pub(crate) const LATELY: Duration = Duration::from_secs(5);
/// The pause between a lost session and the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time that leaving may take.
const LEAVING: Duration = Duration::from_secs(2);

/// This process's membership in its fleet. Clones share it.
#[derive(Clone)]
pub(crate) struct Membership {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    worker: String,
    queue: Queue,
    genesys: GenesysClient,
    clock: SharedClock,
    activity: Activity,
    failing: FailingReceivers,
    started: Instant,
    members: Mutex<Members>,
    authenticator: Mutex<Authenticator>,
    last_work: Mutex<LastWork>,
    leaving: CancellationToken,
    left: CancellationToken,
}

/// The last time at which this process had work.
#[derive(Debug, Default)]
struct LastWork {
    at: Option<Instant>,
    requests: u32,
}

impl Membership {
    /// The membership of the process `name`, which runs the binary `worker`; [`run`](Self::run) starts it.
    pub(crate) fn new(
        (name, worker): (String, String),
        queue: Queue,
        genesys: GenesysClient,
        clock: SharedClock,
        (activity, failing): (Activity, FailingReceivers),
    ) -> Self {
        let started = Instant::now();
        let authenticator = Authenticator::new(genesys.client_fingerprint(), genesys.fleet_key());
        Self {
            shared: Arc::new(Shared {
                name,
                worker,
                queue,
                genesys,
                clock,
                activity,
                failing,
                started,
                members: Mutex::new(Members::new(started)),
                authenticator: Mutex::new(authenticator),
                last_work: Mutex::default(),
                leaving: CancellationToken::new(),
                left: CancellationToken::new(),
            }),
        }
    }

    /// Takes part in the fleet until dropped.
    pub(crate) async fn run(self) {
        tokio::join!(self.apply_share(), self.hold_sessions());
    }

    /// Tells the other members that this process leaves.
    pub(crate) async fn leave(&self) {
        self.shared.leaving.cancel();
        let _ = timeout(LEAVING, self.shared.left.cancelled()).await;
    }

    /// The fleet as JSON, for the page of the admin port.
    pub(crate) fn to_json(&self) -> Value {
        let now = Instant::now();
        let own = self.status();
        let members = self.members();
        let others: Vec<&MemberStatus> = members.others().collect();
        let spent = own.requests_last_minute.saturating_add(members.requests_of_others());
        json!({
            "heard": self.is_alone() || members.is_reachable(now), "clientLimit": own.client_limit,
            "requestsLastMinute": spent, "own": own, "others": others,
        })
    }

    /// Returns true if another process works `kind` and does not merely stand by.
    pub(crate) fn is_worked_elsewhere(&self, kind: Kind) -> bool {
        let works = |status: &KindStatus| status.kind == kind.as_str() && !status.standing_by;
        self.members().others().any(|status| status.kinds.iter().any(works))
    }

    /// Computes this process's share again and again, and passes it to the API client.
    async fn apply_share(&self) {
        let mut due = interval(SHARE_INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut applied = None;
        loop {
            due.tick().await;
            let now = Instant::now();
            let token_limit = self.shared.genesys.status().usage.token_limit;
            let client_limit = self.client_limit();
            let (share, others, heard) = {
                let mut members = self.members();
                members.tick(now);
                let own = OwnLimits { process: &self.shared.name, token_limit, client_limit };
                (members.share(own, now), members.others().count(), members.is_reachable(now))
            };
            let share = if self.is_alone() { LimitShare::alone(client_limit) } else { share };
            if applied.replace(share) != Some(share) {
                debug!(part = ?share, others, heard, "share of the client's limit");
                self.shared.genesys.set_limit_share(share);
            }
            gauge!(metric::FLEET_PROCESSES).set(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1));
            gauge!(metric::FLEET_SHARE).set(share.per_minute);
            gauge!(metric::FLEET_HEARD).set(u8::from(self.is_alone() || heard));
        }
    }

    /// Runs sessions, one after the other. Each is a task of its own, so that a panic ends only the session.
    async fn hold_sessions(&self) {
        let mut logged = None;
        while !self.shared.leaving.is_cancelled() {
            let session = tokio::spawn(self.clone().session());
            let reason = match session.await {
                Ok(Ok(())) => break,
                Ok(Err(reason)) => reason,
                Err(error) => error.to_string(),
            };
            // The same reason is logged once.
            if logged.as_ref() != Some(&reason) {
                info!(reason, "messages of the other processes of the fleet cannot be received");
                logged = Some(reason);
            }
            self.shared.leaving.run_until_cancelled(sleep(PAUSE.mul_f64(0.5 + fastrand::f64()))).await;
        }
        self.shared.left.cancel();
        std::future::pending::<()>().await;
    }

    fn status(&self) -> MemberStatus {
        let now = Instant::now();
        let Shared { name, worker, genesys, failing, started, .. } = &*self.shared;
        let ClientStatus { usage: spending, holds, client_limit_pause, clock_ahead, failures, untaken_probes } =
            genesys.status();
        let health = self.shared.queue.health();
        MemberStatus {
            process: name.clone(),
            client: genesys.client_fingerprint(),
            worker: worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_seconds: now.saturating_duration_since(*started).as_secs(),
            working: self.is_working(spending.last_minute, now),
            requests_last_minute: spending.last_minute,
            token_limit: spending.token_limit,
            client_limit: self.client_limit(),
            share: spending.allotted,
            budget_left: spending.left,
            client_shut_ms: client_limit_pause.map(millis),
            clock_ahead_seconds: clock_ahead,
            failing: failures,
            not_ready: health.problems,
            notes: health.notes.into_iter().chain(untaken_probes).collect(),
            shut: holds.into_iter().map(hold_status).collect(),
            kinds: self.kinds(now),
            receivers: failing.status(now),
            verified: None,
        }
    }

    fn kinds(&self, now: Instant) -> Vec<KindStatus> {
        let stands_by = self.shared.queue.health().standing_by;
        let mut kinds = self.shared.activity.status(now);
        for status in &mut kinds {
            let Ok(kind) = status.kind.parse::<Kind>() else { continue };
            status.standing_by = stands_by.contains_key(&kind);
            status.held = self.shared.queue.count_unsettled(kind);
        }
        kinds
    }

    /// Returns true if this process has jobs that call the API, or called it lately.
    fn is_working(&self, requests: u32, now: Instant) -> bool {
        let mut last = self.shared.last_work.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.activity.calls_the_api() || requests > last.requests {
            last.at = Some(now);
        }
        last.requests = requests;
        last.at.is_some_and(|at| now < at + LATELY)
    }

    /// Applies the status of a member.
    fn update_member(&self, mut status: MemberStatus) {
        let now = Instant::now();
        if status.process == self.shared.name {
            return self.members().note_message(now);
        }
        if let Some(shut) = status.client_shut() {
            self.shared.genesys.pause_for_client_limit(shut);
        }
        status.requests_last_minute = status.requests_last_minute.min(self.client_limit());
        self.members().update(status, now);
    }

    /// Returns the requests a minute that all processes of the client share.
    fn client_limit(&self) -> u32 {
        self.shared.genesys.options().client_requests_per_minute
    }

    /// An embedded store is worked by exactly one process.
    fn is_alone(&self) -> bool {
        matches!(self.shared.queue, Queue::Sqlite(_))
    }

    fn authenticator(&self) -> MutexGuard<'_, Authenticator> {
        self.shared.authenticator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold_status(shut: ActiveHold) -> HoldStatus {
    let ActiveHold { reason, why, kind, for_another } = shut;
    HoldStatus {
        reason: reason.to_string(),
        why,
        kind: kind.map(|kind| kind.to_string()),
        for_ms: for_another.map(millis),
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
