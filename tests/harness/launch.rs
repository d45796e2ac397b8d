//! The start of a binary of the product: arguments, variables, standard input and folder.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::{
    Process,
    node::{fresh_directory, profile_directory},
    process::OwnDirectory,
    skip,
};

/// Variables of the environment that a process under test must not see. Proxies would intercept its local connections.
const HIDDEN: [&str; 5] = ["GENFLEET_", "GENESYS_", "OTEL_", "RUST_LOG", "_PROXY"];

/// The settings for the start of a process.
pub struct Launch {
    name: String,
    command: Command,
    input: Option<Vec<u8>>,
    output: Stdio,
    directory: Option<PathBuf>,
}

impl Launch {
    pub(crate) fn of(name: &str) -> Self {
        let path = profile_directory().join(name);
        assert!(path.exists(), "{name} is not built: run tests/run, which builds the binaries first");
        Self::command(name, Command::new(path))
    }

    /// Launches a program of the machine, not of the product.
    pub(crate) fn program(name: &str) -> Self {
        Self::command(name, Command::new(name))
    }

    pub(crate) fn on_a_terminal(name: &str, arguments: &[&str]) -> Option<Self> {
        if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip("it needs script, which is not installed here");
            return None;
        }
        let path = profile_directory().join(name).display().to_string();
        let words = [path.as_str()].into_iter().chain(arguments.iter().copied());
        let typed: Vec<String> = words.map(|word| format!("'{word}'")).collect();
        Some(Self::program("script").args(["-qec", typed.join(" ").as_str(), "/dev/null"]))
    }

    fn command(name: &str, mut command: Command) -> Self {
        for (variable, _) in std::env::vars_os() {
            let upper = variable.to_string_lossy().to_uppercase();
            if HIDDEN.iter().any(|hidden| upper.starts_with(hidden) || upper.ends_with(hidden)) {
                command.env_remove(variable);
            }
        }
        Self { name: name.to_owned(), command, input: None, output: Stdio::piped(), directory: None }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. The process does not see variables of the product from the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets the standard input, which is empty by default.
    #[must_use]
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Closes the reading end of its standard output, as `… | head -1` does after a line.
    #[must_use]
    pub fn unread(mut self) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        self.output = writer.into();
        self
    }

    /// Makes its standard output a pipe, and returns the reading end.
    #[must_use]
    pub fn piped(mut self) -> (Self, std::io::PipeReader) {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        self.output = writer.into();
        (self, reader)
    }

    /// Sets the working directory, so that processes can share it (the test removes it). By default
    /// each process has its own, which is removed with the [`Process`].
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Limits the size of its files in bytes. Further writes fail, as on a full disk, until
    /// [`Process::give_room`]. `None` if `prlimit` is not installed: the test is then reported as skipped and returns.
    pub fn room_for_files(mut self, bytes: u64) -> Option<Self> {
        if Command::new("prlimit").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip("it needs prlimit, which is not installed here");
            return None;
        }
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--fsize={bytes}:unlimited")).args(["sh", "-c", r#"trap "" XFSZ; exec "$0" "$@""#]);
        limited.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        self.command = limited;
        Some(self)
    }

    /// Starts the process.
    pub fn start(mut self) -> Process {
        let own = self.directory.is_none().then(|| OwnDirectory(fresh_directory(&self.name)));
        let chosen = own.as_ref().map(|own| own.0.clone()).or(self.directory);
        let directory = chosen.unwrap_or_default();
        let input = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        let command = self.command.current_dir(&directory).stdin(input);
        let spawned = command.stdout(self.output).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("starting {}: {error}", self.name));
        if let (Some(bytes), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // Not awaited, because a process that ends before it has read everything closes the pipe.
            thread::spawn(move || stdin.write_all(&bytes));
        }
        Process::of(self.name, child, directory, own)
    }
}
