//! A batch on its way into the store: every line becomes a job, or at once the event that says why it is none.

use std::process;

use anyhow::{Context, bail};
use bytes::Bytes;
use genfleet_core::{
    audit::Audit,
    clock::SharedClock,
    error::JobError,
    event::{Ending, Outcome, error_told},
    hash,
    job::{Rejection, decode},
    options::ConfigError,
    queue::{
        Destination, Lane, Message, Publication,
        sqlite::{Batch, LoadOutcome, SqliteQueue},
    },
    webhook::Webhooks,
    worker::{
        audited::outcome_unrun,
        report::{self, DeadLetter},
    },
};
use jiff::Timestamp;

use super::lines::{self, Line};

/// Loads `files` in one transaction, unless they are loaded already; how many jobs there are. A store with
/// other content is refused.
pub async fn load(
    store: &SqliteQueue,
    files: &[String],
    environment: &str,
    webhooks: &Webhooks,
    audit: &Audit,
    clock: &SharedClock,
) -> anyhow::Result<u64> {
    let mut all: Vec<Line> = Vec::new();
    for file in files {
        all.extend(lines::read(file).with_context(|| format!("{file} cannot be read"))?);
    }
    let total = all.len() as u64;
    let batch = Batch { source: files.join(" "), sha256: content_hash(&all), total };
    let now = clock.now();
    // Of a batch that was begun the outcomes are written down already.
    let audit = if store.batch().await?.is_some() { Audit::off() } else { audit.clone() };
    let mut publications = Vec::new();
    for line in &all {
        publications.extend(line_publications(line, environment, webhooks, &audit, now));
    }
    durable(&audit).await?;
    match store.load(batch, publications).await? {
        LoadOutcome::Loaded => {}
        LoadOutcome::Already { .. } => eprintln!("Going on with the batch that was begun (process {})", process::id()),
        LoadOutcome::Refused { recorded } => {
            let told = format!(
                "the store holds another batch: {} with {} jobs. Finish it with the files it was begun with, or remove the store, or name another one with --store",
                recorded.source, recorded.total
            );
            return Err(ConfigError::new(told).into());
        }
    }
    Ok(total)
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
        body: Bytes::copy_from_slice(&line.content),
        message_id: Some(line.default_id()),
        timestamp: u64::try_from(now.as_second()).ok(),
        content_type: Some("application/json".to_owned()),
        ..Message::default()
    };
    match line.kind() {
        Ok(kind) => {
            let to = Destination::Lane { kind, lane: Lane::Jobs, after: std::time::Duration::ZERO };
            vec![Publication { to, message }]
        }
        Err(rejection) => unreadable(line, &message, *rejection, environment, webhooks, audit, now),
    }
}

/// The end of a line whose worker is not known.
fn unreadable(
    line: &Line,
    message: &Message,
    rejection: Rejection,
    environment: &str,
    webhooks: &Webhooks,
    audit: &Audit,
    now: Timestamp,
) -> Vec<Publication> {
    let Rejection { id, code, message: told, violations } = rejection;
    let error = JobError { violations, ..JobError::permanent(code, format!("{}:{}: {told}", line.file, line.number)) };
    let mut ending = Ending {
        kind: "unknown",
        worker: "genfleet",
        job: id,
        outcome: Outcome::Failed,
        action: None,
        environment: environment.to_owned(),
        attempts: 1,
        generation: 0,
        requests: 0,
        latency_ms: 0,
        queued_ms: Some(0),
        report: None,
        error: Some(error_told(&error, code, None)),
        trace_id: None,
        time: now,
        audit: None,
    };
    ending.audit = outcome_unrun(audit, "job_unreadable", &ending, message);
    let dead = DeadLetter { reason: code, cause: None, error: &error.message };
    let own = decode::readable_webhook(&message.body);
    report::ended(message, &ending, Some(dead), &webhooks.receivers(ending.kind, own.as_deref()), None)
}
