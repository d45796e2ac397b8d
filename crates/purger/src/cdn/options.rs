//! The settings of the CDN (SPEC 10): which one, and where. Its secrets are no settings: they come by variable or file only.

use std::{slice, sync::Arc};

use clap::ValueEnum;
use genfleet_core::options::{ConfigError, is_unencrypted_remote};
use url::Url;

use super::{
    cloudflare::{self, Cloudflare},
    cloudfront::{self, credentials},
    fastly::{self, Fastly},
    token::ApiToken,
    varnish::Varnish,
};

/// The CDN that is purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CdnProvider {
    /// The one behind Genesys Cloud, as the tutorial has it.
    #[default]
    Genesys,
    /// Amazon CloudFront.
    Cloudfront,
    /// Cloudflare.
    Cloudflare,
    /// Varnish servers of your own.
    Varnish,
    /// Fastly.
    Fastly,
}

/// The settings of the CDN.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "CDN")]
pub(crate) struct CdnOptions {
    /// The CDN that is purged. All but genesys are in front of your own site and need no credentials of Genesys Cloud.
    /// Secrets, only by variable or _FILE: CLOUDFLARE_API_TOKEN, FASTLY_API_TOKEN, and what AWS's tools read
    #[expect(clippy::doc_markdown, reason = "this is what --help shows")]
    #[arg(long, env = "GENFLEET_CDN", value_enum, value_name = "CDN", default_value = "genesys")]
    pub(crate) cdn: CdnProvider,

    /// The id of the CloudFront distribution
    #[arg(long, env = "GENFLEET_CDN_DISTRIBUTION", value_name = "ID")]
    pub cdn_distribution: Option<String>,

    /// The id of the Cloudflare zone
    #[arg(long, env = "GENFLEET_CDN_ZONE", value_name = "ID")]
    pub cdn_zone: Option<String>,

    /// Scheme, host and port of the CDN's API in place of the provider's own (cloudfront, cloudflare, fastly)
    #[arg(long, env = "GENFLEET_CDN_URL", value_name = "URL")]
    pub cdn_url: Option<Url>,

    /// All Varnish servers, as http://HOST:PORT. Every purge is sent to all of them
    #[arg(long, env = "GENFLEET_CDN_SERVERS", value_name = "URL,…", value_delimiter = ',')]
    pub cdn_servers: Vec<Url>,

    /// Hosts whose paths are purged. Required for cloudflare and fastly; for varnish, the values of the header Host
    #[arg(long, env = "GENFLEET_CDN_HOSTS", value_name = "HOST,…", value_delimiter = ',', value_parser = host)]
    pub cdn_hosts: Vec<String>,

    /// Requests per minute of this process to the CDN, at most [default: cloudfront 300, cloudflare 200, varnish 6000,
    /// fastly 1000]
    #[arg(long, env = "GENFLEET_CDN_REQUESTS_PER_MINUTE", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub cdn_requests_per_minute: Option<u32>,

    /// A stand-in of this address takes the purges: no secrets are needed, and none are sent.
    #[arg(skip)]
    pub(crate) stand_in: Option<Url>,
}

/// The CDN that the settings name, with all that it needs but secrets.
#[derive(Clone, Debug)]
pub(crate) enum ChosenCdn {
    Genesys,
    CloudFront { base: Url, distribution: Arc<str> },
    Cloudflare(Cloudflare),
    Varnish(Varnish),
    Fastly(Fastly),
}

impl ChosenCdn {
    /// Lists the addresses that requests go to.
    pub(crate) fn urls(&self) -> &[Url] {
        match self {
            Self::Genesys => &[],
            Self::CloudFront { base, .. }
            | Self::Cloudflare(Cloudflare { base, .. })
            | Self::Fastly(Fastly { base, .. }) => slice::from_ref(base),
            Self::Varnish(varnish) => &varnish.servers,
        }
    }
}

impl CdnOptions {
    /// Returns whether the CDN is reached by Genesys Cloud's API.
    pub(crate) fn is_genesys(&self) -> bool {
        self.cdn == CdnProvider::Genesys
    }

