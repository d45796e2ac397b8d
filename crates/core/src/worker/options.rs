//! The settings that every worker has (SPEC 10).

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use clap::Args;

use crate::admin::AdminAddr;
use genfleet_audit::AuditOptions;
use genfleet_job::{
    Kind, UnknownKind,
    options::{ConfigError, duration, positive_duration},
    retry::RetryPolicy,
};
use genfleet_queue::rabbit::ReplyTo;
use genfleet_telemetry as telemetry;
use genfleet_telemetry::LogFormat;

/// Options of running jobs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Worker")]
pub struct WorkerOptions {
    /// Kinds of jobs to work, of those that this program can work [default: all]
    #[arg(long, env = "GENFLEET_KINDS", value_name = "KIND,…", value_delimiter = ',', value_parser = parse_kind)]
    pub kinds: Vec<Kind>,

    /// Jobs in flight, also the prefetch [default: 64; purger 512, provisioners 8]. A number, or KIND=N,…
    #[arg(long, env = "GENFLEET_CONCURRENCY", value_name = "N")]
    pub(crate) concurrency: Option<Concurrency>,

    /// Time after which an attempt finishes the request in flight and the job continues later
    #[arg(long, env = "GENFLEET_ATTEMPT_TIMEOUT", default_value = "5m", value_parser = positive_duration, value_name = "DURATION")]
    pub attempt_timeout: Duration,

    /// For kinds that only one process at a time works: time after a takeover during which reads may not show yet what the
    /// previous process created; before it creates anything, the new process counts again after that time
    #[arg(long, env = "GENFLEET_TAKEOVER_WAIT", default_value = "15s", value_parser = duration, value_name = "DURATION")]
    pub takeover_wait: Duration,

    /// Maximum wait until something that was just created, ordered or uploaded can be found
    #[arg(long, env = "GENFLEET_SETTLE_TIMEOUT", default_value = "120s", value_parser = duration, value_name = "DURATION")]
    pub settle_timeout: Duration,

    /// Maximum wait until a created object is active; then the attempt fails
    #[arg(long, env = "GENFLEET_ACTIVATE_TIMEOUT", default_value = "180s", value_parser = duration, value_name = "DURATION")]
    pub activate_timeout: Duration,

    /// Time that running jobs may take to finish after SIGTERM
    #[arg(long, env = "GENFLEET_DRAIN_TIMEOUT", default_value = "25s", value_parser = duration, value_name = "DURATION")]
    pub drain_timeout: Duration,

    /// Wait after a job's first failed attempt; four times as long after each further one
    #[arg(long, env = "GENFLEET_RETRY_INITIAL", default_value = "1s", value_parser = duration, value_name = "DURATION")]
    pub retry_initial: Duration,

    /// Longest wait between two attempts of a job
    #[arg(long, env = "GENFLEET_RETRY_LONGEST", default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub retry_longest: Duration,

    /// Queues that producers may name in reply_to, besides direct reply-to and amq.gen-*: full names, or prefixes that end
    /// in *. Genfleet's own queues never get a reply
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_REPLY_TO_ALLOW", value_name = "NAME|PREFIX*,…", value_delimiter = ',')]
    pub reply_to_allow: Vec<ReplyTo>,

    /// Address of /metrics, /livez and /readyz [default: 127.0.0.1:9464, or another port if that one is taken]. Answers
    /// requests to an IP address, to localhost, and to the name that is set here
    #[arg(long, env = "GENFLEET_ADMIN_ADDR", value_name = "HOST:PORT")]
    pub admin_addr: Option<AdminAddr>,

    /// Format of the log on stderr [default: json; for a batch: text]
    #[arg(long, env = "GENFLEET_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// Log level or filter: error, warn, info, debug, trace, off, or for example info,genfleet_core=debug [default: info;
    /// for a batch: error]
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_LOG", value_parser = telemetry::log_filter, value_name = "FILTER")]
    pub log: Option<String>,

    /// Settings of the audit
    #[command(flatten)]
    pub audit: AuditOptions,
}

impl WorkerOptions {
    /// The waits between attempts, unless a worker chooses its own.
    pub(crate) fn retries(&self) -> RetryPolicy {
        RetryPolicy::Growing { initial: self.retry_initial, longest: self.retry_longest }
    }

    /// Begins logging; what is not set is as given.
    pub fn start_logs(&self, filter: &str, format: LogFormat) -> Result<(), ConfigError> {
        telemetry::start_logs(self.log_format.unwrap_or(format), self.log.as_deref().unwrap_or(filter))
    }

    /// Jobs of `kind` in flight.
    pub fn concurrency(&self, kind: Kind, default: usize) -> usize {
        let set = self.concurrency.as_ref();
        set.and_then(|set| set.by_kind.get(&kind).copied().or(set.all)).unwrap_or(default)
    }
}

/// `64`, or `cdn.purge=256,file.scan=1000`, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Concurrency {
    all: Option<usize>,
    by_kind: BTreeMap<Kind, usize>,
}

impl FromStr for Concurrency {
    type Err = ConfigError;

    fn from_str(written: &str) -> Result<Self, ConfigError> {
        let number = |text: &str| match text.trim().parse::<usize>() {
            // AMQP's prefetch has 16 bits.
            Ok(number @ 1..=65_535) => Ok(number),
            _ => Err(ConfigError::new(format!("{text:?}: write a number from 1 to 65535, or KIND=N,…"))),
        };
        let mut concurrency = Self::default();
        for part in written.split(',').filter(|part| !part.trim().is_empty()) {
            match part.split_once('=') {
                Some((kind, jobs)) => {
                    let kind = kind.trim().parse::<Kind>().map_err(|error| ConfigError::new(error.to_string()))?;
                    if kind.is_internal() {
                        return Err(ConfigError::new(format!("{part:?}: that is what --webhook-concurrency says")));
                    }
                    concurrency.by_kind.insert(kind, number(jobs)?);
                }
                None => concurrency.all = Some(number(part)?),
            }
        }
        Ok(concurrency)
    }
}

/// Parses one entry of `--kinds`.
fn parse_kind(written: &str) -> Result<Kind, UnknownKind> {
    written.trim().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_is_a_number_or_one_by_kind() {
        let set: Concurrency = "32,cdn.purge=7".parse().unwrap();
        assert_eq!((set.all, set.by_kind.get(&Kind::CdnPurge)), (Some(32), Some(&7)));
        for wrong in ["0", "many", "cdn.purge=0", "nothing=3", "70000", "webhook.deliver=3"] {
            assert!(wrong.parse::<Concurrency>().is_err(), "{wrong}");
        }
    }
}
