//! The settings of the Genesys Cloud client (SPEC 10). The client id and secret are not among them: they are read from
//! variables or files by [`genfleet_job::options::secret`].

use std::{path::Path, time::Duration};

use url::Url;

use crate::region::{self, Addresses};
use genfleet_job::options::{ConfigError, duration, is_unencrypted_remote};

/// The way the client authenticates at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic, as the platform documents it.
    #[default]
    Basic,
    /// Credentials in the form body.
    Form,
}

/// The settings of the client. The client id and secret are read from `GENESYS_CLIENT_ID` and
/// `GENESYS_CLIENT_SECRET`, or from the files that `GENESYS_CLIENT_ID_FILE` and `GENESYS_CLIENT_SECRET_FILE` name.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Genesys Cloud")]
pub struct GenesysOptions {
    /// The organisation's region, e.g. mypurecloud.ie or usw2.pure.cloud, or as AWS names it: eu-west-1, us-west-2
    #[arg(long, env = "GENESYS_ENVIRONMENT", value_name = "REGION", default_value = region::DEFAULT)]
    #[arg(value_parser = |given: &str| or_default(given, region::DEFAULT, environment))]
    pub genesys_environment: String,

    /// The API's address, in place of `https://api.<region>`
    #[arg(long, env = "GENESYS_BASE_URL", value_name = "URL", value_parser = text)]
    pub genesys_base_url: Option<String>,

    /// URL of the token endpoint, instead of `https://login.<region>/oauth/token`; with only the base URL
    /// given it is `<base URL>/oauth/token`
    #[arg(long, env = "GENESYS_TOKEN_URL", value_name = "URL", value_parser = text)]
    pub genesys_token_url: Option<String>,

    /// URL from which browsers read web deployments, instead of `https://api-cdn.<region>`; with only the base URL
    /// given it is not checked
    #[arg(long, env = "GENESYS_CDN_URL", value_name = "URL", value_parser = text)]
    pub genesys_cdn_url: Option<String>,

    /// Authentication at the token endpoint: basic (HTTP Basic) or form (in the body)
    #[arg(long, env = "GENESYS_CLIENT_AUTH", value_name = "basic|form", default_value = "basic")]
    #[arg(value_parser = |given: &str| or_default(given, "basic", client_auth))]
    pub genesys_client_auth: ClientAuth,

    /// A PEM file of further certificate authorities to trust: for the API, the token endpoint, links to files (media.scan)
    /// and what browsers read of web deployments
    #[arg(long, env = "GENESYS_CA_FILE", value_name = "FILE", value_parser = text)]
    pub genesys_ca_file: Option<String>,

    /// Maximum number of requests per minute and token; the API's own limit counts if it is smaller
    #[arg(long, env = "GENFLEET_REQUESTS_PER_MINUTE", value_name = "N", default_value = "300")]
    #[arg(value_parser = |given: &str| or_default(given, "300", requests))]
    pub requests_per_minute: u32,

    /// Maximum number of requests per minute of the OAuth client, shared by all processes with its id
    #[arg(long, env = "GENFLEET_CLIENT_REQUESTS_PER_MINUTE", value_name = "N", default_value = "3000")]
    #[arg(value_parser = |given: &str| or_default(given, "3000", requests))]
    pub client_requests_per_minute: u32,

    /// Time over which failures are counted. If 80 % of at least 20 requests of at least 5 jobs failed in it, the API
    /// counts as down, and only probes are sent
    #[arg(long, env = "GENFLEET_BREAKER_WINDOW", value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = |given: &str| or_default(given, "30s", wait))]
    pub breaker_window: Duration,

    /// Wait before the first probe while the API counts as down; it doubles up to 12 times this value
    #[arg(long, env = "GENFLEET_BREAKER_PROBE", value_name = "DURATION", default_value = "5s")]
    #[arg(value_parser = |given: &str| or_default(given, "5s", wait))]
    pub breaker_probe: Duration,

    /// Interval of trying refused credentials again; each try reads the secret files again
    #[arg(long, env = "GENFLEET_CREDENTIALS_PROBE", value_name = "DURATION", default_value = "30s")]
    #[arg(value_parser = |given: &str| or_default(given, "30s", wait))]
    pub credentials_probe: Duration,

