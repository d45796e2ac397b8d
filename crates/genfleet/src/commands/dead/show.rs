//! `genfleet dead show`: prints dead letters in full. Removes nothing.

use genfleet_core::eprint_line;
use std::process::ExitCode;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use genfleet_core::{
    clock::{Clock, SystemClock},
    job::Kind,
    message::Message,
    queue::{QueueInspector, dead_letters::DeadLetter},
    worker::QueueOptions,
};
use serde_json::{Map, Value, json};

use super::{
    filter::{Filter, FingerprintPrefix, has_id},
    queues::existing,
    urls::redact,
};
use crate::{
    commands::{EXIT_FAILED, block_on},
    terminal::{self, Paint, Reader, line, lines},
};

/// Maximum number of bytes that are shown of a payload without `--full`.
const SHOWN: usize = 4096;

/// Options of `show`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// A job's id, or a fingerprint (or how it begins) from dead list
    #[arg(value_name = "JOBID|FINGERPRINT")]
    which: Option<String>,

    /// Maximum number of dead letters, the oldest first
    #[arg(long, default_value = "10", value_name = "N")]
    limit: u64,

    /// Show complete payloads, however long
    #[arg(long)]
    full: bool,

    /// Print only the payload of one dead letter, byte for byte; otherwise URLs are reduced to scheme and host
    #[arg(long, conflicts_with_all = ["json", "full"])]
    raw: bool,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    queue: QueueOptions,
}

/// Prints dead letters; exit code 1 if there is none.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    block_on(async {
        let inspector = options.queue.inspect("genfleet dead show")?;
        let (shown, more) = show(&inspector, options).await?;
        inspector.close().await;
        if shown == 0 {
            eprint_line!(
                "error: no such dead letter; genfleet dead list lists them, and dead list --unrouted unrouted messages"
            );
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        if more > 0 {
            eprint_line!("{}", Paint::stderr().dim(&format!("{more} more: --limit, or a narrower filter")));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns how many were shown, and how many more match.
async fn show(inspector: &QueueInspector, options: &Options) -> anyhow::Result<(u64, u64)> {
    let (now, limit) = (SystemClock.now(), if options.raw { 1 } else { options.limit });
    let (mut shown, mut more) = (0, 0);
    for queue in existing(inspector, options.filter.queues()).await? {
        let mut browser = inspector.browse(queue, 0).await?;
        while let Some(stored) = browser.next().await? {
            browser.keep(&stored);
            let letter = DeadLetter::read(stored);
            if !options.filter.matches(&letter, now)
                || !options.which.as_deref().is_none_or(|which| is_asked_for(&letter, which))
            {
                continue;
            }
            if shown == limit {
                more += 1;
                continue;
            }
            shown += 1;
            if print(&letter, options)? == Reader::Gone {
                browser.close().await?;
                return Ok((shown, 0));
            }
        }
        browser.close().await?;
    }
    Ok((shown, more))
}

fn is_asked_for(letter: &DeadLetter, which: &str) -> bool {
    has_id(letter, which)
        || (FingerprintPrefix::is_valid(which) && letter.fingerprint.starts_with(&which.to_lowercase()))
}

fn print(letter: &DeadLetter, options: &Options) -> anyhow::Result<Reader> {
    if options.raw {
        terminal::print_bytes(&letter.stored.message.body)
    } else if options.json {
        terminal::print_line(as_json(letter))
    } else {
        terminal::print_escaped(as_text(letter, options.full, Paint::stdout()))
    }
}

/// Returns a dead letter as one JSON object.
pub(crate) fn as_json(letter: &DeadLetter) -> Value {
    let (stored, message) = (&letter.stored, &letter.stored.message);
    let mut details = json!({
        "id": letter.id, "kind": letter.kind.map(Kind::as_str), "shelf": stored.queue.as_str(), "position": stored.position,
        "reason": letter.reason, "error": letter.error, "fingerprint": letter.fingerprint,
        "attempts": letter.attempts, "generation": letter.generation,
        "failedAt": letter.failed_at.map(|time| time.to_string()), "worker": letter.worker,
        "exchange": stored.exchange, "routingKey": stored.routing_key,
        "properties": properties(message), "headers": stored.headers, "bytes": message.body.len(),
    });
    match String::from_utf8(redact(&message.body)) {
        Ok(text) => details["payload"] = text.into(),
        Err(bytes) => details["payloadBase64"] = STANDARD.encode(bytes.as_bytes()).into(),
    }
    if let Some(flaw) = stored.defect {
        details["flaw"] = flaw.as_str().into();
    }
    details
}

fn properties(message: &Message) -> Map<String, Value> {
    let text = |text: &Option<String>| text.as_deref().map(Value::from);
    let all = [
        ("messageId", text(&message.message_id)),
        ("correlationId", text(&message.correlation_id)),
        ("replyTo", text(&message.reply_to)),
        ("contentType", text(&message.content_type)),
        ("timestamp", message.timestamp.map(Value::from)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Formats a dead letter for people, with the error first and the payload last.
fn as_text(letter: &DeadLetter, full: bool, paint: Paint) -> String {
    let body = &letter.stored.message.body;
    let reason = paint.red(&line(&letter.reason));
    let mut lines = vec![format!("{}  {}  {reason}", paint.bold(letter.id.as_str()), letter.kind_name())];
    let facts = facts(letter).into_iter().filter(|(_, value)| !value.is_empty());
    lines.extend(facts.map(|(name, value)| format!("  {} {}", paint.dim(&format!("{name:<13}")), line(&value))));
    lines.join("\n") + "\n" + &payload(&redact(body), full)
}

fn facts(letter: &DeadLetter) -> Vec<(String, String)> {
    let (stored, body) = (&letter.stored, &letter.stored.message.body);
    let origin = format!("exchange {}, key {}", stored.exchange, stored.routing_key);
    let facts = [
        ("error", letter.error.clone()),
        ("fingerprint", letter.fingerprint.clone()),
        ("attempts", letter.attempts.map(|attempts| attempts.to_string()).unwrap_or_default()),
        ("generation", letter.generation.to_string()),
        ("failed at", letter.failed_at.map(|time| format!("{time:.0}")).unwrap_or_default()),
        ("by", letter.worker.clone().unwrap_or_default()),
        ("queue", format!("{}, number {}", stored.queue, stored.position)),
        ("published to", if stored.exchange.is_empty() { String::new() } else { origin }),
        ("not as sent", stored.defect.map(|flaw| flaw.to_string()).unwrap_or_default()),
    ];
    let mut facts: Vec<_> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    facts.extend(properties(&stored.message).into_iter().map(|(name, value)| (name, plain(&value))));
    let headers = stored.headers.iter().map(|(name, value)| format!("{name}: {}", plain(value)));
    facts.extend(headers.map(|header| ("header".to_owned(), header)));
    facts.push(("payload".to_owned(), format!("{} bytes", body.len())));
    facts
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Formats a payload, with control characters escaped.
fn payload(body: &[u8], full: bool) -> String {
    let shown = if full { body.len() } else { body.len().min(SHOWN) };
    let text = lines(&String::from_utf8_lossy(&body[..shown]));
    let more = match body.len() - shown {
        0 => String::new(),
        more => format!("… {more} bytes more: --full, or --raw for exactly these bytes\n"),
    };
    format!("{}\n{more}\n", text.trim_end_matches('\n'))
}
