//! A key derived from the client's secret: processes of one client agree on it without a setting of their own, and what it
//! signs tells nothing about the secret.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::token_source::Credentials;

/// What the key is for: no other use of the secret comes to the same.
const CONTEXT: &str = "genfleet gossip 2";

/// What words are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetKey([u8; 32]);

impl FleetKey {
    /// The one of a client's secret.
    pub fn of(credentials: &Credentials) -> Self {
        let context = format!("{CONTEXT}:{}", credentials.id.expose_secret());
        Self(mac(credentials.secret.expose_secret().as_bytes(), context.as_bytes()).finalize().into_bytes().into())
    }
}

impl FleetKey {
    /// HMAC-SHA256 of `text`.
    pub fn sign(&self, text: &str) -> Vec<u8> {
        mac(&self.0, text.as_bytes()).finalize().into_bytes().to_vec()
    }

    /// Whether `signature` is that of `text`. Takes the same time wherever they differ.
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
        let key = FleetKey::of(&Credentials { id: "id".to_owned().into(), secret: "the-secret".to_owned().into() });
        assert_eq!(format!("{key:?}"), "FleetKey");
    }
}
