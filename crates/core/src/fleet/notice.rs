//! What the one process that works a store tells of itself, beside the store (SPEC 6.2): its news, and when it wrote them.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::news::News;

/// Older than this, nobody keeps it up any more.
const OLD: SignedDuration = SignedDuration::from_secs(10);
/// Its clock and ours are one: only what was written while we read may be later.
const AHEAD: SignedDuration = SignedDuration::from_secs(2);

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    pub news: News,
}

/// In the file: milliseconds since 1970, and the news.
#[derive(Serialize, Deserialize)]
struct Written {
    at: i64,
    news: News,
}

impl Notice {
    /// As it is put up.
    pub fn write(&self) -> String {
        let written = Written { at: self.at.as_millisecond(), news: self.news.clone() };
        // Plain data: it has no member that cannot be written.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// The news of a process that is alive at `now`, in what was put up.
    pub fn fresh(text: &str, now: Timestamp) -> Option<News> {
        let Written { at, mut news } = serde_json::from_str(text).ok()?;
        news.bound();
        let age = now.duration_since(Timestamp::from_millisecond(at).ok()?);
        (age < OLD && age > -AHEAD).then_some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_that_nobody_keeps_up_tells_nothing() {
        let at: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let news = News { process: "p".to_owned(), token_limit: 300, client_limit: 3000, ..News::default() };
        let text = Notice { at, news: news.clone() }.write();
        let after = |seconds| Notice::fresh(&text, at + SignedDuration::from_secs(seconds));
        assert_eq!((after(0), after(9)), (Some(news.clone()), Some(news)));
        assert_eq!((after(10), after(-3600)), (None, None));
        assert_eq!(Notice::fresh("{", at), None);
    }
}
