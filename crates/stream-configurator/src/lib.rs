//! The stream-configurator works `stream.configure` jobs, which register an `EventBridge` source definition (SPEC 3.2),
//! and `eventbridge.configure` jobs, which do the same with the platform's public API ([`eventbridge`]).
//!
//! [`StreamConfigurator`] is the handler. The job's payload is in [`payload`], its result for a sample event in
//! [`projection`], the definition to send in [`definition`], registering it despite changes by others in [`register`],
//! versions in [`version`], and the API calls in [`api`].

use crate::{
    api::GenesysEventStreams,
    definition::{Definition, MAX_BYTES},
    projection::Projection,
    register::Order,
};
use genfleet_core::{
    audit::Detail,
    contract::ContractTerms,
    error::JobError,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::ConfigError,
    worker::offload,
};

mod api;
mod contract;
mod definition;
mod digest;
mod eventbridge;
mod field;
mod payload;
mod projection;
mod register;
mod report;
mod time;
mod version;

pub use self::{
    eventbridge::{EventbridgeConfigurator, steps::State as EventbridgeState},
    payload::Payload,
    register::StreamState,
    report::StreamReport,
};

/// Registers `EventBridge` source definitions.
#[derive(Debug)]
pub struct StreamConfigurator {}

impl JobHandler for StreamConfigurator {
    const KIND: Kind = Kind::StreamConfigure;
    const ACTION: &'static str = "eventbridge.source.configured";
    const AUDIT_ACTION: &'static str = "PUT_CONFIGURATION";
    const AUDIT_FAILURE: &'static str = "CONFIGURATION_FAILURE";
    const SCOPES: &'static [&'static str] = &api::SCOPES;
    const CONCURRENCY: usize = 64;

    type Options = ();
    type Payload = Payload;
    type State = StreamState;
    type Report = StreamReport;

    fn new((): (), _services: &Services) -> Result<Self, ConfigError> {
        Ok(Self {})
    }

    fn validate(payload: &Payload, (): &()) -> Vec<Violation> {
        let mut violations = payload.violations();
        violations.extend(too_large(&Definition::of(payload)));
        violations
    }

    fn terms() -> ContractTerms {
        contract::terms()
    }

    async fn handle(&self, job: &JobContext, payload: Payload, state: StreamState) -> Result<Progress<Self>, JobError> {
        let definition = Definition::of(&payload);
        let order = Order {
            definition: &definition,
            etag: payload.etag.as_deref(),
            on_conflict: payload.on_conflict,
            may_have_been_sent: state.unanswered || job.may_have_run_before(),
            stop: &job.stop,
        };
        let registered = register::register(&GenesysEventStreams::new(job), order).await?;
        if registered.unchanged {
            // The version of an earlier request of this job, or a change by somebody else.
            job.record_found(&Detail::default().with("endpoint", api::ENDPOINT).with("status", registered.status));
        }
        let (payload, projection) = offload(job.body_bytes, || {
            let projection = Projection::of(&payload);
            (payload, projection)
        })
        .await;
        Ok(Progress::Done(StreamReport::new(payload, &definition, registered, projection)))
    }
}

fn too_large(definition: &Definition) -> Option<Violation> {
    let bytes = definition.bytes;
    (bytes > MAX_BYTES).then(|| {
        let message =
            format!("the definition has {bytes} bytes as JSON; at most {MAX_BYTES} are taken: send less of it");
        Violation::new("/payload", message)
    })
}
