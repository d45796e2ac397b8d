//! The output of a batch on a terminal: a line for each job, and at the end the results of each kind, the jobs that did
//! not succeed and why, and what to do next.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
};

use genfleet_core::job::Kind;
use serde::Deserialize;
use serde_json::Value;

use crate::terminal::{Paint, count, line, truncate};

/// Maximum number of jobs that are named because they did not succeed.
const NAMED: usize = 20;
/// Maximum number of characters that are shown of a message.
const MESSAGE: usize = 160;

/// Formats an event in one line.
pub(super) fn event(event: &Value, paint: Paint) -> String {
    let data = &event["data"];
    let outcome = text(&data["outcome"]);
    let padded = format!("{outcome:<9}");
    let outcome = if outcome == "succeeded" { paint.green(&padded) } else { paint.red(&padded) };
    let (kind, job) = (text(&data["kind"]), text(&data["jobId"]));
    let what = match data["error"]["code"].as_str() {
        Some(code) => line(code),
        None => text(&data["action"]),
    };
    format!("{outcome}  {kind:<width$}  {job}  {}", paint.dim(&what), width = kind_width())
}

/// The width of the column of kinds.
fn kind_width() -> usize {
    Kind::of_producers().map(|kind| kind.as_str().len()).max().unwrap_or(0)
}

fn text(value: &Value) -> String {
    line(value.as_str().unwrap_or_default())
}

