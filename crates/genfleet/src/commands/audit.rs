//! `genfleet audit`: reads audit files. `verify` finds changes to them, `show` prints the facts of one job.

use genfleet_core::eprint_line;
use std::{
    env,
    ffi::OsStr,
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

/// The subcommand.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Print every line that was changed, is missing or is out of order; exit with 1 if there is one
    Verify {
        /// All files of the chains, in any order; of a folder, its *.jsonl files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Events as JSON lines (- reads them from stdin), as `genfleet events` and `run` print them: also shows lines
        /// that were removed at the end
        #[arg(long, value_name = "FILE")]
        events: Option<PathBuf>,

        /// An earlier end of the chain, as a worker logs it every minute: shows a file that was shortened or completely
        /// rewritten. May be repeated
        #[arg(long, value_name = "SEQ:HASH", value_delimiter = ',')]
        anchor: Vec<ChainLink>,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the facts of one job
    Show {
        /// The job's id
        #[arg(value_name = "JOBID")]
        job: String,

        /// Files to search; of a folder, its *.jsonl files [default: the files genfleet-audit-*.jsonl here]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Print JSON, one fact a line
        #[arg(long)]
        json: bool,
    },
}

/// The limits of what a chain can prove.
const LIMITS: &str = "The chain alone does not show that somebody has rewritten a whole file: to detect that as well, give \
                      events (--events) or anchors (--anchor) that are kept elsewhere";

/// Runs the subcommand.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    match &options.command {
        Command::Verify { files, events, anchor, json } => {
            let report = audit::verify(&chain_files(files)?, read_claimed(events.as_deref())?, anchor)?;
            print(&report, *json)?;
            Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
        }
        Command::Show { job, files, json } => show(job, files, *json),
    }
}

