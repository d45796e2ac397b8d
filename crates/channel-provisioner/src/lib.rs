//! The channel-provisioner works `channel.provision` jobs, each of which creates one web messaging channel (SPEC 3.3),
//! and `webdeployment.provision` jobs, which do the same on the real platform ([`webdeployment`]).
//!
//! [`ChannelProvisioner`] is the handler. The job's payload is in [`payload`] with rules in [`csp`], [`domain`] and
//! [`email`], the channel in [`channel`], the API calls in [`api`], and the limit on licences in [`licence`].

use genfleet_core::{
    audit::Detail,
    contract::ContractTerms,
    error::{ErrorClass, JobError},
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::ConfigError,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    api::{Count, GenesysChannels, Ordered, READ_LAG},
    channel::Channel,
    licence::Licences,
};

mod api;
mod channel;
mod contract;
mod csp;
mod domain;
mod email;
mod host;
mod licence;
mod payload;
mod webdeployment;

pub use self::{
    channel::ChannelReport,
    payload::Payload,
    webdeployment::{
        WebDeploymentOptions, WebDeploymentProvisioner, payload::WebDeploymentPayload, report::WebDeploymentReport,
        state::WebDeploymentState,
    },
};

/// The channel-provisioner's own settings.
#[derive(Clone, Debug, clap::Args)]
pub struct ChannelOptions {
    /// Maximum number of concurrent sessions that a channel may request
    #[arg(long, env = "GENFLEET_MAX_CONCURRENT_SESSIONS", value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_sessions: u32,

    /// Maximum number of channels of the organisation; at this number none is created
    #[arg(long, env = "GENFLEET_LICENSE_LIMIT", value_name = "N", default_value_t = 10)]
    pub license_limit: u32,
}

/// Creates web messaging channels.
#[derive(Debug)]
pub struct ChannelProvisioner {
    max_concurrent_sessions: u32,
    licences: Licences,
}

/// The state of a job that found no free licence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelState {
    /// True after it has waited for the time after which reads show its own channel, if there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waited: bool,
}

impl JobHandler for ChannelProvisioner {
    const KIND: Kind = Kind::ChannelProvision;
    const ACTION: &'static str = "web.messaging.channel.created";
    const AUDIT_ACTION: &'static str = "CHANNEL_PROVISIONED";
    const SCOPES: &'static [&'static str] = api::SCOPES;
    const CONCURRENCY: usize = 8;

    type Options = ChannelOptions;
    type Payload = Payload;
    type State = ChannelState;
    type Report = ChannelReport;

    fn new(options: ChannelOptions, _: &Services) -> Result<Self, ConfigError> {
        let ChannelOptions { max_concurrent_sessions, license_limit } = options;
        Ok(Self { max_concurrent_sessions, licences: Licences::new(license_limit) })
    }

    fn validate(payload: &Payload, options: &ChannelOptions) -> Vec<Violation> {
        let mut violations = payload.violations();
        violations.extend(payload.over(options.max_concurrent_sessions));
        violations
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(
        &self,
        job: &JobContext,
        payload: Payload,
        state: ChannelState,
    ) -> Result<Progress<Self>, JobError> {
        let channel = Channel::of(&job.id, payload, self.max_concurrent_sessions);
        // A job that returns after an error has not waited.
        let forgotten = |error: JobError| error.with_state(&ChannelState::default());
        self.provision(job, channel, &state).await.map_err(forgotten)
    }
}

impl ChannelProvisioner {
    /// Checks the queue and the job's own channel, and then creates the channel if a licence is free.
    async fn provision(
        &self,
        job: &JobContext,
        channel: Channel,
        state: &ChannelState,
    ) -> Result<Progress<Self>, JobError> {
        let api = GenesysChannels::new(job);
        if !api.has_queue(channel.queue_id()).await? {
            let message = format!("there is no routing queue {}", channel.queue_id());
            return Err(JobError { status: Some(404), ..JobError::permanent("queue_not_found", message) });
        }
        if let Some(found) = api.find(channel.id).await? {
            if job.may_have_run_before() {
                record_found(job, &channel);
            }
            return Ok(Progress::Done(channel.report_found(&found)));
        }
        let taken = self.licences.take(job, &channel).await?;
        match taken.ordered {
            Some(ordered) => {
                finish_order(job, add_count_warning(channel, taken.count), ordered).await.map(Progress::Done)
            }
            None if may_be_there(job, state) => {
                Ok(Progress::Begun { state: ChannelState { waited: true }, again_in: READ_LAG })
            }
            None => Err(self.no_licence_left()),
        }
    }

    fn no_licence_left(&self) -> JobError {
        let limit = self.licences.limit;
        let message = format!("all {limit} licences are taken: delete a channel, or raise --license-limit");
        JobError::permanent("license_limit_reached", message)
    }
}

/// Returns true if an earlier attempt of the job may have taken the last licence. Then the job waits in the queue until
/// reads would show its channel.
fn may_be_there(job: &JobContext, state: &ChannelState) -> bool {
    let has_just_waited = state.waited && !job.was_redelivered();
    job.may_have_run_before() && !has_just_waited
}

/// Appends to the audit that the job's channel was found. Only this job uses its id, so an earlier request of this job
/// created it.
fn record_found(job: &JobContext, channel: &Channel) {
    job.record_found(&Detail::default().with("channelId", channel.id.to_string()).with("endpoint", api::CHANNELS));
}

fn add_count_warning(mut channel: Channel, count: Count) -> Channel {
    if let Count::NotListed(status) = count {
        let message = format!("licences were not counted: the platform answers {status} to the list of channels");
        channel.warnings.push(message);
    }
    channel
}

/// Returns the created channel, or finds it if it is unknown whether it was created.
async fn finish_order(job: &JobContext, channel: Channel, ordered: Ordered) -> Result<ChannelReport, JobError> {
    let error = match ordered {
        Ordered::Made(answer) => return Ok(channel.report_created(&answer)),
        Ordered::Refused(error) => return Err(error),
        Ordered::Taken(error) => error,
        Ordered::Lost(error) => JobError { class: ErrorClass::Transient, ..error },
    };
    match GenesysChannels::new(job).find_until(channel.id, Instant::now() + READ_LAG).await? {
        Some(found) => {
            record_found(job, &channel);
            Ok(channel.report_found(&found))
        }
        None => Err(error),
    }
}
