//! TLS to receivers and to other hosts outside.

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, crypto::CryptoProvider};
use rustls_platform_verifier::Verifier;

use genfleet_job::options::ConfigError;
use genfleet_telemetry::http::read_authorities;

/// Trusts the system's authorities, as the API's client does, and those in `ca_file`, which `setting` names.
pub(crate) fn config(setting: &str, ca_file: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    let provider = CryptoProvider::get_default()
        .ok_or_else(|| ConfigError::new("no TLS provider is installed: main must install one first"))?;
    let further = ca_file.map(|path| read_authorities(setting, path)).transpose()?.unwrap_or_default();
    let wrong = |error: rustls::Error| ConfigError::new(format!("the HTTP client cannot be built: {error}"));
    let verifier = Verifier::new_with_extra_roots(further, Arc::clone(provider)).map_err(wrong)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        // rustls calls every verifier but its own dangerous.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
