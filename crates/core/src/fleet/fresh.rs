//! Whether a word is said now, or was recorded and is played again. Clocks of hosts differ, so no time is compared.
//!
//! Each process draws a number at its start and counts its words: of a process that is known, only a higher count is new.
//! Of one that is not known, a word counts once it repeats the number that *we* ask for, which nobody could know before
//! we drew it: each word says what its speaker asks for, and repeats what it heard others ask for lately. So a newcomer is
//! believed one exchange of words after it came. What is known is bounded; whenever something is forgotten another number
//! is drawn, so that no word from before that can bring the forgotten one back.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ears::Refusal, roster::MOST};

/// Speakers whose counts are kept, at most: all that are there, and as many that left.
const KNOWN: usize = 2 * MOST;
/// What others ask for is repeated so long after they said it last.
const REPEATED: Duration = Duration::from_secs(10);

/// What makes a word unlike any other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The number its speaker drew.
    from: u64,
    /// How many words it said.
    n: u64,
    /// What it asks others to repeat.
    asks: u64,
    /// What it heard others ask for.
    #[serde(default)]
    heard: Vec<u64>,
}

/// Whether a word that is fresh came from somebody who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// It was heard before.
    Known,
    /// Its words count once it was answered: ours count for it then, too.
    New,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fresh {
    own: u64,
    said: u64,
    /// The last of them that came back to us.
    came_back: u64,
    asks: u64,
    known: HashMap<u64, Known>,
    heard: HashMap<u64, Instant>,
}

#[derive(Debug)]
struct Known {
    n: u64,
    last: Instant,
}

fn draw() -> u64 {
    Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1
}

impl Fresh {
    /// Of a process that begins now.
    pub(super) fn new() -> Self {
        Self { own: draw(), said: 0, came_back: 0, asks: draw(), known: HashMap::new(), heard: HashMap::new() }
    }

    /// For the next word.
    pub(super) fn stamp(&mut self, now: Instant) -> Stamp {
        self.said += 1;
        self.heard.retain(|_, last| now < *last + REPEATED);
        Stamp { from: self.own, n: self.said, asks: self.asks, heard: self.heard.keys().copied().collect() }
    }

    /// Whether the word that bears `stamp` is fresh.
    pub(super) fn judge(&mut self, stamp: &Stamp, now: Instant) -> Result<(), Refusal> {
        if stamp.from == self.own {
            let comes_back = stamp.n > self.came_back && stamp.n <= self.said;
            self.came_back = self.came_back.max(stamp.n.min(self.said));
            return if comes_back { Ok(()) } else { Err(Refusal::Replayed) };
        }
        match self.known.get_mut(&stamp.from) {
            Some(known) if stamp.n <= known.n => return Err(Refusal::Replayed),
            Some(known) => *known = Known { n: stamp.n, last: now },
            None if stamp.heard.contains(&self.asks) => {
                self.make_room();
                self.known.insert(stamp.from, Known { n: stamp.n, last: now });
            }
            None => return Err(Refusal::Unproven),
        }
        Ok(())
    }

    /// Notes what the speaker asks for.
    pub(super) fn notes(&mut self, stamp: &Stamp, now: Instant) -> Speaker {
        if stamp.from == self.own || (self.heard.len() >= KNOWN && !self.heard.contains_key(&stamp.asks)) {
            return Speaker::Known;
        }
        match self.heard.insert(stamp.asks, now) {
            Some(last) if now < last + REPEATED => Speaker::Known,
            Some(_) | None => Speaker::New,
        }
    }

    fn make_room(&mut self) {
        if self.known.len() < KNOWN {
            return;
        }
        let longest_silent = self.known.iter().min_by_key(|(_, known)| known.last).map(|(from, _)| *from);
        longest_silent.map(|from| self.known.remove(&from));
        self.asks = draw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `to` hears a word of `from`.
    fn say(from: &mut Fresh, to: &mut Fresh, now: Instant) -> (Stamp, Result<(), Refusal>) {
        let stamp = from.stamp(now);
        let judged = to.judge(&stamp, now);
        if judged != Err(Refusal::Replayed) {
            to.notes(&stamp, now);
        }
        (stamp, judged)
    }

    fn acquainted(now: Instant) -> (Fresh, Fresh) {
        let (mut one, mut other) = (Fresh::new(), Fresh::new());
        assert_eq!(say(&mut one, &mut other, now).1, Err(Refusal::Unproven));
        assert_eq!(say(&mut other, &mut one, now).1, Ok(()), "it repeats what was asked for");
        assert_eq!(say(&mut one, &mut other, now).1, Ok(()));
        (one, other)
    }

    #[test]
    fn a_newcomer_counts_after_one_exchange_and_no_word_counts_twice() {
        let now = Instant::now();
        let (mut one, mut other) = acquainted(now);
        let (first, _) = say(&mut one, &mut other, now);
        let (second, judged) = say(&mut one, &mut other, now);
        assert_eq!(judged, Ok(()));
        for played in [first, second] {
            assert_eq!(other.judge(&played, now), Err(Refusal::Replayed));
        }
    }

    #[test]
    fn what_was_recorded_before_a_process_began_never_counts_for_it() {
        let now = Instant::now();
        let (mut one, mut other) = acquainted(now);
        let recorded: Vec<Stamp> = (0..50).map(|_| say(&mut one, &mut other, now).0).collect();
        let mut later = Fresh::new();
        for stamp in &recorded {
            assert_eq!(later.judge(stamp, now), Err(Refusal::Unproven));
            later.notes(stamp, now);
        }
    }

    #[test]
    fn what_is_known_is_bounded_and_who_was_forgotten_is_not_brought_back_by_old_words() {
        let now = Instant::now();
        let (mut first, mut us) = acquainted(now);
        let (recorded, _) = say(&mut first, &mut us, now);
        for number in 1..2 * KNOWN as u64 {
            let stamp = Stamp { from: number, n: 1, asks: number, heard: vec![us.asks] };
            assert_eq!(us.judge(&stamp, now + Duration::from_millis(number)), Ok(()));
            us.notes(&stamp, now);
        }
        assert!(us.known.len() <= KNOWN && us.heard.len() <= KNOWN);
        assert_eq!(us.judge(&recorded, now), Err(Refusal::Unproven));
    }

    #[test]
    fn our_own_words_come_back_once() {
        let (mut us, now) = (Fresh::new(), Instant::now());
        let (first, second) = (us.stamp(now), us.stamp(now));
        for stamp in [&first, &second] {
            assert_eq!(us.judge(stamp, now), Ok(()));
        }
        for stamp in [first, second] {
            assert_eq!(us.judge(&stamp, now), Err(Refusal::Replayed));
        }
    }
}
