//! The members of the fleet, and the share of the client's limit that each may use: a state machine over time, without
//! I/O.
//!
//! Each process computes its own share from the same statuses by the same rule, so that none decides for others. A
//! share is a rate ([`genfleet_genesys::Budget`]), and the shares sum up to the limit: so the limit holds whatever the
//! processes that left have spent. A new process sends a few requests and then waits until the others had time to
//! answer; a silent one keeps its share for ten seconds, because only its messages may be lost.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{shares::divide, status::MemberStatus};
use genfleet_genesys::LimitShare;

/// A member that sends nothing for so long is removed; after this time without any message the fleet is unreachable.
pub(super) const SILENCE: Duration = Duration::from_secs(10);
/// The highest number of members; further ones are ignored.
pub(super) const MOST: usize = 200;
/// The time that the others have to answer after the first message was received. Each sends a heartbeat to a newcomer
/// at once, and another within this time, in case the first is lost.
const ANSWERS: Duration = Duration::from_millis(1500);
/// The time that a connected process waits for a first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(3);
/// After a longer time without any message, no member is removed for its silence.
const INTERRUPTION: Duration = Duration::from_secs(3);

/// The other members of the fleet, as one process knows them.
#[derive(Debug)]
pub(super) struct Members {
    by_name: BTreeMap<String, Member>,
    /// The time of the last message, including the process's own.
    last_received: Instant,
    /// The time until which the other members are unknown; `None` before the broker is connected.
    unknown_until: Option<Instant>,
    /// True if no message has been received yet.
    awaits_first: bool,
}

#[derive(Debug)]
struct Member {
    status: MemberStatus,
    last: Instant,
}

/// The limits of the process itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnLimits<'a> {
    pub(super) process: &'a str,
    /// The token's limit, in requests a minute.
    pub(super) token_limit: u32,
    /// The client's limit, in requests a minute.
    pub(super) client_limit: u32,
}

impl Members {
    pub(super) const fn new(now: Instant) -> Self {
        Self { by_name: BTreeMap::new(), last_received: now, unknown_until: None, awaits_first: true }
    }

    /// Starts to wait for the others: the broker is connected.
    pub(super) fn begin(&mut self, now: Instant) {
        self.unknown_until.get_or_insert(now + FIRST_MESSAGE);
    }

    /// Records that a message arrived, possibly the process's own.
    pub(super) fn note_message(&mut self, now: Instant) {
        if std::mem::take(&mut self.awaits_first) {
            let answered = now + ANSWERS;
            self.unknown_until = Some(self.unknown_until.map_or(answered, |until| until.min(answered)));
        }
        let gap = now.saturating_duration_since(self.last_received);
        if gap > INTERRUPTION {
            // No message of any member could be received meanwhile.
            self.by_name.values_mut().for_each(|member| member.last += gap);
        }
        self.last_received = now;
    }

    /// Adds or updates a member.
    pub(super) fn update(&mut self, status: MemberStatus, now: Instant) {
        self.note_message(now);
        if self.by_name.len() < MOST || self.by_name.contains_key(&status.process) {
            self.by_name.insert(status.process.clone(), Member { status, last: now });
        }
    }

    /// Removes a member that left.
    pub(super) fn leave(&mut self, process: &str, now: Instant) {
        self.note_message(now);
        self.by_name.remove(process);
    }

    /// Removes silent members, unless this may be an interruption: then no member could be received.
    pub(super) fn tick(&mut self, now: Instant) {
        if now <= self.last_received + INTERRUPTION {
            self.by_name.retain(|_, member| now < member.last + SILENCE);
        }
    }

    /// Returns true if any message arrived lately.
    pub(super) fn is_reachable(&self, now: Instant) -> bool {
        now < self.last_received + SILENCE
    }

    /// The other members, ordered by name.
    pub(super) fn others(&self) -> impl Iterator<Item = &MemberStatus> {
        self.by_name.values().map(|member| &member.status)
    }

    /// Computes the share of this process.
    ///
    /// The members with work share the client's limit, and this process counts as one of them, because it may get work
    /// next. While no messages are received, it is unknown which members have work. Then all last known members count.
    /// The burst is shared among all members, because all may get work in the same moment.
    pub(super) fn share(&self, own: OwnLimits<'_>, now: Instant) -> LimitShare {
        if self.unknown_until.is_none_or(|until| now < until) {
            return LimitShare::with_unknown_peers(own.client_limit);
        }
        let alive = u32::try_from(self.by_name.len()).unwrap_or(u32::MAX).saturating_add(1);
        let even = own.client_limit / alive;
        if !self.is_reachable(now) {
            return LimitShare::with_known_peers(even, even);
        }
        let workers =
            self.others().filter(|status| status.working).map(|status| (status.process.as_str(), status.token_limit));
        let mut all: Vec<(&str, u32)> = workers.chain([(own.process, own.token_limit)]).collect();
        all.sort_unstable();
        let usable: Vec<u32> = all.iter().map(|(_, usable)| *usable).collect();
        let index = all.iter().position(|(process, _)| *process == own.process).unwrap_or_default();
        LimitShare::with_known_peers(divide(own.client_limit, &usable).get(index).copied().unwrap_or_default(), even)
    }

    /// The requests that the others reported for the last minute.
    pub(super) fn requests_of_others(&self) -> u32 {
        self.others().fold(0, |sum, status| sum.saturating_add(status.requests_last_minute))
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
