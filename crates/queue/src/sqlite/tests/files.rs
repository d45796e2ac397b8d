//! The file: who may open it, what is refused, what stays behind.

use std::path::Path;

use tokio::task::JoinSet;

use super::*;
use crate::{
    QueueError,
    sqlite::{examine, schema},
};

fn refusal(folder: &Folder, role: Role) -> String {
    match SqliteQueue::open(&folder.store(), role, clock()) {
        Err(QueueError::Configuration(why)) => {
            assert!(why.contains("store.db"), "names the file: {why}");
            why
        }
        other => panic!("should have been refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_second_worker_is_refused_and_told_what_to_do_while_a_tool_may_look() {
    let folder = Folder::new();
    let first = folder.worker();
    let why = refusal(&folder, Role::Worker);
    assert!(why.contains("stop that one, or name another file"), "{why}");
    let tool = folder.tool();
    first.close().await;
    folder.worker().close().await;
    tool.close().await;
}

#[test]
fn a_commit_is_on_the_disk_before_it_is_told() {
    const FULL: i64 = 2;
    let folder = Folder::new();
    let connection = schema::open(&folder.store()).unwrap();
    assert_eq!(connection.pragma_query_one::<String>(None, "journal_mode").unwrap(), "wal");
    assert_eq!(connection.pragma_query_one::<i64>(None, "synchronous").unwrap(), FULL);
}

#[tokio::test]
async fn what_waits_together_shares_a_commit() {
    let folder = Folder::new();
    let queue = folder.worker();
    let publishing: JoinSet<_> = (0..500)
        .map(|number| {
            let queue = queue.clone();
            async move { queue.publish(vec![event(&number.to_string())]).await.unwrap() }
        })
        .collect();
    publishing.join_all().await;
    // Five hundred commits of their own would have written their pages five hundred times.
    let written = fs::metadata(folder.0.join("store.db-wal")).unwrap().len();
    assert!(written < 1_000_000, "{written} bytes");
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_worker_by_another_name_of_the_file_is_refused_as_well() {
    let folder = Folder::new();
    let _first = folder.worker();
    let alias = Folder::new().0.with_extension("alias");
    std::os::unix::fs::symlink(&folder.0, &alias).unwrap();
    let second = SqliteQueue::open(&alias.join("store.db"), Role::Worker, clock());
    fs::remove_file(&alias).unwrap();
    let told = second.unwrap_err().to_string();
    assert!(told.contains("used by another process"), "{told}");
}

#[test]
fn a_file_of_someone_else_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    let other = Connection::open(folder.0.join("other")).unwrap();
    other.execute_batch("CREATE TABLE theirs (a)").unwrap();
    drop(other);
    for content in [b"some text".to_vec(), fs::read(folder.0.join("other")).unwrap()] {
        fs::write(folder.store(), &content).unwrap();
        for role in [Role::Worker, Role::Tool] {
            let why = refusal(&folder, role);
            assert!(why.contains("name another file"), "{why}");
        }
        assert_eq!(fs::read(folder.store()).unwrap(), content);
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let folder = Folder::new();
    folder.worker().close().await;
    folder.raw().pragma_update(None, "user_version", 1_000).unwrap();
    let why = refusal(&folder, Role::Worker);
    assert!(why.contains("1000") && why.contains("use that version"), "{why}");
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let mut folder = Folder::new();
    let real = folder.0.clone();
    folder.0 = real.join("missing");
    for role in [Role::Worker, Role::Tool] {
        assert!(refusal(&folder, role).contains("in a folder that exists"));
    }
    fs::remove_dir_all(real).unwrap();
}

#[tokio::test]
async fn a_closed_store_is_one_file_and_a_removed_one_is_none() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![new_job("job")]).await.unwrap();
    queue.close().await;
    queue.close().await;
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|each| each.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["store.db", "store.db.lock"]);
    assert!(matches!(queue.publish(vec![new_job("late")]).await, Err(QueueError::Closed)));
    assert!(matches!(queue.count_unfinished().await, Err(QueueError::Closed)));
    SqliteQueue::remove(&folder.store()).unwrap();
    SqliteQueue::remove(&folder.store()).unwrap();
    assert!(names().is_empty());
}

#[tokio::test]
async fn looking_at_a_store_tells_how_it_is_and_makes_none() {
    let folder = Folder::new();
    assert_eq!(examine(&folder.store()).unwrap(), None);
    assert!(!folder.store().exists());
    let worker = folder.worker();
    let seen = examine(&folder.store()).unwrap().unwrap();
    assert_eq!((seen.journal.as_str(), seen.damage.as_slice(), seen.worked), ("wal", &[][..], true));
    worker.close().await;
    assert!(!examine(&folder.store()).unwrap().unwrap().worked);
    folder.worker().close().await;
    folder.raw().pragma_update(None, "user_version", 99).unwrap();
    let error = examine(&folder.store()).unwrap_err().to_string();
    assert!(error.contains("another version of genfleet"), "{error}");
}

#[tokio::test]
async fn damage_is_told_in_the_words_of_the_store() {
    let folder = Folder::new();
    let worker = folder.worker();
    worker.publish((0..500).map(|number| event(&number.to_string())).collect()).await.unwrap();
    worker.close().await;
    let mut bytes = fs::read(folder.store()).unwrap();
    // The first page says whose it is.
    bytes[4096..].fill(0xff);
    fs::write(folder.store(), bytes).unwrap();
    assert!(!examine(&folder.store()).unwrap().unwrap().damage.is_empty());
}

