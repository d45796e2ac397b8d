//! A broker for tests. Its processes are ended and its folder is removed in all cases.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{Amqp, eventually, seconds};

/// The script with the broker's variables and files, which `tests/run` uses as well.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/rabbitmq-node");

/// A script that waits for the end of the test process, by its end of a pipe, and then removes everything.
const GUARDIAN: &str = r#"cat >/dev/null
for pid in "$0"/*.pid; do [ -e "$pid" ] && kill -KILL "$(cat "$pid")"; done
rm -rf "$0""#;

/// Additional features of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plugins {
    None,
    Management,
}

/// A node with its own ports, cookie, data and epmd. When it is dropped, it is killed and its folder is removed.
pub(crate) struct Node {
    beam: Option<Ended>,
    /// `None` if it uses that of the first node of its cluster.
    _epmd: Option<Ended>,
    _guardian: Guardian,
    directory: PathBuf,
    url: String,
    management: Option<String>,
}

impl Node {
    pub(crate) fn available() -> bool {
        script(&["available"]).status().is_ok_and(|status| status.success())
    }

    pub(crate) async fn start_new(plugins: Plugins) -> Self {
        let wanted: &[&str] = if plugins == Plugins::Management { &["management"] } else { &[] };
        Self::prepared(wanted).await
    }

    /// Starts a node that joins the cluster of this one. This one has to outlive it.
    pub(crate) async fn start_beside(&self) -> Self {
        Self::prepared(&["beside", path(&self.directory)]).await
    }

    async fn prepared(wanted: &[&str]) -> Self {
        let directory = fresh_directory("rabbitmq");
        let prepared = script(&[&["prepare", path(&directory)], wanted].concat()).output().expect("bash runs");
        assert!(prepared.status.success(), "no folder for a node: {prepared:?}");
        let output = String::from_utf8_lossy(&prepared.stdout).into_owned();
        let mut urls = output.lines().map(str::to_owned);
        let mut node = Self {
            _guardian: Guardian::of(&directory),
            _epmd: (!wanted.contains(&"beside")).then(|| Ended::spawn("epmd", &directory)),
            beam: None,
            url: urls.next().expect("its AMQP address"),
            management: urls.next(),
            directory,
        };
        node.start().await;
        node
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn management(&self) -> Option<&str> {
        self.management.as_deref()
    }

    pub(crate) async fn start(&mut self) {
        assert!(self.beam.is_none(), "the broker runs already");
        let beam = self.beam.insert(Ended::spawn("server", &self.directory));
        eventually(seconds(120), "the broker answers", async || {
            if let Some(code) = beam.exit_code() {
                panic!("the broker ended with {code} while starting; see {}", beam.log());
            }
            Amqp::try_connect(&self.url).await.map(drop)
        })
        .await;
    }

    pub(crate) async fn stop(&mut self) {
        let mut beam = self.beam.take().expect("the broker runs");
        signal("TERM", beam.child.id());
        eventually(Duration::from_secs(60), "the broker has stopped", async || beam.exit_code()).await;
    }

    pub(crate) async fn kill(&mut self) {
        // RabbitMQ 3.10 stores declarations up to a second late. If it is killed in that second, it loses bindings, and a
        // quorum queue may remain that never confirms. No test here is about this fault of the broker.
        self.ctl(&["eval", "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()]."]).await;
        drop(self.beam.take().expect("the broker runs"));
    }

    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        let command = script(&[&["ctl", path(&self.directory)], arguments].concat());
        let output = tokio::process::Command::from(command).output().await;
        let output = output.expect("bash runs");
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A child process that does not outlive this value. While it runs, its pid is in a file for the script above.
struct Ended {
    child: Child,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Ended {
    fn spawn(what: &str, directory: &Path) -> Self {
        let log = directory.join(format!("log/{what}.out"));
        let output = fs::File::create(&log).expect("the node's folder is writable");
        let child = script(&[what, path(directory)])
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second handle"))
            .stdout(output)
            .process_group(0) // a Ctrl-C in the terminal is for the tests; they end this
            .spawn()
            .expect("bash runs");
        let pid_file = directory.join(format!("{what}.pid"));
        fs::write(&pid_file, child.id().to_string()).expect("the node's folder is writable");
        Self { child, pid_file, log }
    }

    fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("a child of ours");
        status.map(|status| status.code().unwrap_or(-1))
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }
}

struct Guardian(Child);

impl Guardian {
    fn of(directory: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", GUARDIAN, path(directory)])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.expect("sh runs"))
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Sends a signal by name with the tool `kill`, because the standard library only supports SIGKILL.
pub(crate) fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "no process {pid} to send {name} to");
}

/// Creates a folder for the caller in the build's folder for temporary files.
pub fn fresh_directory(what: &str) -> PathBuf {
    let name = format!("{what}-{}", uuid::Uuid::new_v4().simple());
    let directory = profile_directory().join("../tmp").join(name);
    fs::create_dir_all(&directory).expect("the build's folder is writable");
    directory.canonicalize().expect("it was just made")
}

/// The folder with cargo's binaries. Test executables are in its subfolder `deps`.
pub(crate) fn profile_directory() -> PathBuf {
    let executable = std::env::current_exe().expect("a test knows where it is");
    let folder = executable.parent().expect("a file is in a folder");
    // Tests are in `deps`, benchmarks are next to the binaries.
    let above = folder.ends_with("deps").then(|| folder.parent()).flatten();
    above.unwrap_or(folder).to_owned()
}

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.arg(SCRIPT).args(arguments);
    command
}

fn path(directory: &Path) -> &str {
    directory.to_str().expect("the build's folder has a readable name")
}
