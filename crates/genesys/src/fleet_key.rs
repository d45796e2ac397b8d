//! The key that is derived from the client's secret: processes of one client agree on it without a setting of their
//! own, and a signature tells nothing about the secret.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::credentials::Credentials;

/// Sets the key apart from other uses of the secret.
const CONTEXT: &str = "genfleet gossip 2";

/// The key with which the processes of a client sign their messages to each other.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetKey([u8; 32]);

impl FleetKey {
    /// Derives the key of a client.
    pub fn derive(credentials: &Credentials) -> Self {
        let context = format!("{CONTEXT}:{}", credentials.id.expose_secret());
        Self(mac(credentials.secret.expose_secret().as_bytes(), context.as_bytes()).finalize().into_bytes().into())
    }

    /// Computes the HMAC-SHA256 of `text`.
    pub fn sign(&self, text: &str) -> Vec<u8> {
        mac(&self.0, text.as_bytes()).finalize().into_bytes().to_vec()
    }

    /// Verifies that `signature` is that of `text`, in a time that does not depend on where they differ.
    pub fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        mac(&self.0, text.as_bytes()).verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey")
    }
}

fn mac(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_tells_neither_the_key_nor_the_secret() {
        let key = FleetKey::derive(&Credentials { id: "id".to_owned().into(), secret: "the-secret".to_owned().into() });
        assert_eq!(format!("{key:?}"), "FleetKey");
    }
}
