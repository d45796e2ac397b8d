//! The payload of a job, and the rules for a path. The API decides whether a path exists.

use std::borrow::Cow;

use genfleet_core::job::Violation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Maximum length of a path in bytes.
pub(crate) const MAX_PATH_BYTES: usize = 2048;

/// CDN cache paths to invalidate.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payload {
    /// Paths that begin with `/`; a `*` as the last character matches everything with this prefix.
    #[schemars(length(min = 1, max = 10_000))]
    pub paths: Vec<String>,
    /// Must be true if a path is `/*`.
    #[serde(default)]
    pub allow_purge_all: bool,
}

impl Payload {
    /// Returns every invalid path, with the first rule that it violates.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let broken = |path: &String| broken_rule(path).or_else(|| self.forbids(path));
        self.paths
            .iter()
            .enumerate()
            .filter_map(|(index, path)| Some(Violation::new(format!("/payload/paths/{index}"), broken(path)?)))
            .collect()
    }

    fn forbids(&self, path: &str) -> Option<&'static str> {
        (path == "/*" && !self.allow_purge_all).then_some("/* purges everything: it needs allowPurgeAll true")
    }
}

/// Returns the first rule that `path` violates.
fn broken_rule(path: &str) -> Option<&'static str> {
    let Some(after_slash) = path.strip_prefix('/') else {
        return Some("a path starts with /");
    };
    if after_slash.is_empty() || after_slash.starts_with('/') {
        return Some("the first segment is empty: name what to purge, or everything as /*");
    }
    if path.len() > MAX_PATH_BYTES {
        return Some("a path has at most 2048 bytes");
    }
    if let Some(rule) = path.chars().find_map(forbidden_character) {
        return Some(rule);
    }
    if has_dot_segment(path) {
        return Some("a path has no . or .. segment, also not with %2e or %2f for its characters");
    }
    match path.find('*') {
        Some(at) if at + 1 < path.len() => Some("a path has at most one *, as its very last character"),
        _ => None,
    }
}

/// Returns true if a path has a dot segment after it is decoded.
fn has_dot_segment(path: &str) -> bool {
    let mut decoded = Cow::Borrowed(path);
    for (code, character) in [("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/")] {
        if decoded.contains(code) {
            decoded = decoded.replace(code, character).into();
        }
    }
    decoded.split('/').any(|segment| segment == "." || segment == "..")
}