    /// Interval between two jobs that check whether a kind is still forbidden
    #[arg(long, env = "GENFLEET_FORBIDDEN_PROBE", value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = |given: &str| or_default(given, "60s", wait))]
    pub forbidden_probe: Duration,
}

impl GenesysOptions {
    /// Derives the URLs of requests.
    pub fn addresses(&self) -> Result<Addresses, ConfigError> {
        let base = non_empty(self.genesys_base_url.as_deref());
        let (token, cdn) = (non_empty(self.genesys_token_url.as_deref()), non_empty(self.genesys_cdn_url.as_deref()));
        Addresses::new(&self.genesys_environment, base, token, cdn)
    }

    /// Returns true if requests go to the vendor's platform: no base URL names another place.
    pub fn is_of_the_vendor(&self) -> bool {
        non_empty(self.genesys_base_url.as_deref()).is_none()
    }

    /// Warns of settings that are allowed but may be a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let unknown = self.is_of_the_vendor() && region::known_domains().all(|known| known != self.genesys_environment);
        let warning = format!(
            "GENESYS_ENVIRONMENT {} is no region known here; the known ones are {}",
            self.genesys_environment,
            region::known_domains().collect::<Vec<_>>().join(", ")
        );
        let mut warnings: Vec<String> = unknown.then_some(warning).into_iter().collect();
        // An invalid address is reported as an error.
        if let Ok(Addresses { api, token, .. }) = self.addresses() {
            warnings.extend(plain("GENESYS_BASE_URL", &api, "tokens and all that is sent"));
            warnings.extend(plain("GENESYS_TOKEN_URL", &token, "the client secret"));
            if self.ca_file().is_some() && api.scheme() == "http" && token.scheme() == "http" {
                warnings.push("GENESYS_CA_FILE has no effect on the API: both addresses begin with http://".to_owned());
            }
        }
        warnings
    }

    /// Returns the file of further certificate authorities.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        non_empty(self.genesys_ca_file.as_deref()).map(Path::new)
    }
}

fn plain(setting: &str, url: &Url, what: &str) -> Option<String> {
    let host = url.origin().ascii_serialization();
    is_unencrypted_remote(url)
        .then(|| format!("{setting}: {host} is not encrypted, so that {what} can be read on the way; write https://"))
}

/// Treats an empty variable as not set.
fn non_empty(given: Option<&str>) -> Option<&str> {
    given.filter(|given| !given.is_empty())
}

/// Reads `given`, or the default if it is empty: clap takes an empty variable for a value.
fn or_default<T>(given: &str, default: &str, read: impl Fn(&str) -> Result<T, ConfigError>) -> Result<T, ConfigError> {
    read(if given.trim().is_empty() { default } else { given })
}

#[expect(clippy::unnecessary_wraps, reason = "the form clap asks for")]
fn text(given: &str) -> Result<String, ConfigError> {
    Ok(given.trim().to_owned())
}

/// Reads a region by its domain or by the name of AWS.
#[expect(clippy::unnecessary_wraps, reason = "the form clap asks for")]
fn environment(given: &str) -> Result<String, ConfigError> {
    Ok(region::domain(given.trim()).to_owned())
}

fn client_auth(given: &str) -> Result<ClientAuth, ConfigError> {
    match given {
        "basic" => Ok(ClientAuth::Basic),
        "form" => Ok(ClientAuth::Form),
        other => Err(ConfigError::new(format!("{other:?} is neither basic nor form"))),
    }
}

fn requests(given: &str) -> Result<u32, ConfigError> {
    let number = given.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| ConfigError::new(format!("{given:?} is no number of requests; write 1 or more")))
}

