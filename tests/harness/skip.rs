//! Reports skipped tests. The test runner cannot skip at run time, and a test that silently passes would be misleading.

use std::{
    fs::OpenOptions,
    io::{self, Write},
};

/// Set by `tests/run`: a file with one line for each skipped test, so that it can count them.
const SKIPS_VARIABLE: &str = "GENFLEET_TEST_SKIPS";

/// Reports that the calling test is skipped, and why. The test must then return.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {reason}\n", thread.name().unwrap_or("?"));
    // The test runner does not show the output of `eprintln` for a test that passes.
    let _ = io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os(SKIPS_VARIABLE) {
        let file = OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the list of skipped tests is writable");
    }
}
