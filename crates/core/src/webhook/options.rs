//! The settings of webhooks (SPEC 7, 10). Secrets are not among them: [`super::signers`] reads them from variables or
//! files, whose names the settings may give.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{
    address_guard::{AddressEntry, AddressList},
    receiver::Receiver,
};
use genfleet_job::{
    Kind,
    options::{ConfigError, is_unencrypted_remote},
};

/// The receivers of events, and the limits of their deliveries.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookOptions {
    /// Also send the final event of every job, or of every job of KIND, here. May be repeated; in the variable
    /// separated by commas (a comma in a URL is written %2C). Signed with GENFLEET_WEBHOOK_SECRET
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(
        long,
        env = "GENFLEET_WEBHOOK_URL",
        hide_env_values = true,
        value_name = "[KIND=]URL",
        value_delimiter = ','
    )]
    pub(super) webhook_url: Vec<SecretString>,

    /// Receivers with a secret of their own: for URLs that begin like this (host and whole segments of the path), the
    /// variable NAME, or the file that NAME_FILE names, holds the secret. The longest match counts; all others are
    /// signed with GENFLEET_WEBHOOK_SECRET
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(
        long,
        env = "GENFLEET_WEBHOOK_SECRETS",
        hide_env_values = true,
        value_name = "URL=NAME,…",
        value_delimiter = ','
    )]
    pub(super) webhook_secret: Vec<SecretString>,

    /// True if jobs may name webhooks of their own
    #[arg(long, env = "GENFLEET_JOB_WEBHOOKS", value_name = "on|off", default_value = "on")]
    pub job_webhooks: JobWebhooks,

    /// Receivers that may have a private address and may be reached without TLS: host names and networks, optionally
    /// with one port
    #[arg(long, env = "GENFLEET_WEBHOOK_ALLOW", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub webhook_allow: Vec<AddressEntry>,

    /// Receivers that get no deliveries, even if they are allowed elsewhere: host names and networks, optionally with
    /// one port
    #[arg(long, env = "GENFLEET_WEBHOOK_DENY", value_name = "HOST[:PORT]|CIDR,…", value_delimiter = ',')]
    pub webhook_deny: Vec<AddressEntry>,

    /// A PEM file of further certificate authorities to trust for receivers
    #[arg(long, env = "GENFLEET_WEBHOOK_CA_FILE", value_name = "FILE")]
    pub webhook_ca_file: Option<PathBuf>,

    /// Maximum number of deliveries at the same time; at most 4 of them to one host and half of them to one
    /// address. 0: this process delivers none
    #[arg(long, env = "GENFLEET_WEBHOOK_CONCURRENCY", value_name = "N", default_value = "16", value_parser = concurrency)]
    pub webhook_concurrency: usize,

    /// Multiplies the waits between attempts of a delivery (5 s, 5 min, 30 min, 2 h, 5 h, 10 h). Below 1 for rehearsals
    #[arg(long, env = "GENFLEET_WEBHOOK_RETRY_SCALE", value_name = "FACTOR", default_value = "1", value_parser = factor)]
    pub webhook_retry_scale: f64,
}

/// The permission for jobs to name webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum JobWebhooks {
    /// They may.
    On,
    /// A job that names a webhook is invalid.
    Off,
}

/// One `--webhook-url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRoute {
    /// The kind of the jobs; `None` for all.
    pub kind: Option<Kind>,
    /// The receiver of their events.
    pub receiver: Receiver,
}

impl WebhookOptions {
    /// Parses `--webhook-url`.
    pub fn routes(&self) -> Result<Vec<WebhookRoute>, ConfigError> {
        let written = self.webhook_url.iter().map(|route| route.expose_secret().trim());
        let written = written.filter(|written| !written.is_empty()).enumerate();
        written.map(|(index, written)| route(written, index + 1)).collect()
    }

    /// Warnings about settings that are allowed but may be a mistake.
    pub fn warnings(&self) -> Result<Vec<String>, ConfigError> {
        let routes = self.routes()?;
        let plain = routes.iter().filter(|route| is_unencrypted_remote(route.receiver.url()));
        let mut warnings: Vec<String> = plain
            .map(|route| {
                format!(
                    "--webhook-url: {} is not encrypted: others can read the events in transit; write https://",
                    route.receiver
                )
            })
            .collect();
        let encrypted = routes.iter().any(|route| route.receiver.url().scheme() == "https");
        let delivers_https = self.webhook_concurrency > 0 && (encrypted || self.job_webhooks == JobWebhooks::On);
        if self.webhook_ca_file.is_some() && !delivers_https {
            warnings.push("--webhook-ca-file has no effect: this process delivers to no https:// address".to_owned());
        }
        Ok(warnings)
    }

    /// The addresses of `--webhook-allow` and `--webhook-deny`.
    pub(super) fn addresses(&self) -> AddressList {
        AddressList::new(&self.webhook_allow, &self.webhook_deny)
    }
}

