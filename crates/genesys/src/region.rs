//! The regions of Genesys Cloud, and the addresses that follow from them (SPEC 4).

use url::Url;

use genfleet_job::options::ConfigError;

/// The region of an organisation that names none.
pub(crate) const DEFAULT: &str = "mypurecloud.com";

/// The known regions: the name that AWS has for each, which the vendor's Terraform provider takes, and its domain.
const REGIONS: [(&str, &str); 18] = [
    ("us-east-1", "mypurecloud.com"),
    ("eu-west-1", "mypurecloud.ie"),
    ("eu-central-1", "mypurecloud.de"),
    ("ap-northeast-1", "mypurecloud.jp"),
    ("ap-southeast-2", "mypurecloud.com.au"),
    ("us-west-2", "usw2.pure.cloud"),
    ("ca-central-1", "cac1.pure.cloud"),
    ("mx-central-1", "mxc1.pure.cloud"),
    ("sa-east-1", "sae1.pure.cloud"),
    ("eu-west-2", "euw2.pure.cloud"),
    ("eu-central-2", "euc2.pure.cloud"),
    ("ap-south-1", "aps1.pure.cloud"),
    ("ap-northeast-2", "apne2.pure.cloud"),
    ("ap-northeast-3", "apne3.pure.cloud"),
    ("ap-southeast-1", "apse1.pure.cloud"),
    ("me-central-1", "mec1.pure.cloud"),
    ("us-east-2", "use2.us-gov-pure.cloud"),
    ("eusc-de-east-1", "edee1.eusc-pure.cloud"),
];

/// Lists the domains of the known regions; another region is warned of, not refused.
pub(crate) fn known_domains() -> impl Iterator<Item = &'static str> {
    REGIONS.iter().map(|(_, domain)| *domain)
}

/// Returns the domain of a region that is written as AWS names it; any other text as it is.
pub(crate) fn domain(written: &str) -> &str {
    let of_aws = REGIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(written));
    of_aws.map_or(written, |(_, domain)| domain)
}

/// The addresses that requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The API; a slash at its end makes no difference.
    pub api: Url,
    /// The token endpoint.
    pub token: Url,
    /// The URL from which browsers read deployments; `None` if only the base URL is overridden.
    pub cdn: Option<Url>,
    /// The name in events: the region, or the API's host if the base URL is overridden.
    pub environment: String,
    /// The region's domain.
    pub region: String,
}

impl Addresses {
    /// Derives the addresses of `region`, with their overrides.
    pub(crate) fn new(
        region: &str,
        base: Option<&str>,
        token: Option<&str>,
        cdn: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let default_api = format!("https://api.{region}");
        let api = match base {
            Some(base) => web_address("GENESYS_BASE_URL", base)?,
            None => web_address("GENESYS_ENVIRONMENT", &default_api)?,
        };
        let token = match (token, base) {
            (Some(token), _) => web_address("GENESYS_TOKEN_URL", token)?,
            (None, Some(_)) => {
                web_address("GENESYS_BASE_URL", &format!("{}/oauth/token", api.as_str().trim_end_matches('/')))?
            }
            (None, None) => web_address("GENESYS_ENVIRONMENT", &format!("https://login.{region}/oauth/token"))?,
        };
        let cdn = match (cdn, base) {
            (Some(cdn), _) => Some(web_address("GENESYS_CDN_URL", cdn)?),
            (None, Some(_)) => None,
            (None, None) => Some(web_address("GENESYS_ENVIRONMENT", &format!("https://api-cdn.{region}"))?),
        };
        let host = api.host_str().unwrap_or_default();
        let environment = if base.is_some() { host } else { region }.to_owned();
        Ok(Self { api, token, cdn, environment, region: region.to_owned() })
    }

    /// Returns the address of `path`; `None` if it would become another one: `..` climbs, and `?`, `#`, a space or `{`
    /// have to be encoded by the caller.
    pub(crate) fn at(&self, path: &str) -> Option<Url> {
        let mut url = self.api.clone();
        let whole = format!("{}{path}", self.api.path().trim_end_matches('/'));
        url.set_path(&whole);
        (url.path() == whole && path.starts_with('/')).then_some(url)
    }
}