/// The data of an event that are counted.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct EndedJob {
    pub(super) kind: String,
    job_id: String,
    pub(super) outcome: String,
    requests: u64,
    report: Option<EndedReport>,
    pub(super) error: Option<EndedError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct EndedReport {
    request_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndedError {
    pub(super) code: String,
    message: String,
}

/// The results of a batch.
#[derive(Debug, Default)]
pub(super) struct Account {
    kinds: BTreeMap<String, OfKind>,
    failures: Vec<Failure>,
    not_named: u64,
    /// Number of requests of purge jobs. A request that several jobs share is counted for each of them.
    shared_counted: u64,
    shared: HashSet<String>,
}

#[derive(Debug, Default)]
struct OfKind {
    succeeded: u64,
    failed: u64,
    expired: u64,
    requests: u64,
}

#[derive(Debug)]
struct Failure {
    job: String,
    code: String,
    message: String,
}

impl Account {
    /// Adds a job that has ended.
    pub(super) fn count(&mut self, job: EndedJob) {
        let of_kind = self.kinds.entry(line(&job.kind)).or_default();
        let ended = match job.outcome.as_str() {
            "succeeded" => &mut of_kind.succeeded,
            "expired" => &mut of_kind.expired,
            _ => &mut of_kind.failed,
        };
        *ended += 1;
        of_kind.requests += job.requests;
        if job.kind == Kind::CdnPurge.as_str() {
            let ids = job.report.unwrap_or_default().request_ids;
            self.shared_counted += ids.len() as u64;
            self.shared.extend(ids);
        }
        if job.outcome != "succeeded" {
            self.name(&job.job_id, &job.error.unwrap_or_default());
        }
    }

    fn name(&mut self, job: &str, error: &EndedError) {
        if self.failures.len() == NAMED {
            self.not_named += 1;
            return;
        }
        let message = truncate(&error.message, MESSAGE);
        self.failures.push(Failure { job: line(job), code: line(&error.code), message });
    }

    /// Returns true if the public API of Genesys Cloud has the operations of all kinds of the batch.
    pub(super) fn works_with_real_organisation(&self) -> bool {
        self.kinds.keys().all(|name| name.parse::<Kind>().is_ok_and(|kind| kind.replacement().is_none()))
    }

    /// Formats the results.
    pub(super) fn tables(&self, paint: Paint) -> String {
        let mut text = format!("\n{}\n", paint.dim(&row("kind", ["succeeded", "failed", "expired", "requests"])));
        for (kind, OfKind { succeeded, failed, expired, requests }) in &self.kinds {
            let cells = [succeeded, failed, expired, requests].map(ToString::to_string);
            let _ = writeln!(text, "{}", row(kind, cells.each_ref().map(String::as_str)));
        }
        let requests: u64 = self.kinds.values().map(|kind| kind.requests).sum();
        let saved = self.shared_counted.saturating_sub(self.shared.len() as u64);
        let _ = writeln!(text, "\n{} sent, {saved} saved by sharing", count(requests.saturating_sub(saved), "request"));
        if !self.failures.is_empty() {
            let _ = writeln!(text, "\nNot succeeded:");
        }
        for Failure { job, code, message } in &self.failures {
            let _ = writeln!(text, "  {}  {}  {message}", paint.bold(job), paint.red(code));
        }
        if self.not_named > 0 {
            let _ = writeln!(text, "  and {} more: genfleet run --events FILE stores every event", self.not_named);
        }
        text
    }
}

fn row(kind: &str, cells: [&str; 4]) -> String {
    let [succeeded, failed, expired, requests] = cells;
    format!("{kind:<width$}  {succeeded:>9}  {failed:>6}  {expired:>7}  {requests:>8}", width = kind_width())
}

/// Suggests the next commands for these files. `works_with_real_organisation`: their kinds work with a real organisation.
pub(super) fn next(files: &[String], failed: bool, simulated: bool, works_with_real_organisation: bool) -> String {
    let files: Vec<String> = files.iter().map(|file| line(file)).collect();
    let files = files.join(" ");
    let mut next = String::from("\nNext:\n");
    if failed {
        let _ = writeln!(next, "  genfleet validate {files}    shows every mistake, runs nothing");
    }
    let simulate = if simulated { "--simulate " } else { "" };
    let _ = writeln!(
        next,
        "  genfleet run {simulate}--events events.jsonl {files}    stores the events, a JSON line for each job"
    );
    if simulated && works_with_real_organisation {
        let _ = writeln!(
            next,
            "  genfleet run {files}    against Genesys Cloud, with GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET set"
        );
    } else if simulated {
        next.push_str(
            "  genfleet doctor    says which of these kinds work with Genesys Cloud, and what replaces the others\n",
        );
    }
    next
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn purge(job: &str, ids: &[&str]) -> Value {
        json!({"kind": "cdn.purge", "jobId": job, "outcome": "succeeded", "action": "cache_invalidated",
            "requests": ids.len(), "report": {"requestIds": ids}})
    }

    fn failed(job: &str) -> Value {
        let error = json!({"code": "invalid_job", "message": "/payload/paths/0: must begin\u{1b}[2J with /"});
        json!({"kind": "cdn.purge", "jobId": job, "outcome": "failed", "requests": 0, "error": error})
    }

    #[test]
    fn a_job_is_a_line_without_control_characters() {
        let details = event(&json!({ "data": purge("a", &["1"]) }), Paint::none());
        assert_eq!(details, "succeeded  cdn.purge                a  cache_invalidated");
        let details = event(&json!({ "data": failed("b\n\u{1b}[2J") }), Paint::none());
        assert_eq!(details, "failed     cdn.purge                b\\n\\u{1b}[2J  invalid_job");
    }

    #[test]
    fn shared_requests_are_counted_once_and_failures_have_reasons() {
        let mut account = Account::default();
        for data in [purge("a", &["1", "2"]), purge("b", &["1"]), failed("c")] {
            account.count(serde_json::from_value(data).unwrap());
        }
        let details = account.tables(Paint::none());
        assert!(details.contains("cdn.purge                        2       1        0         3\n"), "{details}");
        assert!(details.contains("\n2 requests sent, 1 saved by sharing\n"), "{details}");
        assert!(details.contains("  c  invalid_job  /payload/paths/0: must begin\\u{1b}[2J with /\n"), "{details}");
    }

    #[test]
    fn twenty_failures_are_named_and_the_others_counted() {
        let mut account = Account::default();
        for number in 0..50 {
            account.count(serde_json::from_value(failed(&number.to_string())).unwrap());
        }
        let details = account.tables(Paint::none());
        assert_eq!(details.matches("invalid_job").count(), 20);
        assert!(details.contains("and 30 more"), "{details}");
    }
}
