//! Events as they happen, through any number of connections: for whoever watches over a restart of the broker.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};
use bytes::Bytes;
use tokio::time::sleep;

use super::{EventStream, RabbitInspector};
use crate::{QueueError, rabbit::RabbitSettings};
use genfleet_job::retry;

/// What a follower sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowedEvent {
    /// An event's body.
    Event(Bytes),
    /// No more comes for now, and why. Told again where the reason changes.
    Lost(String),
    /// Events come again. Those of the meantime do not: they are in the window.
    Back,
}

/// Follows the events of one broker.
pub struct EventFollower {
    settings: RabbitSettings,
    now: Option<(RabbitInspector, EventStream)>,
    waits: ExponentialBackoff,
    told: Option<String>,
}

impl EventFollower {
    /// An error where it cannot begin: whoever mistypes a host should not wait for it.
    pub async fn begin(settings: RabbitSettings) -> Result<Self, QueueError> {
        let now = Some(open(&settings).await?);
        Ok(Self { settings, now, waits: retry::reconnect(), told: None })
    }

    /// What is seen next; waits for it.
    pub async fn next(&mut self) -> FollowedEvent {
        loop {
            let seen = match &mut self.now {
                Some((_, follower)) => match follower.next().await {
                    Some(Ok(event)) => return FollowedEvent::Event(event),
                    Some(Err(error)) => self.lost(error.to_string()),
                    None => self.lost("the broker ended the stream of events".to_owned()),
                },
                None => self.again().await,
            };
            if let Some(seen) = seen {
                return seen;
            }
        }
    }

    async fn again(&mut self) -> Option<FollowedEvent> {
        sleep(self.waits.next_backoff().unwrap_or(Duration::ZERO)).await;
        match open(&self.settings).await {
            Ok(now) => {
                self.now = Some(now);
                self.told = None;
                self.waits.reset();
                Some(FollowedEvent::Back)
            }
            Err(error) => self.lost(error.to_string()),
        }
    }

    fn lost(&mut self, reason: String) -> Option<FollowedEvent> {
        self.now = None;
        if self.told.as_ref() == Some(&reason) {
            return None;
        }
        self.told = Some(reason.clone());
        Some(FollowedEvent::Lost(reason))
    }
}

async fn open(settings: &RabbitSettings) -> Result<(RabbitInspector, EventStream), QueueError> {
    let inspector = RabbitInspector::connect(settings.clone()).await?;
    let follower = inspector.follow_events().await?;
    Ok((inspector, follower))
}
