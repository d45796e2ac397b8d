//! TLS to receivers: whom it trusts.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use genfleet_job::{options::ConfigError, text};

/// Trusts the system's authorities, as the API's client does, and those in `ca_file`.
pub(super) fn config(ca_file: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| ConfigError::new("no TLS provider is installed: main has to install one first"))?;
    let further = ca_file.map(authorities).transpose()?.unwrap_or_default();
    let wrong = |error: rustls::Error| ConfigError::new(format!("no HTTP client: {error}"));
    let verifier = Verifier::new_with_extra_roots(further, Arc::clone(provider)).map_err(wrong)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        // It is what checks certificates on every platform; rustls calls all but its own so.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let wrong = |why: String| ConfigError::new(format!("--webhook-ca-file names {}, {why}", path.display()));
    let pem = text::read(path).map_err(|error| wrong(format!("which cannot be read: {error}")))?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(wrong("which holds no certificate in PEM".to_owned())),
        Err(error) => Err(wrong(format!("which is no PEM file: {error}"))),
    }
}
