//! Creates a channel if a licence is free: one job at a time in the process, and one process of the fleet at a time
//! (SPEC 6.1), so that two jobs cannot take the last licence.
//!
//! Reads lag behind writes, so a count may not include new channels. The process remembers the channels that it
//! created, and waits for them near the limit. Channels of a previous lock holder are unknown: after a takeover, the
//! first count is used only after the time for which reads may lag.

use genfleet_core::{error::JobError, handler::JobContext};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    api::{Count, GenesysChannels, Ordered, READ_LAG},
    channel::Channel,
};

/// The licences for channels, and the lock for taking one.
#[derive(Debug)]
pub(crate) struct Licences {
    pub(crate) limit: u64,
    turn: Mutex<Recent>,
}

/// The result for a channel that needs a licence.
#[derive(Clone, Debug)]
pub(crate) struct LicenceResult {
    /// The number of channels before.
    pub count: Count,
    /// The result of creating it; `None` if no licence was free.
    pub ordered: Option<Ordered>,
}

/// New channels that a count may not include yet, and until when.
#[derive(Debug, Default)]
struct Recent {
    ordered: Vec<(Uuid, Instant)>,
}

impl Licences {
    /// Creates a limit of `limit` licences.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: limit.into(), turn: Mutex::default() }
    }

    /// Creates `channel` if a licence is free. Waits for the lock, unless the job is stopped.
    pub(crate) async fn take(&self, job: &JobContext, channel: &Channel) -> Result<LicenceResult, JobError> {
        let api = GenesysChannels::new(job);
        let mut recent = job.unless_stopped(self.turn.lock()).await?;
        let count = self.count(job, api, &mut recent).await?;
        if matches!(count, Count::Channels(total) if total >= self.limit) {
            return Ok(LicenceResult { count, ordered: None });
        }
        Ok(LicenceResult { count, ordered: Some(recent.order(api, channel).await) })
    }

    /// Counts the channels. Counts again later if new channels decide whether a licence is free. If the count is
    /// already at the limit, missing channels make no difference.
    async fn count(&self, job: &JobContext, api: GenesysChannels<'_>, recent: &mut Recent) -> Result<Count, JobError> {
        let mut count = api.count().await?;
        let reads_settled_at = job.reads_settled_at.filter(|until| Instant::now() < *until);
        if let (Count::Channels(total), Some(until)) = (count, reads_settled_at)
            && total < self.limit
        {
            job.unless_stopped(sleep_until(until)).await?;
            count = api.count().await?;
        }
        match count {
            Count::Channels(total) if total < self.limit && total + recent.count_unseen() >= self.limit => {
                recent.wait_until_seen(api).await?;
                api.count().await
            }
            Count::Channels(_) | Count::NotListed(_) => Ok(count),
        }
    }
}

impl Recent {
    async fn order(&mut self, api: GenesysChannels<'_>, channel: &Channel) -> Ordered {
        // Recorded first, because the request may still arrive if the attempt is interrupted.
        self.ordered.push((channel.id, Instant::now() + 2 * READ_LAG));
        let ordered = api.order(channel).await;
        self.ordered.pop();
        match ordered {
            Ordered::Made(_) | Ordered::Lost(_) => self.ordered.push((channel.id, Instant::now() + READ_LAG)),
            Ordered::Taken(_) | Ordered::Refused(_) => {}
        }
        ordered
    }

    /// Returns how many new channels a count may not include yet.
    fn count_unseen(&mut self) -> u64 {
        let now = Instant::now();
        self.ordered.retain(|(_, until)| now < *until);
        self.ordered.len().try_into().unwrap_or(u64::MAX)
    }

    async fn wait_until_seen(&mut self, api: GenesysChannels<'_>) -> Result<(), JobError> {
        while let Some((id, until)) = self.ordered.last().copied() {
            api.find_until(id, until).await?;
            self.ordered.pop();
        }
        Ok(())
    }
}
