//! Loads a batch into the store: every line becomes a job, or, if it is invalid, an event with the reason.

use genfleet_core::eprint_line;
use std::{path::Path, process};

use anyhow::{Context, bail};
use genfleet_core::{
    audit::Audit,
    clock::SharedClock,
    hash,
    job::Kind,
    message::{Lane, Message},
    options::ConfigError,
    queue::{
        Destination, Publication,
        sqlite::{Batch, LoadOutcome, Role, SqliteQueue},
    },
    webhook::Webhooks,
    worker::{ChosenKinds, reject_unknown_job},
};
use jiff::Timestamp;

use super::lines::{self, Line};
use crate::terminal;

/// The lines of the files, and the batch that they make.
#[derive(Debug)]
pub(super) struct Input {
    lines: Vec<Line>,
    batch: Batch,
}

impl Input {
    /// Reads all lines of `files`.
    pub(super) fn read(files: &[String]) -> anyhow::Result<Self> {
        let mut lines: Vec<Line> = Vec::new();
        for file in files {
            lines.extend(lines::read(file).with_context(|| format!("{file} cannot be read"))?);
        }
        let batch = Batch { source: files.join(" "), sha256: content_hash(&lines), total: lines.len() as u64 };
        Ok(Self { lines, batch })
    }

    /// Number of jobs.
    pub(super) fn total(&self) -> u64 {
        self.batch.total
    }

    /// Fails if a job is of a kind that this process does not work, because the batch would never end.
    pub(super) fn check_kinds(&self, kinds: &ChosenKinds) -> Result<(), ConfigError> {
        let refused = self.lines.iter().find_map(|line| Some((line, kinds.why_not_worked(line.kind().ok()?)?)));
        let Some((line, why)) = refused else { return Ok(()) };
        Err(ConfigError::new(format!("{}:{}: {why}; or remove its jobs from the file", line.file, line.number)))
    }

    /// Returns true if there is a job of `kind`.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.lines.iter().any(|line| line.kind().is_ok_and(|found| found == kind))
    }

    /// Fails if the store at `path` exists and does not belong to this batch. Changes nothing in it.
    pub(super) async fn check(&self, path: &Path, clock: &SharedClock) -> anyhow::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let store = SqliteQueue::open(path, Role::Tool, clock.clone())?;
        let outcome = store.could_load(&self.batch).await;
        store.close().await;
        Ok(was_loaded(outcome?, path).map(drop)?)
    }

    /// Loads the batch into `store`, whose file is `path`, in one transaction, unless it is already there.
    pub(super) async fn load(
        &self,
        store: &SqliteQueue,
        path: &Path,
        environment: &str,
        webhooks: &Webhooks,
        audit: &Audit,
        clock: &SharedClock,
    ) -> anyhow::Result<()> {
        let now = clock.now();
        // The outcomes of a batch that was already loaded are in the audit.
        let audit = if store.batch().await?.is_some() { Audit::off() } else { audit.clone() };
        let mut publications = Vec::new();
        for line in &self.lines {
            publications.extend(line_publications(line, environment, webhooks, &audit, now));
        }
        durable(&audit).await?;
        if was_loaded(store.load(self.batch.clone(), publications).await?, path)? {
            eprint_line!("Continuing the batch in the store (process {})", process::id());
        }
        Ok(())
    }
}

/// Returns true if the store already contained the batch. Fails if it does not belong to this batch; the error says why,
/// and what to do.
fn was_loaded(outcome: LoadOutcome, path: &Path) -> Result<bool, ConfigError> {
    let path = path.display();
    Err(ConfigError::new(match outcome {
        LoadOutcome::Loaded => return Ok(false),
        LoadOutcome::Already { .. } => return Ok(true),
        LoadOutcome::Refused { recorded } => format!(
            "the store {path} holds another batch: {} with {}. Finish it with the files that it was started with, or remove the store, or name another one with --store",
            recorded.source,
            terminal::count(recorded.total, "job")
        ),
        LoadOutcome::Foreign => format!(
            "the store {path} is a queue with jobs, dead letters or events that belong to no batch, and the store of a batch is removed at its end: name another one with --store, or put the jobs on this queue with genfleet enqueue"
        ),
    }))
}

/// Computes a hash over file names, line numbers and content. A change of an id or a job changes it.
fn content_hash(lines: &[Line]) -> String {
    let mut all = Vec::new();
    for line in lines {
        all.extend_from_slice(format!("{}:{}:{}:", line.file, line.number, line.content.len()).as_bytes());
        all.extend_from_slice(&line.content);
    }
    hash::sha256(all)
}

/// Waits until the outcomes of invalid lines are durable.
async fn durable(audit: &Audit) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        written = audit.wait_until_all_durable() => Ok(written?),
        why = audit.trouble() => bail!("{why}. Free some disk space, or name another file with --audit-log, and start it again"),
    }
}

fn line_publications(
    line: &Line,
    environment: &str,
    webhooks: &Webhooks,
    audit: &Audit,
    now: Timestamp,
) -> Vec<Publication> {
    let message = Message::new_job(line.content.clone(), line.default_id(), now);
    match line.kind() {
        Ok(kind) => {
            let to = Destination::Lane { kind, lane: Lane::Jobs, after: std::time::Duration::ZERO };
            vec![Publication { to, message }]
        }
        Err(mut rejection) => {
            rejection.message = format!("{}:{}: {}", line.file, line.number, rejection.message);
            reject_unknown_job(audit, webhooks, environment, &message, *rejection, now)
        }
    }
}
