//! An audit for tests, on a real file whose writes and syncs fail when a test says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, clippy::new_without_default)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use genfleet_job::{
    JobId, Kind,
    clock::Clock,
    supervisor::{Supervisor, TaskExits},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) mod faults;

use self::faults::Faults;
use crate::{
    Audit, JobAudit,
    file::LogFile,
    names::FileSeries,
    record::payload_sha256,
    verify::{events::ClaimedLines, verify},
    writer::AuditCondition,
};

/// Pause between two tries of the writer.
pub const RETRY: Duration = crate::writer::RETRY;

/// A folder that is removed at the end of a test.
pub struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Creates an empty folder.
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("genfleet-audit-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the series of its chain.
    pub(crate) fn series(&self) -> FileSeries {
        FileSeries::new(self.0.join("audit.jsonl"))
    }

    /// Returns the paths of the audit files.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
        files.sort();
        files
    }

    /// Verifies all chains, and returns the number of their lines.
    pub fn verify(&self) -> u64 {
        let report = verify(&self.files(), ClaimedLines::default(), &[]).unwrap();
        assert_eq!(report.problems, []);
        report.lines
    }

    /// Reads the content of all files.
    pub fn text(&self) -> String {
        self.files().iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Time-out of all waits.
const SOON: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }
}

/// An audit with its own files.
pub struct Rig {
    /// The audit.
    pub audit: Audit,
    /// The faults of its file.
    pub faults: Arc<Faults>,
    /// The folder with its files.
    pub folder: Folder,
    /// Runs its tasks.
    pub supervisor: Supervisor,
    /// The reports of ended tasks.
    pub exits: TaskExits,
    /// Cancelled when its process stops.
    pub stop: CancellationToken,
}

impl Rig {
    /// Creates an audit with a new chain.
    pub fn new() -> Self {
        let folder = Folder::new();
        let (log, end) = LogFile::open(&folder.series(), 100_000).unwrap();
        let faults = Arc::clone(&log.faults);
        let (audit, writer) = Audit::open("p".to_owned(), log, end, Arc::new(Noon));
        let (supervisor, exits) = Supervisor::new();
        writer.start(&supervisor);
        Self { audit, faults, folder, supervisor, exits, stop: CancellationToken::new() }
    }

    /// Begins the audit of a job with this id.
    pub fn begin(&self, job: &str) -> JobAudit {
        self.audit.begin(
            Kind::CdnPurge,
            &JobId::parse(job).unwrap(),
            "cdn_purge_executed",
            &payload_sha256(&json!({"paths": ["/hush"]})),
        )
    }

    /// Reads all written facts.
    pub fn facts(&self) -> Vec<Value> {
        self.folder.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the audit's condition meets `condition`.
    pub async fn wait_for(&self, condition: impl FnMut(&AuditCondition) -> bool) {
        let mut conditions = self.audit.conditions();
        timeout(SOON, conditions.wait_for(condition)).await.expect("in time").unwrap();
    }
}
