//! A job's facts in audit files, as they were written. `genfleet audit verify` checks whether the files were changed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::PathBuf,
};

use anyhow::Context;
use genfleet_core::options::ConfigError;
use serde_json::Value;

/// Reads the facts about job `id` from `files`, in their order. Skips lines that are not facts.
pub(super) fn facts(files: &[PathBuf], id: &str) -> anyhow::Result<Vec<Value>> {
    let mut facts = Vec::new();
    for path in files {
        let file = File::open(path)
            .map_err(|error| ConfigError::new(format!("--audit {} cannot be read: {error}", path.display())))?;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.with_context(|| format!("{} cannot be read", path.display()))?;
            let fact = serde_json::from_slice::<Value>(&line).unwrap_or_default();
            if fact["jobId"] == id {
                facts.push(fact);
            }
        }
    }
    Ok(facts)
}
