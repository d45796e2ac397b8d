//! Follows events as they are published, over any number of connections, so that it survives a restart of the broker.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};
use bytes::Bytes;
use tokio::time::sleep;

use super::{
    inspect::{EventStream, RabbitInspector},
    session::reconnect,
    settings::RabbitSettings,
};
use crate::message::QueueError;

/// An item from a follower of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowedEvent {
    /// An event's body.
    Event(Bytes),
    /// No events arrive for now, for this reason. Repeated if the reason changes.
    Lost(String),
    /// Events arrive again. Events that were published in between must be read from the past events.
    Back,
}

/// Follows the events of one broker.
pub(crate) struct RabbitEventFollower {
    settings: RabbitSettings,
    open: Option<(RabbitInspector, EventStream)>,
    waits: ExponentialBackoff,
    reported: Option<String>,
}

impl RabbitEventFollower {
    /// Connects. Fails if that is not possible now, so that a mistyped host is reported at once.
    pub(crate) async fn connect(settings: RabbitSettings) -> Result<Self, QueueError> {
        let open = Some(open(&settings).await?);
        Ok(Self { settings, open, waits: reconnect(), reported: None })
    }

    pub(crate) async fn next(&mut self) -> FollowedEvent {
        loop {
            let followed = match &mut self.open {
                Some((_, events)) => match events.next().await {
                    Some(Ok(event)) => return FollowedEvent::Event(event),
                    Some(Err(error)) => self.report_loss(error.to_string()),
                    None => self.report_loss("the broker ended the stream of events".to_owned()),
                },
                None => self.reconnect().await,
            };
            if let Some(followed) = followed {
                return followed;
            }
        }
    }

    async fn reconnect(&mut self) -> Option<FollowedEvent> {
        sleep(self.waits.next_backoff().unwrap_or(Duration::ZERO)).await;
        match open(&self.settings).await {
            Ok(open) => {
                self.open = Some(open);
                self.reported = None;
                self.waits.reset();
                Some(FollowedEvent::Back)
            }
            Err(error) => self.report_loss(error.to_string()),
        }
    }

    fn report_loss(&mut self, reason: String) -> Option<FollowedEvent> {
        self.open = None;
        if self.reported.as_ref() == Some(&reason) {
            return None;
        }
        self.reported = Some(reason.clone());
        Some(FollowedEvent::Lost(reason))
    }
}

async fn open(settings: &RabbitSettings) -> Result<(RabbitInspector, EventStream), QueueError> {
    let inspector = RabbitInspector::connect(settings.clone()).await?;
    let events = inspector.follow_events().await?;
    Ok((inspector, events))
}
