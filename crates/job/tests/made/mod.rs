//! Files of the workspace that are made from the code. `deploy/generate` writes them, the tests compare them.

use std::{env, fs, path::PathBuf};

/// Where a file of the workspace is.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(name)
}

/// The text of a file; empty if it does not exist.
pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

/// Asserts that a file is what is made from the code now. With `GENFLEET_TEST_WRITE=1` it is written.
pub(crate) fn assert_made(name: &str, wanted: &str) {
    if env::var("GENFLEET_TEST_WRITE").is_ok_and(|write| write == "1") {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), wanted).unwrap();
    }
    let found = text(name);
    let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert!(found == wanted, "{name} is out of date, run deploy/generate: {differs:?}");
}
