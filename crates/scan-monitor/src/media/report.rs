//! The state and the report of a job. Pure.

use genfleet_core::hash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    engine::{PassedTest, Verdict},
    payload::{MediaPayload, OnThreat, Source, read_url},
};

/// The state of a started job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MediaState {
    /// Time since which the platform reports that the file does not exist yet, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_since: Option<String>,
    /// The findings, from the time at which actions begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) findings: Option<Findings>,
}

/// The result of a scan, the best first: the worst of several files counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScanResult {
    /// The file does not exist.
    Nothing,
    /// Nothing was found.
    Clean,
    /// The file is longer than the limit.
    TooLarge,
    /// The file is encrypted.
    Encrypted,
    /// The engine gave up at one of its limits.
    Unscannable,
    /// Malware was found.
    Malware,
}

impl ScanResult {
    /// Returns the word in reports and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Clean => "clean",
            Self::TooLarge => "too_large",
            Self::Encrypted => "encrypted",
            Self::Unscannable => "unscannable",
            Self::Malware => "malware",
        }
    }

    pub(crate) const ALL: [Self; 6] =
        [Self::Nothing, Self::Clean, Self::TooLarge, Self::Encrypted, Self::Unscannable, Self::Malware];

    /// Returns true if malware was found; `None` if that is unknown, which is not the same as false.
    const fn threat_detected(self) -> Option<bool> {
        match self {
            Self::Clean => Some(false),
            Self::Malware => Some(true),
            Self::Nothing | Self::TooLarge | Self::Encrypted | Self::Unscannable => None,
        }
    }
}

/// A scanned file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScannedFile {
    /// The file's name, if the platform reports it.
    #[serde(default)]
    pub name: Option<String>,
    /// The media type, as the platform says it, else as the host of the link does.
    pub media_type: Option<String>,
    /// The length in bytes; of a file that was not read to its end, what is known of it.
    pub bytes: Option<u64>,
    /// SHA-256 of the file; null if it was not read to its end.
    pub sha256: Option<String>,
    /// Result of the scan.
    pub result: ScanResult,
    /// The engine's name for the malware.
    pub threat: Option<String>,
    /// Further details of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub warning: Option<String>,
}

/// The engine that scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EngineReport {
    /// `clamd`, or `stand-in` with the simulator, which recognises only the EICAR test string.
    pub name: String,
    /// The engine's version and database version.
    pub version: String,
    /// True if the engine reports that it gives up at its own limits. If false, `clean` may mean that it scanned only
    /// the beginning.
    pub limits_told: bool,
}

/// All findings of one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Findings {
    pub files: Vec<ScannedFile>,
    pub engine: EngineReport,
    pub fetch_ms: u64,
    pub scan_ms: u64,
}

/// The report of a scan.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MediaReport {
    /// Source as in the job; a link without its query.
    source: Source,
    /// The media type, as the platform says it, else as the host of the link does.
    media_type: Option<String>,
    /// The length in bytes; of a file that was not read to its end, what is known of it.
    bytes: Option<u64>,
    /// SHA-256 of the file; null if it was not read to its end.
    sha256: Option<String>,
    /// The engine that scanned.
    engine: EngineReport,
    /// Result of the scan; of several files, the worst.
    result: ScanResult,
    /// The engine's name for the malware.
    threat: Option<String>,
    /// True if malware was found; null unless the result is clean or malware, which is not the same as false.
    threat_detected: Option<bool>,
    /// Action that was taken: none, flag, tag, disconnect or delete.
    #[schemars(extend("title" = "MediaScanActionTaken", "enum" = ["none", "flag", "tag", "disconnect", "delete"]))]
    action: &'static str,
    /// Each attachment, if the source is a whole message; the members above are those of the worst one.
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<ScannedFile>>,
    /// Milliseconds from requesting the link to the last byte.
    fetch_ms: u64,
    /// Milliseconds from the last byte to the engine's verdict.
    scan_ms: u64,
    /// Metadata as in the job.
    metadata: Option<Map<String, Value>>,
    /// Warnings, e.g. why a file was not scanned.
    warnings: Vec<String>,
    /// SHA-256 over the canonical JSON of `source`, `engine`, `result`, `threat`, `bytes`, `sha256` and `items`.
    compliance_hash: String,
}

