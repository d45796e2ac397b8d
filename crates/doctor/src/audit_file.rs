//! The audit: whether it can be written, where its chain ends, and whether there is room for it.

use std::{path::Path, sync::Arc};

use genfleet_core::{
    audit::{AuditOptions, AuditTarget},
    clock::{SharedClock, SystemClock},
};

use super::{disk, finding::Finding};

const CHECK: &str = "audit.file";

/// Every check of it; `default` is the file where none is named.
pub(crate) fn check(options: &AuditOptions, default: &str) -> Vec<Finding> {
    let clock: SharedClock = Arc::new(SystemClock);
    match options.look(default, &clock) {
        Err(error) => {
            let remedy =
                "name a file in a folder that can be written with --audit-log; without an audit no worker starts";
            vec![Finding::failed(CHECK, "the audit", error, remedy)]
        }
        Ok(AuditTarget::Off) => vec![Finding::warning(
            CHECK,
            "the audit",
            "off: nobody can tell later what was changed, and by which job",
            "name a file with --audit-log, unless that is meant",
        )],
        Ok(AuditTarget::Stdout) => {
            vec![Finding::ok(CHECK, "the audit", "goes to stdout, unsynced: what reads it keeps it")]
        }
        Ok(AuditTarget::File { path, held, tail }) => {
            let looked_at = format!("the audit {}", path.display());
            let written =
                if held { "; a process writes it now, and another one would put its number to the name" } else { "" };
            let mut findings = vec![match (&tail.end, tail.damaged, tail.torn.len()) {
                (_, damaged @ 1.., _) => {
                    let found = format!("its last {damaged} lines are not as they were written{written}");
                    let remedy =
                        format!("genfleet audit verify {} tells which; a worker goes on in a new file", path.display());
                    Finding::failed(CHECK, &looked_at, found, remedy)
                }
                // What is being written now may look torn.
                (_, _, torn @ 1..) if !held => {
                    let found = format!("a crash tore its last line ({torn} bytes)");
                    Finding::warning(
                        CHECK,
                        &looked_at,
                        found,
                        "none: the next worker sets it aside, and the chain goes on",
                    )
                }
                (Some(end), ..) => {
                    Finding::ok(CHECK, &looked_at, format!("can be written, its chain is at line {}{written}", end.seq))
                }
                (None, ..) => Finding::ok(CHECK, &looked_at, format!("can be written, and begins anew{written}")),
            }];
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            findings.push(disk::room("audit.disk", folder, options.audit_rotate.saturating_mul(2)));
            findings.extend(disk::network("audit.filesystem", folder));
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
    fn what_cannot_be_written_fails_and_what_is_torn_is_told() {
        let folder = std::env::temp_dir().join(format!("genfleet-doctor-audit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        assert_eq!(first(&file("no/such/audit.jsonl")).level, Level::Failed);
        let fresh = first(&file("audit.jsonl"));
        assert!(fresh.level == Level::Ok && fresh.found.contains("begins anew"), "{fresh:?}");
        assert!(!folder.join("audit.jsonl").exists(), "looking makes no file");
        fs::write(folder.join("foreign.jsonl"), "127.0.0.1 localhost\n").unwrap();
        assert_eq!(first(&file("foreign.jsonl")).level, Level::Failed);
        fs::write(folder.join("torn.jsonl"), r#"{"action":"cdn_pu"#).unwrap();
        assert_eq!(first(&file("torn.jsonl")).level, Level::Warning);
        assert_eq!(first("off").level, Level::Warning);
        fs::remove_dir_all(folder).unwrap();
    }
}
