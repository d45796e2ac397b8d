//! Who is in the fleet, and what each may send of the client's limit: a state machine over the time, without I/O.
//!
//! Everybody computes its own part, from the same news by the same rule, so that nobody has to decide for others. Beside
//! the rule stands what was spent: nobody takes what others sent in the last minute, be they alive or not, so that the
//! limit also holds while the fleet changes.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{news::News, shares::shares};
use crate::genesys::budget::Part;

/// A process that says nothing for so long is forgotten; a fleet of which nothing is heard for so long is not heard.
pub const SILENCE: Duration = Duration::from_secs(10);
/// What a process sent counts so long after it was last heard.
const SPENT: Duration = Duration::from_secs(61);
/// After the first word was heard: how long the others have to answer.
const ANSWERS: Duration = Duration::from_millis(500);
/// How long a process waits for a first word.
const FIRST_WORD: Duration = Duration::from_secs(3);
/// When nothing at all was heard for longer, that is nobody's silence.
const DEAF: Duration = Duration::from_secs(3);
/// Members, at most: whoever comes after them is not noted.
const MOST: usize = 2000;

/// The fleet, as one process knows it. It is itself no member.
#[derive(Debug)]
pub struct Roster {
    members: BTreeMap<String, Member>,
    /// When anything was last heard, also what this process itself said.
    heard: Instant,
    /// Until when it is not known who else is there.
    unheard: Instant,
    /// Nothing was heard yet.
    deaf: bool,
}

#[derive(Debug)]
struct Member {
    news: News,
    last: Instant,
    here: bool,
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
    pub fn new(now: Instant) -> Self {
        Self { members: BTreeMap::new(), heard: now, unheard: now.checked_add(FIRST_WORD).unwrap_or(now), deaf: true }
    }

    /// Something came through, be it this process's own word.
    pub fn hears(&mut self, now: Instant) {
        if std::mem::take(&mut self.deaf) {
            self.unheard = self.unheard.min(now + ANSWERS);
        }
        let gap = now.saturating_duration_since(self.heard);
        if gap > DEAF {
            // Nobody could be heard meanwhile.
            self.members.values_mut().filter(|member| member.here).for_each(|member| member.last += gap);
        }
        self.heard = now;
    }

    /// A process of the client told this.
    pub fn told(&mut self, news: News, now: Instant) {
        self.hears(now);
        if self.members.len() < MOST || self.members.contains_key(&news.process) {
            self.members.insert(news.process.clone(), Member { news, last: now, here: true });
        }
    }

    /// A process of the client left.
    pub fn left(&mut self, process: &str, now: Instant) {
        self.hears(now);
        if let Some(member) = self.members.get_mut(process) {
            (member.here, member.last) = (false, now);
        }
    }

    /// Notices what time alone changed: whoever is silent is forgotten, unless nothing is heard at all.
    pub fn tick(&mut self, now: Instant) {
        if self.is_heard(now) {
            for member in self.members.values_mut().filter(|member| member.here && now >= member.last + SILENCE) {
                member.here = false;
            }
        }
        self.members.retain(|_, member| member.here || now < member.last + SPENT);
    }

    /// Is the fleet heard at all?
    pub fn is_heard(&self, now: Instant) -> bool {
        now < self.heard + SILENCE
    }

    /// The others that are alive, as far as is known, in the order of their names.
    pub fn others(&self) -> impl Iterator<Item = &News> {
        self.members.values().filter(|member| member.here).map(|member| &member.news)
    }

    /// What this process may send.
    pub fn part(&self, own: Own<'_>, now: Instant) -> Part {
        let requests = self.requests(own, now);
        if now < self.unheard { Part::Unheard(requests) } else { Part::Settled(requests) }
    }

    /// How many requests this process may send in any minute.
    ///
    /// Those with work share the client's limit, and this process counts as one of them: it is asked because it may
    /// have work next. While nothing is heard nobody knows who has work: then all that were last known count. At least
    /// one, where the limit is smaller than the fleet.
    fn requests(&self, own: Own<'_>, now: Instant) -> u32 {
        if !self.is_heard(now) {
            let known = u32::try_from(self.others().count()).unwrap_or(u32::MAX).saturating_add(1);
            return (own.client_limit / known).max(1);
        }
        let workers = self.others().filter(|news| news.working).map(|news| (news.process.as_str(), news.token_limit));
        let mut all: Vec<(&str, u32)> = workers.chain([(own.process, own.token_limit)]).collect();
        all.sort_unstable();
        let usable: Vec<u32> = all.iter().map(|(_, usable)| *usable).collect();
        let place = all.iter().position(|(process, _)| *process == own.process).unwrap_or_default();
        let shares = shares(own.client_limit, &usable);
        let share = shares.get(place).copied().unwrap_or_default();
        // Where the token's limit is what binds, that is not counted twice: what nobody else can use is left.
        let is_all_it_can_use = share == own.token_limit;
        let share = if is_all_it_can_use { own.client_limit - (shares.iter().sum::<u32>() - share) } else { share };
        share.max(1).min(own.client_limit.saturating_sub(self.spent_by_others(now)))
    }

    /// Requests that others sent in the last minute, as far as they told.
    pub fn spent_by_others(&self, now: Instant) -> u32 {
        let counts = self.members.values().filter(|member| member.here || now < member.last + SPENT);
        counts.fold(0, |sum, member| sum.saturating_add(member.news.requests_last_minute))
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
