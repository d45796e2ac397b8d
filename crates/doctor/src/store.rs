//! The embedded queue's file: whether it is ours and sound, who works it, and whether there is room for it to grow.

use std::path::{Path, PathBuf};

use genfleet_core::queue::{
    QueueError,
    sqlite::{StoreExamination, examine},
};

use super::{
    disk,
    finding::{Finding, size, some},
};

/// A store that grows has its log beside it, and its jobs' bodies in it.
const ROOM: u64 = 1 << 30;

/// Every check of the store at `path`. Reads all of it.
pub(crate) async fn check(path: &Path) -> Vec<Finding> {
    let looked_at = format!("the store {}", path.display());
    let folder = folder(path);
    let owned = path.to_owned();
    let examined = tokio::task::spawn_blocking(move || examine(&owned)).await;
    let mut findings = match examined {
        Ok(Ok(Some(examined))) => there(&looked_at, &examined),
        Ok(Ok(None)) => vec![absent(&looked_at, &folder)],
        Ok(Err(error)) => vec![Finding::failed("store.file", &looked_at, &error, remedy(&error))],
        Err(error) => vec![Finding::failed("store.file", &looked_at, error, "run genfleet doctor again")],
    };
    if folder.is_dir() {
        findings.push(disk::room("store.disk", &folder, ROOM));
        findings.extend(disk::network("store.filesystem", &folder));
    }
    findings
}

fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn there(looked_at: &str, examined: &StoreExamination) -> Vec<Finding> {
    let StoreExamination { bytes, journal, damage, worked } = examined;
    let mut findings = Vec::new();
    if damage.is_empty() {
        findings.push(Finding::ok("store.integrity", looked_at, format!("sound, {}", size(*bytes))));
    } else {
        let remedy = "stop what works it, keep a copy, and save what can be read: sqlite3 FILE .recover | sqlite3 NEW";
        findings.push(Finding::failed("store.integrity", looked_at, format!("damaged: {}", some(damage)), remedy));
    }
    if journal != "wal" && !journal.is_empty() {
        let found = format!("its journal is {journal}, not WAL: something else than genfleet has written to it");
        findings.push(Finding::warning("store.journal", looked_at, found, "none: the next worker sets it again"));
    }
    findings.push(if *worked {
        let found = "a process works it; a second one would not start";
        Finding::ok("store.process", looked_at, found)
    } else {
        Finding::ok("store.process", looked_at, "no process works it now")
    });
    findings
}

fn absent(looked_at: &str, folder: &Path) -> Finding {
    let trial = folder.join(format!(".genfleet-doctor-{}", std::process::id()));
    match std::fs::File::create_new(&trial).and_then(|_| std::fs::remove_file(&trial)) {
        Ok(()) => Finding::ok("store.file", looked_at, "not there yet: the first worker makes it"),
        Err(error) => {
            let found = format!("not there, and {} cannot be written: {error}", folder.display());
            Finding::failed("store.file", looked_at, found, "name a file in a folder that exists and can be written")
        }
    }
}

fn remedy(error: &QueueError) -> &'static str {
    match error {
        QueueError::Configuration(_) => {
            "name another file with --queue-url sqlite:FILE, or use the version that wrote this one"
        }
        QueueError::Store { .. } => "look whether the disk is well, and whether another program holds the file",
        QueueError::Closed | QueueError::Missing(_) | QueueError::Broker(_) | QueueError::TooLarge { .. } => {
            "run genfleet doctor again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn damage_fails_and_a_working_process_is_told() {
        let sound = StoreExamination { bytes: 4096, journal: "wal".to_owned(), damage: Vec::new(), worked: true };
        let message = there("x", &sound);
        assert!(
            message.iter().all(|finding| finding.level == Level::Ok) && message[1].found.contains("a process works it")
        );
        let damaged =
            StoreExamination { damage: vec!["row 3 missing".to_owned()], journal: "delete".to_owned(), ..sound };
        let levels: Vec<_> = there("x", &damaged).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Failed, Level::Warning, Level::Ok]);
    }
}
