//! What TLS needs: the authorities trusted beside those of the system, and the certificate shown to the broker.

use std::path::{Path, PathBuf};

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::ClientIdentity;

/// Where they are. Read anew at every dial: certificates are rotated.
pub(super) struct Certificates {
    authorities: Option<PathBuf>,
    identity: Option<ClientIdentity>,
}

impl Certificates {
    pub(super) fn new(authorities: Option<PathBuf>, identity: Option<ClientIdentity>) -> Self {
        Self { authorities, identity }
    }

    /// All of them, or which file is not what it should be.
    pub(super) fn read(&self) -> Result<OwnedTLSConfig, String> {
        let cert_chain = self.authorities.as_deref().map(certificates).transpose()?;
        let identity = self.identity.as_ref().map(|identity| {
            let pem = certificates(&identity.certificate)?.into_bytes();
            Ok::<_, String>(OwnedIdentity::PKCS8 { pem, key: key(&identity.key)? })
        });
        Ok(OwnedTLSConfig { identity: identity.transpose()?, cert_chain })
    }
}

fn certificates(file: &Path) -> Result<String, String> {
    let no_pem = || format!("{} is no PEM file with a certificate", file.display());
    let text = String::from_utf8(bytes(file)?).map_err(|_| no_pem())?;
    let mut held = CertificateDer::pem_slice_iter(text.as_bytes()).peekable();
    let any = held.peek().is_some();
    if any && held.all(|each| each.is_ok()) { Ok(text) } else { Err(no_pem()) }
}

fn key(file: &Path) -> Result<Vec<u8>, String> {
    let pem = bytes(file)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(format!("{} is no PEM file with a private key without a password", file.display())),
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, String> {
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
        assert_eq!(read.cert_chain, Some(pem("CERTIFICATE")));
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
