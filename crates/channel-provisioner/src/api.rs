//! The typed API calls of `channel.provision`, and the meaning of their answers. The callers decide when to make them.

use std::time::Duration;

use genfleet_core::{
    error::{ErrorClass, JobError},
    genesys::{ApiAnswer, ApiError, ApiRequest},
    handler::JobContext,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::channel::{Channel, ChannelAnswer};

/// The scopes that these calls need.
pub(crate) const SCOPES: &[&str] = &["webchat:write", "routing:write", "webhooks:write", "asyncjobs:write"];
/// Maximum time for which reads lag behind writes.
pub(crate) const READ_LAG: Duration = Duration::from_secs(15);

const QUEUE: &str = "/api/v2/routing/queues/{queueId}";
/// The endpoint at which channels are created and listed.
pub(crate) const CHANNELS: &str = "/api/v2/purecloudv2/webchat";
const CHANNEL: &str = "/api/v2/purecloudv2/webchat/{channelId}";
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// The number of existing channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// The number, as the API reports it.
    Channels(u64),
    /// The platform has no list. It answered with this status.
    NotListed(u16),
}

/// The result of creating a channel.
#[derive(Clone, Debug)]
pub(crate) enum Ordered {
    /// The channel was created.
    Made(ChannelAnswer),
    /// A channel with this id already exists.
    Taken(JobError),
    /// The result is unknown, because the answer was lost.
    Lost(JobError),
    /// The channel was not created.
    Refused(JobError),
}

#[derive(Deserialize)]
struct Listing {
    total: u64,
}

/// The API, on behalf of one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenesysChannels<'a> {
    job: &'a JobContext,
}

impl<'a> GenesysChannels<'a> {
    /// Creates a client for `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }

    /// Checks whether this routing queue exists.
    pub(crate) async fn has_queue(&self, id: &str) -> Result<bool, JobError> {
        let request = ApiRequest::get(QUEUE).ids(&[id]).expect_member("id", id).expect(&[200, 404]);
        let answer = self.job.send(request).await?;
        if answer.status == 200 {
            answer.json::<Map<String, Value>>()?;
        }
        Ok(answer.status == 200)
    }

    /// Reads the channel with this id, if reads show it.
    pub(crate) async fn find(&self, id: Uuid) -> Result<Option<ChannelAnswer>, JobError> {
        let request = ApiRequest::get(CHANNEL).ids(&[&id.to_string()]).expect(&[200, 404]);
        let answer = self.job.send(request).await?;
        Ok(if answer.status == 200 { Some(parse_created(&answer, id)?) } else { None })
    }

    /// Reads the channel every second, until reads show it or the time `until` has passed.
    pub(crate) async fn find_until(&self, id: Uuid, until: Instant) -> Result<Option<ChannelAnswer>, JobError> {
        loop {
            let found = self.find(id).await?;
            let now = Instant::now();
            if found.is_some() || now >= until {
                return Ok(found);
            }
            self.job.unless_stopped(sleep_until(until.min(now + BETWEEN_LOOKS))).await?;
        }
    }

    /// Counts the existing channels.
    pub(crate) async fn count(&self) -> Result<Count, JobError> {
        let request = ApiRequest::get(CHANNELS).query("pageSize", 1).query("pageNumber", 1);
        let answer = self.job.send(request.expect(&[200, 404, 405, 501])).await?;
        match answer.status {
            200 => Ok(Count::Channels(answer.json::<Listing>()?.total)),
            missing => Ok(Count::NotListed(missing)),
        }
    }

    /// Creates `channel`. The request is sent only once: if the result is unknown, the caller looks it up.
    pub(crate) async fn order(&self, channel: &Channel) -> Ordered {
        match self.job.send(ApiRequest::post(CHANNELS).json(&channel.body)).await {
            // A success without a channel may still have created one.
            Ok(answer) => {
                parse_created(&answer, channel.id).map_or_else(|error| Ordered::Lost(error.into()), Ordered::Made)
            }
            Err(error) => failed_order(error),
        }
    }
}

/// Parses the channel with this id in an answer.
#[expect(clippy::result_large_err, reason = "once per call")]
fn parse_created(answer: &ApiAnswer, id: Uuid) -> Result<ChannelAnswer, ApiError> {
    Ok(ChannelAnswer { status: answer.status, channel: answer.json_of(&id.to_string())? })
}

fn failed_order(error: ApiError) -> Ordered {
    match (error.class, error.status) {
        (ErrorClass::Permanent, Some(409)) => Ordered::Taken(error.into()),
        (ErrorClass::Ambiguous, _) => Ordered::Lost(error.into()),
        // The answer is too long to be parsed.
        (ErrorClass::Permanent, None) if error.code == "unexpected_response" => Ordered::Lost(error.into()),
        _ => Ordered::Refused(error.into()),
    }
}