#[test]
fn a_name_that_sqlite_takes_for_something_else_is_refused() {
    for (name, told) in [("", "names no file"), (":memory:", "in memory"), ("file:jobs.db?mode=memory", "file:")] {
        for role in [Role::Worker, Role::Tool] {
            let opened = SqliteQueue::open(Path::new(name), role, clock());
            let Err(QueueError::Configuration(why)) = opened else { panic!("{name:?}: {opened:?}") };
            assert!(why.contains(told), "{name:?}: {why}");
        }
        assert!(matches!(SqliteQueue::check(Path::new(name)), Err(QueueError::Configuration(_))), "{name:?}");
    }
}

#[tokio::test]
async fn what_a_check_refuses_opening_refuses_and_it_changes_nothing() {
    let folder = Folder::new();
    let names = || fs::read_dir(&folder.0).unwrap().map(|each| each.unwrap().file_name()).collect::<Vec<_>>();
    let check = || SqliteQueue::check(&folder.store()).map_err(|error| error.to_string());
    assert_eq!((check(), names()), (Ok(()), vec![]), "nothing there yet");
    let missing = SqliteQueue::check(&folder.0.join("missing/store.db")).unwrap_err().to_string();
    assert!(missing.contains("in a folder that exists"), "{missing}");

    let working = folder.worker();
    working.publish(vec![new_job("job")]).await.unwrap();
    assert_eq!(check(), Ok(()), "also while another process works it");
    working.close().await;
    let (before, content) = (names(), fs::read(folder.store()).unwrap());
    assert_eq!(check(), Ok(()));
    assert_eq!((names(), fs::read(folder.store()).unwrap()), (before, content));

    folder.raw().pragma_update(None, "user_version", 1_000).unwrap();
    assert!(check().unwrap_err().contains("another version"));
    fs::remove_file(folder.store()).unwrap();
    Connection::open(folder.store()).unwrap().execute_batch("CREATE TABLE theirs (a)").unwrap();
    assert!(check().unwrap_err().contains("name another file"));
    fs::write(folder.store(), "some text").unwrap();
    assert!(check().unwrap_err().contains("name another file"));
    assert_eq!(fs::read(folder.store()).unwrap(), b"some text");
    fs::remove_file(folder.store()).unwrap();
    fs::create_dir(folder.store()).unwrap();
    assert!(check().is_err(), "a folder is no file");
}

#[tokio::test]
async fn files_are_the_owners_own_and_links_are_not_followed_to_make_them() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new();
    let elsewhere = folder.0.join("elsewhere");
    symlink(&elsewhere, folder.0.join("store.db.notice.new")).unwrap();
    let queue = folder.worker();
    queue.publish(vec![event("1")]).await.unwrap();
    queue.write_status("{}".to_owned()).await.unwrap();
    for name in ["store.db", "store.db-wal", "store.db-shm", "store.db.lock", "store.db.notice"] {
        let mode = fs::symlink_metadata(folder.0.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    queue.close().await;
    for place in ["link.db", "link.db-wal", "link.db-shm", "link.db.lock"].map(|name| folder.0.join(name)) {
        for target in [&elsewhere, &folder.0.join("empty"), &folder.store()] {
            fs::write(folder.0.join("empty"), "").unwrap();
            let before = fs::read(target).ok();
            symlink(target, &place).unwrap();
            let link = folder.0.join("link.db");
            for refused in [
                SqliteQueue::open(&link, Role::Tool, clock()).map(drop),
                SqliteQueue::open(&link, Role::Worker, clock()).map(drop),
                SqliteQueue::check(&link),
            ] {
                let told = refused.unwrap_err().to_string();
                assert!(told.contains(&format!("{} is a symbolic link", place.display())), "{told}");
            }
            assert_eq!(fs::read(target).ok(), before, "{}", place.display());
            fs::remove_file(&place).unwrap();
        }
    }
}

#[tokio::test]
async fn a_store_that_is_removed_under_a_worker_fails_and_says_so() {
    let folder = Folder::new();
    let queue = folder.worker();
    assert!(!SqliteQueue::is_unworked(&folder.store()));
    fs::remove_file(folder.store()).unwrap();
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), queue.wait_until_failed()).await.unwrap();
    assert!(told.contains("was removed or replaced"), "{told}");
    // It lets go of the lock right after it said so.
    let let_go = async {
        while !SqliteQueue::is_unworked(&folder.store()) {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(20), let_go).await.unwrap();
}

#[tokio::test]
async fn a_log_of_a_store_that_is_removed_under_a_worker_is_noticed_like_the_store() {
    let folder = Folder::new();
    let queue = folder.worker();
    assert!(!SqliteQueue::is_unworked(&folder.store()));
    fs::remove_file(genfleet_job::file::with_suffix(&folder.store(), "-wal")).unwrap();
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), queue.wait_until_failed()).await.unwrap();
    assert!(told.contains("was removed or replaced"), "{told}");
    // It lets go of the lock right after it said so.
    let let_go = async {
        while !SqliteQueue::is_unworked(&folder.store()) {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(20), let_go).await.unwrap();
}
