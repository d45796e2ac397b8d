//! What all HTTP clients of the product share: TLS, certificate authorities, and errors told in full.

use std::{error::Error, path::Path};

use reqwest::Certificate;

use genfleet_job::options::ConfigError;

/// Makes ring the one TLS provider of the process. Called before anything connects; again, it does nothing.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The certificate authorities in the PEM file that `setting` names.
pub fn authorities(setting: &str, path: &Path) -> Result<Vec<Certificate>, ConfigError> {
    let wrong = |why: String| ConfigError::new(format!("{setting} names {}, {why}", path.display()));
    let pem = genfleet_job::text::read(path).map_err(|error| wrong(format!("which cannot be read: {error}")))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong("which holds no certificate in PEM".to_owned())),
        Err(error) => Err(wrong(format!("which is no PEM file: {}", in_full(&error)))),
    }
}

/// An error with its causes: reqwest tells only the outermost.
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
