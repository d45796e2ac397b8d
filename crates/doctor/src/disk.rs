//! Free disk space, and network file systems, whose locks and syncs are not reliable.

use std::path::{Path, PathBuf};

use rustix::fs::{statfs, statvfs};

use super::finding::{Check, Finding, size};

/// The network file systems by their magic numbers on Linux.
const NETWORK: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
];

/// The folder that contains a file.
pub(crate) fn folder_of(file: &Path) -> PathBuf {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Returns the bytes that users other than root can still write in `folder`.
fn free(folder: &Path) -> Option<u64> {
    let status = statvfs(folder).ok()?;
    status.f_bavail.checked_mul(status.f_frsize)
}

/// Judges whether `wanted` bytes are free in `folder`.
pub(crate) fn room(check: &'static str, folder: &Path, wanted: u64) -> Finding {
    let check = Check::new(check, format!("disk space in {}", folder.display()));
    match free(folder) {
        None => check.skipped("the system does not report it", "look with df"),
        Some(free) => judge(&check, free, wanted),
    }
}

fn judge(check: &Check, free: u64, wanted: u64) -> Finding {
    let found = format!("{} free", size(free));
    let remedy = "free some space: on a full disk workers make no changes and complete no jobs";
    if free < wanted / 16 {
        return check.failed(found, remedy);
    }
    if free < wanted {
        return check.warning(format!("{found}, less than {}", size(wanted)), remedy);
    }
    check.ok(found)
}

/// Warns if `folder` is on a network file system.
pub(crate) fn network(check: &'static str, folder: &Path) -> Option<Finding> {
    // The type is signed on some machines, and has 32 or 64 bits. The lower 32 bits are the same everywhere.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "a magic number, not a quantity")]
    let kind = statfs(folder).ok()?.f_type as u64 & 0xffff_ffff;
    let (_, name) = NETWORK.into_iter().find(|(number, _)| *number == kind)?;
    let found = format!("{name}, a network file system: its locks and syncs are not reliable");
    let remedy =
        "use a local disk: on this one two workers could open one store, and a power failure could lose stored data";
    Some(Check::new(check, folder.display()).warning(found, remedy))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn little_space_is_a_warning_and_none_a_failure() {
        let level = |free| judge(&Check::new("x", ""), free, 1600).level;
        assert_eq!(
            [level(1600), level(1599), level(100), level(99)],
            [Level::Ok, Level::Warning, Level::Warning, Level::Failed]
        );
    }

    #[test]
    fn the_free_space_of_this_machine_is_read() {
        let folder = std::env::temp_dir();
        assert_ne!(room("x", &folder, 1).level, Level::Skipped);
        assert_eq!(room("x", Path::new("/no/such/folder"), 1).level, Level::Skipped);
    }
}
