//! What all HTTP clients share: TLS, certificate authorities, and errors with their causes.

use std::{error::Error, iter, path::Path};

use reqwest::Certificate;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use genfleet_job::options::ConfigError;

/// Makes ring the TLS provider of the process. Must be called before anything connects; a second call does nothing.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Reads the certificate authorities in the PEM file that `setting` names.
pub fn read_authorities(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let wrong = |why: String| ConfigError::new(format!("{setting} names {}, {why}", path.display()));
    let pem = genfleet_job::text::read(path).map_err(|error| wrong(format!("which cannot be read: {error}")))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong("which holds no certificate in PEM".to_owned())),
        Err(error) => Err(wrong(format!("which is no PEM file: {error}"))),
    }
}

/// Reads the certificate authorities for clients of reqwest.
pub fn authorities(setting: &str, path: &Path) -> Result<Vec<Certificate>, ConfigError> {
    let convert = |certificate: CertificateDer<'_>| Certificate::from_der(&certificate);
    let converted = read_authorities(setting, path)?.into_iter().map(convert).collect::<Result<_, _>>();
    converted.map_err(|error| {
        ConfigError::new(format!("{setting} names {}, which is no PEM file: {}", path.display(), in_full(&error)))
    })
}

/// Writes an error with all its causes; reqwest shows only the outermost.
pub fn in_full(error: &dyn Error) -> String {
    let causes: Vec<String> = iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect();
    causes.join(": ")
}
