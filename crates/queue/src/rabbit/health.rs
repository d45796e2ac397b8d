//! How the two connections are, for `/readyz` and the metrics. Told by the sessions, read by the worker.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::{Timestamp, Unit};
use tokio::time::Instant;

use super::{super::Health, topology_check::Missing};
use genfleet_job::{Kind, clock::SharedClock, metric};

/// What a connection is for. The broker blocks those that publish, and with them whatever else they carry:
/// therefore two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Deliveries, acknowledgements, counts.
    Consume,
    /// Publications and their confirms.
    Publish,
}

impl Role {
    const ALL: [Self; 2] = [Self::Consume, Self::Publish];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Publish => "publish",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state of one connection.
#[derive(Clone, Debug)]
enum State {
    /// Nobody needs it.
    Unused,
    Down {
        since: Timestamp,
        reason: String,
    },
    Up,
}

/// What is known of both.
pub(super) struct Board {
    clock: SharedClock,
    states: Mutex<[State; 2]>,
    refusal: Mutex<Option<String>>,
    missing: Mutex<Missing>,
    blocked: AtomicBool,
    standing_by: Mutex<BTreeMap<Kind, Option<String>>>,
}

impl Board {
    pub(super) fn new(clock: SharedClock) -> Self {
        for role in Role::ALL {
            metrics::gauge!(metric::BROKER_CONNECTED, "role" => role.as_str()).set(0);
            metrics::counter!(metric::BROKER_RECONNECTS, "role" => role.as_str()).increment(0);
        }
        metrics::counter!(metric::STALE_ACKS).increment(0);
        metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(0);
        let states = Mutex::new([State::Unused, State::Unused]);
        Self {
            clock,
            states,
            refusal: Mutex::new(None),
            missing: Mutex::default(),
            blocked: AtomicBool::new(false),
            standing_by: Mutex::default(),
        }
    }

    /// From now on this connection is a problem while it is not there.
    pub(super) fn needs(&self, role: Role) {
        let state = &mut self.states()[role as usize];
        if let State::Unused = state {
            *state = State::Down { since: self.clock.now(), reason: "not yet dialled".to_owned() };
        }
    }

    pub(super) fn up(&self, role: Role) {
        metrics::gauge!(metric::BROKER_CONNECTED, "role" => role.as_str()).set(1);
        self.set(role, State::Up);
    }

    /// Not connected, and why; the time of the first loss is kept.
    pub(super) fn down(&self, role: Role, reason: String) {
        metrics::gauge!(metric::BROKER_CONNECTED, "role" => role.as_str()).set(0);
        let since = match &self.states()[role as usize] {
            State::Down { since, .. } => *since,
            State::Unused | State::Up => self.clock.now(),
        };
        self.set(role, State::Down { since, reason });
    }

    pub(super) fn is_up(&self, role: Role) -> bool {
        matches!(self.states()[role as usize], State::Up)
    }

    /// What the broker refuses to take, until told otherwise.
    pub(super) fn refuses(&self, what: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What of the topology is missing by the last look; whether that is news.
    pub(super) fn misses(&self, found: Option<String>) -> bool {
        self.missing().looked(found)
    }

    /// A message proved that a binding is missing; whether that is news.
    pub(super) fn misses_binding(&self, found: String) -> bool {
        self.missing().unbound(found, Instant::now())
    }

    fn missing(&self) -> std::sync::MutexGuard<'_, Missing> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn block(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Another process seems to work this kind; or why nobody seems to.
    pub(super) fn stands_by(&self, kind: Kind, unworked: Option<String>) {
        self.standing_by.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, unworked);
    }

    pub(super) fn stands_by_no_more(&self, kind: Kind) {
        self.standing_by.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
    }

    /// Whoever tells how the queue is tells the problems, all of them sentences; the flag repeats one of them for
    /// the worker's intake.
    pub(super) fn health(&self) -> Health {
        let states = self.states();
        let mut problems: Vec<String> =
            Role::ALL.into_iter().filter_map(|role| told(role, &states[role as usize])).collect();
        problems.extend(self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone());
        problems.extend(self.missing().told(Instant::now()));
        let publishing_blocked = self.is_blocked();
        if publishing_blocked {
            problems.push("the broker takes no publications: an alarm of its memory or its disk".to_owned());
        }
        let standing_by = self.standing_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health { problems, publishing_blocked, standing_by }
    }

    fn states(&self) -> std::sync::MutexGuard<'_, [State; 2]> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, role: Role, state: State) {
        self.states()[role as usize] = state;
    }
}

fn told(role: Role, state: &State) -> Option<String> {
    match state {
        State::Unused | State::Up => None,
        State::Down { since, reason } => {
            let since = since.round(Unit::Second).unwrap_or(*since);
            Some(format!("not connected to the broker ({role}) since {since}: {reason}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genfleet_job::clock::SystemClock;
    use std::sync::Arc;

    #[test]
    fn a_connection_nobody_needs_is_no_problem_and_a_lost_one_is_until_it_is_back() {
        let board = Board::new(Arc::new(SystemClock));
        assert_eq!(board.health(), Health::default());
        board.down(Role::Consume, "refused".to_owned());
        let problems = board.health().problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("(consume) since 2") && problems[0].ends_with("refused"), "{problems:?}");
        board.up(Role::Consume);
        assert_eq!(board.health(), Health::default());
    }

    #[test]
    fn a_connection_that_is_needed_is_a_problem_until_it_is_there_and_no_longer() {
        let board = Board::new(Arc::new(SystemClock));
        board.needs(Role::Consume);
        let problems = board.health().problems;
        assert!(problems.len() == 1 && problems[0].ends_with("not yet dialled"), "{problems:?}");
        board.up(Role::Consume);
        board.needs(Role::Consume);
        assert_eq!(board.health(), Health::default());
    }

    #[test]
    fn a_blocked_broker_is_told_once_as_a_problem_and_stops_the_intake() {
        let board = Board::new(Arc::new(SystemClock));
        board.block(true);
        let Health { problems, publishing_blocked, .. } = board.health();
        assert_eq!(problems, ["the broker takes no publications: an alarm of its memory or its disk"]);
        assert!(publishing_blocked, "for the worker, which begins no job");
        board.block(false);
        assert_eq!(board.health(), Health::default());
    }
}
