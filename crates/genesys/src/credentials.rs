//! The OAuth client's id and secret, and their sources.

use secrecy::{ExposeSecret, SecretString};

use genfleet_job::{
    hash,
    options::{ConfigError, secret},
};

const ID: &str = "GENESYS_CLIENT_ID";
const SECRET: &str = "GENESYS_CLIENT_SECRET";
/// Stands for the client if there is none: such processes form one fleet, whose messages anybody on the broker can
/// sign.
const NOBODY: &str = "without Genesys Cloud";
/// Hexadecimal digits of a fingerprint.
const FINGERPRINT: usize = 16;

/// The id and secret of an OAuth client.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The client id.
    pub id: SecretString,
    /// The client secret.
    pub secret: SecretString,
}

impl Credentials {
    /// Reads those that the environment names; none if it names none.
    pub fn of_environment() -> Result<Option<Self>, ConfigError> {
        Ok(secret(ID)?.zip(secret(SECRET)?).map(|(id, secret)| Self { id, secret }))
    }

    /// Derives a fingerprint that stands for the client's id where others may read it.
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = hash::sha256(format!("genfleet:client:{}", self.id.expose_secret()));
        fingerprint.truncate(FINGERPRINT);
        fingerprint
    }
}

/// The source of the credentials. They are read again while the token endpoint refuses them.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// `GENESYS_CLIENT_ID` and `GENESYS_CLIENT_SECRET`, or the files that `…_FILE` names.
    Environment,
    /// Credentials from the environment, or invented ones if it has none: nothing is sent to Genesys Cloud.
    NotNeeded,
    /// Fixed credentials of the built-in simulator.
    Given(Credentials),
    /// A test's own.
    #[cfg(test)]
    Shared(std::sync::Arc<std::sync::Mutex<Credentials>>),
}

impl CredentialSource {
    pub(crate) fn read(&self) -> Result<Credentials, ConfigError> {
        match self {
            Self::Environment => Ok(Credentials { id: require(ID)?, secret: require(SECRET)? }),
            Self::NotNeeded => {
                let nobody = || SecretString::from(NOBODY.to_owned());
                Ok(Credentials::of_environment()?.unwrap_or_else(|| Credentials { id: nobody(), secret: nobody() }))
            }
            Self::Given(credentials) => Ok(credentials.clone()),
            #[cfg(test)]
            Self::Shared(credentials) => Ok(credentials.lock().unwrap().clone()),
        }
    }
}

fn require(name: &str) -> Result<SecretString, ConfigError> {
    secret(name)?.ok_or_else(|| {
        ConfigError::new(format!(
            "no credentials for Genesys Cloud: set {name}, or {name}_FILE to a file that holds it"
        ))
    })
}
