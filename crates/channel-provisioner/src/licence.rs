//! Creating a channel if a licence is left for it. One at a time in the process, and one process of the fleet at a
//! time (SPEC 6.1), so that no two jobs take the last licence.
//!
//! Reads lag writes: what was ordered a moment ago may be missing in the count. What this process ordered it remembers,
//! and waits for near the limit. What another one ordered before it gave up the lock is not known here: the first count
//! after a takeover is not believed until it had the time to show.

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

/// The licences for channels, and the turn to take one.
#[derive(Debug)]
pub(crate) struct Licences {
    limit: u64,
    turn: Mutex<Recent>,
}

/// What became of a channel that wants a licence.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// How many channels there were.
    pub count: Count,
    /// How the order went; `None` if no licence was left for it.
    pub ordered: Option<Ordered>,
}

/// Channels that were ordered and may not be counted yet, and until when.
#[derive(Debug, Default)]
struct Recent {
    ordered: Vec<(Uuid, Instant)>,
}

impl Licences {
    /// `limit` of them.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit: limit.into(), turn: Mutex::default() }
    }

    /// How many there are.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Orders `channel` if a licence is left. Waits for its turn, unless the job is stopped.
    pub(crate) async fn take(&self, job: &JobContext, channel: &Channel) -> Result<Taken, JobError> {
        let api = GenesysChannels::new(job);
        let mut recent = tokio::select! {
            biased;
            () = job.stop().cancelled() => return Err(JobError::interrupted()),
            turn = self.turn.lock() => turn,
        };
        let count = self.count(job, api, &mut recent).await?;
        if matches!(count, Count::Channels(total) if total >= self.limit) {
            return Ok(Taken { count, ordered: None });
        }
        Ok(Taken { count, ordered: Some(recent.order(api, channel).await) })
    }

    /// The count, once more if what was ordered a moment ago decides whether a licence is left. Too many are too many,
    /// whatever is not shown.
    async fn count(&self, job: &JobContext, api: GenesysChannels<'_>, recent: &mut Recent) -> Result<Count, JobError> {
        let mut count = api.count().await?;
        let reads_settled_at = job.reads_settled_at().filter(|until| Instant::now() < *until);
        if let (Count::Channels(total), Some(until)) = (count, reads_settled_at)
            && total < self.limit
        {
            job.stop().run_until_cancelled(sleep_until(until)).await.ok_or_else(JobError::interrupted)?;
            count = api.count().await?;
        }
        match count {
            Count::Channels(total) if total < self.limit && total + recent.unseen() >= self.limit => {
                recent.wait_until_seen(api).await?;
                api.count().await
            }
            Count::Channels(_) | Count::NotListed(_) => Ok(count),
        }
    }
}

impl Recent {
    async fn order(&mut self, api: GenesysChannels<'_>, channel: &Channel) -> Ordered {
        // Noted first: should the attempt be given up in the middle, the order may still arrive.
        self.ordered.push((channel.id, Instant::now() + 2 * READ_LAG));
        let ordered = api.order(channel).await;
        self.ordered.pop();
        match ordered {
            Ordered::Made(_) | Ordered::Lost(_) => self.ordered.push((channel.id, Instant::now() + READ_LAG)),
            Ordered::Taken(_) | Ordered::Refused(_) => {}
        }
        ordered
    }

    /// How many may be missing in a count. By and by they are in every one.
    fn unseen(&mut self) -> u64 {
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
