//! Who is in the fleet, and what each may send of the client's limit: a state machine over the time, without I/O.
//!
//! Everybody computes its own part, from the same news by the same rule, so that nobody has to decide for others. A part
//! is a pace ([`genfleet_genesys::budget`]), and the parts sum up to the limit: so the limit holds whatever those that left
//! have spent. A new process sends a few requests and then waits until the others had time to be heard, and to hear it;
//! who goes silent keeps its part for ten seconds, since it may only be unheard.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{news::News, shares::parts};
use genfleet_genesys::LimitShare;

/// A process that says nothing for so long is forgotten; a fleet of which nothing is heard for so long is not heard.
pub const SILENCE: Duration = Duration::from_secs(10);
/// Members, at most: whoever comes after them is not noted.
pub const MOST: usize = 200;
/// After the first word was heard: how long the others have to answer. Each speaks at once to a new one, and again within
/// this, should that be lost.
const ANSWERS: Duration = Duration::from_millis(1500);
/// How long a process whose broker is there waits for a first word.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// When nothing at all was heard for longer, that is nobody's silence.
const DEAF: Duration = Duration::from_secs(3);

/// The fleet, as one process knows it. It is itself no member.
#[derive(Debug)]
pub struct Roster {
    members: BTreeMap<String, Member>,
    /// When anything was last heard, also what this process itself said.
    heard: Instant,
    /// Until when it is not known who else is there; none before anybody could be heard.
    unheard: Option<Instant>,
    /// Nothing was heard yet.
    deaf: bool,
}

#[derive(Debug)]
struct Member {
    news: News,
    last: Instant,
}

/// What this process knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Its name.
    pub process: &'a str,
    /// Requests a minute that its token lets through.
    pub token_limit: u32,
    /// Requests a minute of the client.
    pub client_limit: u32,
}

impl Roster {
    /// Nobody yet.
    pub const fn new(now: Instant) -> Self {
        Self { members: BTreeMap::new(), heard: now, unheard: None, deaf: true }
    }

    /// The broker is there: the others can be heard soon, or never.
    pub fn begins(&mut self, now: Instant) {
        self.unheard.get_or_insert(now + FIRST_WORD);
    }

    /// Something came through, be it this process's own word.
    pub fn hears(&mut self, now: Instant) {
        if std::mem::take(&mut self.deaf) {
            let answered = now + ANSWERS;
            self.unheard = Some(self.unheard.map_or(answered, |unheard| unheard.min(answered)));
        }
        let gap = now.saturating_duration_since(self.heard);
        if gap > DEAF {
            // Nobody could be heard meanwhile.
            self.members.values_mut().for_each(|member| member.last += gap);
        }
        self.heard = now;
    }

    /// A process of the client told this.
    pub fn told(&mut self, news: News, now: Instant) {
        self.hears(now);
        if self.members.len() < MOST || self.members.contains_key(&news.process) {
            self.members.insert(news.process.clone(), Member { news, last: now });
        }
    }

    /// A process of the client left.
    pub fn left(&mut self, process: &str, now: Instant) {
        self.hears(now);
        self.members.remove(process);
    }

    /// Notices what time alone changed: whoever is silent is forgotten, unless nothing is heard at all.
    pub fn tick(&mut self, now: Instant) {
        if self.is_heard(now) {
            self.members.retain(|_, member| now < member.last + SILENCE);
        }
    }

    /// Is the fleet heard at all?
    pub fn is_heard(&self, now: Instant) -> bool {
        now < self.heard + SILENCE
    }

    /// The others that are alive, as far as is known, in the order of their names.
    pub fn others(&self) -> impl Iterator<Item = &News> {
        self.members.values().map(|member| &member.news)
    }

    /// What this process may send.
    ///
    /// Those with work share the client's limit, and this process counts as one of them: it is asked because it may
    /// have work next. While nothing is heard nobody knows who has work: then all that were last known count. What may go
    /// at once is shared among all that are alive, since all may get work in the same moment.
    pub fn part(&self, own: Own<'_>, now: Instant) -> LimitShare {
        if self.unheard.is_none_or(|unheard| now < unheard) {
            return LimitShare::with_unknown_peers(own.client_limit);
        }
        let alive = u32::try_from(self.members.len()).unwrap_or(u32::MAX).saturating_add(1);
        let even = own.client_limit / alive;
        if !self.is_heard(now) {
            return LimitShare::with_known_peers(even, even);
        }
        let workers = self.others().filter(|news| news.working).map(|news| (news.process.as_str(), news.token_limit));
        let mut all: Vec<(&str, u32)> = workers.chain([(own.process, own.token_limit)]).collect();
        all.sort_unstable();
        let usable: Vec<u32> = all.iter().map(|(_, usable)| *usable).collect();
        let place = all.iter().position(|(process, _)| *process == own.process).unwrap_or_default();
        LimitShare::with_known_peers(parts(own.client_limit, &usable).get(place).copied().unwrap_or_default(), even)
    }

    /// Requests that the others sent in the last minute, as far as they told.
    pub fn spent_by_others(&self) -> u32 {
        self.others().fold(0, |sum, news| sum.saturating_add(news.requests_last_minute))
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
