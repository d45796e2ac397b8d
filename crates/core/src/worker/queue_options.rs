//! The settings that name a queue and say how to reach it (SPEC 10).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use genfleet_job::{
    Kind,
    clock::{SharedClock, SystemClock},
    options::{ConfigError, is_unencrypted_remote, positive_duration, secret},
    text,
};
use genfleet_queue::{
    Queue, QueueError, QueueInspector, QueueLocation,
    rabbit::{ClientIdentity, RabbitQueue, RabbitSettings, TopologyMode},
    sqlite::{Role, SqliteQueue},
    topology::check_prefix,
};

/// The store that `genfleet up` uses where no queue is named.
const DEFAULT_STORE: &str = "genfleet.db";

/// Options that choose the queue and say how to reach it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueOptions {
    /// amqp:// or amqps:// (several hosts separated by commas), or sqlite:FILE. With a password only by variable
    /// (GENFLEET_QUEUE_URL) or file (GENFLEET_QUEUE_URL_FILE)
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_QUEUE_URL", hide_env_values = true, value_name = "URL")]
    queue_url: Option<SecretString>,

    /// First part of the name of every exchange and queue
    #[arg(long, env = "GENFLEET_QUEUE_PREFIX", default_value = "genfleet", value_parser = prefix, value_name = "NAME")]
    pub queue_prefix: String,

    /// Declare the exchanges and queues, verify that they exist, or do neither
    #[arg(long, env = "GENFLEET_TOPOLOGY", value_enum, default_value = "declare")]
    pub topology: TopologyMode,

    /// PEM file with the authority that signed the broker's certificate
    #[arg(long, env = "GENFLEET_QUEUE_CA_FILE", value_name = "FILE")]
    pub queue_ca_file: Option<PathBuf>,

    /// PEM file with the certificate this client shows to the broker
    #[arg(long, env = "GENFLEET_QUEUE_CLIENT_CERTIFICATE", value_name = "FILE", requires = "queue_client_key")]
    pub queue_client_certificate: Option<PathBuf>,

    /// PEM file with its private key, without a password
    #[arg(long, env = "GENFLEET_QUEUE_CLIENT_KEY", value_name = "FILE", requires = "queue_client_certificate")]
    pub queue_client_key: Option<PathBuf>,

    /// Rebuild the session when messages wait and none is delivered for this long
    #[arg(long, env = "GENFLEET_QUEUE_WATCHDOG", default_value = "60s", value_parser = positive_duration, value_name = "DURATION")]
    pub queue_watchdog: Duration,
}

fn prefix(written: &str) -> Result<String, QueueError> {
    check_prefix(written).map(|()| written.to_owned())
}

impl QueueOptions {
    /// Uses the embedded queue in `genfleet.db` if no address is set.
    pub fn default_to_store(&mut self) -> Result<(), ConfigError> {
        if self.configured_url()?.is_none() {
            self.queue_url = Some(format!("sqlite:{DEFAULT_STORE}").into());
        }
        Ok(())
    }

    /// The address from the flag, the variable or the file that the variable names.
    fn configured_url(&self) -> Result<Option<SecretString>, ConfigError> {
        // Read even if the flag is given: a variable beside its file is a mistake either way.
        let from_outside = secret("GENFLEET_QUEUE_URL")?;
        let given = self.queue_url.as_ref().map(|url| text::trim(url.expose_secret()).into());
        Ok(given.or(from_outside))
    }

    fn url(&self) -> Result<SecretString, ConfigError> {
        self.configured_url()?.ok_or_else(|| {
            let message = "no queue: set --queue-url or GENFLEET_QUEUE_URL to amqp://HOST, amqps://HOST or sqlite:FILE";
            let store = Path::new(DEFAULT_STORE).exists().then(|| format!("; here lies sqlite:{DEFAULT_STORE}"));
            ConfigError::new(format!("{message}{}", store.unwrap_or_default()))
        })
    }