fn forbidden_character(character: char) -> Option<&'static str> {
    match character {
        '?' => Some("a path has no ?: query strings are not part of it"),
        '#' => Some("a path has no #: fragments are not part of it"),
        _ if character.is_control() => Some("a path has no control characters"),
        _ if character.is_whitespace() => Some("a path has no white space"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(paths: &[&str], allow_purge_all: bool) -> Payload {
        Payload { paths: paths.iter().map(|path| (*path).to_owned()).collect(), allow_purge_all }
    }

    #[test]
    fn good_paths_pass() {
        let longest = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1));
        let good = [
            "/a",
            "/a/",
            "/a//b",
            "/a*",
            "/a/*",
            "/a/.hidden",
            "/a/b..c",
            "/...",
            "/a/%2e%2e%2e",
            "/a%2e%2e/b",
            "/%252e%252e/a",
            "/a/%2e%2eb",
            "/a/..%2",
            "/é/ü.css",
            "/a%20b",
            "/a\"b\\c",
        ];
        for path in good.into_iter().chain([longest.as_str()]) {
            assert_eq!(payload(&[path], false).violations(), [], "{path}");
        }
    }

    #[test]
    fn a_bad_path_is_told_which_rule_it_breaks() {
        let too_long = format!("/{}", "a".repeat(MAX_PATH_BYTES));
        let too_long_in_bytes = format!("/{}", "é".repeat(MAX_PATH_BYTES / 2));
        let table = [
            ("", "starts with /"),
            ("a/b", "starts with /"),
            ("*", "starts with /"),
            (" /a", "starts with /"),
            ("https://cdn.example/a", "starts with /"),
            ("/", "first segment is empty"),
            ("//a", "first segment is empty"),
            (too_long.as_str(), "2048 bytes"),
            (too_long_in_bytes.as_str(), "2048 bytes"),
            ("/a b", "white space"),
            ("/a\u{a0}b", "white space"),
            ("/a\u{3000}", "white space"),
            ("/a\u{2028}b", "white space"),
            ("/a\tb", "control"),
            ("/a\n", "control"),
            ("/a\u{7f}", "control"),
            ("/a\u{85}b", "control"),
            ("/a\0", "control"),
            ("/a?v=1", "no ?"),
            ("/a#top", "no #"),
            ("/./a", ". or .. segment"),
            ("/a/..", ". or .. segment"),
            ("/a/../b", ". or .. segment"),
            ("/..", ". or .. segment"),
            ("/a/%2e%2e/b", ". or .. segment"),
            ("/a/%2E.", ". or .. segment"),
            ("/a/.%2e/", ". or .. segment"),
            ("/%2e", ". or .. segment"),
            ("/a/..%2fb", ". or .. segment"),
            ("/a%2F%2e%2Eb/%2F%2e", ". or .. segment"),
            ("/a/*/b", "very last"),
            ("/a**", "very last"),
            ("/*a*", "very last"),
            ("/*", "allowPurgeAll"),
        ];
        for (path, rule) in table {
            let violations = payload(&[path], false).violations();
            assert_eq!(violations.len(), 1, "{path:?}: {violations:?}");
            assert!(violations[0].message.contains(rule), "{path:?}: {violations:?}");
        }
    }

    #[test]
    fn everything_may_be_purged_where_it_is_allowed() {
        assert_eq!(payload(&["/*", "/a"], true).violations(), []);
    }

    #[test]
    fn every_bad_path_is_reported_once_at_its_place() {
        let pointers: Vec<_> = payload(&["/a", "b?", "/c", "/ #"], false)
            .violations()
            .into_iter()
            .map(|violation| violation.pointer)
            .collect();
        assert_eq!(pointers, ["/payload/paths/1", "/payload/paths/3"]);
        assert_eq!(payload(&["b"; 250], false).violations().len(), 250);
    }

    #[test]
    fn unknown_members_and_wrong_types_are_refused() {
        for json in
            [r#"{"paths":["/a"],"path":"/b"}"#, r#"{"paths":"/a"}"#, r#"{"paths":[1]}"#, r#"{"allowPurgeAll":true}"#]
        {
            assert!(serde_json::from_str::<Payload>(json).is_err(), "{json}");
        }
        let read: Payload = serde_json::from_str(r#"{"paths":["/*"],"allowPurgeAll":true}"#).unwrap();
        assert_eq!(read.violations(), []);
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_what_passes_keeps_every_rule(path in any::<String>()) {
            if payload(&[&path], false).violations().is_empty() {
                prop_assert!(path.starts_with('/') && path.len() <= MAX_PATH_BYTES && path.len() > 1);
                prop_assert!(!path.chars().any(|c| c.is_whitespace() || c.is_control() || c == '?' || c == '#'));
                prop_assert!(path.find('*').is_none_or(|at| at + 1 == path.len()));
            }
        }

        #[test]
        fn paths_of_plain_segments_pass(segments in prop::collection::vec("[a-z0-9_-]{1,12}", 1..8), star in any::<bool>()) {
            let path = format!("/{}{}", segments.join("/"), if star { "*" } else { "" });
            prop_assert_eq!(payload(&[&path], false).violations(), vec![]);
        }

        #[test]
        fn one_forbidden_character_anywhere_is_a_violation(at in 1_usize..6, bad in prop::sample::select(vec![' ', '?', '#', '\n', '\u{2003}', '\u{9f}'])) {
            let mut path = "/abcdef".to_owned();
            path.insert(at, bad);
            prop_assert_eq!(payload(&[&path], true).violations().len(), 1);
        }
    }
}
