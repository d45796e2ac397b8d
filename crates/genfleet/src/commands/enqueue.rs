//! `genfleet enqueue`: one job onto the queue, checked first, confirmed before it says so.

use genfleet_core::tell;
use std::{
    fs::File,
    io::{self, Read},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use genfleet_core::{
    clock::{Clock, SharedClock, SystemClock},
    http::install_tls,
    job::{Job, Kind, MAX_BODY_BYTES, Rejection, text},
    message::Message,
    options::{ConfigError, duration},
    queue::{
        Destination, Publication, QueueError,
        sqlite::{Role, SqliteQueue},
    },
    telemetry::{self, LogFormat},
    worker::QueueOptions,
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::{EXIT_FAILED, block_on};
use crate::{
    registry::{CheckOptions, Checker},
    terminal,
};

/// Which job, onto which queue.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What it asks for, e.g. cdn.purge
    kind: Kind,

    /// The payload, as JSON
    #[arg(long, value_name = "JSON", required_unless_present = "file", conflicts_with = "file")]
    payload: Option<String>,

    /// File with the payload; - reads it from stdin
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    /// Names the job [default: a random UUID]
    #[arg(long)]
    id: Option<String>,

    /// RFC 3339; the job is not started earlier
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,

    /// RFC 3339; the job is not first started later
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,

    /// 1–50 [default: 8]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,

    /// Also send the job's final event here; needs workers with GENFLEET_WEBHOOK_SECRET
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,

    #[command(flatten)]
    check: CheckOptions,

    /// How long to wait for the queue to confirm
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "DURATION")]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    queue: QueueOptions,
}

/// Examples at the end of `--help`.
pub(crate) const EXAMPLES: &str = "Examples:
  genfleet enqueue cdn.purge --payload '{\"paths\":[\"/images/logo.png\"]}'
  genfleet enqueue vni.provision --file payload.json --id lab-7 --deadline 2026-12-01T00:00:00Z";

/// Checks the job and puts it on the queue.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    telemetry::start_logs(LogFormat::Text, "error")?;
    install_tls();
    let body = body(options)?;
    let job = match Checker::new(&options.check)?.check(options.kind, &body, None) {
        Some(Ok(job)) => job,
        Some(Err(rejection)) if options.json => {
            let Rejection { id, code, message, violations } = *rejection;
            let total = violations.total();
            let details = json!({ "id": id, "code": code, "message": message, "violations": violations, "violationsTotal": total });
            terminal::say(details)?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        Some(Err(rejection)) => {
            for violation in &rejection.violations {
                tell!("error: {}", terminal::line(&violation.describe()));
            }
            let more = rejection.violations.total() - rejection.violations.len();
            if more > 0 {
                tell!("error: and {more} more");
            }
            if rejection.violations.is_empty() {
                tell!("error: {}", terminal::line(&rejection.message));
            }
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        None => bail!("this build cannot check jobs of {}: it has no worker for them", options.kind),
    };
    block_on(send(options, &job, body))?;
    if let Some(store) = options.queue.sqlite_file()?.filter(|store| SqliteQueue::is_unworked(store)) {
        let store = store.display();
        tell!(
            "warning: no process works the store {store}: the job waits there; genfleet up --queue-url sqlite:{store}"
        );
    }
    if options.json {
        terminal::say(json!({ "id": job.id, "kind": job.kind.as_str() }))?;
    } else {
        terminal::say(&job.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The payload goes into it byte for byte: what is wrong with it is then seen by the check.
fn body(options: &Options) -> anyhow::Result<Vec<u8>> {
    let text = payload(options)?;
    let payload = text::unmarked(&text).map_err(|details| anyhow!("the payload cannot be read: {details}"))?;
    serde_json::from_slice::<IgnoredAny>(payload).context("the payload is not JSON")?;
    let id = options.id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let mut job =
        Map::from_iter([("id".to_owned(), Value::from(id)), ("kind".to_owned(), options.kind.as_str().into())]);
    let optional = [
        ("notBefore", options.not_before.clone().map(Value::from)),
        ("deadline", options.deadline.clone().map(Value::from)),
        ("maxAttempts", options.max_attempts.map(Value::from)),
        ("webhook", options.webhook.as_ref().map(|url| json!({ "url": url }))),
    ];
    job.extend(optional.into_iter().filter_map(|(member, value)| Some((member.to_owned(), value?))));
    let mut body = Value::Object(job).to_string().into_bytes();
    body.pop();
    Ok([&body, b",\"payload\":".as_slice(), payload, b"}"].concat())
}

fn payload(options: &Options) -> anyhow::Result<Vec<u8>> {
    match (&options.payload, options.file.as_deref()) {
        (Some(payload), _) => Ok(payload.clone().into_bytes()),
        (None, Some("-")) => beginning(std::io::stdin()).context("stdin cannot be read"),
        (None, Some(file)) => File::open(file).and_then(beginning).with_context(|| format!("{file} cannot be read")),
        (None, None) => bail!(ConfigError::new("give the payload with --payload or --file")),
    }
}

/// All of it, or so much that it is too large for a job.
fn beginning(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

async fn send(options: &Options, job: &Job, body: Vec<u8>) -> anyhow::Result<()> {
    options.queue.check()?;
    let clock: SharedClock = Arc::new(SystemClock);
    let queue = options
        .queue
        .open("genfleet enqueue", Role::Tool, clock)
        .map_err(|error| ConfigError::new(error.to_string()))?;
    let message = Message {
        body: body.into(),
        message_id: Some(job.id.to_string()),
        content_type: Some("application/json".to_owned()),
        ..Message::default()
    }
    .enqueued(SystemClock.now());
    let sent =
        timeout(options.timeout, queue.publish(vec![Publication { to: Destination::Jobs(job.kind), message }])).await;
    let problems = queue.health().problems.join("; ");
    queue.close().await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(QueueError::Configuration(details))) => Err(ConfigError::new(details).into()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!(
            "not confirmed within {:?}: {problems}. It may or may not be on the queue; genfleet doctor looks closer",
            options.timeout
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_read_until_it_is_too_large() {
        assert_eq!(beginning(io::repeat(b' ')).unwrap().len(), MAX_BODY_BYTES + 1);
        assert_eq!(beginning(&b"{}"[..]).unwrap(), b"{}");
    }
}
