//! A line of the audit: its members and its hash. [`read`](super::read) reads a line back.
//!
//! A line is canonical JSON (UTF-8, members in the order of their names, no space), so its bytes follow from its
//! content. `hash` is the SHA-256, in lower-case hexadecimal, of the line without its member `hash`: parsed, `hash`
//! taken out, written again in the same form, without the line's end. `prevHash` is the `hash` of the line before;
//! of the first line 64 zeros. `seq` counts from 1 without a gap.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use genfleet_job::{JobId, event::AuditReference, hash, options::ConfigError};

/// `prevHash` of the first line.
pub(crate) const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Initial capacity of the buffer of a line, in bytes.
const USUAL_LENGTH: usize = 1024;

/// The type of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// The intent to change something outside.
    Intent,
    /// The result of an intent.
    Effect,
    /// The result of a job.
    Outcome,
}

/// The details of a fact: names and values, never a payload, a token or a secret. Numbers are whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Detail(BTreeMap<&'static str, Value>);

impl Detail {
    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        let mut value = value.into();
        value.sort_all_objects();
        self.0.insert(name, value);
        self
    }

    /// Adds a member if there is a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// The subject of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSubject {
    /// The job; `None` for changes of the process itself.
    pub job: Option<JobId>,
    /// The job's kind, or `unknown`.
    pub kind: &'static str,
    /// The worker of the kind.
    pub worker: &'static str,
    /// The worker's name of the action.
    pub action: &'static str,
    /// The hash from [`payload_sha256`]; `None` if the payload cannot be read.
    pub payload_sha256: Option<String>,
}

/// Computes the SHA-256 of a job's payload as canonical JSON, which is the same in every fact of the job.
pub fn payload_sha256(payload: &Value) -> String {
    hash::sha256(hash::canonical(payload))
}

/// The end of a chain: the line that the next one follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// Its `seq`; 0 if there is none.
    pub seq: u64,
    /// Its `hash`, or [`NO_HASH`].
    pub hash: String,
}

impl Default for ChainLink {
    fn default() -> Self {
        Self { seq: 0, hash: NO_HASH.to_owned() }
    }
}

/// Writes `SEQ:HASH`, as in the log and for `genfleet audit verify --anchor`.
impl fmt::Display for ChainLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for ChainLink {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let (seq, hash) = written.trim().split_once(':').unwrap_or_default();
        let is_hash = hash.len() == NO_HASH.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        match seq.parse() {
            Ok(seq @ 1..) if is_hash => Ok(Self { seq, hash: hash.to_ascii_lowercase() }),
            _ => Err(ConfigError::new(format!(
                "{written:?} is no anchor; write SEQ:HASH, as the log shows it (the hash has 64 hexadecimal digits)"
            ))),
        }
    }
}

/// A line that is ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The link that the next line follows.
    pub link: ChainLink,
    /// The bytes, with the line's end.
    pub bytes: Vec<u8>,
}

/// The members before `hash`, by name.
#[derive(Serialize)]
struct Head<'a> {
    action: &'a str,
    detail: &'a Detail,
    fact: Fact,
}

/// The members after it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rest<'a> {
    job_id: Option<&'a JobId>,
    kind: &'a str,
    payload_sha256: Option<&'a str>,
    prev_hash: &'a str,
    process: &'a str,
    seq: u64,
    time: String,
    worker: &'a str,
}

/// A chain of lines, each with the hash of the one before.
#[derive(Debug)]
pub(crate) struct Chain {
    process: String,
    end: ChainLink,
}

impl Chain {
    /// Creates a chain of `process` that continues after `end`.
    pub(crate) fn new(process: String, end: ChainLink) -> Self {
        Self { process, end }
    }

    /// The process that writes it.
    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    /// Number of its last line.
    pub(crate) fn last(&self) -> u64 {
        self.end.seq
    }

    /// Appends a line; the second value is its name.
    pub(crate) fn append(
        &mut self,
        about: &AuditSubject,
        fact: Fact,
        detail: &Detail,
        time: Timestamp,
    ) -> (Line, AuditReference) {
        let seq = self.end.seq + 1;
        let rest = Rest {
            job_id: about.job.as_ref(),
            kind: about.kind,
            payload_sha256: about.payload_sha256.as_deref(),
            prev_hash: &self.end.hash,
            process: &self.process,
            seq,
            time: format!("{time:.3}"),
            worker: about.worker,
        };
        let mut bytes = Vec::with_capacity(USUAL_LENGTH);
        write_json(&Head { action: about.action, detail, fact }, &mut bytes);
        let end_of_head = bytes.len() - 1;
        write_json(&rest, &mut bytes);
        // `{…}{…}` becomes `{…,…}`, which is hashed, and then gets the hash after the comma.
        bytes.splice(end_of_head..end_of_head + 2, *b",");
        let hash = hash::sha256(&bytes);
        let (member, after_comma) = (format!("\"hash\":\"{hash}\","), end_of_head + 1);
        bytes.splice(after_comma..after_comma, member.into_bytes());
        bytes.push(b'\n');
        self.end = ChainLink { seq, hash: hash.clone() };
        (Line { link: self.end.clone(), bytes }, AuditReference { process: self.process.clone(), seq, hash })
    }
}

