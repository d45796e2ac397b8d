//! `genfleet validate`: checks jobs as a worker would, without running them.

use std::process::ExitCode;

use anyhow::Context;
use genfleet_core::{eprint_line, job::Rejection};
use serde_json::json;

use super::{
    EXIT_FAILED,
    run::lines::{self, Line},
};
use crate::{
    registry::{CheckOptions, Checker},
    terminal,
};

/// The jobs to check.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// JSON lines, each a job; - reads them from stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    check: CheckOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet validate jobs.jsonl
  genfleet validate --json - < jobs.jsonl | jq .violations";

/// Prints every violation; exit code 1 if there is one.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let checker = Checker::new(&options.check)?;
    let (mut good, mut bad, mut with_webhook) = (0_usize, 0_usize, 0_usize);
    for file in &options.files {
        let check = |line: &Line| match line.check(&checker) {
            Ok(job) => {
                good += 1;
                with_webhook += usize::from(job.webhook.is_some());
                Ok(())
            }
            Err(rejection) => {
                bad += 1;
                print(line, &rejection, options.json)
            }
        };
        lines::each(file, check).with_context(|| format!("{file} cannot be read"))?;
    }
    eprint_line!("{good} valid, {bad} not");
    if with_webhook > 0 {
        eprint_line!(
            "{with_webhook} with a webhook of their own: only workers with GENFLEET_WEBHOOK_SECRET take those"
        );
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn print(line: &Line, rejection: &Rejection, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let details = json!({
            "file": &*line.file, "line": line.number, "id": rejection.id, "code": rejection.code,
            "message": rejection.message, "violations": rejection.violations,
            "violationsTotal": rejection.violations.total(),
        });
        terminal::print_line(details)?;
        return Ok(());
    }
    let mut violations = describe_violations(rejection);
    if violations.is_empty() {
        violations.push(format!("{}: {}", rejection.code, terminal::line(&rejection.message)));
    }
    for violation in violations {
        terminal::print_line(format_args!("{}:{}: {violation}", line.file, line.number))?;
    }
    Ok(())
}

/// Describes each violation in a line, and says how many more there are.
pub(super) fn describe_violations(rejection: &Rejection) -> Vec<String> {
    let kept = rejection.violations.iter().map(|violation| terminal::line(&violation.describe()));
    let more = rejection.violations.total() - rejection.violations.len();
    kept.chain((more > 0).then(|| format!("and {more} more"))).collect()
}
