//! What a job remembers of the files that it scanned, and what it tells of them. Pure.

use genfleet_core::hash;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    engine::{Proof, Verdict},
    payload::{MediaPayload, OnThreat, Source, read_url},
};

/// What travels with a begun job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MediaState {
    /// Since when the platform says that the file is not there yet, in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_since: Option<String>,
    /// What was found, from when on it is acted upon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) findings: Option<Findings>,
}

/// The result of a scan, the best first: the worst of several files counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScanResult {
    /// There was no file.
    Nothing,
    /// Nothing was found.
    Clean,
    /// The file is longer than is scanned.
    TooLarge,
    /// The file is encrypted.
    Encrypted,
    /// The engine gave up at one of its limits.
    Unscannable,
    /// Malware was found.
    Malware,
}

impl ScanResult {
    /// The word in reports and metrics.
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

    /// Returns true if something was found; `None` if nobody knows, which is not the same as false.
    const fn threat_detected(self) -> Option<bool> {
        match self {
            Self::Clean => Some(false),
            Self::Malware => Some(true),
            Self::Nothing | Self::TooLarge | Self::Encrypted | Self::Unscannable => None,
        }
    }
}

/// One file that was scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScannedFile {
    /// The file's name, if the platform says it.
    #[serde(default)]
    pub name: Option<String>,
    /// The media type, as the platform says it, else as the host of the link does.
    pub media_type: Option<String>,
    /// The length in bytes; of a file that was not read to its end, what is known of it.
    pub bytes: Option<u64>,
    /// SHA-256 of the file; null if it was not read to its end.
    pub sha256: Option<String>,
    /// What the scan came to.
    pub result: ScanResult,
    /// The engine's name for the malware.
    pub threat: Option<String>,
    /// What the result does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub warning: Option<String>,
}

/// The engine that scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EngineReport {
    /// `clamd`, or `stand-in` with the simulator: that one knows the EICAR test string and nothing else.
    pub name: String,
    /// What the engine says of its version and its database.
    pub version: String,
    /// True if the engine proved that it says so when it gives up at a limit of its own. False: `clean` may mean that
    /// it looked at the beginning only.
    pub limits_told: bool,
}

/// All that was found for one job.
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
    /// As the job asked; a link without its query.
    source: Source,
    /// The media type, as the platform says it, else as the host of the link does.
    media_type: Option<String>,
    /// The length in bytes; of a file that was not read to its end, what is known of it.
    bytes: Option<u64>,
    /// SHA-256 of the file; null if it was not read to its end.
    sha256: Option<String>,
    /// The engine that scanned.
    engine: EngineReport,
    /// What the scan came to; of several files, the worst.
    result: ScanResult,
    /// The engine's name for the malware.
    threat: Option<String>,
    /// True if something was found; null unless the result is clean or malware, which is not the same as false.
    threat_detected: Option<bool>,
    /// What was done about it: none, flag, tag, disconnect or delete.
    #[schemars(extend("title" = "MediaScanActionTaken", "enum" = ["none", "flag", "tag", "disconnect", "delete"]))]
    action: &'static str,
    /// Each attachment, if the source is a whole message; the members above are those of the worst.
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<ScannedFile>>,
    /// From asking for the link until the last byte, in milliseconds.
    fetch_ms: u64,
    /// From the last byte until the engine's verdict, in milliseconds.
    scan_ms: u64,
    /// As the job brought them.
    metadata: Option<Map<String, Value>>,
    /// What somebody should know, e.g. why a file was not scanned.
    warnings: Vec<String>,
    /// SHA-256 over the canonical JSON of `source`, `engine`, `result`, `threat`, `bytes`, `sha256` and `items`.
    compliance_hash: String,
}

impl EngineReport {
    /// Describes an engine that proved itself.
    pub(crate) fn new(name: &str, proof: &Proof) -> Self {
        Self { name: name.to_owned(), version: proof.version.text.clone(), limits_told: proof.limits_told }
    }
}

impl ScannedFile {
    /// Puts the verdict of the engine into the file's description.
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
    /// The file that counts.
    pub(crate) fn worst(&self) -> Option<&ScannedFile> {
        // Of equal ones the first.
        self.files.iter().rev().max_by_key(|file| file.result)
    }

    /// What the scan came to.
    pub(crate) fn result(&self) -> ScanResult {
        self.worst().map_or(ScanResult::Nothing, |file| file.result)
    }

    /// Tells what was found, and what was done about it.
    pub(crate) fn report(&self, payload: &MediaPayload, action: OnThreat) -> MediaReport {
        let (worst, result) = (self.worst(), self.result());
        let source = shown(&payload.source);
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

/// The source as it is told: the query of a link may be its key.
fn shown(source: &Source) -> Source {
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