/// Parses an address to send requests to: without a query, and without a password that a log could show.
fn web_address(setting: &str, written: &str) -> Result<Url, ConfigError> {
    let wrong = |why: &str| ConfigError::new(format!("{setting} gives no usable address: {why}"));
    let url = Url::parse(written).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("write https://host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("take user and password out of it; GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET hold them"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("take the part after ? or # out of it"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_gives_the_api_and_the_login_host() {
        let addresses = Addresses::new("mypurecloud.ie", None, None, None).unwrap();
        assert_eq!(addresses.api.as_str(), "https://api.mypurecloud.ie/");
        assert_eq!(addresses.token.as_str(), "https://login.mypurecloud.ie/oauth/token");
        assert_eq!(addresses.cdn.unwrap().as_str(), "https://api-cdn.mypurecloud.ie/");
        assert_eq!((addresses.environment.as_str(), addresses.region.as_str()), ("mypurecloud.ie", "mypurecloud.ie"));
    }

    #[test]
    fn a_region_by_the_name_of_aws_is_the_same_region() {
        let domains: Vec<&str> = REGIONS.iter().map(|(name, _)| domain(name)).collect();
        assert_eq!(domains, known_domains().collect::<Vec<_>>(), "every region has one name of AWS");
        assert_eq!(
            (domain("US-EAST-1"), domain("mypurecloud.ie"), domain("us-east-9")),
            (DEFAULT, "mypurecloud.ie", "us-east-9")
        );
    }

    #[test]
    fn a_base_url_overrides_both_and_names_the_environment() {
        let addresses = Addresses::new(DEFAULT, Some("http://127.0.0.1:8080/stand-in/"), None, None).unwrap();
        assert_eq!(addresses.at("/api/v2").unwrap().as_str(), "http://127.0.0.1:8080/stand-in/api/v2");
        assert_eq!(addresses.token.as_str(), "http://127.0.0.1:8080/stand-in/oauth/token");
        assert_eq!((addresses.environment.as_str(), addresses.region.as_str()), ("127.0.0.1", DEFAULT));
        assert_eq!(addresses.cdn, None, "no other host is asked for it");
    }

    #[test]
    fn a_token_url_overrides_only_itself() {
        let addresses = Addresses::new(DEFAULT, None, Some("https://sso.example/token"), None).unwrap();
        assert_eq!(addresses.api.host_str(), Some("api.mypurecloud.com"));
        assert_eq!(addresses.token.as_str(), "https://sso.example/token");
        assert_eq!(addresses.environment, DEFAULT);
    }

    #[test]
    fn the_address_of_the_content_delivery_network_is_a_setting_of_its_own() {
        let addresses =
            Addresses::new(DEFAULT, Some("http://127.0.0.1:1/"), None, Some("http://127.0.0.1:2/x")).unwrap();
        assert_eq!(addresses.cdn.unwrap().as_str(), "http://127.0.0.1:2/x");
    }

    #[test]
    fn a_path_that_would_become_another_one_has_no_address() {
        let addresses = Addresses::new(DEFAULT, None, None, None).unwrap();
        assert_eq!(addresses.at("/api/a%20b/c").unwrap().as_str(), "https://api.mypurecloud.com/api/a%20b/c");
        for path in ["/api/..", "/api/%2e%2e/x", "/api/./x", "/a b", "/a#b", "/a?b", "/{id}", "@elsewhere.example/", ""]
        {
            assert_eq!(addresses.at(path), None, "{path}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_used_names_its_setting() {
        for (region, base, token, setting) in [
            ("not a region", None, None, "GENESYS_ENVIRONMENT"),
            (DEFAULT, Some("api.example"), None, "GENESYS_BASE_URL"),
            (DEFAULT, Some("ftp://api.example"), None, "GENESYS_BASE_URL"),
            (DEFAULT, Some("https://me:secret@api.example"), None, "GENESYS_BASE_URL"),
            (DEFAULT, None, Some("https://login.example/token?client_secret=x"), "GENESYS_TOKEN_URL"),
        ] {
            let error = Addresses::new(region, base, token, None).unwrap_err().to_string();
            assert!(error.starts_with(setting), "{error}");
            assert!(!error.contains("secret@"), "{error}");
        }
    }
}
