//! `genfleet audit`: reads audit files back. `verify` names what was changed in them, `show` tells one job's facts.

use genfleet_core::tell;
use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Subcommand;
use genfleet_core::{
    audit::{self, AuditRecord, ChainLink, ClaimedLines, LinePlace, VerifyReport},
    job::JobId,
    options::ConfigError,
};
use serde_json::{Value, json};

use super::EXIT_FAILED;
use crate::terminal::{self, Reader, count, line};

/// What is asked.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    question: Question,
}

#[derive(Clone, Debug, Subcommand)]
enum Question {
    /// Name every line that was changed, is missing or is out of order: exit 1 where there is one
    Verify {
        /// All files of the chains, in any order; of a folder, its *.jsonl files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Events as JSON lines (- reads them from stdin), as `genfleet events` and `run` print them: shows what was
        /// cut off at the end, too
        #[arg(long, value_name = "FILE")]
        events: Option<PathBuf>,

        /// An end that the chain had once, as a worker's log tells it every minute: shows a file that was cut off or
        /// written anew as a whole. May be repeated
        #[arg(long, value_name = "SEQ:HASH", value_delimiter = ',')]
        anchor: Vec<ChainLink>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the facts of one job
    Show {
        /// Whose
        #[arg(value_name = "JOBID")]
        job: String,

        /// Files to look into; of a folder, its *.jsonl files [default: the files genfleet-audit-*.jsonl here]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Print JSON, one fact a line
        #[arg(long)]
        json: bool,
    },
}

/// What a chain can prove, and what not.
const LIMITS: &str = "The chain shows what was changed by somebody who could not write the whole file anew; it stops nobody \
                      who can, unless events or anchors (--anchor) that are kept elsewhere are given";

/// Answers.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.question {
        Question::Verify { files, events, anchor, json } => {
            let report = audit::verify(&chained(files)?, wanted(events.as_deref())?, anchor)?;
            print(&report, *json)?;
            Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
        }
        Question::Show { job, files, json } => show(job, files, *json),
    }
}

/// The files of chains among those named, and those in the folders named. What processes leave beside them is skipped.
pub(super) fn chained(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            let found = jsonl_files(path, |_| true)?;
            if found.is_empty() {
                return Err(ConfigError::new(format!("{} holds no *.jsonl file", path.display())).into());
            }
            files.extend(found);
        } else if path.extension().is_some_and(|suffix| suffix == "lock" || suffix == "torn") {
            tell!("{}: not part of a chain, skipped", path.display());
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// The *.jsonl files in a folder whose names are `wanted`, by name.
fn jsonl_files(folder: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    let is_wanted = |name: &str| Path::new(name).extension().is_some_and(|end| end == "jsonl") && wanted(name);
    let mut files: Vec<PathBuf> =
        names.iter().filter(|name| name.to_str().is_some_and(is_wanted)).map(|name| folder.join(name)).collect();
    files.sort_unstable();
    Ok(files)
}

fn wanted(events: Option<&Path>) -> anyhow::Result<ClaimedLines> {
    let Some(path) = events else { return Ok(ClaimedLines::default()) };
    let read = if path == Path::new("-") {
        ClaimedLines::read(io::stdin().lock(), path)
    } else {
        File::open(path).and_then(|file| ClaimedLines::read(BufReader::new(file), path))
    };
    read.with_context(|| format!("--events {} cannot be read", path.display()))
}

fn print(report: &VerifyReport, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return terminal::say(json!(report)).map(drop);
    }
    for found in &report.problems {
        let message = format_args!("{}:{}: {}", found.place.file.display(), found.place.line, found.problem);
        if terminal::say(message)? == Reader::Gone {
            break;
        }
    }
    let VerifyReport { files, lines, chains, events, anchors, problems } = report;
    let counted = [(*events, "event"), (*anchors, "anchor")].into_iter().filter(|(number, _)| *number > 0);
    let against =
        counted.map(|(number, what)| format!(", against {}", count(number, what))).collect::<Vec<_>>().concat();
    let (lines, chains, files) = (count(lines, "line"), count(chains, "chain"), count(files, "file"));
    tell!("{lines} of {chains} in {files}{against}: {}", count(problems.len(), "problem"));
    tell!("{LIMITS}");
    Ok(())
}

/// One fact of a job, and where it was found.
struct AuditFact {
    place: LinePlace,
    record: AuditRecord,
}

fn show(job: &str, files: &[PathBuf], as_json: bool) -> anyhow::Result<ExitCode> {
    if JobId::parse(job).is_none() {
        return Err(ConfigError::new(format!("{job:?} is no job id: 1 to 128 of A-Z a-z 0-9 . _ : -")).into());
    }
    let files = if files.is_empty() { files_here()? } else { chained(files)? };
    if files.is_empty() {
        return Err(ConfigError::new("there is no genfleet-audit-*.jsonl here: name the files").into());
    }
    let facts = facts(job, &files)?;
    if facts.is_empty() {
        tell!("no fact of job {job} in {}", count(files.len(), "file"));
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    for fact in &facts {
        terminal::say(if as_json { fact.json().to_string() } else { fact.sentence() })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that workers leave where they were started.
pub(super) fn files_here() -> anyhow::Result<Vec<PathBuf>> {
    jsonl_files(Path::new("."), |name| name.starts_with("genfleet-audit-"))
}

/// In the order in which they happened; of one moment, in that of their files.
fn facts(job: &str, files: &[PathBuf]) -> anyhow::Result<Vec<AuditFact>> {
    let mut facts = Vec::new();
    for path in files {
        for found in audit::lines(path)? {
            match found? {
                (place, Ok(record)) if record.text("jobId") == job => facts.push(AuditFact { place, record }),
                (_, Ok(_)) => {}
                (place, Err(flaw)) => {
                    tell!("{}:{}: passed over: {}", place.file.display(), place.line, flaw.why);
                }
            }
        }
    }
    let key = |found: &AuditFact| (found.record.text("time").to_owned(), found.place.file.clone(), found.record.seq);
    facts.sort_by_key(key);
    Ok(facts)
}

impl AuditFact {
    fn json(&self) -> Value {
        json!({ "file": self.place.file, "line": self.place.line, "hash": self.record.hash, "fact": self.record.members })
    }

    fn sentence(&self) -> String {
        let (record, place) = (&self.record, &self.place);
        let detail = record.members.get("detail").and_then(Value::as_object);
        let message = detail.into_iter().flatten().map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={}", line(text)),
            None => format!("{name}={value}"),
        });
        let message: Vec<String> = message.collect();
        let word = |member| line(record.text(member));
        let (time, fact, action) = (word("time"), word("fact"), word("action"));
        format!(
            "{time}  {fact:<7}  {action}  {}\n    seq {} of {}, {}:{}",
            message.join(" "),
            record.seq,
            word("process"),
            place.file.display(),
            place.line
        )
    }
}