/// Serializes texts and whole numbers, which always succeeds.
fn write_json(members: &impl Serialize, bytes: &mut Vec<u8>) {
    if serde_json::to_writer(&mut *bytes, members).is_err() {
        bytes.extend(b"{}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::read::{AuditRecord, read};

    fn chain() -> Chain {
        Chain::new("host-1-start".to_owned(), ChainLink::default())
    }

    fn about() -> AuditSubject {
        AuditSubject {
            job: JobId::parse("job-1"),
            kind: "cdn.purge",
            worker: "purger",
            action: "cdn_purge_executed",
            payload_sha256: Some(payload_sha256(&json!({"paths": ["/a"]}))),
        }
    }

    fn lines(count: usize) -> Vec<Vec<u8>> {
        let (mut chain, detail) = (chain(), Detail::default().with("status", 202).with("endpoint", "/é\"\\\n"));
        let mut line = || chain.append(&about(), Fact::Effect, &detail, Timestamp::UNIX_EPOCH).0.bytes;
        (0..count).map(|_| line()).collect()
    }

    #[test]
    fn a_line_has_its_members_in_the_order_of_their_names_and_is_read_back() {
        let detail = Detail::default().with("status", 202).with("inner", json!({"b": 1, "a": 2}));
        let (line, stamp) = chain().append(&about(), Fact::Intent, &detail, Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(line.bytes).unwrap();
        let expected = format!(
            r#"{{"action":"cdn_purge_executed","detail":{{"inner":{{"a":2,"b":1}},"status":202}},"fact":"intent","hash":"{}","jobId":"job-1","kind":"cdn.purge","payloadSha256":"{}","prevHash":"{NO_HASH}","process":"host-1-start","seq":1,"time":"1970-01-01T00:00:00.000Z","worker":"purger"}}"#,
            stamp.hash,
            hash::sha256(r#"{"paths":["/a"]}"#),
        );
        assert_eq!(text.trim_end(), expected);
        assert_eq!(read(text.trim_end().as_bytes()).unwrap().link(), ChainLink { seq: 1, hash: stamp.hash.clone() });
        let without = text.trim_end().replace(&format!(r#""hash":"{}","#, stamp.hash), "");
        assert_eq!(hash::sha256(without), stamp.hash, "cutting the member out of the text does as well");
    }

    #[test]
    fn an_anchor_is_read_as_it_is_told() {
        let link = ChainLink { seq: 7, hash: hash::sha256("a") };
        assert_eq!(link.to_string().parse::<ChainLink>().unwrap(), link);
        assert_eq!(format!(" {} ", link.to_string().to_uppercase()).parse::<ChainLink>().unwrap(), link);
        for wrong in ["", "7", "7:", ":", &format!("0:{}", link.hash), &format!("7:{}0", link.hash), &"x".repeat(66)] {
            assert!(wrong.parse::<ChainLink>().unwrap_err().to_string().contains("SEQ:HASH"), "{wrong}");
        }
    }

    #[test]
    fn every_line_names_the_one_before() {
        let read = |line: &Vec<u8>| read(line.trim_ascii_end()).unwrap();
        let all: Vec<AuditRecord> = lines(3).iter().map(read).collect();
        assert_eq!(all[0].prev_hash, NO_HASH);
        assert_eq!((all[1].seq, &all[1].prev_hash), (2, &all[0].hash));
        assert_eq!((all[2].seq, &all[2].prev_hash), (3, &all[1].hash));
    }

    #[test]
    fn any_byte_changed_to_any_other_shows() {
        let line = lines(1).remove(0);
        let line = line.trim_ascii_end();
        for place in 0..line.len() {
            for byte in (0..=u8::MAX).filter(|byte| *byte != line[place]) {
                let mut changed = line.to_vec();
                changed[place] = byte;
                assert!(read(&changed).is_err(), "byte {place} as {byte}");
            }
        }
    }

    #[test]
    fn a_line_without_a_job_and_one_written_otherwise() {
        let nobody = AuditSubject { job: None, payload_sha256: None, ..about() };
        let (line, _) = chain().append(&nobody, Fact::Intent, &Detail::default(), Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(line.bytes).unwrap();
        assert!(read(text.trim_end().as_bytes()).unwrap().members["jobId"].is_null());
        assert!(read(text.trim_end().replace(r#""seq":1"#, r#""seq": 1"#).as_bytes()).is_err());
        assert!(read(text.trim_end().replace(r#""seq":1"#, r#""seq":1,"seq":1"#).as_bytes()).is_err(), "twice");
    }
}
