//! Settings that would disable all output of a process, and a stderr that is not read.

use std::process::{Command, Stdio};

use harness::{Process, fresh_directory, seconds};

#[tokio::test(flavor = "multi_thread")]
async fn a_stderr_that_broke_changes_no_exit_code() {
    let folder = fresh_directory("broken-stderr");
    std::fs::write(folder.join("jobs.jsonl"), r#"{"id":"a","kind":"cdn.purge","payload":{"paths":["/a"]}}"#).unwrap();
    let binary = std::env::current_exe().unwrap().parent().unwrap().join("../genfleet");
    for (arguments, code) in [
        (&["run", "--simulate", "--log", "debug", "jobs.jsonl"][..], 0),
        (&["validate", "jobs.jsonl"], 0),
        (&["events"], 64),
    ] {
        let mut child = Command::new(&binary)
            .args(arguments)
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_is_no_level_is_refused() {
    for binary in [&["genfleet", "up", "--simulate"][..], &["genfleet", "doctor"], &["purger", "--check-config"]] {
        let process =
            Process::binary(binary[0]).args(binary[1..].iter().copied()).env("GENFLEET_LOG", "warning").start();
        assert_eq!(process.wait(seconds(20)).await, 64, "{binary:?}");
        assert!(process.stderr().contains("error, warn, info, debug, trace or off"), "{}", process.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_works_is_reported_and_one_that_is_removed_ends_its_worker() {
    let queue = ["--queue-url", "sqlite:removed.db"];
    let up = Process::binary("genfleet").args(["up", "--simulate", "--admin-addr", "127.0.0.1:0"]).args(queue).start();
    up.wait_ready(seconds(30)).await;
    let enqueue = || {
        let process = Process::binary("genfleet").args(["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a"]}"#]);
        process.args(queue).directory(up.directory()).start()
    };
    let worked = enqueue();
    assert_eq!(worked.wait(seconds(20)).await, 0);
    assert!(!worked.stderr().contains("no process works"), "{}", worked.stderr());
    std::fs::remove_file(up.directory().join("removed.db")).unwrap();
    assert_eq!(up.wait(seconds(30)).await, 1);
    assert!(up.stderr().contains("was removed or replaced"), "{}", up.stderr());
    let unworked = enqueue();
    assert_eq!(unworked.wait(seconds(20)).await, 0);
    assert!(unworked.stderr().contains("no process works the store removed.db"), "{}", unworked.stderr());
}
