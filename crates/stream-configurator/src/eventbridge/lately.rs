//! Integrations that this process created recently, and that lists may not show yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Time for which a list may not show a created integration.
const UNLISTED_FOR: Duration = Duration::from_secs(120);

/// The recently created integrations by name. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct LatelyCreated(Arc<Mutex<HashMap<String, (String, Instant)>>>);

impl LatelyCreated {
    /// Records that `id` was created under `name`.
    pub(crate) fn remember(&self, name: &str, id: &str) {
        let now = Instant::now();
        let mut all = self.lock();
        all.retain(|_, (_, until)| now < *until);
        all.insert(name.to_owned(), (id.to_owned(), now + UNLISTED_FOR));
    }

    /// Returns the id of an integration that was recently created under `name`.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        let now = Instant::now();
        let all = self.lock();
        let (id, _) = all.get(name).filter(|(_, until)| now < *until)?;
        Some(id.clone())
    }

    /// Removes an integration that somebody has deleted.
    pub(crate) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_created_is_known_for_a_while() {
        let lately = LatelyCreated::default();
        lately.remember("crm", "i-1");
        assert_eq!((lately.find("crm").as_deref(), lately.find("other")), (Some("i-1"), None));
        lately.forget("crm");
        assert_eq!(lately.find("crm"), None);
        lately.remember("crm", "i-2");
        tokio::time::advance(UNLISTED_FOR).await;
        assert_eq!(lately.find("crm"), None);
        lately.remember("other", "i-3");
        assert_eq!(lately.lock().len(), 1, "nothing is kept for longer");
    }
}
