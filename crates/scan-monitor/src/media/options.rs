//! The settings of `media.scan`.

use std::{net::Ipv4Addr, str::FromStr, time::Duration};

use genfleet_core::{
    clock::Clock,
    handler::ServiceCheck,
    options::{self, ConfigError},
    webhook::AddressEntry,
};
use url::Host;

use super::engine::{EngineKind, EngineSettings, ScannerAddress, TestFailure};

/// The settings of `media.scan`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "media.scan")]
pub struct MediaScanOptions {
    /// The engine that scans files: clamd. Without one, media.scan is not worked
    #[arg(long, env = "GENFLEET_SCANNER", value_name = "clamd")]
    pub(crate) scanner: Option<Scanner>,

    /// Address of the engine: unix:PATH or tcp:HOST:PORT
    #[arg(
        long,
        env = "GENFLEET_SCANNER_ADDRESS",
        value_name = "ADDRESS",
        default_value = "unix:/run/clamav/clamd.ctl"
    )]
    pub(crate) scanner_address: ScannerAddress,

    /// Maximum number of files that are fetched and scanned at the same time
    #[arg(long, env = "GENFLEET_SCANNER_CONCURRENCY", value_name = "N", default_value = "8")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub scanner_concurrency: u16,

    /// Maximum length of a file. A longer file is not scanned: its result is too_large, never clean
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_SCAN_MAX_BYTES", value_name = "BYTES", default_value = "26214400")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub scan_max_bytes: u64,

    /// Age of the engine's virus database from which a warning is logged
    #[arg(long, env = "GENFLEET_SCANNER_MAX_AGE", value_name = "DURATION", default_value = "7d", value_parser = options::positive_duration)]
    pub scanner_max_age: Duration,

    /// Handling of an engine that does not report when it gives up at a limit of its own: hold the jobs, or accept it
    #[arg(long, env = "GENFLEET_SCANNER_UNPROVEN_LIMITS", value_name = "hold|accept", default_value = "hold")]
    pub(crate) scanner_unproven_limits: UnprovenLimits,

    /// Hosts from which files are fetched; *.example.com matches all hosts below it [default:
    /// *.<region>,*.amazonaws.com]
    #[arg(long, env = "GENFLEET_MEDIA_HOSTS", value_name = "HOST,…", value_delimiter = ',')]
    pub(crate) media_hosts: Vec<MediaHost>,

    /// Hosts and networks from which files are fetched although they are not public or use http
    #[arg(long, env = "GENFLEET_MEDIA_ALLOW", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub media_allow: Vec<AddressEntry>,

    /// Scan with the stand-in, for the built-in simulator.
    #[arg(skip)]
    simulated: bool,
}

/// An engine that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scanner {
    /// The daemon of `ClamAV`.
    Clamd,
}

impl FromStr for Scanner {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        match written {
            "clamd" => Ok(Self::Clamd),
            other => Err(ConfigError::new(format!("{other:?} is no engine known here; write clamd"))),
        }
    }
}

/// The handling of an engine that does not report its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnprovenLimits {
    /// Hold the jobs.
    Hold,
    /// Use it; reports show that.
    Accept,
}

impl FromStr for UnprovenLimits {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        match written {
            "hold" => Ok(Self::Hold),
            "accept" => Ok(Self::Accept),
            other => Err(ConfigError::new(format!("{other:?} is neither hold nor accept"))),
        }
    }
}

/// A host, or all hosts below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MediaHost {
    name: Host<String>,
    below: bool,
}

impl MediaHost {
    /// Creates a rule for all hosts below `name`.
    pub(super) fn below(name: &str) -> Option<Self> {
        format!("*.{name}").parse().ok()
    }

    /// Returns true if the rule matches `host`.
    pub(super) fn matches(&self, host: &Host<&str>) -> bool {
        match (&self.name, host) {
            (Host::Domain(name), Host::Domain(host)) => {
                let host = host.strip_suffix('.').unwrap_or(host);
                match host.strip_suffix(name.as_str()) {
                    Some("") => !self.below,
                    Some(before) => self.below && before.len() > 1 && before.ends_with('.'),
                    None => false,
                }
            }
            (Host::Ipv4(ip), Host::Ipv4(host)) => ip == host,
            (Host::Ipv6(ip), Host::Ipv6(host)) => ip == host,
            _ => false,
        }
    }
}

impl FromStr for MediaHost {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            ConfigError::new(format!(
                "{written:?} is no host: write files.example.com, *.example.com or an address, without scheme and port"
            ))
        };
        let (below, name) = match written.trim().strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, written.trim()),
        };
        // An IPv6 address needs no brackets here.
        let bare = name.parse().ok().map(Host::Ipv6);
        let name = bare.or_else(|| Host::parse(name).ok()).ok_or_else(wrong)?;
        match &name {
            Host::Domain(name) if name.contains('*') || name.is_empty() => Err(wrong()),
            Host::Ipv4(_) | Host::Ipv6(_) if below => Err(wrong()),
            Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(name).to_owned();
                Ok(Self { name: Host::Domain(name), below })
            }
            Host::Ipv4(_) | Host::Ipv6(_) => Ok(Self { name, below }),
        }
    }
}

