//! The configuration that browsers get. It is requested without a token, which this client cannot send.

use genfleet_core::{
    error::JobError,
    genesys::GenesysClient,
    handler::JobContext,
    options::ConfigError,
    outside::{OutsideClient, OutsideError, OutsideRequest},
    webhook::AddressEntry,
};
use hyper::Method;
use url::Url;

use super::api::{Object, published_version};

/// Maximum length in bytes, which no configuration reaches.
const MOST_BYTES: usize = 1024 * 1024;

/// The platform's content delivery network.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    client: OutsideClient,
    address: Option<Url>,
    domain: String,
}

impl Edge {
    /// Creates the client for the region's content delivery network, or for the one in the settings.
    pub(crate) fn new(genesys: &GenesysClient) -> Result<Self, ConfigError> {
        let address = genesys.addresses().cdn.clone();
        // A configured address is allowed even if it is not public.
        let host =
            address.as_ref().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
        let allowed: Vec<AddressEntry> = host.iter().map(|host| host.parse()).collect::<Result<_, _>>()?;
        let client = OutsideClient::new("--genesys-cdn-url", &allowed, genesys.authorities())?;
        Ok(Self { client, address, domain: genesys.addresses().region.clone() })
    }

    /// Returns the domain of the region, from whose hosts the messenger loads files.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the URL of a deployment's configuration for browsers; `None` if no content delivery network is known.
    pub(crate) fn address(&self, deployment: &str) -> Option<Url> {
        let mut url = self.address.clone()?;
        let before = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{before}/webdeployments/v1/deployments/{deployment}/config.json"));
        Some(url)
    }

    /// Reads the version of the configuration that browsers get now, if any.
    pub(crate) async fn version(&self, job: &JobContext, deployment: &str) -> Result<Option<String>, JobError> {
        let Some(url) = self.address(deployment) else { return Ok(None) };
        let request =
            OutsideRequest::new(Method::GET, "/webdeployments/v1/deployments/{deploymentId}/config.json", url);
        let answer = match job.send_outside(&self.client, request).await {
            Ok(answer) if answer.status == 200 => answer.read(MOST_BYTES).await,
            Ok(_) => return Ok(None),
            Err(error) => Err(error),
        };
        match answer {
            Ok(body) => Ok(serde_json::from_slice::<Object>(&body).ok().and_then(|shown| published_version(&shown))),
            Err(OutsideError::Interrupted) => Err(JobError::interrupted()),
            // It is read again later, like a missing version.
            Err(OutsideError::Refused(_) | OutsideError::Failed(..)) => Ok(None),
        }
    }
}
