//! What is known of a job, for people: a heading and a line for each thing.

use serde_json::Value;

use super::Known;
use crate::terminal::{Paint, cut, line};

/// Of an error, in characters.
const ERROR_WIDTH: usize = 200;

/// All sections that have something in them.
pub fn text(id: &str, known: &Known, paint: Paint) -> String {
    let mut text = format!("{}\n", paint.bold(&line(id)));
    section(&mut text, paint, "events", known.events.iter().map(|one| event(one, paint)));
    let older = known.events.total().saturating_sub(known.events.iter().count() as u64);
    if older > 0 {
        text += &format!("  {older} earlier ones\n");
    }
    section(&mut text, paint, "waits", known.waiting.iter().flatten().map(super::waiting::Place::text));
    let letters = known.letters.iter().map(|letter| {
        let (time, error) = (letter.failed_at.map(|time| format!("{time:.0}")), cut(&letter.error, ERROR_WIDTH));
        let (kind, reason) = (letter.kind_told(), paint.red(&line(&letter.reason)));
        format!("{}  {kind}  {reason}  generation {}  {error}", time.unwrap_or_default(), letter.generation)
    });
    section(&mut text, paint, "dead letters", letters);
    section(&mut text, paint, "audit", known.facts.iter().map(fact));
    if !known.letters.is_empty() {
        text += &paint.dim(&format!("genfleet dead show {} shows the letters whole\n", line(id)));
    }
    text
}

fn section(text: &mut String, paint: Paint, name: &str, rows: impl Iterator<Item = String>) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        *text += &format!("{}\n", paint.dim(name));
        rows.iter().for_each(|row| *text += &format!("  {row}\n"));
    }
}

fn event(event: &Value, paint: Paint) -> String {
    let data = &event["data"];
    let word = |value: &Value| line(value.as_str().unwrap_or_default());
    let outcome = word(&data["outcome"]);
    let painted = if outcome == "succeeded" { paint.green(&outcome) } else { paint.red(&outcome) };
    let error = match (data["error"]["code"].as_str(), data["error"]["message"].as_str()) {
        (Some(code), message) => format!("  {}: {}", line(code), cut(message.unwrap_or_default(), ERROR_WIDTH)),
        (None, _) => String::new(),
    };
    let (time, kind) = (word(&event["time"]), word(&data["kind"]));
    format!(
        "{time}  {kind}  {painted}  generation {}  {} attempts, {} requests{error}",
        data["generation"], data["attempts"], data["requests"]
    )
}

fn fact(fact: &Value) -> String {
    let word = |name: &str| line(fact[name].as_str().unwrap_or_default());
    format!("{}  {}  {}  {}", word("time"), word("fact"), word("action"), word("process"))
}
