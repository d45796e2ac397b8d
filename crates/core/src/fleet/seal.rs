//! The seal of a word: who knows the client's secret said it, and nobody changed it. The key is derived from the secret, so
//! that processes of one client agree without a setting of their own, and a word tells nothing about the secret.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use super::news::LONGEST;
use genfleet_genesys::FleetKey;

/// Of the envelope; words of version 1 had no seal.
const VERSION: u32 = 2;
/// How long a secret that was replaced is good for others' words.
const OLD: Duration = Duration::from_secs(3600);
/// Between two looks at whether the secret was replaced.
const LOOK: Duration = Duration::from_secs(10);

/// A word as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sealed {
    v: u32,
    /// HMAC-SHA256 of `said`, in base64.
    mac: String,
    /// JSON.
    pub said: String,
}

impl Sealed {
    /// What came; none where it is no sealed word.
    pub fn read(body: &[u8]) -> Option<Self> {
        if body.len() > LONGEST {
            return None;
        }
        serde_json::from_slice(body).ok().filter(|sealed: &Self| sealed.v == VERSION)
    }

    fn is_by(&self, key: &FleetKey) -> bool {
        let given = BASE64_STANDARD.decode(&self.mac).unwrap_or_default();
        key.verifies(&self.said, &given)
    }
}

/// The client's key, and the one before it while the secret is replaced.
#[derive(Debug)]
pub struct Keys {
    current: FleetKey,
    old: Option<(FleetKey, Instant)>,
    looked: Option<Instant>,
}

impl Keys {
    /// This one.
    pub const fn new(current: FleetKey) -> Self {
        Self { current, old: None, looked: None }
    }

    /// `said`, signed with the current one.
    pub fn seal(&self, said: String) -> String {
        let mac = BASE64_STANDARD.encode(self.current.sign(&said));
        // Plain data: it has no member that cannot be written.
        serde_json::to_string(&Sealed { v: VERSION, mac, said }).unwrap_or_default()
    }

    /// Whether `sealed` was said by one that knows the secret. Where it was not, the secret may have been replaced: then
    /// `anew` is asked for the key, now and then.
    pub fn know(&mut self, sealed: &Sealed, now: Instant, anew: impl FnOnce() -> Option<FleetKey>) -> bool {
        if self.is_known(sealed, now) {
            return true;
        }
        if self.looked.is_some_and(|looked| now < looked + LOOK) {
            return false;
        }
        self.looked = Some(now);
        if let Some(key) = anew().filter(|key| *key != self.current) {
            self.old = Some((std::mem::replace(&mut self.current, key), now + OLD));
        }
        self.is_known(sealed, now)
    }

    fn is_known(&self, sealed: &Sealed, now: Instant) -> bool {
        let old = self.old.iter().filter(|(_, until)| now < *until).map(|(key, _)| key);
        std::iter::once(&self.current).chain(old).any(|key| sealed.is_by(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genfleet_genesys::Credentials;

    fn key(id: &str, secret: &str) -> FleetKey {
        FleetKey::derive(&Credentials { id: id.to_owned().into(), secret: secret.to_owned().into() })
    }

    fn said_by(key: &FleetKey) -> Sealed {
        Sealed::read(Keys::new(key.clone()).seal("{}".to_owned()).as_bytes()).unwrap()
    }

    #[test]
    fn only_who_has_the_secret_of_the_same_client_is_known() {
        let (now, mut keys) = (Instant::now(), Keys::new(key("id", "secret")));
        let mut knows = |sealed: &Sealed| keys.know(sealed, now, || None);
        assert!(knows(&said_by(&key("id", "secret"))));
        assert!(!knows(&said_by(&key("id", "Secret"))) && !knows(&said_by(&key("other", "secret"))));
        let word = said_by(&key("id", "secret"));
        assert!(!knows(&Sealed { said: "[]".to_owned(), ..said_by(&key("id", "secret")) }), "changed on its way");
        assert!(!knows(&Sealed { mac: String::new(), ..word }));
    }

    #[test]
    fn a_replaced_secret_is_read_again_and_the_old_one_is_good_for_an_hour() {
        let (now, old, new) = (Instant::now(), key("id", "old"), key("id", "new"));
        let (mut keys, mut asked) = (Keys::new(old.clone()), 0);
        assert!(keys.know(&said_by(&new), now, || Some(new.clone())));
        assert!(keys.know(&said_by(&old), now + OLD / 2, || None));
        assert!(said_by(&keys.current).is_by(&new), "its own words are signed with the new one");
        assert!(!keys.know(&said_by(&old), now + OLD, || None));
        for millis in 0..30_000 {
            let at = now + OLD + Duration::from_millis(millis);
            keys.know(&said_by(&key("id", "forged")), at, || {
                asked += 1;
                None
            });
        }
        assert!(asked <= 3, "the file was read {asked} times in 30 s");
    }

    #[test]
    fn a_word_does_not_tell_the_secret() {
        let keys = Keys::new(key("id", "the-secret"));
        assert!(!format!("{keys:?} {}", keys.seal("{}".to_owned())).contains("the-secret"));
    }
}
