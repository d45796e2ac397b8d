//! A worker of two kinds, of which the second needs a setting that has no default. Its jobs call nothing.

use std::process::ExitCode;

use genfleet_core::{
    error::JobError,
    handler::{JobContext, JobHandler, Progress, Services},
    job::{Kind, Violation},
    options::ConfigError,
    worker,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Works `cdn.purge`.
struct First;

/// Works `file.scan`, with an engine only.
struct Second {
    engine: String,
}

#[derive(Clone, Debug, clap::Args)]
struct SecondOptions {
    /// The engine, without which the second kind is not worked
    #[arg(long, env = "GENFLEET_ENGINE")]
    engine: Option<String>,
}

/// What the tool takes for a job of the first kind.
#[derive(Deserialize, JsonSchema)]
struct Paths {
    paths: Vec<String>,
}

/// What the tool takes for a job of the second kind.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct File {
    file_id: String,
}

#[derive(Serialize, JsonSchema)]
struct Report {
    by: String,
}

impl JobHandler for First {
    const KIND: Kind = Kind::CdnPurge;
    const ACTION: &'static str = "first_done";
    const SCOPES: &'static [&'static str] = &["first"];
    const CONCURRENCY: usize = 2;
    type Options = ();
    type Payload = Paths;
    type State = ();
    type Report = Report;

    fn new((): (), _: &Services) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn validate(_: &Paths, (): &()) -> Vec<Violation> {
        Vec::new()
    }

    async fn handle(&self, _: &JobContext, payload: Paths, (): ()) -> Result<Progress<Self>, JobError> {
        Ok(Progress::Done(Report { by: format!("first of {}", payload.paths.concat()) }))
    }
}

impl JobHandler for Second {
    const KIND: Kind = Kind::FileScan;
    const ACTION: &'static str = "second_done";
    const SCOPES: &'static [&'static str] = &["second"];
    const CONCURRENCY: usize = 3;
    type Options = SecondOptions;
    type Payload = File;
    type State = ();
    type Report = Report;

    fn why_not_worked(options: &SecondOptions) -> Option<String> {
        options.engine.is_none().then(|| "name an engine with --engine (GENFLEET_ENGINE)".to_owned())
    }

    fn new(options: SecondOptions, _: &Services) -> Result<Self, ConfigError> {
        Ok(Self { engine: options.engine.unwrap_or_default() })
    }

    fn validate(payload: &File, _: &SecondOptions) -> Vec<Violation> {
        let wrong = payload.file_id.starts_with('f').then(|| Violation::new("/payload/fileId", "begins with no f"));
        wrong.into_iter().collect()
    }

    async fn handle(&self, _: &JobContext, payload: File, (): ()) -> Result<Progress<Self>, JobError> {
        Ok(Progress::Done(Report { by: format!("{} of {}", self.engine, payload.file_id) }))
    }
}

fn main() -> ExitCode {
    worker::main::<(First, Second)>()
}
