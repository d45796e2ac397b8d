//! The file of the embedded queue: whether it is a valid store, whether a process uses it, and whether there is disk
//! space.

use std::path::Path;

use genfleet_core::queue::{
    QueueError,
    sqlite::{StoreExamination, examine},
};

use super::{
    disk,
    finding::{Check, Finding, size, some},
};

/// The disk space that a store may need for its jobs and its write-ahead log, in bytes.
const ROOM: u64 = 1 << 30;

/// Runs all checks of the store at `path`. Reads the whole file.
pub(crate) async fn check(path: &Path) -> Vec<Finding> {
    let looked_at = format!("the store {}", path.display());
    let folder = disk::folder_of(path);
    let owned = path.to_owned();
    let examined = tokio::task::spawn_blocking(move || examine(&owned)).await;
    let file = Check::new("store.file", &looked_at);
    let mut findings = match examined {
        Ok(Ok(Some(examined))) => judge(&looked_at, &examined),
        Ok(Ok(None)) => vec![judge_missing(&file, &folder)],
        Ok(Err(error)) => vec![file.failed(&error, remedy(&error))],
        Err(error) => vec![file.failed(error, "run genfleet doctor again")],
    };
    if folder.is_dir() {
        findings.push(disk::room("store.disk", &folder, ROOM));
        findings.extend(disk::network("store.filesystem", &folder));
    }
    findings
}

fn judge(looked_at: &str, examined: &StoreExamination) -> Vec<Finding> {
    let StoreExamination { bytes, journal, damage, worked } = examined;
    let integrity = Check::new("store.integrity", looked_at);
    let mut findings = vec![if damage.is_empty() {
        integrity.ok(format!("undamaged, {}", size(*bytes)))
    } else {
        let remedy = "stop the process that works it, keep a copy, and recover what is readable: sqlite3 FILE .recover | sqlite3 NEW";
        integrity.failed(format!("damaged: {}", some(damage)), remedy)
    }];
    if journal != "wal" && !journal.is_empty() {
        let found = format!("its journal mode is {journal}, not WAL: a program other than genfleet has written to it");
        let journal = Check::new("store.journal", looked_at);
        findings.push(journal.warning(found, "nothing: the next worker sets the mode again"));
    }
    let found =
        if *worked { "a process uses this store; a second one would not start" } else { "no process works it now" };
    findings.push(Check::new("store.process", looked_at).ok(found));
    findings
}

fn judge_missing(file: &Check, folder: &Path) -> Finding {
    let trial = folder.join(format!(".genfleet-doctor-{}", std::process::id()));
    match std::fs::File::create_new(&trial).and_then(|_| std::fs::remove_file(&trial)) {
        Ok(()) => file.ok("not there yet: the first worker creates it"),
        Err(error) => file.failed(
            format!("not there, and {} cannot be written: {error}", folder.display()),
            "set a file in a folder that exists and can be written",
        ),
    }
}

fn remedy(error: &QueueError) -> &'static str {
    match error {
        QueueError::Configuration(_) => {
            "name another file with --queue-url sqlite:FILE, or use the version that wrote this one"
        }
        QueueError::Store { .. } => "check the disk, and whether another program locks the file",
        QueueError::Closed | QueueError::Missing(_) | QueueError::Broker(_) | QueueError::TooLarge { .. } => {
            "run genfleet doctor again"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn damage_fails_and_a_process_that_works_it_is_reported() {
        let sound = StoreExamination { bytes: 4096, journal: "wal".to_owned(), damage: Vec::new(), worked: true };
        let findings = judge("x", &sound);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok)
                && findings[1].found.contains("a process uses this store")
        );
        let damaged =
            StoreExamination { damage: vec!["row 3 missing".to_owned()], journal: "delete".to_owned(), ..sound };
        let levels: Vec<_> = judge("x", &damaged).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Failed, Level::Warning, Level::Ok]);
    }
}
