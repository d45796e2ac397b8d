//! What this process believes of what it hears: words that bear the seal of its client, each once. What it says bears both,
//! too. All else changes nothing: it is counted, and told once a minute.

use std::{collections::BTreeMap, fmt, time::Duration};

use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::{
    fresh::{Fresh, Speaker, Stamp},
    news::Word,
    seal::{Keys, Sealed},
};
use genfleet_genesys::FleetKey;
use genfleet_job::metric;

/// Between two lines of the log about words that were refused.
const TOLD: Duration = Duration::from_secs(60);

/// Why a word is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It bears no seal: said by an older version, or by anybody.
    Unsigned,
    /// Its seal is not our client's.
    Forged,
    /// It was heard before.
    Replayed,
    /// Nothing shows yet that it is said now.
    Unproven,
    /// It is signed, and says nothing to this version.
    Senseless,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unsigned, Self::Forged, Self::Replayed, Self::Unproven, Self::Senseless];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::Unproven => "unproven",
            Self::Senseless => "senseless",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is signed.
#[derive(Serialize, Deserialize)]
struct Said<W> {
    stamp: Stamp,
    #[serde(flatten)]
    word: W,
}

/// See the module.
#[derive(Debug)]
pub struct Ears {
    client: String,
    keys: Keys,
    fresh: Fresh,
    refused: Refused,
}

/// A word that is believed, and whether its speaker waits for ours.
pub type Heard = (Result<Word, Refusal>, Speaker);

impl Ears {
    /// For words of the client `client`, which are signed with `key`.
    pub fn new(client: String, key: FleetKey) -> Self {
        Self { client, keys: Keys::new(key), fresh: Fresh::new(), refused: Refused::default() }
    }

    /// The client may be another one now.
    pub fn belongs_to(&mut self, client: &str, key: impl FnOnce() -> FleetKey) {
        if self.client != client {
            (self.client, self.keys) = (client.to_owned(), Keys::new(key()));
        }
    }

    /// `word`, signed.
    pub fn sign(&mut self, word: &Word, now: Instant) -> String {
        // Plain data: it has no member that cannot be written.
        let said = serde_json::to_string(&Said { stamp: self.fresh.stamp(now), word }).unwrap_or_default();
        self.keys.seal(said)
    }

    /// What `body` says, if it is to be believed; `anew` reads the client's key again.
    pub fn hear(&mut self, body: &[u8], now: Instant, anew: impl FnOnce() -> Option<FleetKey>) -> Heard {
        let (heard, speaker) = self.judge(body, now, anew);
        if let Err(refusal) = heard {
            self.refused.add(refusal, now);
        }
        (heard, speaker)
    }

    fn judge(&mut self, body: &[u8], now: Instant, anew: impl FnOnce() -> Option<FleetKey>) -> Heard {
        let refused = |refusal| (Err(refusal), Speaker::Known);
        let Some(sealed) = Sealed::read(body) else { return refused(Refusal::Unsigned) };
        if !self.keys.know(&sealed, now, anew) {
            return refused(Refusal::Forged);
        }
        let Some((stamp, word)) = read(&sealed) else { return refused(Refusal::Senseless) };
        match self.fresh.judge(&stamp, now) {
            Err(Refusal::Replayed) => refused(Refusal::Replayed),
            Err(refusal) => (Err(refusal), self.fresh.notes(&stamp, now)),
            Ok(()) => (Ok(word), self.fresh.notes(&stamp, now)),
        }
    }
}

/// What a sealed word says, whoever said it.
pub fn read(sealed: &Sealed) -> Option<(Stamp, Word)> {
    let said: Said<Word> = serde_json::from_str(&sealed.said).ok()?;
    Some((said.stamp, said.word.bounded()?))
}

/// What was refused since it was told last.
#[derive(Debug, Default)]
struct Refused {
    counts: BTreeMap<Refusal, u32>,
    told: Option<Instant>,
}

impl Refused {
    fn add(&mut self, refusal: Refusal, now: Instant) {
        counter!(metric::FLEET_REFUSED, "reason" => refusal.as_str()).increment(1);
        // Each newcomer begins so.
        if refusal == Refusal::Unproven {
            return;
        }
        *self.counts.entry(refusal).or_default() += 1;
        if self.told.is_none_or(|told| now >= told + TOLD) {
            self.told = Some(now);
            let counts: Vec<String> = std::mem::take(&mut self.counts)
                .into_iter()
                .map(|(refusal, count)| format!("{count} {refusal}"))
                .collect();
            warn!(
                refused = counts.join(", "),
                "words on the fleet's exchange were not believed: they are of another version, of another client secret, or forged"
            );
        }
    }
}

#[cfg(test)]
mod tests;
