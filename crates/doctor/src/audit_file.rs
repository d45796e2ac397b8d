//! The audit: whether its file can be written, where its chain ends, and whether there is enough disk space.

use std::sync::Arc;

use genfleet_core::{
    audit::{AuditOptions, AuditTarget},
    clock::{SharedClock, SystemClock},
};

use super::{
    disk,
    finding::{Check, Finding},
};

const CHECK: &str = "audit.file";

/// Runs all checks of the audit; `default` is the file that is used if none is configured.
pub(crate) fn check(options: &AuditOptions, default: &str) -> Vec<Finding> {
    let clock: SharedClock = Arc::new(SystemClock);
    let audit = Check::new(CHECK, "the audit");
    match options.look(default, &clock) {
        Err(error) => {
            let remedy = "set a file in a writable folder with --audit-log; no worker starts without an audit";
            vec![audit.failed(error, remedy)]
        }
        Ok(AuditTarget::Off) => vec![audit.warning(
            "off: changes are not recorded, and cannot be traced to the job that made them",
            "set a file with --audit-log, unless this is intended",
        )],
        Ok(AuditTarget::Stdout) => {
            vec![audit.ok("is written to stdout without sync: the program that reads it has to store it")]
        }
        Ok(AuditTarget::File { path, held, tail }) => {
            let file = Check::new(CHECK, format!("the audit {}", path.display()));
            let written =
                if held { "; a process writes it now, and another one would add a number to the name" } else { "" };
            let mut findings = vec![match (&tail.end, tail.damaged, tail.torn.len()) {
                (_, damaged @ 1.., _) => {
                    let remedy =
                        format!("genfleet audit verify {} shows which; a worker starts a new file", path.display());
                    file.failed(
                        format!("its last {damaged} lines were changed after they were written{written}"),
                        remedy,
                    )
                }
                // A line that is being written may look incomplete.
                (_, _, torn @ 1..) if !held => file.warning(
                    format!("its last line is incomplete ({torn} bytes) because of a crash"),
                    "nothing: the next worker sets the line aside and continues the chain",
                ),
                (Some(end), ..) => file.ok(format!("can be written; its chain ends at line {}{written}", end.seq)),
                (None, ..) => file.ok(format!("can be written; its chain is empty{written}")),
            }];
            let folder = disk::folder_of(&path);
            findings.push(disk::room("audit.disk", &folder, options.audit_rotate.saturating_mul(2)));
            findings.extend(disk::network("audit.filesystem", &folder));
            findings
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::finding::Level, *};

    fn first(file: &str) -> Finding {
        let options = AuditOptions { audit_log: Some(file.to_owned()), audit_rotate: 1 };
        check(&options, "unused").remove(0)
    }

    #[test]
    fn an_unwritable_file_fails_and_an_incomplete_line_is_reported() {
        let folder = std::env::temp_dir().join(format!("genfleet-doctor-audit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        assert_eq!(first(&file("no/such/audit.jsonl")).level, Level::Failed);
        let fresh = first(&file("audit.jsonl"));
        assert!(fresh.level == Level::Ok && fresh.found.contains("chain is empty"), "{fresh:?}");
        assert!(!folder.join("audit.jsonl").exists(), "checking creates no file");
        fs::write(folder.join("foreign.jsonl"), "127.0.0.1 localhost\n").unwrap();
        assert_eq!(first(&file("foreign.jsonl")).level, Level::Failed);
        fs::write(folder.join("torn.jsonl"), r#"{"action":"cdn_pu"#).unwrap();
        assert_eq!(first(&file("torn.jsonl")).level, Level::Warning);
        assert_eq!(first("off").level, Level::Warning);
        fs::remove_dir_all(folder).unwrap();
    }
}
