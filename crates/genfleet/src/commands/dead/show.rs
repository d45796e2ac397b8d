//! `genfleet dead show`: letters whole. Looking takes nothing away.

use genfleet_core::tell;
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
    filter::{Filter, Print, has_id},
    queues::existing,
    urls::redacted,
};
use crate::{
    commands::{EXIT_FAILED, block_on},
    terminal::{self, Paint, Reader, line, lines},
};

/// Of a payload for people, in bytes.
const SHOWN: usize = 4096;

/// Options of `show`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// A job's id, or a fingerprint (or how it begins) from dead list
    #[arg(value_name = "JOBID|FINGERPRINT")]
    which: Option<String>,

    /// At most so many, the oldest first
    #[arg(long, default_value = "10", value_name = "N")]
    limit: u64,

    /// Payloads whole, however long
    #[arg(long)]
    full: bool,

    /// Only the payload of one dead letter, byte for byte; everywhere else URLs are reduced to scheme and host
    #[arg(long, conflicts_with_all = ["json", "full"])]
    raw: bool,

    /// A JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    queue: QueueOptions,
}

/// Prints them; exit 1 where there is none.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    block_on(async {
        let shelves = options.queue.inspect("genfleet dead show")?;
        let (shown, more) = show(&shelves, options).await?;
        shelves.close().await;
        if shown == 0 {
            tell!("error: no such dead letter; genfleet dead list lists them");
            return Ok(ExitCode::from(EXIT_FAILED));
        }
        if more > 0 {
            tell!("{}", Paint::stderr().dim(&format!("{more} more: --limit, or a narrower filter")));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// How many were shown, and how many would have been.
async fn show(shelves: &QueueInspector, options: &Options) -> anyhow::Result<(u64, u64)> {
    let (now, limit) = (SystemClock.now(), if options.raw { 1 } else { options.limit });
    let (mut shown, mut more) = (0, 0);
    for shelf in existing(shelves, options.filter.shelves()).await? {
        let mut look = shelves.browse(shelf, 0).await?;
        while let Some(shelved) = look.next().await? {
            look.keep(&shelved);
            let letter = DeadLetter::read(shelved);
            if !options.filter.matches(&letter, now) || !options.which.as_deref().is_none_or(|which| is(&letter, which))
            {
                continue;
            }
            if shown == limit {
                more += 1;
                continue;
            }
            shown += 1;
            if print(&letter, options)? == Reader::Gone {
                look.close().await?;
                return Ok((shown, 0));
            }
        }
        look.close().await?;
    }
    Ok((shown, more))
}

fn is(letter: &DeadLetter, which: &str) -> bool {
    has_id(letter, which) || (Print::is(which) && letter.fingerprint.starts_with(&which.to_lowercase()))
}

fn print(letter: &DeadLetter, options: &Options) -> anyhow::Result<Reader> {
    if options.raw {
        terminal::put_exactly(&letter.stored.message.body)
    } else if options.json {
        terminal::say(as_json(letter))
    } else {
        terminal::put(as_text(letter, options.full, Paint::stdout()))
    }
}

/// Everything, as one object.
pub(crate) fn as_json(letter: &DeadLetter) -> Value {
    let (shelved, message) = (&letter.stored, &letter.stored.message);
    let mut details = json!({
        "id": letter.id, "kind": letter.kind.map(Kind::as_str), "shelf": shelved.queue.as_str(), "position": shelved.position,
        "reason": letter.reason, "error": letter.error, "fingerprint": letter.fingerprint,
        "attempts": letter.attempts, "generation": letter.generation,
        "failedAt": letter.failed_at.map(|time| time.to_string()), "worker": letter.worker,
        "exchange": shelved.exchange, "routingKey": shelved.routing_key,
        "properties": properties(message), "headers": shelved.headers, "bytes": message.body.len(),
    });
    match String::from_utf8(redacted(&message.body)) {
        Ok(text) => details["payload"] = text.into(),
        Err(bytes) => details["payloadBase64"] = STANDARD.encode(bytes.as_bytes()).into(),
    }
    if let Some(flaw) = shelved.defect {
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

/// For people: what went wrong first, the payload last.
fn as_text(letter: &DeadLetter, full: bool, paint: Paint) -> String {
    let body = &letter.stored.message.body;
    let reason = paint.red(&line(&letter.reason));
    let mut lines = vec![format!("{}  {}  {reason}", paint.bold(letter.id.as_str()), letter.kind_name())];
    let facts = facts(letter).into_iter().filter(|(_, value)| !value.is_empty());
    lines.extend(facts.map(|(name, value)| format!("  {} {}", paint.dim(&format!("{name:<13}")), line(&value))));
    lines.join("\n") + "\n" + &payload(&redacted(body), full)
}

fn facts(letter: &DeadLetter) -> Vec<(String, String)> {
    let (shelved, body) = (&letter.stored, &letter.stored.message.body);
    let came = format!("exchange {}, key {}", shelved.exchange, shelved.routing_key);
    let facts = [
        ("error", letter.error.clone()),
        ("fingerprint", letter.fingerprint.clone()),
        ("attempts", letter.attempts.map(|attempts| attempts.to_string()).unwrap_or_default()),
        ("generation", letter.generation.to_string()),
        ("given up", letter.failed_at.map(|time| format!("{time:.0}")).unwrap_or_default()),
        ("by", letter.worker.clone().unwrap_or_default()),
        ("lies on", format!("{}, number {}", shelved.queue, shelved.position)),
        ("came by", if shelved.exchange.is_empty() { String::new() } else { came }),
        ("not as sent", shelved.defect.map(|flaw| flaw.to_string()).unwrap_or_default()),
    ];
    let mut facts: Vec<_> = facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    facts.extend(properties(&shelved.message).into_iter().map(|(name, value)| (name, plain(&value))));
    let headers = shelved.headers.iter().map(|(name, value)| format!("{name}: {}", plain(value)));
    facts.extend(headers.map(|header| ("header".to_owned(), header)));
    facts.push(("payload".to_owned(), format!("{} bytes", body.len())));
    facts
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// As it is, but for what could steer the terminal.
fn payload(body: &[u8], full: bool) -> String {
    let shown = if full { body.len() } else { body.len().min(SHOWN) };
    let text = lines(&String::from_utf8_lossy(&body[..shown]));
    let more = match body.len() - shown {
        0 => String::new(),
        more => format!("… {more} bytes more: --full, or --raw for exactly these bytes\n"),
    };
    format!("{}\n{more}\n", text.trim_end_matches('\n'))
}
