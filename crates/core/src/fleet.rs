//! The fleet: processes with the same OAuth client, which share its limit (SPEC 6.4). Each tells the others every second,
//! and at once where something changed, what it spends, what is shut, what it works; all compute their own part of the
//! client's limit from it.
//!
//! ```text
//! Fleet ─ settle   part of the limit → genesys, gauges; every quarter of a second, whatever becomes of the rest
//!       └ speak    session after session: on RabbitMQ gossip, on the embedded queue a notice beside the store
//! ```
//!
//! [`news`] is what is told, [`ears`] what of it is believed ([`seal`]: who said it; [`fresh`]: when), [`roster`] who is
//! there and what each may send, [`shares`] how a limit is shared. Nothing
//! here disturbs the work: a session that is lost, or panics, is built anew, and meanwhile the roster's own rule for silence
//! holds. Does not count requests: that is [`genfleet_genesys::budget`].

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
    ears::Ears,
    news::{KindNews, News, ShutNews, Word, millis},
    roster::{Own, Roster},
};
use crate::{webhook::failing::FailingReceivers, worker::doing::Doing};
use genfleet_genesys::{ActiveHold, GenesysClient, LimitShare};
use genfleet_job::{Kind, clock::SharedClock, metric};
use genfleet_queue::Queue;

pub mod ears;
mod fresh;
pub mod listen;
pub mod news;
pub mod notice;
pub mod roster;
pub mod seal;
pub mod shares;
mod speak;

/// Between two looks at oneself and the others.
const LOOK: Duration = Duration::from_millis(250);
/// Who sent a request in this time has work.
pub(crate) const LATELY: Duration = Duration::from_secs(5);
/// Between a session that was lost and the next one.
const PAUSE: Duration = Duration::from_secs(1);
/// How long leaving may take.
const LEAVING: Duration = Duration::from_secs(2);

/// This process's place in its fleet. Clones are the same.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    worker: String,
    queue: Queue,
    genesys: GenesysClient,
    clock: SharedClock,
    doing: Doing,
    failing: FailingReceivers,
    born: Instant,
    roster: Mutex<Roster>,
    ears: Mutex<Ears>,
    had_work: Mutex<HadWork>,
    leaving: CancellationToken,
    left: CancellationToken,
}

/// When this process last had work.
#[derive(Debug, Default)]
struct HadWork {
    at: Option<Instant>,
    requests: u32,
}