    /// The file of the embedded queue; `None` for a broker.
    pub fn sqlite_file(&self) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.url()?.expose_secret().strip_prefix("sqlite:").map(PathBuf::from))
    }

    /// Addresses of the brokers; none for the embedded queue.
    fn broker_urls(&self) -> Result<Vec<String>, ConfigError> {
        if self.sqlite_file()?.is_some() { Ok(Vec::new()) } else { split_hosts(self.url()?.expose_secret()) }
    }

    /// Settings of the broker, for a process that works `kinds` or publishes jobs of them. An error if the address is of
    /// another queue.
    pub fn rabbit(&self, name: &str, kinds: &[Kind]) -> Result<RabbitSettings, ConfigError> {
        let identity = self.queue_client_certificate.clone().zip(self.queue_client_key.clone());
        Ok(RabbitSettings {
            urls: split_hosts(self.url()?.expose_secret())?.into_iter().map(SecretString::from).collect(),
            prefix: self.queue_prefix.clone(),
            topology: self.topology,
            kinds: kinds.to_vec(),
            ca_file: self.queue_ca_file.clone(),
            client_identity: identity.map(|(certificate, key)| ClientIdentity { certificate, key }),
            name: name.to_owned(),
            watchdog: self.queue_watchdog,
        })
    }

    fn location(&self, name: &str, kinds: &[Kind]) -> Result<QueueLocation, ConfigError> {
        Ok(match self.sqlite_file()? {
            Some(file) => QueueLocation::Store(file),
            None => QueueLocation::Broker(Box::new(self.rabbit(name, kinds)?)),
        })
    }

    /// Opens the queue, to work `kinds` or to publish jobs of them. `role` matters for the embedded one only, `kinds` for
    /// a broker.
    pub fn open(&self, name: &str, role: Role, kinds: &[Kind], clock: SharedClock) -> Result<Queue, ConfigError> {
        let opened = match self.location(name, kinds)? {
            QueueLocation::Store(file) => SqliteQueue::open(&file, role, clock).map(Queue::Sqlite),
            QueueLocation::Broker(settings) => RabbitQueue::connect(*settings, clock).map(Queue::Rabbit),
        };
        opened.map_err(|error| ConfigError::new(error.to_string()))
    }

    /// Opens the queue for inspection by the operator's tool.
    pub fn inspect(&self, name: &str) -> Result<QueueInspector, QueueError> {
        let location = self.check().and_then(|()| self.location(name, &[]));
        let location = location.map_err(|error| QueueError::Configuration(error.to_string()))?;
        QueueInspector::open(location, Arc::new(SystemClock))
    }

    /// Finds mistakes that show without connecting.
    pub fn check(&self) -> Result<(), ConfigError> {
        let checked = match self.location("check", &[])? {
            QueueLocation::Store(file) => SqliteQueue::check_name(&file),
            QueueLocation::Broker(settings) => settings.check(),
        };
        checked.map_err(|error| ConfigError::new(error.to_string()))
    }

    /// Lists warnings about settings that are allowed but may be a mistake.
    pub(crate) fn warnings(&self) -> Result<Vec<String>, ConfigError> {
        let urls: Vec<url::Url> = self.broker_urls()?.iter().filter_map(|one| one.parse().ok()).collect();
        let plain = urls.iter().filter(|one| one.password().is_some() && is_unencrypted_remote(one));
        let mut warnings: Vec<String> = plain
            .map(|one| {
                let host = one.host_str().unwrap_or_default();
                format!(
                    "GENFLEET_QUEUE_URL: amqp://{host} is not encrypted, so that the password and all jobs can be read on the way; write amqps://"
                )
            })
            .collect();
        let given =
            [("--queue-ca-file", &self.queue_ca_file), ("--queue-client-certificate", &self.queue_client_certificate)];
        if urls.iter().all(|one| one.scheme() != "amqps") {
            let useless = given.iter().filter(|(_, file)| file.is_some());
            warnings.extend(
                useless.map(|(flag, _)| format!("{flag} has no effect: no address of the queue begins with amqps://")),
            );
        }
        Ok(warnings)
    }

    /// Checks for `--check-config` that the store can be opened. A broker is not asked for anything.
    pub(crate) fn check_store(&self) -> Result<(), ConfigError> {
        match self.sqlite_file()? {
            Some(file) => SqliteQueue::check(&file).map_err(|error| ConfigError::new(error.to_string())),
            None => Ok(()),
        }
    }
}

