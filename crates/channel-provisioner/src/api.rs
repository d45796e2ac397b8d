//! The remote calls of this worker, and what their answers mean to it. Another provider of chat channels stands in
//! here. When which call is due is not decided here.

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
/// Reads lag writes by at most this.
pub(crate) const READ_LAG: Duration = Duration::from_secs(15);

const QUEUE: &str = "/api/v2/routing/queues/{queueId}";
/// Where channels are made and listed.
pub(crate) const CHANNELS: &str = "/api/v2/purecloudv2/webchat";
const CHANNEL: &str = "/api/v2/purecloudv2/webchat/{channelId}";
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// How many channels there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// So many.
    Channels(u64),
    /// This platform has no list: the status it answered.
    NotListed(u16),
}

/// What became of an order for a channel.
#[derive(Clone, Debug)]
pub(crate) enum Ordered {
    /// It was made.
    Made(ChannelAnswer),
    /// The id is taken.
    Taken(JobError),
    /// Nobody knows: the answer was lost.
    Lost(JobError),
    /// It was not made.
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
    /// Calls on behalf of `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }

    /// Returns true if this routing queue exists.
    pub(crate) async fn has_queue(&self, id: &str) -> Result<bool, JobError> {
        let request = ApiRequest::get(QUEUE).at(format!("/api/v2/routing/queues/{id}")).about("id", id);
        let request = request.expect(&[200, 404]);
        let answer = self.job.send(request).await?;
        if answer.status == 200 {
            answer.json::<Map<String, Value>>()?;
        }
        Ok(answer.status == 200)
    }

    /// The channel with this id, if it can be seen.
    pub(crate) async fn find(&self, id: Uuid) -> Result<Option<ChannelAnswer>, JobError> {
        let request = ApiRequest::get(CHANNEL).at(format!("{CHANNELS}/{id}")).expect(&[200, 404]);
        let answer = self.job.send(request).await?;
        Ok(if answer.status == 200 { Some(made(&answer, id)?) } else { None })
    }

    /// The same, looking every second until it can be seen or `until` is over.
    pub(crate) async fn find_until(&self, id: Uuid, until: Instant) -> Result<Option<ChannelAnswer>, JobError> {
        loop {
            let found = self.find(id).await?;
            let now = Instant::now();
            if found.is_some() || now >= until {
                return Ok(found);
            }
            tokio::select! {
                biased;
                () = self.job.stop().cancelled() => return Err(JobError::interrupted()),
                () = sleep_until(until.min(now + BETWEEN_LOOKS)) => {}
            }
        }
    }

    /// How many channels there are.
    pub(crate) async fn count(&self) -> Result<Count, JobError> {
        let request = ApiRequest::get(CHANNELS).query("pageSize", 1).query("pageNumber", 1);
        let answer = self.job.send(request.expect(&[200, 404, 405, 501])).await?;
        match answer.status {
            200 => Ok(Count::Channels(answer.json::<Listing>()?.total)),
            missing => Ok(Count::NotListed(missing)),
        }
    }

    /// Orders `channel`. Sent once: who does not know what became of it looks.
    pub(crate) async fn order(&self, channel: &Channel) -> Ordered {
        match self.job.send(ApiRequest::post(CHANNELS).json(&channel.body)).await {
            // A success that is no channel may have made one all the same.
            Ok(answer) => made(&answer, channel.id).map_or_else(|error| Ordered::Lost(error.into()), Ordered::Made),
            Err(error) => unmade(error),
        }
    }
}

/// The channel with this id, as an answer tells it.
#[expect(clippy::result_large_err, reason = "once per call")]
fn made(answer: &ApiAnswer, id: Uuid) -> Result<ChannelAnswer, ApiError> {
    Ok(ChannelAnswer { status: answer.status, channel: answer.json_of(&id.to_string())? })
}

fn unmade(error: ApiError) -> Ordered {
    match (error.class, error.status) {
        (ErrorClass::Permanent, Some(409)) => Ordered::Taken(error.into()),
        (ErrorClass::Ambiguous, _) => Ordered::Lost(error.into()),
        // Too long to be read.
        (ErrorClass::Permanent, None) if error.code == "unexpected_response" => Ordered::Lost(error.into()),
        _ => Ordered::Refused(error.into()),
    }
}
