//! TLS to the broker: certificate authorities that are trusted in addition to the system's, and the client certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use super::settings::ClientIdentity;

/// The files with certificates. They are read again for every connection, because certificates are rotated.
pub(super) struct Certificates {
    authorities: Option<PathBuf>,
    identity: Option<ClientIdentity>,
}

/// The content of the files.
pub(super) struct CertificateContents {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Certificates {
    pub(super) fn new(authorities: Option<PathBuf>, identity: Option<ClientIdentity>) -> Self {
        Self { authorities, identity }
    }

    /// Reads all files. The error names the invalid file.
    pub(super) fn read(&self) -> Result<CertificateContents, String> {
        let authorities = self.authorities.as_deref().map(read_certificates).transpose()?.unwrap_or_default();
        let identity = match &self.identity {
            Some(identity) => Some((read_certificates(&identity.certificate)?, read_key(&identity.key)?)),
            None => None,
        };
        Ok(CertificateContents { authorities, identity })
    }
}

impl CertificateContents {
    /// Creates the TLS client configuration. It trusts the system's authorities and the given ones.
    pub(super) fn client_config(self) -> Result<ClientConfig, String> {
        let provider = CryptoProvider::get_default()
            .ok_or_else(|| "no TLS provider is installed: main has to install one first".to_owned())?;
        let wrong = |error: rustls::Error| format!("TLS cannot be set up: {error}");
        let verifier = Verifier::new_with_extra_roots(self.authorities, Arc::clone(provider)).map_err(wrong)?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            // This verifier checks certificates on every platform; rustls calls every verifier except its own
            // dangerous.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        match self.identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = read_bytes(file)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read).collect::<Result<_, _>>().unwrap_or_default();
    if found.is_empty() { Err(format!("{} is no PEM file with a certificate", file.display())) } else { Ok(found) }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read_bytes(file)?)
        .map_err(|_| format!("{} is no PEM file with a private key without a password", file.display()))
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, String> {
    genfleet_job::text::read(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct File(PathBuf);

    impl File {
        fn of(content: &str) -> Self {
            let path = std::env::temp_dir().join(format!("genfleet-{}.pem", uuid::Uuid::new_v4()));
            std::fs::write(&path, content).unwrap();
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn pem(label: &str) -> String {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
    }

    fn refusal(certificates: &Certificates) -> String {
        certificates.read().err().unwrap()
    }

    #[test]
    fn an_authority_is_read_and_what_holds_none_is_named() {
        let authority = File::of(&pem("CERTIFICATE"));
        let read = Certificates::new(Some(authority.0.clone()), None).read().unwrap();
        assert_eq!(read.authorities.len(), 1);
        for content in ["", "not a certificate", &pem("PRIVATE KEY"), "-----BEGIN CERTIFICATE-----\n?\n"] {
            let file = File::of(content);
            let told = refusal(&Certificates::new(Some(file.0.clone()), None));
            assert!(told.contains("no PEM file with a certificate"), "{content:?}: {told}");
        }
    }

    #[test]
    fn a_certificate_and_its_key_are_both_looked_at() {
        let (certificate, private) = (File::of(&pem("CERTIFICATE")), File::of(&pem("PRIVATE KEY")));
        let identity =
            |certificate: &File, key: &File| ClientIdentity { certificate: certificate.0.clone(), key: key.0.clone() };
        assert!(Certificates::new(None, Some(identity(&certificate, &private))).read().unwrap().identity.is_some());
        assert!(refusal(&Certificates::new(None, Some(identity(&private, &private)))).contains("a certificate"));
        assert!(refusal(&Certificates::new(None, Some(identity(&certificate, &certificate)))).contains("private key"));
    }
}
