//! Replay protection: decides whether a message is sent now or was recorded earlier. Clocks of hosts differ, so no
//! times are compared.
//!
//! Each process draws a random sender id at its start and counts its messages. From a known sender only a higher count
//! is accepted. From an unknown sender a message is accepted once it repeats *our* challenge, a random number that no
//! other process could know before it was drawn: each message carries the challenge of its sender and repeats the
//! challenges that the sender received lately. So a newcomer is accepted after one exchange of messages. The memory for
//! senders is bounded; whenever a sender is forgotten a new challenge is drawn, so that no older message can bring it
//! back.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{members::MOST, rejection::MessageRejection};

/// The number of senders whose counts are kept: all members, and as many that left.
const KNOWN: usize = 2 * MOST;
/// The time for which the challenge of another process is repeated after it was last received.
const REPEATED: Duration = Duration::from_secs(10);

/// The part of a message that makes it unique.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageStamp {
    /// The sender id.
    from: u64,
    /// The number of the message.
    n: u64,
    /// The challenge that others are to repeat.
    #[serde(rename = "asks")]
    challenge: u64,
    /// The challenges of others that the sender has received.
    #[serde(default)]
    heard: Vec<u64>,
}

/// The sender of a message, as known before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageSender {
    Known,
    /// New: it accepts our messages, and we accept its own, once we have answered.
    New,
}

/// The state of the replay protection of one process.
#[derive(Debug)]
pub(super) struct ReplayGuard {
    own: u64,
    sent: u64,
    /// The number of our last message that came back to us.
    came_back: u64,
    challenge: u64,
    known: HashMap<u64, KnownSender>,
    heard: HashMap<u64, Instant>,
}

#[derive(Debug)]
struct KnownSender {
    n: u64,
    last: Instant,
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1
}

impl ReplayGuard {
    pub(super) fn new() -> Self {
        Self { own: random(), sent: 0, came_back: 0, challenge: random(), known: HashMap::new(), heard: HashMap::new() }
    }

    /// Makes the stamp of the next message.
    pub(super) fn stamp(&mut self, now: Instant) -> MessageStamp {
        self.sent += 1;
        self.heard.retain(|_, last| now < *last + REPEATED);
        MessageStamp {
            from: self.own,
            n: self.sent,
            challenge: self.challenge,
            heard: self.heard.keys().copied().collect(),
        }
    }

    /// Checks that the message with `stamp` is no replay.
    pub(super) fn check(&mut self, stamp: &MessageStamp, now: Instant) -> Result<(), MessageRejection> {
        if stamp.from == self.own {
            let comes_back = stamp.n > self.came_back && stamp.n <= self.sent;
            self.came_back = self.came_back.max(stamp.n.min(self.sent));
            return if comes_back { Ok(()) } else { Err(MessageRejection::Replayed) };
        }
        match self.known.get_mut(&stamp.from) {
            Some(known) if stamp.n <= known.n => return Err(MessageRejection::Replayed),
            Some(known) => *known = KnownSender { n: stamp.n, last: now },
            None if stamp.heard.contains(&self.challenge) => {
                self.make_room();
                self.known.insert(stamp.from, KnownSender { n: stamp.n, last: now });
            }
            None => return Err(MessageRejection::Unproven),
        }
        Ok(())
    }

    /// Remembers the sender's challenge.
    pub(super) fn note_challenge(&mut self, stamp: &MessageStamp, now: Instant) -> MessageSender {
        if stamp.from == self.own || (self.heard.len() >= KNOWN && !self.heard.contains_key(&stamp.challenge)) {
            return MessageSender::Known;
        }
        match self.heard.insert(stamp.challenge, now) {
            Some(last) if now < last + REPEATED => MessageSender::Known,
            Some(_) | None => MessageSender::New,
        }
    }

    fn make_room(&mut self) {
        if self.known.len() < KNOWN {
            return;
        }
        let longest_silent = self.known.iter().min_by_key(|(_, known)| known.last).map(|(from, _)| *from);
        longest_silent.map(|from| self.known.remove(&from));
        self.challenge = random();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes a message of `from` to `to`.
    fn send(
        from: &mut ReplayGuard,
        to: &mut ReplayGuard,
        now: Instant,
    ) -> (MessageStamp, Result<(), MessageRejection>) {
        let stamp = from.stamp(now);
        let checked = to.check(&stamp, now);
        if checked != Err(MessageRejection::Replayed) {
            to.note_challenge(&stamp, now);
        }
        (stamp, checked)
    }

    fn acquainted(now: Instant) -> (ReplayGuard, ReplayGuard) {
        let (mut one, mut other) = (ReplayGuard::new(), ReplayGuard::new());
        assert_eq!(send(&mut one, &mut other, now).1, Err(MessageRejection::Unproven));
        assert_eq!(send(&mut other, &mut one, now).1, Ok(()), "it repeats what was asked for");
        assert_eq!(send(&mut one, &mut other, now).1, Ok(()));
        (one, other)
    }

    #[test]
    fn a_newcomer_is_accepted_after_one_exchange_and_no_message_twice() {
        let now = Instant::now();
        let (mut one, mut other) = acquainted(now);
        let (first, _) = send(&mut one, &mut other, now);
        let (second, checked) = send(&mut one, &mut other, now);
        assert_eq!(checked, Ok(()));
        for played in [first, second] {
            assert_eq!(other.check(&played, now), Err(MessageRejection::Replayed));
        }
    }

    #[test]
    fn a_message_recorded_before_a_process_started_is_never_accepted() {
        let now = Instant::now();
        let (mut one, mut other) = acquainted(now);
        let recorded: Vec<MessageStamp> = (0..50).map(|_| send(&mut one, &mut other, now).0).collect();
        let mut later = ReplayGuard::new();
        for stamp in &recorded {
            assert_eq!(later.check(stamp, now), Err(MessageRejection::Unproven));
            later.note_challenge(stamp, now);
        }
    }

    #[test]
    fn the_memory_is_bounded_and_old_messages_do_not_bring_back_a_forgotten_sender() {
        let now = Instant::now();
        let (mut first, mut us) = acquainted(now);
        let (recorded, _) = send(&mut first, &mut us, now);
        for number in 1..2 * KNOWN as u64 {
            let stamp = MessageStamp { from: number, n: 1, challenge: number, heard: vec![us.challenge] };
            assert_eq!(us.check(&stamp, now + Duration::from_millis(number)), Ok(()));
            us.note_challenge(&stamp, now);
        }
        assert!(us.known.len() <= KNOWN && us.heard.len() <= KNOWN);
        assert_eq!(us.check(&recorded, now), Err(MessageRejection::Unproven));
    }

    #[test]
    fn our_own_messages_come_back_once() {
        let (mut us, now) = (ReplayGuard::new(), Instant::now());
        let (first, second) = (us.stamp(now), us.stamp(now));
        for stamp in [&first, &second] {
            assert_eq!(us.check(stamp, now), Ok(()));
        }
        for stamp in [first, second] {
            assert_eq!(us.check(&stamp, now), Err(MessageRejection::Replayed));
        }
    }
}
