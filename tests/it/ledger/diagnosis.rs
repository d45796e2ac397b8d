//! Diagnosis of jobs that have not ended.

use std::{cmp::Reverse, collections::BTreeMap};

use genfleet_simulator::Simulator;
use harness::Amqp;
use serde_json::{Value, json};

use super::{
    books::{Books, job_of},
    crew::Crew,
    jobs::Job,
};

/// Maximum number of jobs of a kind that are reported in full.
const IN_FULL: usize = 2;
const LAST_REQUESTS: usize = 8;
const LAST_LINES: usize = 30;

/// Reports what is known of jobs without an event. Ends the processes, so that their messages return to the queues.
pub(super) async fn of_missing(books: &Books<'_>, crew: &Crew<'_>, simulator: &Simulator, amqp: &Amqp) -> String {
    let missing = books.ends.missing();
    if missing.is_empty() {
        return String::new();
    }
    let in_full = most_logged(&missing, &crew.logs());
    crew.kill();
    let places = places(books, amqp).await;
    let mut by_kind: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for job in &missing {
        by_kind.entry(job.kind).or_default().push(&job.id);
    }
    let output = in_full.into_iter().map(|(job, lines)| {
        let place = places.get(&job.id).map_or("no queue", String::as_str);
        let travels = books.travels.get(&job.id).cloned().unwrap_or_default();
        of_job(job, &format!("in: {place}\ntravelled: {travels:?}"), &lines, simulator)
    });
    let output: Vec<String> = output.collect();
    format!("{} jobs without an event: {by_kind:?}\n{}", missing.len(), output.join("\n"))
}

/// Describes a job: its queue, its requests and its log lines.
pub(super) fn of_job(job: &Job, place: &str, lines: &[String], simulator: &Simulator) -> String {
    let asked = requests(job, simulator).join("\n");
    format!("\n=== {} ({})\n{place}\nasked of the API:\n{asked}\n{}", job.id, job.kind, last(lines))
}

/// Finds the jobs of each kind with the most log lines, and the lines. Such jobs are the reason why others were not
/// delivered.
pub(super) fn most_logged<'a>(missing: &[&'a Job], logs: &[String]) -> Vec<(&'a Job, Vec<String>)> {
    let mut output: Vec<_> = missing.iter().map(|job| (*job, lines_with(&job.id, logs))).collect();
    output.sort_by_key(|(job, lines)| (job.kind, Reverse(lines.len())));
    let mut of_kind: BTreeMap<&str, usize> = BTreeMap::new();
    output.retain(|(job, _)| {
        let count = of_kind.entry(job.kind).or_default();
        *count += 1;
        *count <= IN_FULL
    });
    output
}

/// Returns the log lines that name a job, oldest first. Each begins with its time.
fn lines_with(id: &str, logs: &[String]) -> Vec<String> {
    let quoted = format!("\"{id}\"");
    let named = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(&quoted));
    let mut lines: Vec<String> = named.map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// Returns the last lines that name a job. Equal consecutive lines are shown once with their number.
fn last(lines: &[String]) -> String {
    let said = |line: &str| -> Value {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        json!([line["message"], line["target"]])
    };
    let mut squeezed: Vec<(&str, usize)> = Vec::new();
    for line in lines {
        match squeezed.last_mut() {
            Some((first, times)) if said(first) == said(line) => *times += 1,
            _ => squeezed.push((line, 1)),
        }
    }
    let last = &squeezed[squeezed.len().saturating_sub(LAST_LINES)..];
    let output: Vec<String> = last.iter().map(|(line, times)| format!("{times} x {line}")).collect();
    format!("last of {} log lines that name it:\n{}\n", lines.len(), output.join("\n"))
}

/// Returns the queue and the headers of each job's message.
async fn places(books: &Books<'_>, amqp: &Amqp) -> BTreeMap<String, String> {
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for queue in books.queues() {
        for message in amqp.get_all(&queue).await {
            let mut headers = message.headers();
            headers.retain(|name, _| name.starts_with("genfleet-") || name == "x-delivery-count");
            let place = format!("{queue} {headers:?} ");
            *places.entry(job_of(&message)).or_default() += &place;
        }
    }
    places
}

fn requests(job: &Job, simulator: &Simulator) -> Vec<String> {
    let all = simulator.requests();
    let names_it = |text: &str| text.contains(&job.mark);
    let of_job = all.iter().filter(|one| names_it(&one.path) || names_it(&one.body.to_string()));
    let output: Vec<String> =
        of_job.map(|one| format!("{} {} {} -> {:?}", one.at_us, one.method, one.path, one.status)).collect();
    output[output.len().saturating_sub(LAST_REQUESTS)..].to_vec()
}
