//! A binary of the product that runs as a process, with its output and signals. It never outlives the test.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{Launch, admin::Admin, captured::Captured, eventually, node::signal};

/// A running or ended process. When it is dropped, it is killed; if the test fails, its output is printed.
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    stdout: Captured,
    stderr: Captured,
    pub(crate) admin: Admin,
    directory: PathBuf,
    _own: Option<OwnDirectory>,
}

/// A folder that is removed with its process.
pub(crate) struct OwnDirectory(pub(crate) PathBuf);

impl Process {
    /// Launches a binary of the workspace, which is next to the test executable.
    pub fn binary(name: &str) -> Launch {
        Launch::of(name)
    }

    /// The same on a terminal, whose output is the process's stdout here; `None` if `script` is not installed.
    pub fn on_a_terminal(name: &str, arguments: &[&str]) -> Option<Launch> {
        Launch::on_a_terminal(name, arguments)
    }

    pub(crate) fn of(name: String, mut child: Child, directory: PathBuf, own: Option<OwnDirectory>) -> Self {
        Self {
            name,
            pid: child.id(),
            stdout: child.stdout.take().map_or_else(|| Captured::from(io::empty()), Captured::from),
            stderr: Captured::from(child.stderr.take().expect("piped")),
            child: Mutex::new(child),
            admin: Admin::default(),
            directory,
            _own: own,
        }
    }

    /// The binary's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The working directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Kills the process (SIGKILL), as a crash would, and waits for its end.
    pub fn kill9(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Stops the process (SIGTERM), as an orchestrator would.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name: `INT`, `STOP`, `CONT`, …
    pub fn signal(&self, name: &str) {
        assert!(self.is_running(), "{} has ended before SIG{name}", self.name);
        signal(name, self.pid);
    }

    /// Removes the limit of its files: see [`Launch::room_for_files`].
    pub fn give_room(&self) {
        let pid = self.pid.to_string();
        let raised = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
        assert!(raised.expect("prlimit is installed").success(), "the limit of {pid} is raised");
    }

    /// Returns true if the process has not ended.
    pub fn is_running(&self) -> bool {
        self.exit_code().is_none()
    }

    /// Returns its exit code, or 128 plus the signal's number; `None` if it has not ended.
    pub fn exit_code(&self) -> Option<i32> {
        self.child().try_wait().expect("a child of ours").map(code)
    }

    /// Waits for its end. After that its output is complete.
    pub async fn wait(&self, timeout: Duration) -> i32 {
        let what = format!("{} has ended", self.name);
        let code = eventually(timeout, what, async || self.exit_code()).await;
        self.stdout.finish();
        self.stderr.finish();
        code
    }

    /// The text that it has printed on stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.lines().join("\n")
    }

    /// The JSON lines that it has printed on stderr so far.
    pub fn logs(&self) -> Vec<Value> {
        let lines = self.stderr.lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines that it has printed on stdout so far.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// Its memory in RAM, in kB.
    pub fn rss_kb(&self) -> u64 {
        self.rss_kb_if_running().unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// The same for a process that may have ended.
    pub fn rss_kb_if_running(&self) -> Option<u64> {
        self.memory_kb("VmRSS:")
    }

    /// Its maximum memory in RAM since [`Self::forget_peak`], in kB.
    pub fn peak_rss_kb(&self) -> u64 {
        self.memory_kb("VmHWM:").unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Resets the maximum memory.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("a process of ours");
    }

    fn memory_kb(&self, field: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            self.stdout.finish();
            self.stderr.finish();
            let (name, pid) = (&self.name, self.pid);
            eprintln!("--- stdout of {name} ({pid})\n{}", shown(&self.stdout.lines()));
            eprintln!("--- stderr of {name} ({pid})\n{}\n---", shown(&self.stderr.lines()));
        }
    }
}

/// The important output of a failed test's process: all warnings and errors, and the last lines.
fn shown(lines: &[String]) -> String {
    const FIRST: usize = 10;
    const WORSE: usize = 100;
    const LAST: usize = 30;
    let end = lines.len().saturating_sub(LAST);
    let routine = |line: &str| [r#""level":"INFO""#, r#""level":"DEBUG""#].iter().any(|level| line.contains(level));
    let mut worse = 0;
    let kept = lines.iter().enumerate().filter(|(index, line)| {
        let is_worse = !routine(line) && worse < WORSE;
        worse += usize::from(is_worse);
        *index < FIRST || *index >= end || is_worse
    });
    let kept: Vec<&str> = kept.map(|(_, line)| line.as_str()).collect();
    let left_out = lines.len() - kept.len();
    format!("{}\n({left_out} lines of routine left out)", kept.join("\n"))
}

fn code(status: ExitStatus) -> i32 {
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(-1)
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