    /// Finds mistakes that show without a request.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let chosen = self.choose()?;
        if self.stand_in.is_some() {
            return Ok(());
        }
        match chosen {
            ChosenCdn::Genesys | ChosenCdn::Varnish(_) => Ok(()),
            ChosenCdn::CloudFront { .. } => credentials::of_variables().map(drop),
            ChosenCdn::Cloudflare(cloudflare) => cloudflare.check(),
            ChosenCdn::Fastly(fastly) => fastly.check(),
        }
    }

    /// Returns the CDN. An error names the setting that is missing or wrong.
    pub(crate) fn choose(&self) -> Result<ChosenCdn, ConfigError> {
        Ok(match self.cdn {
            CdnProvider::Genesys => ChosenCdn::Genesys,
            CdnProvider::Cloudfront => ChosenCdn::CloudFront {
                base: self.base(cloudfront::ADDRESS)?,
                distribution: id(
                    self.cdn_distribution.as_deref(),
                    "--cdn cloudfront needs --cdn-distribution (GENFLEET_CDN_DISTRIBUTION): the id of the distribution",
                )?,
            },
            CdnProvider::Cloudflare => ChosenCdn::Cloudflare(Cloudflare {
                base: self.base(cloudflare::ADDRESS)?,
                zone: id(
                    self.cdn_zone.as_deref(),
                    "--cdn cloudflare needs --cdn-zone (GENFLEET_CDN_ZONE): the id of the zone",
                )?,
                hosts: self.hosts("cloudflare")?,
                token: self.token(cloudflare::TOKEN),
            }),
            CdnProvider::Varnish => {
                if self.cdn_servers.is_empty() {
                    let what =
                        "--cdn varnish needs --cdn-servers (GENFLEET_CDN_SERVERS): every server, as http://HOST:PORT";
                    return Err(ConfigError::new(what));
                }
                let servers = self.cdn_servers.iter().map(|server| origin("--cdn-servers", server));
                let mut servers = servers.collect::<Result<Vec<_>, _>>()?;
                if let Some(stand_in) = &self.stand_in {
                    servers = vec![stand_in.clone()];
                }
                let servers = servers.into();
                ChosenCdn::Varnish(Varnish { servers, hosts: self.cdn_hosts.clone().into() })
            }
            CdnProvider::Fastly => {
                let (base, hosts) = (self.base(fastly::ADDRESS)?, self.hosts("fastly")?);
                ChosenCdn::Fastly(Fastly { base, hosts, token: self.token(fastly::TOKEN) })
            }
        })
    }

    /// Warns of settings that are allowed but may be a mistake.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let plain = self.cdn_url.as_ref().filter(|url| is_unencrypted_remote(url)).map(|url| {
            let host = url.host_str().unwrap_or_default();
            format!(
                "--cdn-url: {host} is not encrypted, so that the credentials can be read on the way; write https://"
            )
        });
        plain.into_iter().collect()
    }

    /// Requests per minute, at most.
    pub(crate) fn per_minute(&self) -> u32 {
        self.cdn_requests_per_minute.unwrap_or(match self.cdn {
            CdnProvider::Genesys | CdnProvider::Cloudfront => 300,
            CdnProvider::Cloudflare => 200,
            CdnProvider::Varnish => 6000,
            CdnProvider::Fastly => 1000,
        })
    }

    fn token(&self, variable: &'static str) -> ApiToken {
        if self.stand_in.is_some() { ApiToken::Simulated } else { ApiToken::Variable(variable) }
    }

    fn base(&self, default: &str) -> Result<Url, ConfigError> {
        match self.stand_in.as_ref().or(self.cdn_url.as_ref()) {
            Some(url) => origin("--cdn-url", url),
            None => default.parse().map_err(|error| ConfigError::new(format!("{default}: {error}"))),
        }
    }

    fn hosts(&self, cdn: &str) -> Result<Arc<[String]>, ConfigError> {
        if self.cdn_hosts.is_empty() {
            return Err(ConfigError::new(format!(
                "--cdn {cdn} needs --cdn-hosts (GENFLEET_CDN_HOSTS): the hosts whose paths are purged, e.g. www.example.com"
            )));
        }
        Ok(self.cdn_hosts.clone().into())
    }
}