impl MediaScanOptions {
    /// Adapts the settings to a simulator at `ip`: files are fetched from it, and without an engine the stand-in scans
    /// them.
    pub fn simulate(&mut self, ip: Ipv4Addr) {
        self.simulated = true;
        self.media_hosts.push(MediaHost { name: Host::Ipv4(ip), below: false });
        self.media_allow.extend(ip.to_string().parse());
    }

    /// Returns true if the stand-in of the simulator scans files.
    pub fn uses_stand_in(&self) -> bool {
        self.simulated && self.scanner.is_none()
    }

    /// Tests the engine and checks the age of its database. Does nothing without an engine.
    pub(super) async fn check_engine(&self, clock: &impl Clock) -> Vec<ServiceCheck> {
        let Some(EngineSettings { kind, max_age, accepts_unproven_limits, .. }) = self.engine() else {
            return Vec::new();
        };
        let looked_at = match &kind {
            EngineKind::Clamd(address) => format!("clamd at {address}"),
            EngineKind::StandIn => "the stand-in of the simulator".to_owned(),
        };
        let check = |check, found| ServiceCheck { check, looked_at: looked_at.clone(), found };
        let passed = match kind.test(accepts_unproven_limits).await {
            Ok(passed) => passed,
            Err(TestFailure { reason, why }) => {
                let (found, remedy) = why.rsplit_once("; ").unwrap_or((&why, "see the log of the engine"));
                return vec![check("scanner.engine", Err((format!("{reason}: {found}"), remedy.to_owned())))];
            }
        };
        let limits = if passed.limits_told { "it tells its limits" } else { "it does not tell its limits" };
        let found = format!("{}; it finds the EICAR test string; {limits}", passed.version.text);
        let engine = check("scanner.engine", Ok(found));
        if kind == EngineKind::StandIn {
            return vec![engine];
        }
        let now = clock.now();
        let days = passed.version.database_age(now).unwrap_or_default().as_secs() / 86_400;
        let database = match passed.version.database_trouble(now, max_age) {
            None => Ok(format!("{days} days old")),
            Some(trouble) => {
                let (found, remedy) = trouble.rsplit_once("; ").unwrap_or((&trouble, "run freshclam"));
                Err((found.to_owned(), remedy.to_owned()))
            }
        };
        vec![engine, check("scanner.database", database)]
    }

    /// Creates the engine; `None` if none is configured.
    pub(super) fn engine(&self) -> Option<EngineSettings> {
        let kind = match self.scanner {
            Some(Scanner::Clamd) => EngineKind::Clamd(self.scanner_address.clone()),
            None if self.uses_stand_in() => EngineKind::StandIn,
            None => return None,
        };
        Some(EngineSettings {
            kind,
            concurrency: self.scanner_concurrency.into(),
            max_age: self.scanner_max_age,
            accepts_unproven_limits: self.scanner_unproven_limits == UnprovenLimits::Accept,
        })
    }

    /// Returns the hosts from which files are fetched, for an organisation in `region`.
    pub(super) fn hosts(&self, region: &str) -> Vec<MediaHost> {
        if !self.media_hosts.is_empty() {
            return self.media_hosts.clone();
        }
        [region, "amazonaws.com"].into_iter().filter_map(MediaHost::below).collect()
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn matches(written: &str, host: &str) -> bool {
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        written.parse::<MediaHost>().unwrap().matches(&url.host().unwrap())
    }

    #[test]
    fn a_host_is_itself_and_a_star_stands_for_all_below() {
        assert!(matches("files.example.com", "FILES.example.com"));
        assert!(matches("files.example.com", "files.example.com."));
        assert!(matches("*.amazonaws.com", "a.s3.eu-west-1.amazonaws.com"));
        assert!(matches("127.0.0.1", "127.0.0.1"));
        assert!(matches("::1", "[::1]"));
        for (written, other) in [
            ("files.example.com", "a.files.example.com"),
            ("files.example.com", "xfiles.example.com"),
            ("*.amazonaws.com", "amazonaws.com"),
            ("*.amazonaws.com", "evilamazonaws.com"),
            ("*.amazonaws.com", "amazonaws.com.evil.example"),
            ("127.0.0.1", "127.0.0.2"),
        ] {
            assert!(!matches(written, other), "{written} {other}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_an_example() {
        for none in ["", "*", "https://files.example.com", "files.example.com:8443", "a.*.com", "*.10.0.0.1", "[::1"] {
            let error = none.parse::<MediaHost>().unwrap_err().to_string();
            assert!(error.contains("files.example.com"), "{none}: {error}");
        }
    }

    #[test]
    fn an_address_of_a_scanner_says_which_kind_it_is() {
        for good in ["unix:/run/clamav/clamd.ctl", "tcp:scanner:3310", "tcp:[::1]:3310", "tcp:127.0.0.1:3310"] {
            assert_eq!(good.parse::<ScannerAddress>().unwrap().to_string(), good);
        }
        for bad in ["", "/run/clamav/clamd.ctl", "unix:clamd.ctl", "tcp:scanner", "tcp::3310", "tcp:a:0", "http://a:1"]
        {
            let error = bad.parse::<ScannerAddress>().unwrap_err().to_string();
            assert!(error.contains("unix:/run/clamav/clamd.ctl or tcp:host:3310"), "{bad}: {error}");
        }
    }
}