/// Returns the given audit files, and those in the given folders. Skips the other files that processes create next to
/// them.
pub(super) fn chain_files(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if path.is_dir() {
            let found = jsonl_files(path, |_| true)?;
            if found.is_empty() {
                return Err(
                    ConfigError::new(format!("{} contains no *.jsonl file: name the files", path.display())).into()
                );
            }
            files.extend(found);
        } else if path.extension().is_some_and(|suffix| suffix == "lock" || suffix == "torn") {
            eprint_line!("{}: not part of a chain, skipped", path.display());
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Returns the *.jsonl files in a folder whose names are `wanted`, sorted by name.
fn jsonl_files(folder: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    let is_wanted = |name: &str| Path::new(name).extension().is_some_and(|end| end == "jsonl") && wanted(name);
    let mut files: Vec<PathBuf> =
        names.iter().filter(|name| name.to_str().is_some_and(is_wanted)).map(|name| folder.join(name)).collect();
    files.sort_unstable();
    Ok(files)
}

fn read_claimed(events: Option<&Path>) -> anyhow::Result<ClaimedLines> {
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
        return terminal::print_line(json!(report)).map(drop);
    }
    for problem in &report.problems {
        let message = format_args!("{}:{}: {}", problem.place.file.display(), problem.place.line, problem.problem);
        if terminal::print_line(message)? == Reader::Gone {
            break;
        }
    }
    let VerifyReport { files, lines, chains, events, anchors, problems } = report;
    let counted = [(*events, "event"), (*anchors, "anchor")].into_iter().filter(|(number, _)| *number > 0);
    let against =
        counted.map(|(number, what)| format!(", against {}", count(number, what))).collect::<Vec<_>>().concat();
    let (lines, chains, files) = (count(lines, "line"), count(chains, "chain"), count(files, "file"));
    eprint_line!("{lines} of {chains} in {files}{against}: {}", count(problems.len(), "problem"));
    eprint_line!("{LIMITS}");
    Ok(())
}

/// A fact of a job, and its place.
struct AuditFact {
    place: LinePlace,
    record: AuditRecord,
}

fn show(job: &str, files: &[PathBuf], as_json: bool) -> anyhow::Result<ExitCode> {
    if JobId::parse(job).is_none() {
        return Err(ConfigError::new(format!("{job:?} is not a job id: 1 to 128 of A-Z a-z 0-9 . _ : -")).into());
    }
    let files = if files.is_empty() { files_here()? } else { chain_files(files)? };
    if files.is_empty() {
        return Err(ConfigError::new(
            "there is no genfleet-audit-*.jsonl here, and no file of GENFLEET_AUDIT_LOG: name the files",
        )
        .into());
    }
    let facts = facts(job, &files)?;
    if facts.is_empty() {
        eprint_line!("no fact of job {job} in {}", count(files.len(), "file"));
        return Ok(ExitCode::from(EXIT_FAILED));
    }
    for fact in &facts {
        terminal::print_line(if as_json { fact.json().to_string() } else { fact.sentence() })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the audit files that workers have created in this folder, and those that `GENFLEET_AUDIT_LOG` names here.
pub(super) fn files_here() -> anyhow::Result<Vec<PathBuf>> {
    let mut files = jsonl_files(Path::new("."), |name| name.starts_with("genfleet-audit-"))?;
    let known: Vec<_> = files.iter().map(fs::canonicalize).filter_map(Result::ok).collect();
    let named = files_of(&env::var("GENFLEET_AUDIT_LOG").unwrap_or_default())?;
    files.extend(named.into_iter().filter(|file| fs::canonicalize(file).is_ok_and(|file| !known.contains(&file))));
    Ok(files)
}

/// Returns the files of all processes with the setting `audit_log`, and the files that they were rotated to.
fn files_of(audit_log: &str) -> anyhow::Result<Vec<PathBuf>> {
    let path = Path::new(audit_log);
    let folder = path.parent().map(|folder| if folder == "" { Path::new(".") } else { folder });
    let Some((folder, name)) =
        folder.zip(path.file_stem().and_then(OsStr::to_str)).filter(|(folder, _)| folder.is_dir())
    else {
        return Ok(Vec::new());
    };
    let beginning = name.split("{process}").next().unwrap_or_default();
    jsonl_files(folder, |name| name.starts_with(beginning))
}

/// Reads the facts of a job, sorted by time, and by file if the time is the same.
fn facts(job: &str, files: &[PathBuf]) -> anyhow::Result<Vec<AuditFact>> {
    let mut facts = Vec::new();
    for path in files {
        for found in audit::lines(path)? {
            match found? {
                (place, Ok(record)) if record.text("jobId") == job => facts.push(AuditFact { place, record }),
                (_, Ok(_)) => {}
                (place, Err(flaw)) => {
                    eprint_line!("{}:{}: skipped: {}", place.file.display(), place.line, flaw.why);
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
        let detail = detail.into_iter().flatten().map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name}={}", line(text)),
            None => format!("{name}={value}"),
        });
        let detail: Vec<String> = detail.collect();
        let word = |member| line(record.text(member));
        let (time, fact, action) = (word("time"), word("fact"), word("action"));
        format!(
            "{time}  {fact:<7}  {action}  {}\n    seq {} of {}, {}:{}",
            detail.join(" "),
            record.seq,
            word("process"),
            place.file.display(),
            place.line
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_all_processes_with_a_setting_are_found() {
        let folder = env::temp_dir().join(format!("genfleet-audit-files-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        for name in ["audit-a.jsonl", "audit-b.jsonl", "audit-b.jsonl.lock", "events.jsonl"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let found = files_of(folder.join("audit-{process}.jsonl").to_str().unwrap()).unwrap();
        assert_eq!(found, ["audit-a.jsonl", "audit-b.jsonl"].map(|name| folder.join(name)));
        assert_eq!(files_of(folder.join("audit-b.jsonl").to_str().unwrap()).unwrap(), found[1..]);
        for none in ["", "-", "off", "/no/such/folder/audit-{process}.jsonl"] {
            assert!(files_of(none).unwrap().is_empty(), "{none}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
