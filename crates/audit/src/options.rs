//! The settings of the audit (SPEC 8, 10), and opening the files that they name.

use std::{env, fs, os::unix::fs::MetadataExt, path::PathBuf};

use clap::Args;

use super::{
    Audit,
    file::{LogFile, open},
    names::FileSeries,
    record::ChainLink,
    tail::ChainTail,
    writer::Writer,
};
use genfleet_job::{clock::SharedClock, options::ConfigError, supervisor::Supervisor};

/// The settings of the audit.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Audit")]
pub struct AuditOptions {
    /// File for the record of every change and every outcome, - (stdout, unsynced) or off. {process} in the name
    /// becomes the process's [default: genfleet-audit-<binary>.jsonl; of a batch: next to its store]
    #[arg(long, env = "GENFLEET_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<String>,

    /// The audit continues in the next file when one has this size
    #[arg(long, env = "GENFLEET_AUDIT_ROTATE", default_value = "256MiB", value_parser = size, value_name = "SIZE")]
    pub audit_rotate: u64,
}

/// The target in the settings.
#[derive(Debug, PartialEq, Eq)]
enum AuditPlace {
    Off,
    Stdout,
    Files(FileSeries),
}

/// The state of the audit's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTarget {
    /// No audit is kept.
    Off,
    /// Standard output.
    Stdout,
    /// A file that can be written.
    File {
        /// The file.
        path: PathBuf,
        /// True if another process writes there. A further process adds its number to the name.
        held: bool,
        /// The end of its chain.
        tail: ChainTail,
    },
}

/// An open audit, before its tasks run.
#[derive(Debug)]
pub struct OpenedAudit {
    /// Unique name of this process.
    pub process: String,
    audit: Audit,
    writer: Option<Writer>,
}

impl OpenedAudit {
    /// Runs its tasks.
    pub fn start(self, supervisor: &Supervisor) -> Audit {
        if let Some(writer) = self.writer {
            writer.start(supervisor);
        }
        self.audit
    }
}

impl AuditOptions {
    /// Opens the target; `default` is the file if none is named.
    pub fn open(&self, default: &str, clock: &SharedClock) -> Result<OpenedAudit, ConfigError> {
        let process = process(clock);
        let (log, end) = match self.place(default, &process) {
            AuditPlace::Off => return Ok(OpenedAudit { process, audit: Audit::off(), writer: None }),
            AuditPlace::Stdout => {
                let log = LogFile::stdout().map_err(|error| ConfigError::new(format!("--audit-log -: {error}")))?;
                (log, ChainLink::default())
            }
            AuditPlace::Files(series) => LogFile::open(&series, self.audit_rotate)?,
        };
        let (audit, writer) = Audit::open(process.clone(), log, end, clock.clone());
        Ok(OpenedAudit { process, audit, writer: Some(writer) })
    }

    /// Returns true if facts go to standard output.
    pub fn uses_stdout(&self) -> bool {
        self.place("", "") == AuditPlace::Stdout
    }

    /// Checks that the target could be opened.
    pub fn check(&self, default: &str, clock: &SharedClock) -> Result<(), ConfigError> {
        match self.place(default, &process(clock)) {
            AuditPlace::Off | AuditPlace::Stdout => Ok(()),
            AuditPlace::Files(series) => open::check(&series),
        }
    }

    /// Checks the target and returns its state.
    pub fn look(&self, default: &str, clock: &SharedClock) -> Result<AuditTarget, ConfigError> {
        match self.place(default, &process(clock)) {
            AuditPlace::Off => Ok(AuditTarget::Off),
            AuditPlace::Stdout => Ok(AuditTarget::Stdout),
            AuditPlace::Files(series) => {
                open::check(&series)?;
                let (path, held, tail) = open::look(&series)?;
                Ok(AuditTarget::File { path, held, tail })
            }
        }
    }

    fn place(&self, default: &str, process: &str) -> AuditPlace {
        match self.audit_log.as_deref().unwrap_or(default) {
            "off" => AuditPlace::Off,
            "-" => AuditPlace::Stdout,
            file => AuditPlace::Files(FileSeries::new(PathBuf::from(file.replace("{process}", process)))),
        }
    }
}

/// Returns the default file of `binary`.
pub fn default_file(binary: &str) -> String {
    format!("genfleet-audit-{binary}.jsonl")
}

/// Creates a unique name of this process from host, process id and start time.
fn process(clock: &SharedClock) -> String {
    format!("{}-{}-{}", host(), std::process::id(), clock.now().strftime("%Y%m%dT%H%M%S%.3fZ"))
}

/// Returns the operating system's user of this process, and the machine's name.
pub fn operator() -> String {
    let named =
        ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| env::var(name).ok().filter(|user| !user.is_empty()));
    let user = named.or_else(|| fs::metadata("/proc/self").ok().map(|own| format!("uid-{}", own.uid())));
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '-' };
    let user: String = user.unwrap_or_else(|| "unknown".to_owned()).chars().take(64).map(plain).collect();
    format!("{user}@{}", host())
}

fn host() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| env::var("HOSTNAME").ok());
    let host = host.as_deref().map(str::trim).filter(|host| !host.is_empty()).unwrap_or("host");
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    host.chars().take(64).map(plain).collect()
}

/// Parses a size: `256MiB`, `64KiB`, `1GiB`, or bytes.
fn size(written: &str) -> Result<u64, ConfigError> {
    let wrong = || ConfigError::new(format!("{written:?} is no size; write 256MiB, 64KiB, 1GiB or bytes"));
    let written = written.trim();
    let digits = written.find(|c: char| !c.is_ascii_digit()).unwrap_or(written.len());
    let unit: u64 = match written[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = written[..digits].parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use genfleet_job::clock::SystemClock;

    fn options(file: Option<&str>) -> AuditOptions {
        AuditOptions { audit_log: file.map(str::to_owned), audit_rotate: 1 }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("256MiB", 256 << 20), ("64 KiB", 64 << 10), ("1GiB", 1 << 30), ("1000", 1000), ("7B", 7)]
        {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "0", "MiB", "1.5MiB", "-1", "1MB", "99999999999GiB"] {
            assert!(size(text).unwrap_err().to_string().contains("write 256MiB"), "{text}");
        }
    }

    #[test]
    fn a_name_stdout_and_nothing_at_all_are_told_apart() {
        assert_eq!(options(Some("off")).place("a", "p"), AuditPlace::Off);
        assert_eq!(options(Some("-")).place("a", "p"), AuditPlace::Stdout);
        assert_eq!(options(Some("x-{process}.jsonl")).place("a", "p"), AuditPlace::Files(FileSeries::new("x-p.jsonl")));
        assert_eq!(options(None).place("a", "p"), AuditPlace::Files(FileSeries::new("a")));
    }

    #[test]
    fn a_process_is_named_by_host_number_and_start_and_the_name_is_a_file_name() {
        let clock: SharedClock = Arc::new(SystemClock);
        let name = process(&clock);
        assert!(name.contains(&format!("-{}-2", std::process::id())) && name.ends_with('Z'), "{name}");
        assert_eq!(Path::new(&name).file_name(), Some(name.as_ref()));
    }
}
