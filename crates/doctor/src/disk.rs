//! Room on a disk, and disks that are none: locks and syncs on network file systems are not to be relied on.

use std::path::Path;

use rustix::fs::{statfs, statvfs};

use super::finding::{Finding, size};

/// By the numbers that Linux gives them: NFS, SMB, SMB2, CIFS, 9p, Ceph, AFS, Lustre.
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

/// What is free in `folder` for whoever is not root, in bytes.
fn free(folder: &Path) -> Option<u64> {
    let message = statvfs(folder).ok()?;
    message.f_bavail.checked_mul(message.f_frsize)
}

/// Judges whether there is room for `wanted` bytes in `folder`.
pub(crate) fn room(check: &'static str, folder: &Path, wanted: u64) -> Finding {
    let looked_at = format!("room in {}", folder.display());
    match free(folder) {
        None => Finding::skipped(check, looked_at, "the system does not tell", "look with df"),
        Some(free) => judge(check, looked_at, free, wanted),
    }
}

fn judge(check: &'static str, looked_at: String, free: u64, wanted: u64) -> Finding {
    let found = format!("{} free", size(free));
    let remedy = "make room: on a full disk nothing is changed and nothing ends";
    if free < wanted / 16 {
        return Finding::failed(check, looked_at, found, remedy);
    }
    if free < wanted {
        return Finding::warning(check, looked_at, format!("{found}, less than {}", size(wanted)), remedy);
    }
    Finding::ok(check, looked_at, found)
}

/// Warns where `folder` lies on another machine.
pub(crate) fn network(check: &'static str, folder: &Path) -> Option<Finding> {
    // Signed on some machines and not on others, of 32 bits or 64: the lower half says it all.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "a magic number, not a quantity")]
    let kind = statfs(folder).ok()?.f_type as u64 & 0xffff_ffff;
    let (_, name) = NETWORK.into_iter().find(|(number, _)| *number == kind)?;
    let found = format!("{name}, a network file system: its locks and syncs are not to be relied on");
    let remedy =
        "put it on a local disk: two workers could work one store, or a power cut lose what was reported as done";
    Some(Finding::warning(check, folder.display(), found, remedy))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn little_room_is_a_warning_and_none_a_failure() {
        let level = |free| judge("x", String::new(), free, 1600).level;
        assert_eq!(
            [level(1600), level(1599), level(100), level(99)],
            [Level::Ok, Level::Warning, Level::Warning, Level::Failed]
        );
    }

    #[test]
    fn this_machine_tells_its_room() {
        let folder = std::env::temp_dir();
        assert_ne!(room("x", &folder, 1).level, Level::Skipped);
        assert_eq!(room("x", Path::new("/no/such/folder"), 1).level, Level::Skipped);
    }
}
