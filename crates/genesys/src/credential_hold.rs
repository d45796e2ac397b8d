//! The hold for bad credentials (SPEC 4): the whole process sends nothing but one try from time to time.

use std::time::Duration;

use tokio::time::Instant;

/// Holds all requests while the token endpoint refuses the credentials, or the API refuses tokens that it just gave.
#[derive(Debug)]
pub(crate) struct CredentialHold {
    interval: Duration,
    /// The reason, and when the next try is.
    active: Option<(String, Instant)>,
}

impl CredentialHold {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, active: None }
    }

    /// Begins the hold, or notes that a try failed. True if it had not begun.
    pub(crate) fn begin(&mut self, reason: &str, now: Instant) -> bool {
        self.active.replace((reason.to_owned(), now + self.interval)).is_none()
    }

    /// Ends the hold. True if there was one.
    pub(crate) fn end(&mut self) -> bool {
        self.active.take().is_some()
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        self.active.as_ref().map(|(reason, _)| reason.as_str())
    }

    /// Returns when the next try is; `None` without a hold.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.active.as_ref().map(|(_, next)| *next)
    }

    /// Takes a try that is due: the next one comes an interval later.
    pub(crate) fn take_try(&mut self, now: Instant) -> bool {
        let due = self.active.as_mut().filter(|(_, next)| now >= *next);
        due.map(|(_, next)| *next = now + self.interval).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn credentials_are_tried_once_each_interval() {
        let (now, mut hold) = (Instant::now(), CredentialHold::new(MINUTE));
        assert!(!hold.take_try(now));
        assert!(hold.begin("invalid_client", now));
        assert!(!hold.begin("invalid_client", now), "it had begun");
        assert!(!hold.take_try(now + MINUTE / 2));
        assert!(hold.take_try(now + MINUTE));
        assert!(!hold.take_try(now + MINUTE), "this try is under way");
        assert!(hold.end());
        assert_eq!(hold.next_try(), None);
    }
}
