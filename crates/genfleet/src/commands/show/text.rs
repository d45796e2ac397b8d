//! Everything that is known about a job, for people: sections with a line for each item.

use genfleet_core::queue::dead_letters::DeadLetter;
use serde_json::Value;

use super::known::Known;
use crate::terminal::{Paint, count, line, truncate};

/// Maximum number of characters that are shown of an error.
const ERROR_WIDTH: usize = 200;
/// Maximum number of characters that are shown of a report.
const REPORT_WIDTH: usize = 2_000;

/// Formats all sections that are not empty.
pub(super) fn text(id: &str, known: &Known, paint: Paint) -> String {
    let mut events: Vec<_> = known.events.latest.iter().map(|one| event(one, paint)).collect();
    match known.events.total - events.len() as u64 {
        0 => {}
        earlier => events.insert(0, format!("{earlier} earlier ones")),
    }
    let letters: Vec<_> = known.letters.iter().map(|one| letter(one, paint)).collect();
    let hint =
        if letters.is_empty() { None } else { Some(format!("genfleet dead show {} shows them in full", line(id))) };
    let sections = [
        ("events", events),
        ("waits", known.waiting.iter().flatten().map(super::waiting::WaitingPlace::text).collect()),
        ("dead letters", letters),
        ("webhook deliveries", known.deliveries.iter().map(|one| one.text(paint)).collect()),
        ("audit", known.facts.iter().map(fact).collect()),
    ];
    let mut lines = vec![paint.bold(&line(id))];
    for (name, rows) in sections.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        lines.push(paint.dim(name));
        lines.extend(rows.iter().map(|row| format!("  {row}")));
    }
    lines.extend(hint.map(|hint| paint.dim(&hint)));
    lines.join("\n") + "\n"
}

fn letter(letter: &DeadLetter, paint: Paint) -> String {
    let (time, error) = (letter.failed_at.map(|time| format!("{time:.0}")), truncate(&letter.error, ERROR_WIDTH));
    let (kind, reason) = (letter.kind_name(), paint.red(&line(&letter.reason)));
    format!("{}  {kind}  {reason}  generation {}  {error}", time.unwrap_or_default(), letter.generation)
}

fn event(event: &Value, paint: Paint) -> String {
    let data = &event["data"];
    let word = |value: &Value| line(value.as_str().unwrap_or_default());
    let outcome = word(&data["outcome"]);
    let painted = if outcome == "succeeded" { paint.green(&outcome) } else { paint.red(&outcome) };
    let error = match (data["error"]["code"].as_str(), data["error"]["message"].as_str()) {
        (Some(code), message) => format!("  {}: {}", line(code), truncate(message.unwrap_or_default(), ERROR_WIDTH)),
        (None, _) => String::new(),
    };
    let (time, kind) = (word(&event["time"]), word(&data["kind"]));
    let report = match &data["report"] {
        Value::Null => String::new(),
        report => format!("\n    report {}", truncate(&report.to_string(), REPORT_WIDTH)),
    };
    format!(
        "{time}  {kind}  {painted}  generation {}  {}, {}{error}{report}",
        data["generation"],
        count(&data["attempts"], "attempt"),
        count(&data["requests"], "request")
    )
}

fn fact(fact: &Value) -> String {
    let word = |name: &str| line(fact[name].as_str().unwrap_or_default());
    format!("{}  {}  {}  {}", word("time"), word("fact"), word("action"), word("process"))
}
