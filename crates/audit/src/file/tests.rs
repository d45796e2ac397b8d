//! The files of a chain after a rotation, a crash and a full disk, and with several processes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use jiff::Timestamp;

use super::{open::check, *};
use crate::{
    record::{AuditSubject, Chain, ChainLink, Detail, Fact},
    testing::Folder,
    verify::{events::ClaimedLines, verify},
};

const NO_LIMIT: u64 = u64::MAX;

fn lines(chain: &mut Chain, count: usize) -> Vec<Line> {
    let about = AuditSubject { job: None, kind: "cdn.purge", worker: "purger", action: "x", payload_sha256: None };
    let mut line = || chain.append(&about, Fact::Intent, &Detail::default(), Timestamp::UNIX_EPOCH).0;
    (0..count).map(|_| line()).collect()
}

fn open(folder: &Folder, limit: u64) -> (LogFile, Chain) {
    let (log, end) = LogFile::open(&folder.series(), limit).unwrap();
    (log, Chain::new("p".to_owned(), end))
}

fn write(folder: &Folder, limit: u64, count: usize) {
    let (mut log, mut chain) = open(folder, limit);
    let (written, result) = log.write(&lines(&mut chain, count));
    assert_eq!(written, count);
    result.unwrap();
}

#[test]
fn a_chain_continues_where_an_earlier_process_ended() {
    let folder = Folder::new();
    for count in [3, 0, 4, 1] {
        write(&folder, NO_LIMIT, count);
    }
    assert_eq!(folder.verify(), 8);
    assert_eq!(folder.files().len(), 1);
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no lock is left behind");
}

#[test]
fn a_chain_continues_in_the_next_file_when_one_is_full_also_after_a_restart() {
    let folder = Folder::new();
    let line = lines(&mut Chain::new("p".to_owned(), ChainLink::default()), 1)[0].bytes.len() as u64;
    let limit = line * 3 + 10;
    write(&folder, limit, 7);
    write(&folder, limit, 4);
    write(&folder, 1, 2);
    let names: Vec<_> =
        folder.files().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let numbered = ["audit.0002.jsonl", "audit.0003.jsonl", "audit.0004.jsonl", "audit.0005.jsonl", "audit.0006.jsonl"];
    assert_eq!(names, [&numbered[..], &["audit.jsonl"]].concat());
    assert!(folder.files().iter().all(|path| fs::metadata(path).unwrap().len() <= limit));
    assert_eq!(folder.verify(), 13);
}

#[test]
fn an_empty_next_file_continues_the_one_before() {
    let folder = Folder::new();
    write(&folder, NO_LIMIT, 3);
    fs::write(folder.series().part(2), "").unwrap();
    write(&folder, NO_LIMIT, 2);
    assert_eq!(folder.verify(), 5);
    assert_eq!(fs::read_to_string(folder.series().part(2)).unwrap().lines().count(), 2);
}

#[test]
fn an_incomplete_last_line_is_set_aside_and_the_chain_continues() {
    let folder = Folder::new();
    write(&folder, NO_LIMIT, 3);
    let path = folder.series().first().to_owned();
    let whole = fs::read(&path).unwrap();
    let last = whole.len() / 3 * 2;
    for cut in [last + 1, last + 50, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        write(&folder, NO_LIMIT, 2);
        assert_eq!(folder.verify(), 4);
        let kept = fs::read(file::with_suffix(&path, ".torn")).unwrap();
        assert_eq!(kept, [&whole[last..cut], b"\n".as_slice()].concat());
        fs::remove_file(file::with_suffix(&path, ".torn")).unwrap();
    }
}

#[test]
fn a_line_that_is_whole_but_changed_stays_where_it_is_and_is_still_named() {
    let folder = Folder::new();
    write(&folder, NO_LIMIT, 3);
    let path = folder.series().first().to_owned();
    let mut changed = fs::read(&path).unwrap();
    let place = changed.len() - 30;
    changed[place] ^= 1;
    fs::write(&path, &changed).unwrap();
    write(&folder, NO_LIMIT, 2);
    assert_eq!(fs::read(&path).unwrap(), changed);
    assert_eq!(fs::read_to_string(folder.series().part(2)).unwrap().lines().count(), 2);
    let problems = verify(&folder.files(), ClaimedLines::default(), &[]).unwrap().problems;
    assert_eq!(problems.iter().map(|problem| problem.place.line).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_file_of_another_program_is_refused_and_left_alone() {
    for (content, torn) in [("127.0.0.1 localhost\n", false), ("half a line", true)] {
        let folder = Folder::new();
        let path = folder.series().first().to_owned();
        fs::write(&path, content).unwrap();
        for refused in [LogFile::open(&folder.series(), NO_LIMIT).map(drop), check(&folder.series())] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains("no audit log"), "{torn}: {message}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_second_process_uses_the_next_number_and_a_number_is_free_again_when_its_process_ends() {
    let folder = Folder::new();
    let opened = || LogFile::open(&folder.series(), NO_LIMIT).unwrap().0;
    let (first, second, third) = (opened(), opened(), opened());
    let name = |log: &LogFile| PathBuf::from(log.name()).file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!([&first, &second, &third].map(name), ["audit.jsonl", "audit-2.jsonl", "audit-3.jsonl"]);
    drop(second);
    assert_eq!(name(&opened()), "audit-2.jsonl");
    drop(first);
    assert_eq!(name(&opened()), "audit.jsonl");
}

#[test]
fn a_lock_is_held_by_one_of_many_threads_at_most() {
    let folder = Folder::new();
    let (path, holders) = (folder.0.join("lock"), Mutex::new(()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..300 {
                    if let Some(lock) = ChainLock::take(&path).unwrap() {
                        let alone = holders.try_lock();
                        assert!(alone.is_ok(), "two hold it");
                        std::thread::yield_now();
                        drop(alone);
                        drop(lock);
                    }
                }
            });
        }
    });
}

