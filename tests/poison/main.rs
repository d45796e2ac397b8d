//! A purger that dies of some jobs: for the tests of the suspect lane. Purging `/poison` aborts the process,
//! purging `/panic` panics.

use std::process::ExitCode;

use genfleet_core::{
    error::JobError,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::ConfigError,
    worker,
};
use genfleet_purger::Purger;

/// See the module.
struct Poisoned {
    purger: Purger,
}

impl JobHandler for Poisoned {
    const KIND: Kind = Purger::KIND;
    const ACTION: &'static str = Purger::ACTION;
    const AUDIT_ACTION: &'static str = Purger::AUDIT_ACTION;
    const SCOPES: &'static [&'static str] = Purger::SCOPES;
    const CONCURRENCY: usize = Purger::CONCURRENCY;
    type Options = <Purger as JobHandler>::Options;
    type Payload = <Purger as JobHandler>::Payload;
    type State = <Purger as JobHandler>::State;
    type Report = <Purger as JobHandler>::Report;

    fn new(options: Self::Options, services: &Services) -> Result<Self, ConfigError> {
        Ok(Self { purger: Purger::new(options, services)? })
    }

    fn validate(payload: &Self::Payload, options: &Self::Options) -> Vec<Violation> {
        Purger::validate(payload, options)
    }

    async fn handle(
        &self,
        job: &JobContext,
        payload: Self::Payload,
        state: Self::State,
    ) -> Result<Progress<Self>, JobError> {
        let asks_for = |path: &str| payload.paths.iter().any(|one| one == path);
        if asks_for("/poison") {
            std::process::abort();
        }
        assert!(!asks_for("/panic"), "on purpose");
        match self.purger.handle(job, payload, state).await? {
            Progress::Done(report) => Ok(Progress::Done(report)),
            Progress::Begun { state, again_in } => Ok(Progress::Begun { state, again_in }),
        }
    }
}

fn main() -> ExitCode {
    worker::main::<Poisoned>()
}
