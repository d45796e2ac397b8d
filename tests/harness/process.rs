//! One of the product's binaries as a real process: started, watched, signalled, and never left behind.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::{
    Metrics, eventually,
    node::{fresh_directory, profile_directory, signal},
    seconds,
};

/// What of the outside's environment a process under test must not see; proxies would get between it and loopback.
const HIDDEN: [&str; 5] = ["GENFLEET_", "GENESYS_", "OTEL_", "RUST_LOG", "_PROXY"];

/// How a process is to be started.
pub struct Launch {
    name: String,
    command: Command,
    input: Option<Vec<u8>>,
    directory: Option<PathBuf>,
}

impl Launch {
    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. Of the outside's, those of the product are not seen at all.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the process reads on its standard input; nothing where this is not called.
    #[must_use]
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Where the process runs and leaves its files, to share it among several (the test removes it). By default
    /// each has a folder of its own, removed with the [`Process`].
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Process {
        let own = self.directory.is_none().then(|| OwnDirectory(fresh_directory(&self.name)));
        let chosen = own.as_ref().map(|own| own.0.clone()).or(self.directory);
        let directory = chosen.unwrap_or_default();
        let input = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let command = self.command.current_dir(&directory).stdin(input);
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("starting {}: {error}", self.name));
        if let (Some(bytes), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // Not awaited: a process that ends before it has read all just closes the pipe.
            thread::spawn(move || stdin.write_all(&bytes));
        }
        Process {
            name: self.name,
            pid: child.id(),
            stdout: Captured::from(child.stdout.take().expect("piped")),
            stderr: Captured::from(child.stderr.take().expect("piped")),
            child: Mutex::new(child),
            http: OnceLock::new(),
            directory,
            _own: own,
        }
    }
}

/// A running (or ended) process. Dropped: killed; and where the test fails, what it printed is shown.
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    stdout: Captured,
    stderr: Captured,
    http: OnceLock<reqwest::Client>,
    directory: PathBuf,
    _own: Option<OwnDirectory>,
}

impl Process {
    /// A binary of the workspace, found beside the test executable.
    pub fn binary(name: &str) -> Launch {
        let path = profile_directory().join(name);
        assert!(path.exists(), "{name} is not built: run tests/run, which builds the binaries first");
        let mut command = Command::new(path);
        for (variable, _) in std::env::vars_os() {
            let upper = variable.to_string_lossy().to_uppercase();
            if HIDDEN.iter().any(|hidden| upper.starts_with(hidden) || upper.ends_with(hidden)) {
                command.env_remove(variable);
            }
        }
        Launch { name: name.to_owned(), command, input: None, directory: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The folder it runs in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Kills it (SIGKILL), as a crash or the kernel would, and waits until it is gone.
    pub fn kill9(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to stop (SIGTERM), as an orchestrator would.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal by name: `INT`, `STOP`, `CONT`, …
    pub fn signal(&self, name: &str) {
        assert!(self.is_running(), "{} has ended before SIG{name}", self.name);
        signal(name, self.pid);
    }

    /// Has it not ended?
    pub fn is_running(&self) -> bool {
        self.exit_code().is_none()
    }

    /// How it ended, where it did: its exit code, or 128 and the signal's number.
    pub fn exit_code(&self) -> Option<i32> {
        self.child().try_wait().expect("a child of ours").map(code)
    }

    /// Waits until it ends by itself. Its output is complete after that.
    pub async fn wait(&self, timeout: Duration) -> i32 {
        let what = format!("{} has ended", self.name);
        let code = eventually(timeout, what, async || self.exit_code()).await;
        self.stdout.finish();
        self.stderr.finish();
        code
    }

    /// What it has printed on stderr until now.
    pub fn stderr(&self) -> String {
        self.stderr.lines().join("\n")
    }

    /// What it has printed on stderr until now, the lines that are JSON.
    pub fn logs(&self) -> Vec<Value> {
        let lines = self.stderr.lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines it has printed on stdout until now.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// The memory it has in RAM, in kB.
    pub fn rss_kb(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.unwrap_or_else(|_| panic!("{} has ended", self.name));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("{} has ended", self.name))
    }

    /// Where its admin port listens (it was started with `--admin-addr 127.0.0.1:0` and logs the address).
    pub async fn admin_addr(&self, timeout: Duration) -> String {
        let what = format!("{} says where its admin port listens", self.name);
        eventually(timeout, what, async || {
            let found = self.logs().iter().find_map(admin_addr);
            assert!(found.is_some() || self.is_running(), "{} has ended", self.name);
            found
        })
        .await
    }

    /// Scrapes `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics").await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(status, 200, "/metrics of {}: {text}", self.name);
        Metrics::parse(&text)
    }

    /// What `/readyz` says: the status, and the reasons.
    pub async fn ready(&self) -> (u16, Value) {
        let (status, text) = self.get("/readyz").await.unwrap_or_else(|error| panic!("{error}"));
        let reasons = serde_json::from_str(&text);
        (status, reasons.unwrap_or_else(|error| panic!("/readyz is not JSON: {error}: {text}")))
    }

    /// Waits until `/readyz` says 200.
    pub async fn wait_ready(&self, timeout: Duration) {
        self.admin_addr(timeout).await;
        eventually(timeout, format!("{} is ready", self.name), async || {
            assert!(self.is_running(), "{} has ended", self.name);
            match self.ready().await {
                (200, _) => Ok(()),
                (status, reasons) => Err(format!("{status} {reasons}")),
            }
        })
        .await;
    }

    /// Any path of the admin port: the status and the body.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let address = self.admin_addr(seconds(30)).await;
        let client = self.http.get_or_init(http_client);
        let answer = client.get(format!("http://{address}{path}")).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
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
            eprintln!("--- stdout of {name} ({pid})\n{}", self.stdout.lines().join("\n"));
            eprintln!("--- stderr of {name} ({pid})\n{}\n---", self.stderr());
        }
    }
}

/// Lines of a stream, read as they come so that the process never waits for its reader.
struct Captured {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl Captured {
    fn from(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                locked(&sink).push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self { lines, reader: Mutex::new(Some(reader)) }
    }

    fn lines(&self) -> Vec<String> {
        locked(&self.lines).clone()
    }

    /// Waits for the end of the stream: the process has ended.
    fn finish(&self) {
        if let Some(reader) = locked(&self.reader).take() {
            let _ = reader.join();
        }
    }
}

struct OwnDirectory(PathBuf);

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code(status: ExitStatus) -> i32 {
    let signal = status.signal().map(|signal| 128 + signal);
    status.code().or(signal).unwrap_or(-1)
}

/// The log's fields are at the top of a line, or under `fields`.
fn admin_addr(line: &Value) -> Option<String> {
    let fields = line.get("fields").unwrap_or(line);
    let said = fields["message"] == "admin port listening";
    said.then(|| fields["addr"].as_str().map(str::to_owned))?
}

fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().timeout(seconds(20));
    builder.build().expect("an HTTP client")
}