#[test]
fn on_a_full_disk_complete_lines_are_written_and_the_others_later() {
    let folder = Folder::new();
    let (mut log, mut chain) = open(&folder, NO_LIMIT);
    let all = lines(&mut chain, 5);
    let two_and_a_half = all[0].bytes.len() * 2 + 40;
    log.faults.leave_room(Some(two_and_a_half));
    let (written, result) = log.write(&all);
    assert_eq!((written, matches!(result, Err(WriteError::NotNow(_)))), (2, true));
    assert_eq!(folder.verify(), 2, "no half a line is left while it waits");
    let (written, result) = log.write(&all[2..]);
    assert_eq!((written, result.is_err()), (0, true));
    log.faults.leave_room(None);
    log.write(&all[2..]).1.unwrap();
    assert_eq!(folder.verify(), 5);
}

#[test]
fn a_stream_gets_the_rest_of_a_partial_line() {
    let folder = Folder::new();
    let path = folder.0.join("stream");
    let file = File::options().append(true).create(true).open(&path).unwrap();
    let mut log = LogFile::over(file, None);
    assert!(log.syncable().is_none());
    let all = lines(&mut Chain::new("p".to_owned(), ChainLink::default()), 3);
    let expected: Vec<u8> = all.iter().flat_map(|line| line.bytes.clone()).collect();
    let mut left = all.as_slice();
    for room in [1, 10, all[0].bytes.len(), 0, 200, 10_000] {
        log.faults.leave_room(Some(room));
        left = &left[log.write(left).0..];
    }
    assert!(left.is_empty());
    assert_eq!(fs::read(&path).unwrap(), expected);
}

#[test]
fn a_next_file_that_cannot_be_created_is_tried_again() {
    let folder = Folder::new();
    let (mut log, mut chain) = open(&folder, 1);
    log.write(&lines(&mut chain, 1)).1.unwrap();
    let moved = folder.0.with_extension("moved");
    fs::rename(&folder.0, &moved).unwrap();
    let next = lines(&mut chain, 1);
    let (written, result) = log.write(&next);
    assert_eq!((written, matches!(result, Err(WriteError::NotNow(_)))), (0, true));
    fs::rename(&moved, &folder.0).unwrap();
    log.write(&next).1.unwrap();
    assert_eq!((folder.verify(), folder.files().len()), (2, 2));
}

#[test]
fn a_device_is_written_to_unsynced_and_without_parts() {
    let (log, end) = LogFile::open(&FileSeries::new("/dev/null"), 1).unwrap();
    assert!(log.syncable().is_none());
    assert_eq!(end, ChainLink::default());
}

#[test]
fn files_are_for_their_owner_and_the_group_to_read() {
    use std::os::unix::fs::MetadataExt;
    let folder = Folder::new();
    write(&folder, 1, 2);
    let torn = fs::read_to_string(folder.series().part(2)).unwrap();
    fs::write(folder.series().part(2), &torn[..torn.len() / 2]).unwrap();
    let (_log, _) = open(&folder, 1);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode();
    let parts = [
        folder.series().first().to_owned(),
        folder.series().part(2),
        file::with_suffix(&folder.series().part(2), ".torn"),
    ];
    for path in parts {
        assert_eq!(mode(&path) & 0o137, 0, "{}: {:o}", path.display(), mode(&path));
    }
    assert_eq!(mode(&file::with_suffix(folder.series().first(), ".lock")) & 0o177, 0);
}

#[test]
fn links_are_refused_except_links_to_devices() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let elsewhere = folder.0.join("elsewhere");
    let first = folder.series().first().to_owned();
    for (place, target) in
        [(&first, "elsewhere"), (&file::with_suffix(&first, ".lock"), "elsewhere"), (&first, "missing")]
    {
        fs::write(&elsewhere, "").unwrap();
        symlink(folder.0.join(target), place).unwrap();
        for refused in [LogFile::open(&folder.series(), NO_LIMIT).map(drop), check(&folder.series())] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(&format!("{} is a symbolic link", place.display())), "{message}");
        }
        fs::remove_file(place).unwrap();
    }
    symlink(&elsewhere, file::with_suffix(&first, ".torn")).unwrap();
    fs::write(&first, r#"{"action":"cdn_pu"#).unwrap();
    write(&folder, NO_LIMIT, 1);
    assert_eq!((fs::read_to_string(&elsewhere).unwrap().as_str(), folder.0.join("missing").exists()), ("", false));
    fs::remove_file(&first).unwrap();
    symlink("/dev/null", &first).unwrap();
    assert!(LogFile::open(&folder.series(), NO_LIMIT).unwrap().0.syncable().is_none());
}

#[test]
fn a_check_leaves_no_file_and_names_a_file_that_cannot_be_written() {
    let folder = Folder::new();
    check(&folder.series()).unwrap();
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    write(&folder, NO_LIMIT, 1);
    check(&folder.series()).unwrap();
    let message = check(&FileSeries::new(folder.0.join("none/audit.jsonl"))).unwrap_err().to_string();
    assert!(message.contains("none/audit.jsonl") && message.contains("a folder that exists"), "{message}");
    let message = check(&FileSeries::new(&folder.0)).unwrap_err().to_string();
    assert!(message.contains("cannot be written"), "{message}");
}
