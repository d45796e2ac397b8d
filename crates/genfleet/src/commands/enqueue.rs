//! `genfleet enqueue`: checks a job, puts it on the queue and waits for the confirmation.

use genfleet_core::eprint_line;
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
    job::{Job, Kind, MAX_BODY_BYTES, Rejection, text},
    message::{Lane, Message},
    options::{ConfigError, duration},
    queue::{
        ACCESS_REFUSED, Destination, Publication, Queue, QueueError,
        rabbit::{RabbitInspector, TopologyMode},
        sqlite::{Role, SqliteQueue},
        topology::lane_queue,
    },
    worker::QueueOptions,
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{EXIT_FAILED, block_on, start, validate::describe_violations};
use crate::{
    registry::{CheckOptions, Checker, not_for_producers},
    terminal,
};

/// Time between two checks whether the broker has refused access.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The job and the queue.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The job's kind, e.g. cdn.purge
    kind: Kind,

    /// The payload, as JSON
    #[arg(long, value_name = "JSON", required_unless_present = "file", conflicts_with = "file")]
    payload: Option<String>,

    /// File with the payload; - reads it from stdin
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    /// The job's id [default: a random UUID]
    #[arg(long)]
    id: Option<String>,

    /// The job is not started before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,

    /// The job is not started for the first time after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,

    /// Maximum number of attempts, 1 to 50 [default: 8]
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,

    /// Also send the job's final event to this URL; needs workers with GENFLEET_WEBHOOK_SECRET
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,

    #[command(flatten)]
    check: CheckOptions,

    /// Maximum wait for the queue's confirm
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
    start()?;
    let body = body(options)?;
    if options.kind.is_internal() {
        return Err(not_for_producers(options.kind).into());
    }
    let job = match Checker::new(&options.check)?.check(options.kind, &body, None) {
        Ok(job) => job,
        Err(rejection) if options.json => {
            let Rejection { id, code, message, violations } = *rejection;
            let total = violations.total();
            let details = json!({ "id": id, "code": code, "message": message, "violations": violations, "violationsTotal": total });
            terminal::print_line(details)?;
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        Err(rejection) => {
            for violation in describe_violations(&rejection) {
                eprint_line!("error: {violation}");
            }
            if rejection.violations.is_empty() {
                eprint_line!("error: {}", terminal::line(&rejection.message));
            }
            return Ok(ExitCode::from(EXIT_FAILED));
        }
    };
    block_on(send(options, &job, body))?;
    if let Some(store) = options.queue.sqlite_file()?.filter(|store| SqliteQueue::is_unworked(store)) {
        let store = store.display();
        eprint_line!(
            "warning: no process works the store {store}: the job waits there; start genfleet up --queue-url sqlite:{store}"
        );
    }
    if options.json {
        terminal::print_line(json!({ "id": job.id, "kind": job.kind.as_str() }))?;
    } else {
        terminal::print_line(&job.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the job's body. It contains the payload byte for byte, so that the check finds every mistake in it.
fn body(options: &Options) -> anyhow::Result<Vec<u8>> {
    let text = payload(options)?;
    let payload = text::strip_mark(&text).map_err(|details| anyhow!("the payload cannot be read: {details}"))?;
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

/// Reads everything, or at least enough to be too large for a job.
fn beginning(source: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    source.take(MAX_BODY_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

async fn send(options: &Options, job: &Job, body: Vec<u8>) -> anyhow::Result<()> {
    options.queue.check()?;
    let nothing = || format!("job {}: nothing was sent", job.id);
    let end = Instant::now() + options.timeout;
    let queue = open(options, end).await.with_context(nothing)?;
    let message = Message::new_job(body, job.id.to_string(), SystemClock.now());
    let publishing = queue.publish(vec![Publication { to: Destination::Jobs(job.kind), message }]);
    let sent = tokio::select! {
        sent = timeout_at(end, publishing) => sent,
        refusal = wait_until_refused(&queue) => Ok(Err(refusal)),
    };
    match sent {
        Ok(sent) => {
            queue.close().await;
            sent.with_context(nothing)
        }
        // The queue is not closed here, because closing would wait for the confirm again.
        Err(_) => bail!(
            "job {id}: not confirmed within {:?}{}. It may or may not be on the queue; to send it again with --id {id} is safe",
            options.timeout,
            problems(&queue),
            id = job.id,
        ),
    }
}

/// Opens the queue and waits until it accepts publications. Nothing is sent before that.
async fn open(options: &Options, end: Instant) -> anyhow::Result<Queue> {
    let (mut settings, clock): (_, SharedClock) = (options.queue.clone(), Arc::new(SystemClock));
    if settings.topology == TopologyMode::Declare && has_queue(options, end).await {
        // A user who may only publish may not declare.
        settings.topology = TopologyMode::Skip;
    }
    let queue = settings.open("genfleet enqueue", Role::Tool, &[options.kind], clock)?;
    let connected = async {
        match &queue {
            Queue::Rabbit(rabbit) => rabbit.wait_until_connected().await,
            Queue::Sqlite(_) => {}
        }
    };
    tokio::select! {
        connected = timeout_at(end, connected) => if connected.is_err() {
            bail!(QueueError::Broker(format!("no connection within {:?}{}", options.timeout, problems(&queue))));
        },
        refusal = wait_until_refused(&queue) => bail!(refusal),
    }
    Ok(queue)
}

/// Returns true if the broker has the queue of this kind, so that nothing has to be declared.
async fn has_queue(options: &Options, end: Instant) -> bool {
    let count = async {
        let settings = options.queue.rabbit("genfleet enqueue", &[]).ok()?;
        let name = lane_queue(&settings.prefix, Lane::Jobs, options.kind);
        let inspector = RabbitInspector::connect(settings).await.ok()?;
        let counts = inspector.counts(&[name]).await.ok()?;
        inspector.close().await;
        counts.first().copied().flatten()
    };
    timeout_at(end, count).await.is_ok_and(|count| count.is_some())
}

/// Waits until the broker refuses access to this user.
async fn wait_until_refused(queue: &Queue) -> QueueError {
    loop {
        if let Some(refusal) = queue.health().problems.into_iter().find(|problem| problem.contains(ACCESS_REFUSED)) {
            return QueueError::Broker(refusal);
        }
        sleep(CHECK_INTERVAL).await;
    }
}

/// The queue's problems, to be appended to a message.
fn problems(queue: &Queue) -> String {
    [vec![String::new()], queue.health().problems].concat().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_file_is_read_until_it_is_too_large() {
        assert_eq!(beginning(io::repeat(b' ')).unwrap().len(), MAX_BODY_BYTES + 1);
        assert_eq!(beginning(&b"{}"[..]).unwrap(), b"{}");
    }
}
