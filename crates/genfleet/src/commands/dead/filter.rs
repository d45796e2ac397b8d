//! Selects dead letters.

use std::{str::FromStr, time::Duration};

use genfleet_core::{
    contract::{COMMON_CODES, KindContract},
    job::Kind,
    options::duration,
    queue::dead_letters::{DeadLetter, DeadLetterQueue, OWN_REASONS},
    webhook::Deliverer,
};
use jiff::{SignedDuration, Timestamp};

use super::tally::Action;
use crate::registry::contracts;

/// The smallest number of digits with which a fingerprint can be given.
const SHORTEST_PRINT: usize = 4;
/// The most reasons that are suggested for another word.
const MOST_NEAR: usize = 5;
/// Number of reasons in a line of their list.
const REASONS_A_LINE: usize = 4;
/// Reasons for which the broker itself dead-letters a message.
const BROKER: [&str; 4] = ["broker:delivery_limit", "broker:expired", "broker:maxlen", "broker:rejected"];

/// Selects dead letters. All conditions must hold; of several values of a condition, one.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which")]
pub(crate) struct Filter {
    /// Only of these kinds; "unknown" for those whose kind could not be read
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    pub kind: Vec<KindName>,

    /// Only with these reasons, e.g. rejected, attempts_exhausted, broker:expired; "broker" for all of the broker's own
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, value_delimiter = ',', value_parser = parse_reason, value_name = "REASON")]
    pub reason: Vec<String>,

    /// Only with these fingerprints (failures with the same cause, see dead list), or their first digits
    #[arg(long, value_delimiter = ',', value_name = "FINGERPRINT")]
    pub fingerprint: Vec<FingerprintPrefix>,

    /// Only of these jobs
    #[arg(long, value_delimiter = ',', value_name = "JOBID")]
    pub id: Vec<String>,

    /// Only those that failed longer ago than this, e.g. 30m, 12h, 7d
    #[arg(long, value_parser = duration, value_name = "AGE")]
    pub older_than: Option<Duration>,

    /// Only those that failed within this time
    #[arg(long, value_parser = duration, value_name = "AGE")]
    pub newer_than: Option<Duration>,

    /// Messages that matched no queue (RabbitMQ), instead of dead letters
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long)]
    pub unrouted: bool,

    /// The reasons that are left out, if an action has no condition.
    #[arg(skip)]
    pub left_out: &'static [&'static str],

    /// True to exclude messages that never were jobs of their queue's kind, as for a redrive.
    #[arg(skip)]
    excludes_foreign: bool,
}

impl Filter {
    /// Returns the filter for an action. Without conditions it leaves the dead letters with some reasons out, and a
    /// redrive excludes foreign messages.
    pub(crate) fn to_act_on(&self, action: Action) -> Self {
        let left_out = if self.is_everything() { action.left_out() } else { &[] };
        Self { left_out, excludes_foreign: action == Action::Redrive, ..self.clone() }
    }

    /// Returns true if `letter` is left out only for its reason.
    pub(crate) fn leaves_out(&self, letter: &DeadLetter) -> bool {
        self.left_out.contains(&letter.reason.as_str())
    }

    /// Returns true if `letter` must not be redriven.
    pub(crate) fn excludes(&self, letter: &DeadLetter) -> bool {
        self.excludes_foreign && letter.stored.is_foreign
    }

    /// Returns true if no condition is given.
    pub(crate) fn is_everything(&self) -> bool {
        let named = self.kind.is_empty() && self.reason.is_empty() && self.fingerprint.is_empty() && self.id.is_empty();
        named && self.older_than.is_none() && self.newer_than.is_none() && !self.unrouted
    }

    /// The queues that can contain such dead letters.
    pub(crate) fn queues(&self) -> Vec<DeadLetterQueue> {
        if self.unrouted {
            return vec![DeadLetterQueue::Unrouted];
        }
        let named =
            |queue: &DeadLetterQueue| self.kind.is_empty() || self.kind.iter().any(|kind| kind.queue() == *queue);
        DeadLetterQueue::dead().filter(named).collect()
    }

    /// Returns true if `letter` is selected now.
    pub(crate) fn matches(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        !self.excludes(letter) && self.selects(letter, now)
    }

    /// Matches like [`Self::matches`], but includes those that must not be redriven.
    pub(crate) fn selects(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        !self.leaves_out(letter)
            && self.of_kind(letter)
            && any(&self.reason, |reason| of_reason(reason, &letter.reason))
            && any(&self.fingerprint, |print| letter.fingerprint.starts_with(&print.0))
            && any(&self.id, |id| has_id(letter, id))
            && self.of_age(letter.failed_at, now)
    }

    fn of_kind(&self, letter: &DeadLetter) -> bool {
        any(&self.kind, |kind| match kind {
            KindName::Kind(kind) => letter.kind == Some(*kind),
            KindName::Unknown => letter.kind.is_none() || letter.stored.queue == DeadLetterQueue::Unknown,
        })
    }

    /// A dead letter without a time has no age.
    fn of_age(&self, failed_at: Option<Timestamp>, now: Timestamp) -> bool {
        if self.older_than.is_none() && self.newer_than.is_none() {
            return true;
        }
        let Some(age) = failed_at.map(|time| now.duration_since(time)) else { return false };
        let longer = |than: Duration| age > SignedDuration::try_from(than).unwrap_or(SignedDuration::MAX);
        self.older_than.is_none_or(longer) && self.newer_than.is_none_or(|than| !longer(than))
    }
}

