//! API tokens: from a variable or the file that it names, read at each use, so that a new one is noticed.

use genfleet_core::options::{ConfigError, secret};
use hyper::header::HeaderValue;
use secrecy::ExposeSecret;

/// The source of an API token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ApiToken {
    /// This variable, or the file that `<variable>_FILE` names.
    Variable(&'static str),
    /// Made up, for a stand-in.
    Simulated,
}

impl ApiToken {
    /// Returns the value of a header: the token behind `prefix`. Debug does not show it.
    pub(crate) fn header(self, prefix: &str) -> Result<HeaderValue, ConfigError> {
        let (token, name) = match self {
            Self::Simulated => ("simulated".to_owned(), ""),
            Self::Variable(name) => {
                let missing =
                    || ConfigError::new(format!("no API token: set {name}, or {name}_FILE to a file that holds it"));
                (secret(name)?.ok_or_else(missing)?.expose_secret().to_owned(), name)
            }
        };
        let value = HeaderValue::try_from(format!("{prefix}{token}"));
        let mut value =
            value.map_err(|_| ConfigError::new(format!("{name} holds characters that no HTTP header can")))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_and_a_missing_one_is_named() {
        let value = ApiToken::Simulated.header("Bearer ").unwrap();
        assert_eq!(value, "Bearer simulated");
        assert!(!format!("{value:?}").contains("simulated"));
        let error = ApiToken::Variable("GENFLEET_TEST_NO_SUCH_TOKEN").header("").unwrap_err().to_string();
        assert!(error.contains("GENFLEET_TEST_NO_SUCH_TOKEN_FILE"), "{error}");
    }
}
