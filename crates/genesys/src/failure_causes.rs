//! The causes of failed requests since the last success, and how often each occurred.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Minimum number of failures in a row that are reported.
const FEW: u64 = 3;
/// Time without a request after which causes are outdated.
const STALE: Duration = Duration::from_secs(10 * 60);
/// Maximum number of distinct causes; all further ones count as one.
const DISTINCT: usize = 16;
/// Maximum number of causes in a description.
const DESCRIBED: usize = 5;
/// Maximum length of a cause, in characters.
const LONGEST: usize = 60;
const OTHERS: &str = "others";

#[derive(Debug, Default)]
pub(crate) struct FailureCauses {
    counts: BTreeMap<String, u64>,
    last: Option<Instant>,
}

impl FailureCauses {
    /// Counts a failure. True if there are enough to report them.
    pub(crate) fn note(&mut self, cause: &str, now: Instant) -> bool {
        let cause: String = cause.chars().take(LONGEST).collect();
        let is_known = self.counts.len() < DISTINCT || self.counts.contains_key(&cause);
        *self.counts.entry(if is_known { cause } else { OTHERS.to_owned() }).or_default() += 1;
        self.last = Some(now);
        self.counts.values().sum::<u64>() == FEW
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Describes the causes, the most frequent first: `503 ×12, Connection refused (os error 111) ×3`.
    pub(crate) fn describe(&self) -> String {
        let mut causes: Vec<_> = self.counts.iter().collect();
        causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let described: Vec<String> =
            causes.iter().take(DESCRIBED).map(|(cause, count)| format!("{cause} ×{count}")).collect();
        let rest = causes.len().saturating_sub(DESCRIBED);
        described.join(", ") + &if rest > 0 { format!(" and {rest} other causes") } else { String::new() }
    }

    /// Describes the causes if there are enough, and they are not outdated.
    pub(crate) fn describe_if_relevant(&self, now: Instant) -> Option<String> {
        let is_fresh = self.last.is_some_and(|last| now.saturating_duration_since(last) < STALE);
        (is_fresh && self.counts.values().sum::<u64>() >= FEW).then(|| self.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_since_the_last_success_is_told_and_for_a_while_only() {
        let (mut causes, now) = (FailureCauses::default(), Instant::now());
        assert!(!causes.note("refused", now) && !causes.note("503", now));
        assert_eq!(causes.describe_if_relevant(now), None, "two are few");
        assert!(causes.note("503", now) && !causes.note("503", now), "said once");
        assert_eq!(causes.describe_if_relevant(now).as_deref(), Some("503 ×3, refused ×1"));
        assert_eq!(causes.describe_if_relevant(now + STALE), None);
        causes.forget();
        assert_eq!((causes.describe(), causes.describe_if_relevant(now)), (String::new(), None));
    }

    #[test]
    fn however_many_causes_there_are_few_are_kept_and_told() {
        let (mut causes, now) = (FailureCauses::default(), Instant::now());
        for number in 0..1000 {
            causes.note(&format!("{number:02}{}", "x".repeat(1000)), now);
        }
        assert_eq!(causes.counts.len(), DISTINCT + 1);
        assert!(causes.describe().starts_with("others ×984, ") && causes.describe().ends_with(" and 12 other causes"));
        assert!(causes.describe().chars().count() < 400);
    }
}
