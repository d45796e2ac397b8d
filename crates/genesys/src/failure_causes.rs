//! Why requests to the API fail: what they came to since the last one that did not, and how often.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Fewer failures in a row are not worth a word.
const FEW: u64 = 3;
/// Where nothing was sent for so long, nobody knows.
const STALE: Duration = Duration::from_secs(10 * 60);
/// FailureCauses told apart; what comes beyond them counts as one.
const APART: usize = 16;
/// FailureCauses told.
const TOLD: usize = 5;
/// Of a cause, in characters.
const LONGEST: usize = 60;
const OTHERS: &str = "others";

/// What failed requests came to.
#[derive(Debug, Default)]
pub(crate) struct FailureCauses {
    counts: BTreeMap<String, u64>,
    last: Option<Instant>,
}

impl FailureCauses {
    /// A request failed by this; whether it is time to say so.
    pub(crate) fn note(&mut self, cause: &str, now: Instant) -> bool {
        let cause: String = cause.chars().take(LONGEST).collect();
        let is_known = self.counts.len() < APART || self.counts.contains_key(&cause);
        *self.counts.entry(if is_known { cause } else { OTHERS.to_owned() }).or_default() += 1;
        self.last = Some(now);
        self.counts.values().sum::<u64>() == FEW
    }

    /// A request did not fail.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The most frequent first: `503 ×12, Connection refused (os error 111) ×3`.
    pub(crate) fn told(&self) -> String {
        let mut causes: Vec<_> = self.counts.iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let told: Vec<String> = causes.iter().take(TOLD).map(|(cause, count)| format!("{cause} ×{count}")).collect();
        let rest = causes.len().saturating_sub(TOLD);
        told.join(", ") + &if rest > 0 { format!(" and {rest} other causes") } else { String::new() }
    }

    /// The same where it is worth a word, and of now.
    pub(crate) fn worth_telling(&self, now: Instant) -> Option<String> {
        let is_fresh = self.last.is_some_and(|last| now.saturating_duration_since(last) < STALE);
        (is_fresh && self.counts.values().sum::<u64>() >= FEW).then(|| self.told())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_since_the_last_success_is_told_and_for_a_while_only() {
        let (mut causes, now) = (FailureCauses::default(), Instant::now());
        assert!(!causes.note("refused", now) && !causes.note("503", now));
        assert_eq!(causes.worth_telling(now), None, "two are few");
        assert!(causes.note("503", now) && !causes.note("503", now), "said once");
        assert_eq!(causes.worth_telling(now).as_deref(), Some("503 ×3, refused ×1"));
        assert_eq!(causes.worth_telling(now + STALE), None);
        causes.forget();
        assert_eq!((causes.told(), causes.worth_telling(now)), (String::new(), None));
    }

    #[test]
    fn however_many_causes_there_are_few_are_kept_and_told() {
        let (mut causes, now) = (FailureCauses::default(), Instant::now());
        for number in 0..1000 {
            causes.note(&format!("{number:02}{}", "x".repeat(1000)), now);
        }
        assert_eq!(causes.counts.len(), APART + 1);
        assert!(causes.told().starts_with("others ×984, ") && causes.told().ends_with(" and 12 other causes"));
        assert!(causes.told().chars().count() < 400);
    }
}
