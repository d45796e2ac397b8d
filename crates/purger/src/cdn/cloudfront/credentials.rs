//! AWS credentials, from the first of AWS's usual places that has some: variables, a profile of the shared credentials file,
//! web identity (EKS), the container's address (ECS, EKS Pod Identity), the instance's metadata (EC2).

use std::{collections::HashMap, env, fs, path::PathBuf, sync::Arc, time::Duration};

use aws_credential_types::Credentials;
use genfleet_core::{
    clock::SharedClock,
    options::{ConfigError, secret},
};
use hyper::{
    Method,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::{Host, Url};

use super::{profile::profile, xml::element};
use crate::cdn::{
    http::CdnHttp,
    provider::{CdnRequest, JSON, at},
};

/// The name by which AWS's logs know us.
const SESSION: &str = "genfleet-purger";
/// Credentials that end sooner than this are replaced.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
/// The address of ECS for a path that it gives.
const CONTAINER_HOST: &str = "http://169.254.170.2";
/// Where containers may be told by whole addresses without TLS: loopback, and the addresses of ECS and EKS.
const CONTAINER_ADDRESSES: [&str; 4] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost"];
/// The variables that name addresses.
const ADDRESSES: [&str; 3] =
    ["AWS_ENDPOINT_URL_STS", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
const METADATA_HOST: &str = "http://169.254.169.254";
const METADATA_PATH: &str = "/latest/meta-data/iam/security-credentials/";
const METADATA_TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const METADATA_TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");

/// Finds credentials, and keeps those that end by themselves. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct CredentialChain {
    http: CdnHttp,
    clock: SharedClock,
    kept: Arc<Mutex<Option<Credentials>>>,
}

impl CredentialChain {
    pub(crate) fn new(clock: SharedClock) -> Result<Self, ConfigError> {
        let urls: Vec<Url> = ADDRESSES.iter().filter_map(|name| variable(name)?.parse().ok()).collect();
        Ok(Self { http: CdnHttp::new(clock.clone(), &urls)?, clock, kept: Arc::default() })
    }

    /// Made-up credentials, for a stand-in.
    pub(crate) fn simulated(http: CdnHttp, clock: SharedClock) -> Self {
        let never = Timestamp::MAX.into();
        let made_up = Credentials::new("simulated", "simulated", None, Some(never), "simulated");
        Self { http, clock, kept: Arc::new(Mutex::new(Some(made_up))) }
    }

    /// Returns credentials that are good now. The error says which place is wrong, and how.
    pub(crate) async fn get(&self) -> Result<Credentials, String> {
        // Whoever comes meanwhile waits for the same answer.
        let mut kept = self.kept.lock().await;
        let left = |credentials: &Credentials| {
            let ends = Timestamp::try_from(credentials.expiry()?).ok()?;
            Duration::try_from(ends.duration_since(self.clock.now())).ok()
        };
        if let Some(credentials) = kept.as_ref().filter(|kept| left(kept).is_some_and(|left| left > REFRESH_BEFORE)) {
            return Ok(credentials.clone());
        }
        match self.find().await {
            Ok(found) => {
                *kept = found.expiry().is_some().then(|| found.clone());
                Ok(found)
            }
            // What is kept may still be good for a while.
            Err(error) => kept.as_ref().filter(|kept| left(kept).is_some()).cloned().ok_or(error),
        }
    }

    /// Drops what is kept.
    pub(crate) fn forget(&self) {
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
    }

    async fn find(&self) -> Result<Credentials, String> {
        if let Some(found) = of_variables().map_err(|error| error.to_string())? {
            return Ok(found);
        }
        if let Some(found) = of_profile()? {
            return Ok(found);
        }
        if let Some((token_file, role)) = variable("AWS_WEB_IDENTITY_TOKEN_FILE").zip(variable("AWS_ROLE_ARN")) {
            return self.of_web_identity(&token_file, &role).await;
        }
        if let Some(url) = container_url()? {
            return self.of_container(url).await;
        }
        if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err(
                "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or …_FILE), or a role".into()
            );
        }
        self.of_instance().await.map_err(|why| {
            format!(
                "no AWS credentials: none in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or …_FILE), no profile, no role \
                 of a container, and no instance metadata ({why})"
            )
        })
    }

    async fn of_web_identity(&self, token_file: &str, role: &str) -> Result<Credentials, String> {
        let place = "AWS_WEB_IDENTITY_TOKEN_FILE";
        let token = fs::read_to_string(token_file)
            .map_err(|error| format!("{place} names {token_file}, which cannot be read: {error}"))?;
        let session = variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| SESSION.to_owned());
        let regional = || variable("AWS_REGION").map(|region| format!("https://sts.{region}.amazonaws.com"));
        let address = variable("AWS_ENDPOINT_URL_STS")
            .or_else(regional)
            .unwrap_or_else(|| "https://sts.amazonaws.com".to_owned());
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", role)
            .append_pair("RoleSessionName", &session)
            .append_pair("WebIdentityToken", token.trim())
            .finish();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        let url = address.parse().map_err(|error| format!("{address} is no address of STS: {error}"))?;
        let request = CdnRequest::new(Method::POST, "sts:AssumeRoleWithWebIdentity", url, [(CONTENT_TYPE, form)]);
        let answer = self
            .ask(CdnRequest { body: body.into(), ..request })
            .await
            .map_err(|why| format!("STS gives no credentials for {role}: {why}"))?;
        of_sts(&answer).ok_or_else(|| format!("the answer of STS for {role} holds no credentials"))
    }

    async fn of_container(&self, url: Url) -> Result<Credentials, String> {
        let token = secret("AWS_CONTAINER_AUTHORIZATION_TOKEN").map_err(|error| error.to_string())?;
        let mut request = CdnRequest::new(Method::GET, "container credentials", url, [(ACCEPT, JSON)]);
        if let Some(token) = token {
            let value = HeaderValue::try_from(token.expose_secret());
            let mut value =
                value.map_err(|_| "AWS_CONTAINER_AUTHORIZATION_TOKEN is no value of a header".to_owned())?;
            value.set_sensitive(true);
            request.headers.insert(AUTHORIZATION, value);
        }
        let answer =
            self.ask(request).await.map_err(|why| format!("the container's address gives no credentials: {why}"))?;
        of_json(&answer).ok_or_else(|| "the answer of the container's address holds no credentials".to_owned())
    }

    async fn of_instance(&self) -> Result<Credentials, String> {
        let base = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| METADATA_HOST.to_owned());
        let base: Url = base.parse().map_err(|error| format!("AWS_EC2_METADATA_SERVICE_ENDPOINT: {error}"))?;
        let request =
            |method, path: &str, header| CdnRequest::new(method, "instance metadata", at(&base, path), [header]);
        let life = (METADATA_TOKEN_TTL, HeaderValue::from_static("21600"));
        let token = self.ask(request(Method::PUT, "/latest/api/token", life)).await?;
        let token = HeaderValue::try_from(token.trim()).map_err(|error| error.to_string())?;
        let token = (METADATA_TOKEN, token);
        let roles = self.ask(request(Method::GET, METADATA_PATH, token.clone())).await?;
        let role = roles.lines().next().map(str::trim).filter(|role| !role.is_empty()).ok_or("it has no role")?;
        let answer = self.ask(request(Method::GET, &format!("{METADATA_PATH}{role}"), token)).await?;
        of_json(&answer).ok_or_else(|| format!("its role {role} has no credentials"))
    }

    /// Returns the body of an answer 200.
    async fn ask(&self, request: CdnRequest) -> Result<String, String> {
        let answer = self.http.exchange(request).await.map_err(|failure| failure.why)?;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        if answer.status == 200 {
            return Ok(body);
        }
        let code = element(&body, "Code").map(|code| format!(" {code}")).unwrap_or_default();
        Err(format!("it answered {}{code}", answer.status))
    }
}