fn any<T>(wanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

/// Parses a reason. Fails if no dead letter can have it, because such a filter would silently match nothing.
fn parse_reason(given: &str) -> Result<String, String> {
    let of_kinds = contracts().into_iter().chain([KindContract::of::<Deliverer>()]).flat_map(|one| one.terms.codes);
    let codes = COMMON_CODES.into_iter().chain(of_kinds).map(|code| code.code);
    let mut known: Vec<&str> = codes.chain(BROKER).chain(["broker"]).chain(OWN_REASONS).collect();
    known.sort_unstable();
    known.dedup();
    if known.contains(&given) {
        return Ok(given.to_owned());
    }
    let is_near = |reason: &&str| strsim::osa_distance(given, reason) <= 2 || given.len() > 3 && reason.contains(given);
    let near: Vec<&str> = known.iter().copied().filter(is_near).take(MOST_NEAR).collect();
    let meant = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
    let lines: Vec<String> = known.chunks(REASONS_A_LINE).map(|some| some.join(", ")).collect();
    Err(format!("no dead letter has this reason{meant}; the reasons are\n  {}", lines.join(",\n  ")))
}

fn of_reason(wanted: &str, reason: &str) -> bool {
    reason == wanted || (wanted == "broker" && reason.starts_with("broker:"))
}

/// Returns true if the dead letter belongs to this job, by the id that a worker reads or by the message id.
pub(crate) fn has_id(letter: &DeadLetter, id: &str) -> bool {
    letter.id.as_str() == id || letter.stored.message.message_id.as_deref() == Some(id)
}

/// A kind, or `unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KindName {
    /// A kind.
    Kind(Kind),
    /// A kind that could not be read.
    Unknown,
}

impl KindName {
    fn queue(self) -> DeadLetterQueue {
        match self {
            Self::Kind(kind) => DeadLetterQueue::Dead(kind),
            Self::Unknown => DeadLetterQueue::Unknown,
        }
    }
}

impl FromStr for KindName {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match given {
            "unknown" => Ok(Self::Unknown),
            kind => kind.parse().map(Self::Kind).map_err(|error| format!("{error}, unknown")),
        }
    }
}

/// The first digits of a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FingerprintPrefix(String);

impl FingerprintPrefix {
    /// Returns true if `text` has the form of a fingerprint.
    pub(crate) fn is_valid(text: &str) -> bool {
        text.parse::<Self>().is_ok()
    }
}

impl FromStr for FingerprintPrefix {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let digits = given.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits || !(SHORTEST_PRINT..=16).contains(&given.len()) {
            return Err(format!(
                "{given:?} is not a fingerprint: write {SHORTEST_PRINT} to 16 hexadecimal digits, as dead list shows them"
            ));
        }
        Ok(Self(given.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Parsed {
        #[command(flatten)]
        filter: Filter,
    }

    fn filter(arguments: &[&str]) -> Filter {
        Parsed::try_parse_from([&["test"], arguments].concat()).unwrap().filter
    }

    #[test]
    fn ages_can_be_given_in_days() {
        assert_eq!(duration("7d").unwrap(), Duration::from_secs(7 * 24 * 3600));
        assert_eq!(duration("90m").unwrap(), Duration::from_secs(90 * 60));
        assert!(duration("soon").is_err() && duration("7").is_err());
    }

    #[test]
    fn a_dead_letter_without_a_time_has_no_age() {
        let filter = filter(&["--older-than", "1h"]);
        let now: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        assert!(filter.of_age(Some("2026-11-20T10:59:59Z".parse().unwrap()), now));
        assert!(!filter.of_age(Some("2026-11-20T11:30:00Z".parse().unwrap()), now));
        assert!(!filter.of_age(None, now));
        let newer = self::filter(&["--newer-than", "1h"]);
        assert!(newer.of_age(Some("2026-11-20T11:30:00Z".parse().unwrap()), now));
        assert!(!newer.of_age(None, now));
    }

    #[test]
    fn the_queues_are_those_of_the_named_kinds() {
        assert_eq!(filter(&[]).queues(), DeadLetterQueue::dead().collect::<Vec<_>>());
        assert!(filter(&[]).is_everything());
        let named = filter(&["--kind", "unknown,webhook.deliver"]);
        assert_eq!(named.queues(), [DeadLetterQueue::Dead(Kind::WebhookDeliver), DeadLetterQueue::Unknown]);
        assert_eq!(filter(&["--unrouted", "--kind", "cdn.purge"]).queues(), [DeadLetterQueue::Unrouted]);
    }

    #[test]
    fn all_reasons_of_the_broker_match_one_name() {
        assert!(of_reason("broker", "broker:expired") && of_reason("broker:expired", "broker:expired"));
        assert!(!of_reason("broker", "rejected") && !of_reason("rej", "rejected"));
    }

    #[test]
    fn a_word_that_is_no_reason_is_answered_with_near_ones_and_with_all() {
        let told = |word| parse_reason(word).unwrap_err();
        assert!(told("crash_lop").contains("did you mean crash_loop?"));
        assert!(told("attempts").contains("did you mean attempts_exhausted?"));
        let all = told("nonsense");
        assert!(all.contains("the reasons are") && all.contains("attempts_exhausted"), "{all}");
        assert!(all.lines().all(|line| line.len() <= 120), "{all}");
    }

    #[test]
    fn a_fingerprint_can_be_given_by_its_first_digits() {
        assert_eq!("00AB".parse::<FingerprintPrefix>().unwrap(), FingerprintPrefix("00ab".to_owned()));
        assert!("00a".parse::<FingerprintPrefix>().is_err() && "job-1234".parse::<FingerprintPrefix>().is_err());
    }
}
