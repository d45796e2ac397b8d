//! File scans and their results, and registered webhooks.
//!
//! A scan has its result some time after its start. The file's id determines the result: if its first digit is `f`, the
//! file is malware and is quarantined; if it is `e`, the scan fails; other files are clean. The nil UUID does not
//! exist.

use std::collections::{BTreeMap, HashMap};

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::errors::ApiError;

/// All scans and registered webhooks.
#[derive(Debug, Default)]
pub(crate) struct Files {
    rules: Rules,
    scans: HashMap<Uuid, Scan>,
    /// The scans, in the order in which they were started.
    ordered: Vec<Uuid>,
    polls: u64,
    webhooks: BTreeMap<String, Value>,
}

/// The settings for new scans, which `set` changes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    /// Milliseconds from the start to the result; `null` means never.
    #[serde(rename = "scanMs")]
    scan: Option<u64>,
    /// Maximum number of milliseconds that a scan takes longer.
    #[serde(rename = "scanSpreadMs")]
    spread: u64,
    /// Milliseconds after its start for which a scan is not found.
    #[serde(rename = "unknownMs")]
    unknown: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { scan: Some(2_000), spread: 0, unknown: 0 }
    }
}

/// A scan. Times are in microseconds since 1970.
#[derive(Debug)]
struct Scan {
    file: String,
    ordered_us: u64,
    known_us: u64,
    verdict_us: Option<u64>,
    /// The time of the first poll that was answered with the result.
    noticed_us: Option<u64>,
    polls: u64,
}

impl Files {
    /// Starts a scan.
    pub(crate) fn order(&mut self, file: &str, now_us: u64) -> Result<Value, ApiError> {
        let id = Uuid::try_parse(file).map_err(|_| ApiError::invalid_value("fileId must be a UUID"))?;
        if id.is_nil() {
            return Err(ApiError::not_found());
        }
        let Rules { scan, spread, unknown } = self.rules;
        let spread_us = fastrand::u64(0..=micros(spread));
        let scan = Scan {
            file: file.to_owned(),
            ordered_us: now_us,
            known_us: now_us.saturating_add(micros(unknown)),
            verdict_us: scan.map(|scan| now_us.saturating_add(micros(scan)).saturating_add(spread_us)),
            noticed_us: None,
            polls: 0,
        };
        let scan_id = Uuid::new_v4();
        self.scans.insert(scan_id, scan);
        self.ordered.push(scan_id);
        Ok(json!({"id": scan_id, "fileId": file, "status": "pending"}))
    }

    /// Returns the state of a scan.
    pub(crate) fn poll(&mut self, file: &str, scan_id: &str, now_us: u64) -> Result<Value, ApiError> {
        self.polls += 1;
        let found = Uuid::try_parse(scan_id).ok().and_then(|id| self.scans.get_mut(&id));
        let Some(scan) = found.filter(|scan| scan.file == file && scan.known_us <= now_us) else {
            return Err(ApiError::not_found());
        };
        scan.polls += 1;
        let has_verdict = scan.verdict_us.is_some_and(|at| at <= now_us);
        let mut answer = json!({"id": scan_id, "fileId": file, "status": "pending"});
        if has_verdict {
            scan.noticed_us.get_or_insert(now_us);
            let (status, result, quarantined) = verdict(file);
            answer["status"] = status.into();
            answer["result"] = result.into();
            answer["quarantined"] = quarantined.into();
        }
        Ok(answer)
    }

    /// Registers a webhook. Names must be unique.
    pub(crate) fn register(&mut self, webhook: &Value) -> Result<Value, ApiError> {
        let text = |name: &str| webhook.get(name).and_then(Value::as_str).unwrap_or_default();
        let filters = webhook.get("eventFilters").and_then(Value::as_array);
        if text("name").is_empty() || !text("url").starts_with("https://") || filters.is_none_or(Vec::is_empty) {
            return Err(ApiError::invalid_value("a webhook has a name, an https url and eventFilters"));
        }
        let name = text("name").to_owned();
        if self.webhooks.contains_key(&name) {
            return Err(ApiError::new(StatusCode::CONFLICT, "conflict", "A webhook of this name exists"));
        }
        self.webhooks.insert(name, webhook.clone());
        let mut answer = webhook.clone();
        answer["id"] = json!(Uuid::new_v4());
        Ok(answer)
    }

    /// Returns the state for `/_sim/state` and `Simulator::state`.
    pub(crate) fn to_json(&self) -> Value {
        let mut ordered = Map::new();
        for scan in self.ordered.iter().filter_map(|id| self.scans.get(id)) {
            let count = ordered.entry(&scan.file).or_insert_with(|| 0.into());
            *count = (count.as_u64().unwrap_or_default() + 1).into();
        }
        let scan = |id: &Uuid| self.scans.get(id).map(|scan| scan.to_json(*id));
        json!({
            "ordered": ordered,
            "scansTotal": self.ordered.len(),
            "pollsTotal": self.polls,
            "scans": self.ordered.iter().filter_map(scan).collect::<Vec<_>>(),
            "webhooks": self.webhooks.values().collect::<Vec<_>>(),
        })
    }

    /// Changes the settings for new scans: `{"scanMs": 2000, "scanSpreadMs": 0, "unknownMs": 0}`, all of them or
    /// some. With `"scanMs": null` scans never end.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        let rules = &self.rules;
        let mut all = json!({
            "scanMs": rules.scan, "scanSpreadMs": rules.spread, "unknownMs": rules.unknown,
        });
        let change = change.as_object().ok_or("a change of the files is an object")?;
        for (name, value) in change {
            all[name] = value.clone();
        }
        self.rules = serde_json::from_value(all).map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Scan {
    fn to_json(&self, id: Uuid) -> Value {
        json!({
            "scanId": id,
            "fileId": self.file,
            "orderedUs": self.ordered_us,
            "verdictUs": self.verdict_us,
            "noticedUs": self.noticed_us,
            "polls": self.polls,
        })
    }
}

fn micros(millis: u64) -> u64 {
    millis.saturating_mul(1_000)
}

/// Returns status, result and whether the file is quarantined.
fn verdict(file: &str) -> (&'static str, Option<&'static str>, bool) {
    match file.chars().next() {
        Some('f' | 'F') => ("completed", Some("malware"), true),
        Some('e' | 'E') => ("failed", None, false),
        _ => ("completed", Some("clean"), false),
    }
}