impl EngineReport {
    /// Describes a tested engine.
    pub(crate) fn new(name: &str, passed: &PassedTest) -> Self {
        Self { name: name.to_owned(), version: passed.version.text.clone(), limits_told: passed.limits_told }
    }
}

impl ScannedFile {
    /// Adds the verdict of the engine to the file's description.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        let (result, warning) = match verdict {
            Verdict::Clean => (ScanResult::Clean, None),
            Verdict::Malware(name) => {
                self.threat = Some(name);
                (ScanResult::Malware, None)
            }
            Verdict::Unscannable(name) => {
                (ScanResult::Unscannable, Some(format!("the engine gave up before the end: {name}")))
            }
            Verdict::Encrypted(name) => (ScanResult::Encrypted, Some(format!("the engine cannot look inside: {name}"))),
            Verdict::TooLarge => {
                let warning = "the engine takes no file as long as this: raise StreamMaxLength in clamd.conf";
                (ScanResult::TooLarge, Some(warning.to_owned()))
            }
        };
        (self.result, self.warning) = (result, warning);
    }
}

impl Findings {
    /// Returns the file with the worst result.
    pub(crate) fn worst(&self) -> Option<&ScannedFile> {
        // The first of several equal ones.
        self.files.iter().rev().max_by_key(|file| file.result)
    }

    /// Returns the result of the scan.
    pub(crate) fn result(&self) -> ScanResult {
        self.worst().map_or(ScanResult::Nothing, |file| file.result)
    }

    /// Creates the report with the findings and the action.
    pub(crate) fn report(&self, payload: &MediaPayload, action: OnThreat) -> MediaReport {
        let (worst, result) = (self.worst(), self.result());
        let source = redact_source(&payload.source);
        let is_message = payload.source.message_id.is_some();
        let warned = |file: &ScannedFile| {
            let name = file.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            file.warning.as_ref().map(|warning| format!("{name}{warning}"))
        };
        let mut warnings: Vec<String> = self.files.iter().filter_map(warned).collect();
        if self.engine.name == super::STAND_IN {
            warnings.push("a stand-in scanned this: it knows the EICAR test string and nothing else".to_owned());
        } else if !self.engine.limits_told && result == ScanResult::Clean {
            warnings.push("the engine does not tell its limits: it may have looked at the beginning only".to_owned());
        }
        let items = is_message
            .then(|| self.files.iter().map(|file| ScannedFile { warning: None, ..file.clone() }).collect::<Vec<_>>());
        let (bytes, sha256) = (worst.and_then(|file| file.bytes), worst.and_then(|file| file.sha256.clone()));
        let threat = worst.and_then(|file| file.threat.clone());
        let hashed = json!({
            "source": source, "engine": self.engine, "result": result, "threat": threat, "bytes": bytes,
            "sha256": sha256, "items": items,
        });
        MediaReport {
            source,
            media_type: worst.and_then(|file| file.media_type.clone()),
            bytes,
            sha256,
            engine: self.engine.clone(),
            result,
            threat,
            threat_detected: result.threat_detected(),
            action: action.as_str(),
            items,
            fetch_ms: self.fetch_ms,
            scan_ms: self.scan_ms,
            metadata: payload.metadata.clone(),
            warnings,
            compliance_hash: hash::sha256(hash::canonical(&hashed)),
        }
    }
}

/// Returns the source for the report, without the query of a link, which may be a secret key.
fn redact_source(source: &Source) -> Source {
    let url = source.url.as_ref().map(|url| match read_url(url) {
        Ok(read) if read.query().is_none() && read.fragment().is_none() => url.clone(),
        Ok(mut url) => {
            url.set_query(None);
            url.set_fragment(None);
            url.to_string()
        }
        Err(_) => String::new(),
    });
    Source { url, ..source.clone() }
}

#[cfg(test)]
mod tests;
