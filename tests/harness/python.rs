//! Python with a vendor's own libraries, and scripts that use them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::{io::AsyncWriteExt, sync::Mutex};

use crate::{node::profile_directory, skip};

/// The results of the installations in this process, by name.
static INSTALLED: Mutex<Option<HashMap<String, Option<PathBuf>>>> = Mutex::const_new(None);

/// A Python environment with packages.
pub struct Python {
    program: PathBuf,
}

impl Python {
    /// Installs the packages that these arguments of `pip install` name, in the environment `name` beside the build. `None`
    /// if they cannot be installed: the test is then reported as skipped and returns.
    pub async fn with(name: &'static str, packages: &'static [&'static str]) -> Option<Self> {
        let mut installed = INSTALLED.lock().await;
        let installed = installed.get_or_insert_default();
        if !installed.contains_key(name) {
            let install = tokio::task::spawn_blocking(move || install(name, packages));
            installed.insert(name.to_owned(), install.await.expect("the installation does not panic"));
        }
        let program = installed[name].clone();
        if program.is_none() {
            skip(&format!("{} for Python cannot be installed here", packages.join(" ")));
        }
        program.map(|program| Self { program })
    }

    /// Runs `script` with `input` on its standard input, and returns its standard output. The script has to succeed.
    pub async fn run(&self, script: &Path, arguments: &[&str], input: &str) -> String {
        let mut command = tokio::process::Command::new(&self.program);
        command.arg(script).args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).await.expect("the script reads its input");
        drop(stdin);
        let output = child.wait_with_output().await.expect("its output can be read");
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{}: {stdout}{stderr}", script.display());
        stdout
    }
}

fn install(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let folder = profile_directory().join("../tmp/python").join(name);
    fs::create_dir_all(&folder).expect("the build's folder is writable");
    let succeeds = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(&folder).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let python = folder.join("bin/python");
    let exists = python.exists() || succeeds(Path::new("python3"), &["-m", "venv", "."]);
    let pip = [&["-m", "pip", "install", "--disable-pip-version-check", "-q"], packages].concat();
    (exists && succeeds(&python, &pip)).then_some(python)
}