fn id(given: Option<&str>, missing: &str) -> Result<Arc<str>, ConfigError> {
    let given = given.map(str::trim).filter(|given| !given.is_empty()).ok_or_else(|| ConfigError::new(missing))?;
    if given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return Ok(given.into());
    }
    Err(ConfigError::new(format!("{given:?} is no id: it has letters, digits, - and _ only ({missing})")))
}

/// Checks that `url` is scheme, host and port only.
fn origin(setting: &str, url: &Url) -> Result<Url, ConfigError> {
    let is_http = ["http", "https"].contains(&url.scheme()) && url.has_host();
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if is_http && is_bare && url.username().is_empty() && url.password().is_none() {
        return Ok(url.clone());
    }
    Err(ConfigError::new(format!("{setting}: write scheme, host and port only, e.g. http://cache-1:6081")))
}

/// Parses one entry of `--cdn-hosts`.
fn host(written: &str) -> Result<String, ConfigError> {
    let host = written.trim().to_lowercase();
    let is_host = Url::parse(&format!("https://{host}/")).is_ok_and(|url| {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        url.host_str().is_some_and(|name| format!("{name}{port}") == host)
    });
    if is_host {
        return Ok(host);
    }
    Err(ConfigError::new(format!("{written:?} is no host: write www.example.com, without scheme and path")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        cdn: CdnOptions,
    }

    fn parse(arguments: &[&str]) -> Result<CdnOptions, clap::Error> {
        Program::try_parse_from([&["purger"], arguments].concat()).map(|program| program.cdn)
    }

    #[test]
    fn what_a_cdn_needs_is_named_where_it_is_missing() {
        for (arguments, missing) in [
            (&["--cdn=cloudfront"][..], "--cdn-distribution"),
            (&["--cdn=cloudfront", "--cdn-distribution=E/1"], "is no id"),
            (&["--cdn=cloudflare", "--cdn-hosts=a.example"], "--cdn-zone"),
            (&["--cdn=cloudflare", "--cdn-zone=abc"], "--cdn-hosts"),
            (&["--cdn=varnish"], "--cdn-servers"),
            (&["--cdn=varnish", "--cdn-servers=http://v1:6081/path"], "scheme, host and port"),
            (&["--cdn=fastly"], "--cdn-hosts"),
            (&["--cdn=fastly", "--cdn-hosts=a.example", "--cdn-url=ftp://a"], "scheme, host and port"),
        ] {
            let error = parse(arguments).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(missing), "{arguments:?}: {error}");
        }
        assert!(parse(&["--cdn=akamai"]).is_err());
        for written in ["https://a.example", "a.example/x", "", "a b", "u@a.example"] {
            assert!(parse(&["--cdn-hosts", written]).is_err(), "{written}");
        }
    }

    #[test]
    fn what_is_given_is_taken() {
        let varnish =
            parse(&["--cdn=varnish", "--cdn-servers=http://v1:6081,https://v2", "--cdn-hosts=A.example,b:81"]);
        let ChosenCdn::Varnish(varnish) = varnish.unwrap().choose().unwrap() else { panic!("not varnish") };
        assert_eq!((varnish.servers.len(), &*varnish.hosts), (2, &["a.example".to_owned(), "b:81".to_owned()][..]));
        let options = parse(&[]).unwrap();
        assert!(options.is_genesys() && options.check().is_ok() && options.warnings().is_empty());
        assert_eq!(parse(&["--cdn=varnish"]).unwrap().per_minute(), 6000);
        assert_eq!(parse(&["--cdn-requests-per-minute=7"]).unwrap().per_minute(), 7);
        assert_eq!(parse(&["--cdn-url=http://cdn.example"]).unwrap().warnings().len(), 1);
    }
}