impl Fleet {
    /// The process `name`, which runs the binary `worker`, and tells what it does and which receivers take nothing. To be
    /// [`run`](Self::run).
    pub fn new(
        (name, worker): (String, String),
        queue: Queue,
        genesys: GenesysClient,
        clock: SharedClock,
        (doing, failing): (Doing, FailingReceivers),
    ) -> Self {
        let (born, leaving, left) = (Instant::now(), CancellationToken::new(), CancellationToken::new());
        let roster = Mutex::new(Roster::new(born));
        let ears = Mutex::new(Ears::new(genesys.client_fingerprint(), genesys.fleet_key()));
        let had_work = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                name,
                worker,
                queue,
                genesys,
                clock,
                doing,
                failing,
                born,
                roster,
                ears,
                had_work,
                leaving,
                left,
            }),
        }
    }

    /// Takes part until dropped.
    pub async fn run(self) {
        tokio::join!(self.settle(), self.speak());
    }

    /// Tells the others that this process leaves.
    pub async fn leave(&self) {
        self.shared.leaving.cancel();
        let _ = timeout(LEAVING, self.shared.left.cancelled()).await;
    }

    /// What is known, for the page of the admin port.
    pub fn shown(&self) -> Value {
        let now = Instant::now();
        let own = self.news();
        let roster = self.roster();
        let others: Vec<&News> = roster.others().collect();
        let spent = own.requests_last_minute.saturating_add(roster.spent_by_others());
        json!({
            "heard": self.is_alone() || roster.is_heard(now), "clientLimit": own.client_limit,
            "requestsLastMinute": spent, "own": own, "others": others,
        })
    }

    /// Computes this process's part again and again.
    async fn settle(&self) {
        let mut due = interval(LOOK);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut allotted = None;
        loop {
            due.tick().await;
            let now = Instant::now();
            let spending = self.shared.genesys.budget_usage();
            let (token_limit, client_limit) = (spending.token_limit, self.shared.genesys.client_limit());
            let (part, others, heard) = {
                let mut roster = self.roster();
                roster.tick(now);
                let part = roster.part(Own { process: &self.shared.name, token_limit, client_limit }, now);
                (part, roster.others().count(), roster.is_heard(now))
            };
            // Of a file it is alone, for good.
            let part = if self.is_alone() { LimitShare::alone(client_limit) } else { part };
            if allotted.replace(part) != Some(part) {
                debug!(?part, others, heard, "part of the client's limit");
                self.shared.genesys.set_limit_share(part);
            }
            gauge!(metric::FLEET_PROCESSES).set(u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1));
            gauge!(metric::FLEET_SHARE).set(part.per_minute);
            gauge!(metric::FLEET_HEARD).set(u8::from(self.is_alone() || heard));
        }
    }

    /// Sessions, one after the other. Each is a task of its own: a panic ends it alone.
    async fn speak(&self) {
        let mut told = None;
        while !self.shared.leaving.is_cancelled() {
            let session = tokio::spawn(self.clone().session());
            let lost = match session.await {
                Ok(Ok(())) => break,
                Ok(Err(lost)) => lost,
                Err(error) => error.to_string(),
            };
            // Whoever is told that the broker is away need not hear it twice.
            if told.as_ref() != Some(&lost) {
                info!(reason = lost, "the fleet is not heard now");
                told = Some(lost);
            }
            self.shared.leaving.run_until_cancelled(sleep(PAUSE.mul_f64(0.5 + fastrand::f64()))).await;
        }
        self.shared.left.cancel();
        std::future::pending::<()>().await;
    }

    /// What this process tells of itself.
    fn news(&self) -> News {
        let now = Instant::now();
        let Shared { name, worker, genesys, failing, born, .. } = &*self.shared;
        let (spending, shut) = (genesys.budget_usage(), genesys.active_holds());
        News {
            process: name.clone(),
            client: genesys.client_fingerprint(),
            worker: worker.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_seconds: now.saturating_duration_since(*born).as_secs(),
            working: self.is_working(spending.last_minute, now),
            requests_last_minute: spending.last_minute,
            token_limit: spending.token_limit,
            client_limit: genesys.client_limit(),
            share: spending.allotted,
            budget_left: spending.left,
            client_shut_ms: genesys.client_limit_pause().map(millis),
            clock_ahead_seconds: genesys.clock_ahead(),
            failing: genesys.failures(),
            not_ready: self.shared.queue.health().problems,
            shut: shut.into_iter().map(told).collect(),
            kinds: self.kinds(now),
            receivers: failing.told(now),
            verified: None,
        }
    }

    fn kinds(&self, now: Instant) -> Vec<KindNews> {
        let stands_by = self.shared.queue.health().standing_by;
        let mut kinds = self.shared.doing.told(now);
        for news in &mut kinds {
            let Ok(kind) = news.kind.parse::<Kind>() else { continue };
            news.standing_by = stands_by.contains_key(&kind);
            news.held = self.shared.queue.held(kind);
        }
        kinds
    }

    /// Whether another process says that it works `kind`, and is not standing by.
    pub fn is_worked_elsewhere(&self, kind: Kind) -> bool {
        let works = |news: &KindNews| news.kind == kind.as_str() && !news.standing_by;
        self.roster().others().any(|news| news.kinds.iter().any(works))
    }

    /// Has this process jobs that call the API, or did it call it a moment ago?
    fn is_working(&self, requests: u32, now: Instant) -> bool {
        let mut had = self.shared.had_work.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.doing.calls_the_api() || requests > had.requests {
            had.at = Some(now);
        }
        had.requests = requests;
        had.at.is_some_and(|at| now < at + LATELY)
    }

    /// A process of the client told this.
    fn hear(&self, mut news: News) {
        let now = Instant::now();
        if news.process == self.shared.name {
            return self.roster().hears(now);
        }
        if let Some(shut) = news.client_shut() {
            self.shared.genesys.pause_for_client_limit(shut);
        }
        let limit = self.shared.genesys.client_limit();
        news.requests_last_minute = news.requests_last_minute.min(limit);
        self.roster().told(news, now);
    }

    fn is_alone(&self) -> bool {
        match self.shared.queue {
            Queue::Rabbit(_) => false,
            Queue::Sqlite(_) => true,
        }
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.shared.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.shared.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(shut: ActiveHold) -> ShutNews {
    let ActiveHold { reason, why, kind, for_another } = shut;
    ShutNews {
        reason: reason.to_string(),
        why,
        kind: kind.map(|kind| kind.to_string()),
        for_ms: for_another.map(millis),
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