fn route(written: &str, number: usize) -> Result<WebhookRoute, ConfigError> {
    let wrong = |what: &str| ConfigError::new(format!("--webhook-url, number {number}: {what}"));
    let before_url = written.split("://").next().unwrap_or_default();
    let Some((kind, url)) = before_url.split_once('=').map(|(kind, _)| (kind, &written[kind.len() + 1..])) else {
        return Ok(WebhookRoute { kind: None, receiver: Receiver::parse(written).map_err(wrong)? });
    };
    let kind: Kind = kind.trim().parse().map_err(|error: genfleet_job::UnknownKind| wrong(&error.to_string()))?;
    if kind.is_internal() {
        return Err(wrong("the end of a webhook delivery is sent to no webhook"));
    }
    Ok(WebhookRoute { kind: Some(kind), receiver: Receiver::parse(url.trim()).map_err(wrong)? })
}

fn concurrency(written: &str) -> Result<usize, ConfigError> {
    let number = written.trim().parse().ok().filter(|number| *number <= 1000);
    number.ok_or_else(|| ConfigError::new(format!("{written:?}: write a number from 0 to 1000")))
}

fn factor(written: &str) -> Result<f64, ConfigError> {
    let number = written.trim().parse().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| ConfigError::new(format!("{written:?}: write a number from 0 to 100, e.g. 0.01")))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        webhooks: WebhookOptions,
    }

    fn parse(arguments: &[&str]) -> Result<WebhookOptions, clap::Error> {
        Program::try_parse_from([&["program"], arguments].concat()).map(|program| program.webhooks)
    }

    fn routes(written: &str) -> Result<Vec<WebhookRoute>, ConfigError> {
        parse(&["--webhook-url", written]).unwrap().routes()
    }

    #[test]
    fn the_defaults_are_the_contracts() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.webhook_concurrency, 16);
        assert!((options.webhook_retry_scale - 1.0).abs() < f64::EPSILON);
        assert_eq!(options.routes().unwrap(), []);
    }

    #[test]
    fn a_url_is_for_all_kinds_or_for_one() {
        let found = routes("https://a.example/?x=1,, file.scan=https://b.example/?kind=cdn.purge").unwrap();
        let shown: Vec<_> = found.iter().map(|route| (route.kind, route.receiver.url().as_str())).collect();
        let second = (Some(Kind::FileScan), "https://b.example/?kind=cdn.purge");
        assert_eq!(shown, [(None, "https://a.example/?x=1"), second]);
        let repeated = parse(&["--webhook-url", "https://a.example", "--webhook-url", "https://b.example"]).unwrap();
        assert_eq!(repeated.routes().unwrap().len(), 2);
    }

    #[test]
    fn events_that_can_be_read_on_the_way_and_an_authority_nobody_asks_are_warnings() {
        let warnings = |arguments: &[&str]| parse(arguments).unwrap().warnings().unwrap();
        let reported = warnings(&["--webhook-url=http://a.example/hush,http://[::1]/,https://b.example"]);
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(
            reported[0].contains("http://a.example is not encrypted") && !reported[0].contains("hush"),
            "{reported:?}"
        );
        let useless = ["--webhook-ca-file=ca.pem", "--job-webhooks=off", "--webhook-url=http://[::1]/"];
        assert!(warnings(&useless)[0].contains("--webhook-ca-file has no effect"));
        assert_eq!(warnings(&["--webhook-ca-file=ca.pem"]), Vec::<String>::new());
    }

    #[test]
    fn an_invalid_url_is_named_by_its_number_and_not_shown() {
        for (written, reported) in [
            ("https://a.example,hush", "number 2: not a URL"),
            ("cdn.prune=https://a.example/hush", "no such kind: \"cdn.prune\""),
            ("webhook.deliver=https://a.example/hush", "is sent to no webhook"),
            ("cdn.purge=https://user:hush@a.example", "number 1: must not hold"),
        ] {
            let error = routes(written).unwrap_err().to_string();
            assert!(error.contains(reported) && !error.contains("hush"), "{written}: {error}");
        }
        assert!(!format!("{:?}", parse(&["--webhook-url", "https://a.example/hush"]).unwrap()).contains("hush"));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_with_what_to_write() {
        for (flag, value, remedy) in [
            ("--webhook-concurrency", "many", "0 to 1000"),
            ("--webhook-concurrency", "1001", "0 to 1000"),
            ("--webhook-retry-scale", "-1", "0 to 100"),
            ("--webhook-retry-scale", "NaN", "0 to 100"),
            ("--webhook-allow", "http://a.internal", "10.1.0.0/16"),
            ("--webhook-deny", "http://a.internal", "10.1.0.0/16"),
            ("--job-webhooks", "maybe", "on, off"),
        ] {
            let error = parse(&[&format!("{flag}={value}")]).unwrap_err().to_string();
            assert!(error.contains(remedy), "{flag} {value}: {error}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_and_a_variable_with_help() {
        for argument in Program::command().get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "{argument}");
            let flag = argument.get_long().unwrap().to_uppercase().replace('-', "_");
            // The variable of that name is the secret itself.
            let flag = if flag == "WEBHOOK_SECRET" { "WEBHOOK_SECRETS".to_owned() } else { flag };
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(format!("GENFLEET_{flag}").as_str()));
        }
    }
}