/// `amqp://user:password@one,two:5673/vhost` names two brokers with the same credentials and virtual host;
/// several whole URLs separated by commas are taken as they are.
fn split_hosts(url: &str) -> Result<Vec<String>, ConfigError> {
    let wrong = || ConfigError::new("--queue-url: must begin with amqp://, amqps:// or sqlite:");
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| ["amqp", "amqps"].contains(scheme)) else {
        return Err(wrong());
    };
    if rest.contains("://") {
        return url
            .split(',')
            .map(|one| split_hosts(one.trim()))
            .collect::<Result<Vec<_>, _>>()
            .map(|urls| urls.concat());
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) =
        authority.rsplit_once('@').map_or((String::new(), authority), |(user, hosts)| (format!("{user}@"), hosts));
    let urls: Vec<String> = hosts.split(',').map(|host| format!("{scheme}://{user}{}{path}", host.trim())).collect();
    if urls.iter().any(|one| url::Url::parse(one).is_err()) {
        return Err(ConfigError::new("--queue-url: not a URL; write amqp://user:password@host:5672/vhost"));
    }
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> QueueOptions {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            queue: QueueOptions,
        }
        <Program as clap::Parser>::parse_from([&["program"], arguments].concat()).queue
    }

    #[test]
    fn several_hosts_share_credentials_and_virtual_host() {
        let urls = split_hosts("amqp://u:p@one,two:5673/v?heartbeat=5").unwrap();
        assert_eq!(urls, ["amqp://u:p@one/v?heartbeat=5", "amqp://u:p@two:5673/v?heartbeat=5"]);
        assert_eq!(split_hosts("amqp://a,amqps://b/%2f").unwrap(), ["amqp://a", "amqps://b/%2f"]);
    }

    #[test]
    fn an_address_of_no_queue_says_which_there_are() {
        let error = split_hosts("redis://localhost").unwrap_err().to_string();
        assert!(error.contains("amqp://, amqps:// or sqlite:"), "{error}");
    }

    #[test]
    fn a_password_that_can_be_read_on_the_way_and_certificates_nobody_asks_for_are_warnings() {
        let warnings = |arguments: &[&str]| parse(arguments).warnings().unwrap();
        let found = warnings(&["--queue-url=amqp://u:hush@one,127.0.0.1,two:5673/v", "--queue-ca-file=ca.pem"]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("amqp://one is not encrypted") && found[1].contains("amqp://two"), "{found:?}");
        assert!(found[2].contains("--queue-ca-file has no effect") && !found.concat().contains("hush"), "{found:?}");
        for fine in
            ["amqp://localhost", "amqp://u:hush@localhost", "amqp://u@broker", "amqps://u:hush@broker", "sqlite:a.db"]
        {
            assert_eq!(warnings(&["--queue-url", fine]), Vec::<String>::new(), "{fine}");
        }
        assert_eq!(warnings(&["--queue-url=amqp://a,amqps://b", "--queue-ca-file=ca.pem"]), Vec::<String>::new());
        assert_eq!(warnings(&["--queue-url=sqlite:a.db", "--queue-ca-file=ca.pem"]).len(), 1);
    }

    #[test]
    fn an_address_is_never_shown_whole() {
        let options = parse(&["--queue-url=amqp://user:hidden@host"]);
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