/// An empty variable counts as not set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Returns the keys of the variables, or of the files that they name.
pub(crate) fn of_variables() -> Result<Option<Credentials>, ConfigError> {
    let [id, key, token] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].map(secret);
    match (id?, key?) {
        (Some(id), Some(key)) => {
            let token = token?.map(|token| token.expose_secret().to_owned());
            Ok(Some(Credentials::new(id.expose_secret(), key.expose_secret(), token, None, "environment")))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::new("AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY: set both")),
        (None, Some(_)) => Err(ConfigError::new("AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID: set both")),
    }
}

fn of_profile() -> Result<Option<Credentials>, String> {
    let named = variable("AWS_PROFILE");
    let home = || Some(PathBuf::from(variable("HOME")?).join(".aws/credentials"));
    let Some(file) = variable("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from).or_else(home) else { return Ok(None) };
    let name = named.as_deref().unwrap_or("default");
    let settings = match fs::read_to_string(&file) {
        Ok(text) => profile(&text, name),
        Err(_) if named.is_none() => return Ok(None),
        Err(error) => return Err(format!("AWS_PROFILE is {name}, but {} cannot be read: {error}", file.display())),
    };
    match settings {
        Some(settings) => of_settings(&settings)
            .map(Some)
            .ok_or_else(|| {
                format!(
                    "the profile {name} in {} has no aws_access_key_id and aws_secret_access_key; profiles with role_arn, sso \
                     or credential_process are not supported",
                    file.display()
                )
            })
            .or_else(|why| if named.is_none() { Ok(None) } else { Err(why) }),
        None if named.is_none() => Ok(None),
        None => Err(format!("AWS_PROFILE is {name}, which {} does not have", file.display())),
    }
}

fn of_settings(settings: &HashMap<String, String>) -> Option<Credentials> {
    let (id, key) = settings.get("aws_access_key_id").zip(settings.get("aws_secret_access_key"))?;
    Some(Credentials::new(id, key, settings.get("aws_session_token").cloned(), None, "profile"))
}

/// Returns the address at which a container asks for its credentials, where it has one.
fn container_url() -> Result<Option<Url>, String> {
    if let Some(path) = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        let url = format!("{CONTAINER_HOST}{path}");
        return url.parse().map(Some).map_err(|error| format!("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: {error}"));
    }
    let Some(url) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else { return Ok(None) };
    let url: Url = url.parse().map_err(|error| format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {error}"))?;
    if is_container_address(&url) {
        return Ok(Some(url));
    }
    Err("AWS_CONTAINER_CREDENTIALS_FULL_URI: must begin with https://, or be this machine or an address of ECS or EKS"
        .into())
}

fn is_container_address(url: &Url) -> bool {
    let is_near = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || CONTAINER_ADDRESSES.contains(&ip.to_string().as_str()),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || CONTAINER_ADDRESSES.contains(&ip.to_string().as_str()),
        Some(Host::Domain(name)) => CONTAINER_ADDRESSES.contains(&name),
        None => false,
    };
    url.scheme() == "https" || url.scheme() == "http" && is_near
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TemporaryKeys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

/// Reads the answer of a container's address or of an instance's metadata.
fn of_json(body: &str) -> Option<Credentials> {
    let keys: TemporaryKeys = serde_json::from_str(body).ok()?;
    let expiry = keys.expiration.and_then(|ends| ends.parse::<Timestamp>().ok()).map(Into::into);
    Some(Credentials::new(keys.access_key_id, keys.secret_access_key, keys.token, expiry, "role"))
}

/// Reads the answer of STS.
fn of_sts(body: &str) -> Option<Credentials> {
    let keys = element(body, "Credentials")?;
    let expiry = element(&keys, "Expiration")?.parse::<Timestamp>().ok().map(Into::into);
    let (id, key) = element(&keys, "AccessKeyId").zip(element(&keys, "SecretAccessKey"))?;
    Some(Credentials::new(id, key, element(&keys, "SessionToken"), expiry, "web identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_role_answers_is_read_with_its_end() {
        let json = r#"{"Code":"Success","AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"2026-12-01T00:00:00Z"}"#;
        let sts = "<AssumeRoleWithWebIdentityResponse xmlns=\"x\"><AssumeRoleWithWebIdentityResult><Credentials>\
                   <SessionToken>T</SessionToken><SecretAccessKey>S</SecretAccessKey><Expiration>2026-12-01T00:00:00Z</Expiration>\
                   <AccessKeyId>A</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
        let ends: std::time::SystemTime = "2026-12-01T00:00:00Z".parse::<Timestamp>().unwrap().into();
        for found in [of_json(json).unwrap(), of_sts(sts).unwrap()] {
            let keys = (found.access_key_id(), found.secret_access_key(), found.session_token());
            assert_eq!(keys, ("A", "S", Some("T")));
            assert_eq!(found.expiry(), Some(ends));
            assert!(!format!("{found:?}").contains("\"S\""), "{found:?}");
        }
        assert!(of_json("{}").is_none() && of_sts("<html>").is_none());
    }

    #[test]
    fn only_addresses_of_this_machine_or_of_aws_are_asked_without_tls() {
        let is_near = |url: &str| is_container_address(&url.parse().unwrap());
        for near in [
            "http://127.0.0.1:9/a",
            "http://[::1]/",
            "http://169.254.170.23/v1",
            "http://[fd00:ec2::23]/",
            "https://a.example/",
        ] {
            assert!(is_near(near), "{near}");
        }
        assert!(!is_near("http://a.example/") && !is_near("http://10.0.0.1/"));
    }
}
