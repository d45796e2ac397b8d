//! `genfleet doctor`: whether a worker with these settings could work here, and what to do if it could not. The checks
//! are the crate `genfleet-doctor`'s.

use std::{fmt::Write, process::ExitCode};

use genfleet_core::{
    eprint_line,
    job::Kind,
    telemetry::{self, LogFormat, http::install_tls},
};
use genfleet_doctor::{DoctorOptions, Finding, Level, examine};
use serde_json::{Value, json};

use super::{EXIT_FAILED, block_on};
use crate::{
    registry::{self, HandlerOptions},
    simulated::SimulateOptions,
    terminal::{self, Paint, count, line},
};

/// The settings to check: those of a worker, with the same flags and variables.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Kinds of the worker that is checked, as --kinds [default: all]
    #[arg(id = "kind", value_name = "KIND")]
    named: Vec<Kind>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    checked: DoctorOptions,
    #[command(flatten)]
    handlers: HandlerOptions,
    #[command(flatten)]
    simulate: SimulateOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet doctor                    in a worker's environment: everything
  genfleet doctor cdn.purge          as the purger would be started
  genfleet doctor --json | jq '.findings[] | select(.level != \"ok\")'";

/// Checks everything and prints it; exit 1 if a check failed.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // The findings say it all, and better.
    telemetry::start_logs(LogFormat::Text, "off")?;
    install_tls();
    let named = if options.named.is_empty() { &options.checked.worker.kinds } else { &options.named };
    let is_simulated = options.simulate.is_wanted();
    let handlers = options.handlers.clone().for_simulator(is_simulated);
    let kinds = registry::choose(named, &handlers)?;
    let needs = registry::needs(&kinds.worked, &handlers);
    let (mut findings, services) = block_on(async {
        let findings = examine(&options.checked, &needs, is_simulated).await;
        let services = if is_simulated { Vec::new() } else { registry::examine(&kinds.worked, &handlers).await };
        Ok((findings, services))
    })?;
    findings.extend(services.into_iter().map(Finding::from));
    findings.extend(kinds.left_out.into_iter().map(|(kind, reason)| Finding {
        check: "kinds",
        level: Level::Skipped,
        looked_at: kind.to_string(),
        found: "not worked with these settings".to_owned(),
        remedy: Some(reason),
    }));
    let report = DoctorReport { findings };
    report.print(options.json)?;
    Ok(if report.is_well() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn text(finding: &Finding, paint: Paint) -> String {
    let level = match finding.level {
        Level::Ok => paint.green("ok     "),
        Level::Skipped => paint.dim("skipped"),
        Level::Warning => paint.yellow("warning"),
        Level::Failed => paint.red("failed "),
    };
    let mut text = format!("{level}  {:<23}  {}: {}\n", finding.check, line(&finding.looked_at), line(&finding.found));
    if let Some(remedy) = &finding.remedy {
        let _ = writeln!(text, "         {} {}", paint.bold("do:"), line(remedy));
    }
    text
}

/// All findings of one run.
#[derive(Clone, Debug)]
struct DoctorReport {
    findings: Vec<Finding>,
}

impl DoctorReport {
    /// Returns true if nothing failed.
    fn is_well(&self) -> bool {
        self.count(Level::Failed) == 0
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    fn json(&self) -> Value {
        json!({
            "ok": self.is_well(), "failed": self.count(Level::Failed), "warnings": self.count(Level::Warning),
            "skipped": self.count(Level::Skipped), "findings": self.findings,
        })
    }

    /// On stdout; the sum for people on stderr.
    fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            return terminal::print_line(self.json()).map(drop);
        }
        let paint = Paint::stdout();
        terminal::print_escaped(self.findings.iter().map(|finding| text(finding, paint)).collect::<String>())?;
        let [ok, warnings, failed, skipped] =
            [Level::Ok, Level::Warning, Level::Failed, Level::Skipped].map(|level| self.count(level));
        eprint_line!("{ok} ok, {}, {failed} failed, {skipped} skipped", count(warnings, "warning"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level) -> Finding {
        let remedy = (level != Level::Ok).then(|| "z".to_owned());
        Finding { check: "a", level, looked_at: "x".to_owned(), found: "y".to_owned(), remedy }
    }

    #[test]
    fn only_what_failed_makes_it_fail() {
        let well = [Level::Ok, Level::Warning, Level::Skipped].map(finding).to_vec();
        assert!(DoctorReport { findings: well.clone() }.is_well());
        let failed = DoctorReport { findings: [well, vec![finding(Level::Failed)]].concat() };
        assert!(!failed.is_well());
        let printed = failed.json();
        assert_eq!((&printed["ok"], &printed["failed"], &printed["warnings"]), (&json!(false), &json!(1), &json!(1)));
        assert_eq!(printed["findings"][0], json!({"check": "a", "level": "ok", "lookedAt": "x", "found": "y"}));
        assert_eq!(printed["findings"][3]["do"], "z");
    }
}
