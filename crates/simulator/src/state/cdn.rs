//! The CDN: purged paths, and the rules for refusing purges.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use crate::errors::ApiError;

const MOST_PATHS_IN_A_PURGE: usize = 100;

/// The purged paths.
#[derive(Debug, Default)]
pub(crate) struct Cdn {
    /// Number of purges of each path.
    pub(crate) purged: BTreeMap<String, u64>,
    /// Number of purge requests that had their effect.
    pub(crate) purge_requests: u64,
}

impl Cdn {
    /// Purges all paths of a request or none, and returns their number.
    pub(crate) fn purge(&mut self, body: &Value) -> Result<usize, ApiError> {
        let paths = purge_paths(body)?;
        for path in &paths {
            *self.purged.entry((*path).to_owned()).or_default() += 1;
        }
        self.purge_requests += 1;
        Ok(paths.len())
    }
}

fn purge_paths(body: &Value) -> Result<Vec<&str>, ApiError> {
    let Some(paths) = body.get("paths").and_then(Value::as_array) else {
        return Err(ApiError::invalid_value("paths must be a list of strings"));
    };
    if paths.is_empty() || paths.len() > MOST_PATHS_IN_A_PURGE {
        return Err(ApiError::invalid_value(format!("paths must hold 1 to {MOST_PATHS_IN_A_PURGE} paths")));
    }
    let mut seen = HashSet::new();
    let mut good = Vec::with_capacity(paths.len());
    for path in paths {
        let text = path.as_str().filter(|text| is_purge_path(text)).ok_or_else(|| bad_path(path, paths.len()))?;
        if !seen.insert(text) {
            return Err(ApiError::invalid_value("one of the paths is there twice"));
        }
        good.push(text);
    }
    Ok(good)
}

/// The error does not say which of several paths is invalid; the client has to find out.
fn bad_path(path: &Value, sent: usize) -> ApiError {
    if sent == 1 {
        return ApiError::invalid_value(format!("the path {path} is invalid"));
    }
    ApiError::invalid_value("one of the paths is invalid")
}

fn is_purge_path(path: &str) -> bool {
    let has_bad_character = path.chars().any(|character| character.is_whitespace() || matches!(character, '?' | '#'));
    let before_the_end = path.strip_suffix('*').unwrap_or(path);
    path.starts_with('/') && !has_bad_character && !before_the_end.contains('*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_may_only_be_the_last_character_of_a_path() {
        for good in ["/", "/*", "/a/b.js", "/a/*", "/a*"] {
            assert!(is_purge_path(good), "{good}");
        }
        for bad in ["", "a", "*", "/a/*/b", "/**", "/a b", "/a\u{a0}b", "/a?b", "/a#b"] {
            assert!(!is_purge_path(bad), "{bad}");
        }
    }
}
