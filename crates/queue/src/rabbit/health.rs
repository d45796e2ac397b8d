//! The condition of the two connections, for `/readyz` and the metrics: set by the sessions, read by the worker.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::{Timestamp, Unit};
use tokio::time::Instant;

use super::{link::ConnectionRole, missing::MissingTopology};
use crate::message::Health;
use genfleet_job::{Kind, clock::SharedClock, metric};

/// The state of one connection.
#[derive(Clone, Debug)]
enum ConnectionState {
    /// The connection is not needed.
    Unused,
    Down {
        since: Timestamp,
        reason: String,
    },
    Up,
}

/// The condition of both connections.
pub(super) struct ConnectionHealth {
    clock: SharedClock,
    states: Mutex<[ConnectionState; 2]>,
    refusal: Mutex<Option<String>>,
    missing: Mutex<MissingTopology>,
    blocked: AtomicBool,
    standing_by: Mutex<BTreeMap<Kind, Option<String>>>,
}

impl ConnectionHealth {
    pub(super) fn new(clock: SharedClock) -> Self {
        for role in ConnectionRole::ALL {
            metrics::gauge!(metric::BROKER_CONNECTED, "role" => role.as_str()).set(0);
            metrics::counter!(metric::BROKER_RECONNECTS, "role" => role.as_str()).increment(0);
        }
        metrics::counter!(metric::STALE_ACKS).increment(0);
        metrics::gauge!(metric::PUBLISH_UNCONFIRMED).set(0);
        let states = Mutex::new([ConnectionState::Unused, ConnectionState::Unused]);
        Self {
            clock,
            states,
            refusal: Mutex::new(None),
            missing: Mutex::default(),
            blocked: AtomicBool::new(false),
            standing_by: Mutex::default(),
        }
    }

    /// Reports a missing connection as a problem from now on.
    pub(super) fn set_needed(&self, role: ConnectionRole) {
        let state = &mut self.states()[role as usize];
        if let ConnectionState::Unused = state {
            *state = ConnectionState::Down { since: self.clock.now(), reason: "not yet dialled".to_owned() };
        }
    }

    pub(super) fn set_up(&self, role: ConnectionRole) {
        metrics::gauge!(metric::BROKER_CONNECTED, "role" => role.as_str()).set(1);
        self.set(role, ConnectionState::Up);
    }

    /// Records the reason why there is no connection. The time of the first loss is kept.
    pub(super) fn set_down(&self, role: ConnectionRole, reason: String) {
        metrics::gauge!(metric::BROKER_CONNECTED, "role" => role.as_str()).set(0);
        let since = match &self.states()[role as usize] {
            ConnectionState::Down { since, .. } => *since,
            ConnectionState::Unused | ConnectionState::Up => self.clock.now(),
        };
        self.set(role, ConnectionState::Down { since, reason });
    }

    pub(super) fn is_up(&self, role: ConnectionRole) -> bool {
        matches!(self.states()[role as usize], ConnectionState::Up)
    }

    /// Sets the description of the publications that the broker refuses.
    pub(super) fn set_refusal(&self, what: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Records what the last check of the topology found missing. Returns true if it changed.
    pub(super) fn set_missing(&self, found: Option<String>) -> bool {
        self.missing().set_checked(found)
    }

    /// Adds a missing binding, which a message has shown. Returns true if it was not known.
    pub(super) fn add_missing_binding(&self, problem: String) -> bool {
        self.missing().add_unbound(problem, Instant::now(), self.clock.now())
    }

    fn missing(&self) -> MutexGuard<'_, MissingTopology> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Release);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// Records that another process works this kind, or the reason why no process seems to.
    pub(super) fn set_standing_by(&self, kind: Kind, unworked: Option<String>) {
        self.standing_by.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, unworked);
    }

    pub(super) fn end_standing_by(&self, kind: Kind) {
        self.standing_by.lock().unwrap_or_else(PoisonError::into_inner).remove(&kind);
    }

    /// Returns all problems as sentences. `publishing_blocked` repeats one of them as a flag.
    pub(super) fn health(&self) -> Health {
        let states = self.states();
        let mut problems: Vec<String> =
            ConnectionRole::ALL.into_iter().filter_map(|role| problem(role, &states[role as usize])).collect();
        problems.extend(self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone());
        problems.extend(self.missing().problems(Instant::now()));
        let publishing_blocked = self.is_blocked();
        if publishing_blocked {
            problems.push("the broker takes no publications: an alarm of its memory or its disk".to_owned());
        }
        let standing_by = self.standing_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Health { problems, publishing_blocked, standing_by, notes: Vec::new() }
    }

    fn states(&self) -> MutexGuard<'_, [ConnectionState; 2]> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, role: ConnectionRole, state: ConnectionState) {
        self.states()[role as usize] = state;
    }
}

fn problem(role: ConnectionRole, state: &ConnectionState) -> Option<String> {
    match state {
        ConnectionState::Unused | ConnectionState::Up => None,
        ConnectionState::Down { since, reason } => {
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
        let health = ConnectionHealth::new(Arc::new(SystemClock));
        assert_eq!(health.health(), Health::default());
        health.set_down(ConnectionRole::Consume, "refused".to_owned());
        let problems = health.health().problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("(consume) since 2") && problems[0].ends_with("refused"), "{problems:?}");
        health.set_up(ConnectionRole::Consume);
        assert_eq!(health.health(), Health::default());
    }

    #[test]
    fn a_connection_that_is_needed_is_a_problem_until_it_is_there_and_no_longer() {
        let health = ConnectionHealth::new(Arc::new(SystemClock));
        health.set_needed(ConnectionRole::Consume);
        let problems = health.health().problems;
        assert!(problems.len() == 1 && problems[0].ends_with("not yet dialled"), "{problems:?}");
        health.set_up(ConnectionRole::Consume);
        health.set_needed(ConnectionRole::Consume);
        assert_eq!(health.health(), Health::default());
    }

    #[test]
    fn a_blocked_broker_is_reported_once_as_a_problem_and_stops_the_intake() {
        let health = ConnectionHealth::new(Arc::new(SystemClock));
        health.set_blocked(true);
        let Health { problems, publishing_blocked, .. } = health.health();
        assert_eq!(problems, ["the broker takes no publications: an alarm of its memory or its disk"]);
        assert!(publishing_blocked, "for the worker, which begins no job");
        health.set_blocked(false);
        assert_eq!(health.health(), Health::default());
    }
}
