//! The workers of this build. A new one is added here: its options, its kind, its scopes, its line in `work`.

use std::sync::Arc;

use clap::Args;
use genfleet_core::{
    handler::JobHandler,
    job::{Job, Kind, Rejection, schema::JobSchema},
    options::ConfigError,
    worker::{runtime::Runtime, validate},
};
use genfleet_purger::Purger;

/// The kinds that this build works.
pub const KINDS: [Kind; 1] = [Purger::KIND];

/// The workers' own settings.
#[derive(Clone, Debug, Args)]
pub struct HandlerOptions {
    #[command(flatten)]
    purger: <Purger as JobHandler>::Options,
}

/// The OAuth scopes that `kinds` need.
pub fn scopes(kinds: &[Kind]) -> Vec<(Kind, &'static [&'static str])> {
    let all: [(Kind, &'static [&'static str]); 1] = [(Purger::KIND, Purger::SCOPES)];
    all.into_iter().filter(|(kind, _)| kinds.contains(kind)).collect()
}

/// Works jobs of `kinds` in this process.
pub fn work(runtime: &Runtime, options: HandlerOptions, kinds: &[Kind]) -> Result<(), ConfigError> {
    if kinds.contains(&Purger::KIND) {
        runtime.work::<Purger>(options.purger)?;
    }
    Ok(())
}

/// Checks jobs as their workers would.
#[derive(Debug, Clone)]
pub struct Checker {
    purger: Arc<JobSchema>,
}

impl Checker {
    /// Compiles the schemas.
    pub fn new() -> Self {
        Self { purger: Arc::new(JobSchema::new::<<Purger as JobHandler>::Payload>(Purger::KIND)) }
    }

    /// The job in `body`; `None` where this build has no worker for `kind`.
    pub fn check(&self, kind: Kind, body: &[u8], message_id: Option<&str>) -> Option<Result<Job, Box<Rejection>>> {
        match kind {
            Kind::CdnPurge => Some(checked::<Purger>(&self.purger, body, message_id)),
            Kind::StreamConfigure
            | Kind::ChannelProvision
            | Kind::VniProvision
            | Kind::FileScan
            | Kind::WebhookDeliver => None,
        }
    }
}

fn checked<H: JobHandler>(schema: &JobSchema, body: &[u8], message_id: Option<&str>) -> Result<Job, Box<Rejection>> {
    validate::job::<H>(schema, body, message_id, None).map(|(job, _)| job)
}
