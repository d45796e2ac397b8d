//! That `docs/ERRORS.md` lists every code a job can end with, and no other; and that every code in the sources is one
//! of those.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use genfleet_core::{
    contract::{COMMON_CODES, KindContract},
    webhook::Deliverer,
};
use regex::Regex;

use crate::registry::contracts;

const EVERY_KIND: &str = "Codes of every kind";
const LOG_ONLY: &str = "Codes in the log only";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The codes in the tables of the document, by heading.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/ERRORS.md")).unwrap();
    let (mut found, mut heading) = (BTreeMap::<String, BTreeSet<String>>::new(), String::new());
    for line in text.lines() {
        if line.starts_with('#') {
            line.trim_start_matches('#').trim().trim_matches('`').clone_into(&mut heading);
        } else if let Some((code, _)) = line.strip_prefix("| `").and_then(|row| row.split_once("` |")) {
            let is_new = found.entry(heading.clone()).or_default().insert(code.to_owned());
            assert!(is_new, "{code} is there twice under {heading}");
        }
    }
    found
}

/// The tables that the published schemas are made of, by the document's headings.
fn published() -> BTreeMap<String, BTreeSet<String>> {
    let own = contracts().into_iter().chain([KindContract::of::<Deliverer>()]);
    let own = own.map(|kind| (kind.kind.to_string(), kind.terms.codes));
    let all = own.chain([(EVERY_KIND.to_owned(), COMMON_CODES.to_vec())]);
    all.map(|(name, codes)| (name, codes.iter().map(|code| code.code.to_owned()).collect())).collect()
}

#[test]
fn the_document_lists_the_codes_of_every_kind_and_no_other() {
    let documented = documented();
    for (heading, codes) in published() {
        let listed = documented.get(&heading).cloned().unwrap_or_default();
        assert_eq!(listed, codes, "docs/ERRORS.md, {heading}");
    }
}

/// Matches the places in the code at which an error gets its code.
const GIVEN: &str = concat!(
    r#"JobError::permanent\(\s*"([a-z_]+)"|(?:Rejection|UnreadableBody)::new\((?:id, )?"([a-z_]+)"|code: "([a-z_]+)""#,
    r#"|const (?:CODE|UNEXPECTED): &str = "([a-z_]+)"|ErrorClass::\w+(?: \{[^{}]*\})?,\s*"([a-z_]+)""#,
    r#"|(?:may_have_arrived|unknown_effect)\(repeat\), "([a-z_]+)"|ClosedReason::\w+ => \("([a-z_]+)""#,
    r#"|scan_failure\("([a-z_]+)"|job, has_begun, "([a-z_]+)""#,
);

/// The codes that errors are given in `folder`, outside of tests.
fn given(folder: &Path, pattern: &Regex, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "tests") {
            given(&path, pattern, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let shipped = source.split("#[cfg(test)]").next().unwrap_or_default();
            let codes = pattern.captures_iter(shipped).filter_map(|all| all.iter().skip(1).flatten().next());
            found.extend(codes.map(|code| code.as_str().to_owned()));
        }
    }
}

/// Both ways: a code in no table would reach nobody's documentation, and one that is made nowhere is a promise of
/// nothing. A constructor that [`GIVEN`] does not know shows as the latter.
#[test]
fn every_code_in_the_sources_is_documented_and_every_documented_one_is_made() {
    let (pattern, mut found) = (Regex::new(GIVEN).unwrap(), BTreeSet::new());
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        // The simulator answers with the platform's codes, which are not ours.
        if !folder.ends_with("simulator") {
            given(&folder.join("src"), &pattern, &mut found);
        }
    }
    let mut known: BTreeSet<String> = published().into_values().flatten().collect();
    known.extend(documented().remove(LOG_ONLY).unwrap());
    assert_eq!(found, known);
}
