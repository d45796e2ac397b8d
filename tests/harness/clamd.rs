//! A real clamd, if one is installed, on a database made by hand: it starts in a moment and knows one thing.

use std::{fs, path::PathBuf, process::Command};

use crate::{Launch, Process, eventually, node::fresh_directory, process::OwnDirectory, seconds, skip};

/// A running clamd on a Unix socket of its own. Dropped: killed, and its folder removed.
pub struct Clamd {
    process: Process,
    directory: OwnDirectory,
}

/// The test string that every engine reports, in parts, so that none reports this program.
pub fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat().into_bytes()
}

impl Clamd {
    /// Returns true if clamd is installed. Where not, the test is skipped aloud and returns.
    pub fn available() -> bool {
        let found = program().is_some();
        if !found {
            skip("it needs clamd (clamav-daemon), which is not installed here");
        }
        found
    }

    /// Starts one that tells its limits and finds the EICAR test string, and waits until it answers.
    pub async fn start() -> Self {
        Self::with(&["AlertExceedsMax yes", "AlertEncrypted yes"], &eicar()).await
    }

    /// Starts one with these settings, which finds `known` and nothing else.
    pub async fn with(settings: &[&str], known: &[u8]) -> Self {
        let directory = OwnDirectory(fresh_directory("clamd"));
        let database = directory.0.join("database");
        fs::create_dir(&database).expect("the folder is writable");
        let digits: Vec<String> = known.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(database.join("known.ndb"), format!("Eicar-Test:0:*:{}\n", digits.concat()))
            .expect("the folder is writable");
        let own = [
            format!("LocalSocket {}", directory.0.join("clamd.ctl").display()),
            format!("DatabaseDirectory {}", database.display()),
            "Foreground yes".to_owned(),
            "StreamMaxLength 30M".to_owned(),
        ];
        let settings: Vec<String> = own.into_iter().chain(settings.iter().map(|one| (*one).to_owned())).collect();
        fs::write(directory.0.join("clamd.conf"), settings.join("\n") + "\n").expect("the folder is writable");
        let mut clamd = Self { process: launch(&directory).start(), directory };
        clamd.answers().await;
        clamd
    }

    /// The address, as `--scanner-address` takes it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Ends it at once.
    pub async fn kill(&self) {
        self.process.kill9();
        eventually(seconds(20), "clamd has ended", async || !self.process.is_running()).await;
    }

    /// Starts it again after [`kill`](Self::kill).
    pub async fn restart(&mut self) {
        let _ = fs::remove_file(self.socket());
        self.process = launch(&self.directory).start();
        self.answers().await;
    }

    async fn answers(&mut self) {
        let (process, socket) = (&self.process, self.socket());
        eventually(seconds(60), "clamd answers", async || {
            assert!(process.is_running(), "clamd has ended: {:?} {}", process.stdout_lines(), process.stderr());
            tokio::net::UnixStream::connect(&socket).await.is_ok()
        })
        .await;
    }

    fn socket(&self) -> PathBuf {
        self.directory.0.join("clamd.ctl")
    }
}

fn launch(directory: &OwnDirectory) -> Launch {
    let configuration = format!("--config-file={}", directory.0.join("clamd.conf").display());
    Launch::program(program().expect("clamd is installed")).args([configuration])
}

/// The program: users who are not root may not have its folder in their path.
fn program() -> Option<&'static str> {
    let runs = |program: &&str| Command::new(program).arg("--version").output().is_ok_and(|run| run.status.success());
    ["clamd", "/usr/sbin/clamd"].into_iter().find(runs)
}