/// Parses a wait, which must not be zero.
fn wait(given: &str) -> Result<Duration, ConfigError> {
    let read = duration(given)?;
    let zero = || ConfigError::new(format!("{given:?} is no time to wait; write 1ms or more"));
    (!read.is_zero()).then_some(read).ok_or_else(zero)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        genesys: GenesysOptions,
    }

    fn parse(arguments: &[&str]) -> Result<GenesysOptions, clap::Error> {
        Program::try_parse_from([&["program"], arguments].concat()).map(|program| program.genesys)
    }

    #[test]
    fn the_defaults_are_the_contracts() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.addresses().unwrap().api.as_str(), "https://api.mypurecloud.com/");
        assert_eq!((options.requests_per_minute, options.genesys_client_auth), (300, ClientAuth::Basic));
        assert_eq!(options.client_requests_per_minute, 3000);
        let seconds =
            [options.breaker_window, options.breaker_probe, options.credentials_probe, options.forbidden_probe]
                .map(|duration| duration.as_secs());
        assert_eq!(seconds, [30, 5, 30, 60]);
        assert!(options.warnings().is_empty());
    }

    #[test]
    fn an_empty_value_counts_as_not_set() {
        let options = parse(&[
            "--genesys-environment=",
            "--genesys-base-url=",
            "--genesys-token-url=",
            "--genesys-cdn-url=",
            "--genesys-client-auth=",
            "--genesys-ca-file=",
            "--requests-per-minute=",
            "--client-requests-per-minute=",
            "--breaker-probe=",
        ])
        .unwrap();
        assert_eq!(options.addresses().unwrap(), parse(&[]).unwrap().addresses().unwrap());
        assert_eq!((options.requests_per_minute, options.breaker_probe.as_secs()), (300, 5));
        assert_eq!(options.ca_file(), None);
    }

    #[test]
    fn a_region_may_be_written_as_aws_names_it() {
        let options = parse(&["--genesys-environment", "us-east-1"]).unwrap();
        assert_eq!(options.addresses().unwrap().environment, "mypurecloud.com");
        assert!(options.warnings().is_empty());
    }

    #[test]
    fn an_unknown_region_is_a_warning_and_not_an_error() {
        let options = parse(&["--genesys-environment", "mars1.pure.cloud"]).unwrap();
        assert!(options.warnings()[0].contains("mars1.pure.cloud"));
        assert_eq!(options.addresses().unwrap().environment, "mars1.pure.cloud");
    }

    #[test]
    fn what_can_be_read_on_the_way_and_an_authority_nobody_asks_are_warnings() {
        let warnings = |arguments: &[&str]| parse(arguments).unwrap().warnings();
        let found = warnings(&["--genesys-base-url=http://api.example/x", "--genesys-ca-file=ca.pem"]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("GENESYS_BASE_URL: http://api.example is not encrypted"), "{found:?}");
        assert!(
            found[1].contains("the client secret") && found[2].contains("GENESYS_CA_FILE has no effect"),
            "{found:?}"
        );
        let mixed = warnings(&["--genesys-base-url=https://api.example", "--genesys-token-url=http://login.example/"]);
        assert!(mixed.len() == 1 && mixed[0].starts_with("GENESYS_TOKEN_URL"), "{mixed:?}");
        assert_eq!(warnings(&["--genesys-base-url=http://127.0.0.1:8480"]), Vec::<String>::new());
        assert_eq!(
            warnings(&["--genesys-base-url=https://api.example", "--genesys-ca-file=ca.pem"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_with_what_to_write() {
        for (flag, value, remedy) in [
            ("--requests-per-minute", "0", "1 or more"),
            ("--requests-per-minute", "many", "1 or more"),
            ("--client-requests-per-minute", "0", "1 or more"),
            ("--breaker-window", "0s", "1ms or more"),
            ("--credentials-probe", "30", "write 20ms"),
            ("--genesys-client-auth", "query", "basic nor form"),
        ] {
            let error = parse(&[flag, value]).unwrap_err().to_string();
            assert!(error.contains(remedy), "{flag} {value}: {error}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_and_a_variable_with_help() {
        for argument in Program::command().get_arguments().filter(|argument| argument.get_id() != "help") {
            assert!(argument.get_help().is_some(), "{argument}");
            let flag = argument.get_long().unwrap().to_uppercase().replace('-', "_");
            let variable = if flag.starts_with("GENESYS_") { flag } else { format!("GENFLEET_{flag}") };
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        }
    }
}
