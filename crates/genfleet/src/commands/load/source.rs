//! The jobs of a run: with valid payloads of the kind, unique for each job, or with the given payloads, whose
//! placeholders are replaced.

use std::fs;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use genfleet_core::job::{Kind, Violation, decode, derive_id, text};
use serde_json::{Value, json};

use super::ledger::job_id;
use crate::registry::{self, Checker, defaults, not_for_producers};

/// Creates the jobs.
#[derive(Clone, Debug)]
pub(super) struct JobSource {
    pub kind: Kind,
    run: String,
    templates: Vec<Value>,
}

/// A job that can be published.
#[derive(Clone, Debug)]
pub(super) struct LoadJob {
    /// The job's id.
    pub id: String,
    /// The job as JSON.
    pub body: Bytes,
}

impl JobSource {
    /// Creates a source. Fails if a worker would refuse the first job of one of the templates.
    pub(super) fn new(kind: Kind, run: &str, payload: Option<&str>, file: Option<&str>) -> anyhow::Result<Self> {
        if kind.is_internal() {
            return Err(not_for_producers(kind).into());
        }
        let templates = match (payload, file) {
            (Some(payload), _) => vec![template("--payload", payload)?],
            (None, Some(file)) => templates(kind, file)?,
            (None, None) => vec![registry::load_payload(kind)],
        };
        let source = Self { kind, run: run.to_owned(), templates };
        source.check()?;
        Ok(source)
    }

    fn check(&self) -> anyhow::Result<()> {
        let checker = Checker::new(&defaults()?)?;
        for number in 0..self.templates.len().max(1) {
            let job = self.make(u32::try_from(number)?);
            if let Err(rejection) = checker.check(self.kind, &job.body, None) {
                let violation = rejection.violations.first();
                let details = violation.map_or(rejection.message.clone(), Violation::describe);
                let which =
                    if self.templates.len() > 1 { format!("payload {}", number + 1) } else { "the payload".to_owned() };
                bail!("{which} is not valid for {}: {details} (genfleet validate shows all problems)", self.kind);
            }
        }
        Ok(())
    }

    /// Creates job `number`, counted from 0.
    pub(super) fn make(&self, number: u32) -> LoadJob {
        let id = job_id(&self.run, number);
        let uuid = derive_id(&format!("load:{}:{number}", self.run));
        let [.., high, low] = number.to_be_bytes();
        let places = [
            ("{number}", number.to_string()),
            ("{run}", self.run.clone()),
            ("{uuid}", uuid.to_string()),
            ("{net}", format!("10.{high}.{low}")),
        ];
        let mut payload = self.templates[number as usize % self.templates.len()].clone();
        fill(&mut payload, &places);
        let body = json!({ "id": id, "kind": self.kind.as_str(), "payload": payload }).to_string();
        LoadJob { id, body: body.into() }
    }
}

/// Reads the payloads from a file of JSON lines. Of a line that is a job, the payload is used.
fn templates(kind: Kind, file: &str) -> anyhow::Result<Vec<Value>> {
    let text = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { fs::read_to_string(file) };
    let text = text.with_context(|| format!("{file} cannot be read"))?;
    let text = text::trim(&text);
    let mut templates = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        templates.push(match template(&format!("{file}:{}", index + 1), line)? {
            Value::Object(mut job) if job.contains_key("payload") => {
                if job.get("kind").is_some_and(|other| *other != kind.as_str()) {
                    continue;
                }
                job.remove("payload").unwrap_or_default()
            }
            payload => payload,
        });
    }
    if templates.is_empty() {
        bail!("{file} contains no job of {kind}");
    }
    Ok(templates)
}

/// Parses `text`; errors name the `place` from which it was read.
fn template(place: &str, text: &str) -> anyhow::Result<Value> {
    let (value, wrong) =
        decode::parse_body(text.as_bytes()).map_err(|unread| anyhow!("{place}: {}", unread.message))?;
    if wrong.total() > 0 {
        bail!("{place}: {}", wrong.summary());
    }
    Ok(value)
}

/// Replaces the placeholders in every string of `value`.
fn fill(value: &mut Value, places: &[(&str, String)]) {
    match value {
        Value::String(text) => {
            for (place, content) in places.iter().filter(|(place, _)| text.contains(place)).collect::<Vec<_>>() {
                *text = text.replace(place, content);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, places)),
        Value::Object(members) => members.values_mut().for_each(|value| fill(value, places)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::KINDS;

    #[test]
    fn default_payloads_are_valid_for_every_kind_and_unique() {
        let checker = Checker::new(&defaults().unwrap()).unwrap();
        for kind in KINDS {
            let source = JobSource::new(kind, "abcd1234", None, None).unwrap();
            let jobs: Vec<LoadJob> = [0, 1, 255, 256, 65_535, 70_000].map(|number| source.make(number)).into();
            for job in &jobs {
                let result = checker.check(kind, &job.body, None);
                assert!(result.is_ok(), "{kind}: {result:?}");
                assert_eq!(result.unwrap().id.to_string(), job.id);
            }
            let payload = |job: &LoadJob| serde_json::from_slice::<Value>(&job.body).unwrap()["payload"].to_string();
            assert_ne!(payload(&jobs[0]), payload(&jobs[1]), "{kind}");
        }
    }

    #[test]
    fn the_placeholders_of_a_template_are_replaced() {
        let source =
            JobSource::new(Kind::CdnPurge, "run1", Some(r#"{"paths":["/{run}/{number}","/same"]}"#), None).unwrap();
        let job: Value = serde_json::from_slice(&source.make(7).body).unwrap();
        assert_eq!(job["payload"]["paths"], json!(["/run1/7", "/same"]));
        assert_eq!(job["id"], "load-run1-7");
    }

    #[test]
    fn a_payload_that_a_worker_would_refuse_is_refused_before_anything_is_published() {
        let refused = |payload| JobSource::new(Kind::CdnPurge, "r", Some(payload), None).unwrap_err().to_string();
        assert!(refused(r#"{"paths":["no-slash"]}"#).contains("/payload/paths/0"));
        assert!(refused("paths").contains("not JSON"));
        assert!(JobSource::new(Kind::WebhookDeliver, "r", None, None).is_err());
    }

    #[test]
    fn the_lines_of_a_file_are_payloads_or_jobs_of_the_kind() {
        let file = std::env::temp_dir().join(format!("genfleet-load-{}.jsonl", std::process::id()));
        let lines = [
            r#"{"paths":["/a"]}"#,
            "",
            r#"{"kind":"file.scan","payload":{}}"#,
            r#"{"id":"x","payload":{"paths":["/b"]}}"#,
        ];
        fs::write(&file, lines.join("\n")).unwrap();
        let source = JobSource::new(Kind::CdnPurge, "r", None, file.to_str()).unwrap();
        let paths =
            |number| serde_json::from_slice::<Value>(&source.make(number).body).unwrap()["payload"]["paths"][0].clone();
        assert_eq!([paths(0), paths(1), paths(2)], ["/a", "/b", "/a"]);
        fs::write(&file, "\n").unwrap();
        assert!(
            JobSource::new(Kind::CdnPurge, "r", None, file.to_str()).unwrap_err().to_string().contains("no job of")
        );
        fs::remove_file(file).unwrap();
    }
}
