//! Reads a line back, and checks that it was not changed. [`verify`](super::verify()) checks that it follows the
//! previous line.

use serde_json::{Map, Value};

use super::record::ChainLink;
use genfleet_job::hash;

/// An unchanged line.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// All members except `hash`.
    pub members: Map<String, Value>,
    /// Its number.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// The hash of the line before.
    pub prev_hash: String,
}

impl AuditRecord {
    /// Returns a member that is text, or an empty text.
    pub fn text(&self, member: &str) -> &str {
        self.members.get(member).and_then(Value::as_str).unwrap_or_default()
    }

    /// The link that the next line follows.
    pub(crate) fn link(&self) -> ChainLink {
        ChainLink { seq: self.seq, hash: self.hash.clone() }
    }
}

/// A changed line.
#[derive(Clone, Debug, PartialEq)]
pub struct DamagedLine {
    /// The reason.
    pub why: &'static str,
    /// The possible hashes of the original line: the stated one and that of the content; empty if none is known.
    pub hashes: Vec<String>,
}

/// Reads a line, given without its end.
pub(crate) fn read(line: &[u8]) -> Result<AuditRecord, DamagedLine> {
    let damaged = |why| DamagedLine { why, hashes: Vec::new() };
    let value: Value = serde_json::from_slice(line).map_err(|_| damaged("it is not JSON"))?;
    let form = hash::canonical(&value);
    let Value::Object(mut members) = value else { return Err(damaged("it is no JSON object")) };
    let stated = members.remove("hash").and_then(|hash| hash.as_str().map(str::to_owned));
    let (members, computed) = split_hash(members);
    // If the name of the hash was changed, the content was changed, too.
    let hashes = || stated.clone().map_or_else(Vec::new, |stated| vec![stated, computed.clone()]);
    if form.as_bytes() != line {
        return Err(DamagedLine { why: "it is not in the form it was written in", hashes: hashes() });
    }
    if stated.as_ref() != Some(&computed) {
        return Err(DamagedLine { why: "its hash is not that of its content", hashes: hashes() });
    }
    let seq = members.get("seq").and_then(Value::as_u64);
    let prev_hash = members.get("prevHash").and_then(Value::as_str).map(str::to_owned);
    match (seq, prev_hash) {
        (Some(seq @ 1..), Some(prev_hash)) => Ok(AuditRecord { members, seq, hash: computed, prev_hash }),
        _ => Err(damaged("it has no seq and prevHash")),
    }
}

fn split_hash(members: Map<String, Value>) -> (Map<String, Value>, String) {
    let value = Value::Object(members);
    let computed = hash::sha256(hash::canonical(&value));
    let Value::Object(members) = value else { return (Map::new(), computed) };
    (members, computed)
}
