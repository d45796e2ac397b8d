//! The signature of a message: it proves that the sender knows the client's secret and that nobody changed the message.
//! The key is derived from the secret, so that processes of one client agree without a setting, and a message reveals
//! nothing about the secret.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use super::message::LONGEST;
use genfleet_genesys::FleetKey;

/// The version of the envelope; messages of version 1 had no signature.
const VERSION: u32 = 2;
/// The time for which messages signed with a replaced secret are accepted.
const OLD: Duration = Duration::from_secs(3600);
/// The interval between two checks for a replaced secret.
const RELOAD: Duration = Duration::from_secs(10);

/// A signed message on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SignedMessage {
    v: u32,
    /// The HMAC-SHA256 of `said`, in base64.
    mac: String,
    /// The content, as JSON.
    #[serde(rename = "said")]
    pub(super) content: String,
}

impl SignedMessage {
    /// Reads an envelope; `None` if `body` is none.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        if body.len() > LONGEST {
            return None;
        }
        serde_json::from_slice(body).ok().filter(|signed: &Self| signed.v == VERSION)
    }

    fn is_signed_with(&self, key: &FleetKey) -> bool {
        let given = BASE64_STANDARD.decode(&self.mac).unwrap_or_default();
        key.verifies(&self.content, &given)
    }
}

/// The client's key, and the previous one for a while after the secret was replaced.
#[derive(Debug)]
pub(super) struct SigningKeys {
    current: FleetKey,
    old: Option<(FleetKey, Instant)>,
    reloaded: Option<Instant>,
}

impl SigningKeys {
    pub(super) const fn new(current: FleetKey) -> Self {
        Self { current, old: None, reloaded: None }
    }

    /// Signs `content` with the current key.
    pub(super) fn sign(&self, content: String) -> String {
        let mac = BASE64_STANDARD.encode(self.current.sign(&content));
        // Plain data: it has no member that cannot be written.
        serde_json::to_string(&SignedMessage { v: VERSION, mac, content }).unwrap_or_default()
    }

    /// Verifies the signature. If it fails, the secret may have been replaced: then `reload` reads the key again, at
    /// most every [`RELOAD`].
    pub(super) fn verify(
        &mut self,
        signed: &SignedMessage,
        now: Instant,
        reload: impl FnOnce() -> Option<FleetKey>,
    ) -> bool {
        if self.is_valid(signed, now) {
            return true;
        }
        if self.reloaded.is_some_and(|reloaded| now < reloaded + RELOAD) {
            return false;
        }
        self.reloaded = Some(now);
        if let Some(key) = reload().filter(|key| *key != self.current) {
            self.old = Some((std::mem::replace(&mut self.current, key), now + OLD));
        }
        self.is_valid(signed, now)
    }

    fn is_valid(&self, signed: &SignedMessage, now: Instant) -> bool {
        let old = self.old.iter().filter(|(_, until)| now < *until).map(|(key, _)| key);
        std::iter::once(&self.current).chain(old).any(|key| signed.is_signed_with(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genfleet_genesys::Credentials;

    fn key(id: &str, secret: &str) -> FleetKey {
        FleetKey::derive(&Credentials { id: id.to_owned().into(), secret: secret.to_owned().into() })
    }

    fn signed_by(key: &FleetKey) -> SignedMessage {
        SignedMessage::read(SigningKeys::new(key.clone()).sign("{}".to_owned()).as_bytes()).unwrap()
    }

    #[test]
    fn only_the_secret_of_the_same_client_verifies() {
        let (now, mut keys) = (Instant::now(), SigningKeys::new(key("id", "secret")));
        let mut knows = |signed: &SignedMessage| keys.verify(signed, now, || None);
        assert!(knows(&signed_by(&key("id", "secret"))));
        assert!(!knows(&signed_by(&key("id", "Secret"))) && !knows(&signed_by(&key("other", "secret"))));
        let message = signed_by(&key("id", "secret"));
        assert!(
            !knows(&SignedMessage { content: "[]".to_owned(), ..signed_by(&key("id", "secret")) }),
            "changed on its way"
        );
        assert!(!knows(&SignedMessage { mac: String::new(), ..message }));
    }

    #[test]
    fn a_replaced_secret_is_read_again_and_the_old_one_is_good_for_an_hour() {
        let (now, old, new) = (Instant::now(), key("id", "old"), key("id", "new"));
        let (mut keys, mut asked) = (SigningKeys::new(old.clone()), 0);
        assert!(keys.verify(&signed_by(&new), now, || Some(new.clone())));
        assert!(keys.verify(&signed_by(&old), now + OLD / 2, || None));
        assert!(signed_by(&keys.current).is_signed_with(&new), "its own words are signed with the new one");
        assert!(!keys.verify(&signed_by(&old), now + OLD, || None));
        for millis in 0..30_000 {
            let at = now + OLD + Duration::from_millis(millis);
            keys.verify(&signed_by(&key("id", "forged")), at, || {
                asked += 1;
                None
            });
        }
        assert!(asked <= 3, "the file was read {asked} times in 30 s");
    }

    #[test]
    fn a_message_does_not_reveal_the_secret() {
        let keys = SigningKeys::new(key("id", "the-secret"));
        assert!(!format!("{keys:?} {}", keys.sign("{}".to_owned())).contains("the-secret"));
    }
}
