//! A batch on its way into the store: every line becomes a job, or at once the event that says why it is none.

use genfleet_core::tell;
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

/// What is to be run: every line of the files, and which batch they make.
#[derive(Debug)]
pub(super) struct Input {
    lines: Vec<Line>,
    batch: Batch,
}

impl Input {
    /// Reads `files` whole.
    pub(super) fn read(files: &[String]) -> anyhow::Result<Self> {
        let mut lines: Vec<Line> = Vec::new();
        for file in files {
            lines.extend(lines::read(file).with_context(|| format!("{file} cannot be read"))?);
        }
        let batch = Batch { source: files.join(" "), sha256: content_hash(&lines), total: lines.len() as u64 };
        Ok(Self { lines, batch })
    }

    /// How many jobs there are.
    pub(super) fn total(&self) -> u64 {
        self.batch.total
    }

    /// Refuses a job that nobody here would work: the batch would never end.
    pub(super) fn check_kinds(&self, kinds: &ChosenKinds) -> Result<(), ConfigError> {
        let refused = self.lines.iter().find_map(|line| Some((line, kinds.unworked(line.kind().ok()?)?)));
        let Some((line, why)) = refused else { return Ok(()) };
        Err(ConfigError::new(format!("{}:{}: {why}; or take its jobs out of the file", line.file, line.number)))
    }

    /// Whether there is a job of `kind`.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.lines.iter().any(|line| line.kind().is_ok_and(|found| found == kind))
    }

    /// Refuses the store at `path` where it is there and not this batch's, before anything in it is changed.
    pub(super) async fn check(&self, path: &Path, clock: &SharedClock) -> anyhow::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let store = SqliteQueue::open(path, Role::Tool, clock.clone())?;
        let outcome = store.could_load(&self.batch).await;
        store.close().await;
        Ok(accepted(outcome?, path).map(drop)?)
    }

    /// Loads it into `store`, which is at `path`, in one transaction, unless it is there already.
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
        // Of a batch that was begun the outcomes are written down already.
        let audit = if store.batch().await?.is_some() { Audit::off() } else { audit.clone() };
        let mut publications = Vec::new();
        for line in &self.lines {
            publications.extend(line_publications(line, environment, webhooks, &audit, now));
        }
        durable(&audit).await?;
        if let Standing::Begun = accepted(store.load(self.batch.clone(), publications).await?, path)? {
            tell!("Going on with the batch that was begun (process {})", process::id());
        }
        Ok(())
    }
}

/// How far a batch is that may be run.
enum Standing {
    New,
    Begun,
}

/// Why a store is not this batch's, and what to do.
fn accepted(outcome: LoadOutcome, path: &Path) -> Result<Standing, ConfigError> {
    let path = path.display();
    Err(ConfigError::new(match outcome {
        LoadOutcome::Loaded => return Ok(Standing::New),
        LoadOutcome::Already { .. } => return Ok(Standing::Begun),
        LoadOutcome::Refused { recorded } => format!(
            "the store {path} holds another batch: {} with {} jobs. Finish it with the files it was begun with, or remove the store, or name another one with --store",
            recorded.source, recorded.total
        ),
        LoadOutcome::Foreign => format!(
            "the store {path} is a queue with jobs, dead letters or events that are of no batch, and a batch's store is removed at its end: name another one with --store, or put the jobs on this queue with genfleet enqueue"
        ),
    }))
}

/// Over file names, line numbers and content: whatever changes an id or a job changes it.
fn content_hash(lines: &[Line]) -> String {
    let mut all = Vec::new();
    for line in lines {
        all.extend_from_slice(format!("{}:{}:{}:", line.file, line.number, line.content.len()).as_bytes());
        all.extend_from_slice(&line.content);
    }
    hash::sha256(all)
}

/// Waits until the outcomes of lines that are no jobs are durable.
async fn durable(audit: &Audit) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        written = audit.all_durable() => Ok(written?),
        why = audit.trouble() => bail!("{why}. Make room, or name another file with --audit-log, and start it again"),
    }
}

fn line_publications(
    line: &Line,
    environment: &str,
    webhooks: &Webhooks,
    audit: &Audit,
    now: Timestamp,
) -> Vec<Publication> {
    let message = Message {
        body: line.content.clone(),
        message_id: Some(line.default_id()),
        content_type: Some("application/json".to_owned()),
        ..Message::default()
    }
    .enqueued(now);
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
