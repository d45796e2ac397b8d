//! Signatures by Standard Webhooks 1.0, which prove to a receiver that a delivery is ours and unchanged.

use std::fmt;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

use genfleet_job::options::{self, ConfigError};

/// The variable with the secrets; with the suffix `_FILE` it names a file that holds them.
pub const SECRET_VARIABLE: &str = "GENFLEET_WEBHOOK_SECRET";

const PREFIX: &str = "whsec_";
/// The shortest secret by the standard, in bytes.
const SHORTEST: usize = 24;
/// Accepts base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One secret, or several while they are rotated: each makes a signature of its own.
#[derive(Clone)]
pub struct WebhookSecrets(Vec<SecretSlice<u8>>);

impl WebhookSecrets {
    /// Reads the secrets from the environment; `None` if there are none.
    pub fn from_environment() -> Result<Option<Self>, ConfigError> {
        options::secret(SECRET_VARIABLE)?.map(|written| Self::parse(SECRET_VARIABLE, &written)).transpose()
    }

    /// Parses the secrets of the variable `variable`, which are separated by spaces.
    pub(super) fn parse(variable: &str, written: &SecretString) -> Result<Self, ConfigError> {
        let each = written.expose_secret().split_whitespace().enumerate();
        let secrets = each.map(|(index, one)| secret(one, index + 1)).collect::<Result<Vec<_>, _>>();
        match secrets {
            Ok(secrets) if secrets.is_empty() => Err(wrong(variable, "holds no secret")),
            Ok(secrets) => Ok(Self(secrets)),
            Err(what) => Err(wrong(variable, &what)),
        }
    }

    /// The number of secrets that are shorter than the standard asks for.
    pub fn short(&self) -> usize {
        self.0.iter().filter(|secret| secret.expose_secret().len() < SHORTEST).count()
    }

    /// The value of `webhook-signature` for `body`, sent as `id` at `at`.
    pub(super) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let each = self.0.iter().filter_map(|secret| {
            // HMAC accepts keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret()).ok()?;
            mac.update(format!("{id}.{}.", at.as_second()).as_bytes());
            mac.update(body);
            Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
        });
        each.collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({})", self.0.len())
    }
}

fn secret(written: &str, number: usize) -> Result<SecretSlice<u8>, String> {
    let encoded = written.strip_prefix(PREFIX).ok_or_else(|| format!("number {number} lacks {PREFIX}"))?;
    match LENIENT.decode(encoded) {
        Ok(bytes) if !bytes.is_empty() => Ok(bytes.into()),
        Ok(_) => Err(format!("number {number} is empty after {PREFIX}")),
        Err(_) => Err(format!("number {number} is not base64 after {PREFIX}")),
    }
}

/// An error that shows no part of a secret.
fn wrong(variable: &str, what: &str) -> ConfigError {
    ConfigError::new(format!(
        "{variable}: {what}; write {PREFIX} and at least {SHORTEST} random bytes in base64 (openssl rand -base64 32), several separated by a space"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the standard's own tests.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn at() -> Timestamp {
        Timestamp::from_second(1_614_265_330).unwrap()
    }

    fn parsed(written: &str) -> Result<WebhookSecrets, ConfigError> {
        WebhookSecrets::parse(SECRET_VARIABLE, &written.to_owned().into())
    }

    #[test]
    fn a_signature_is_the_standards() {
        let signature = parsed(SECRET).unwrap().sign(ID, at(), BODY);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_secrets_are_exchanged_each_signs() {
        let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let one = |secret: &str| parsed(secret).unwrap().sign(ID, at(), BODY);
        let both = parsed(&format!("{SECRET}  {other}\n")).unwrap().sign(ID, at(), BODY);
        assert_eq!(both, format!("{} {}", one(SECRET), one(other)));
        assert_ne!(one(SECRET), one(other));
    }

    #[test]
    fn whatever_is_signed_changes_the_signature() {
        let secrets = parsed(SECRET).unwrap();
        let later = Timestamp::from_second(1_614_265_331).unwrap();
        let whole = secrets.sign(ID, at(), BODY);
        assert_ne!(whole, secrets.sign("msg_other", at(), BODY));
        assert_ne!(whole, secrets.sign(ID, later, BODY));
        assert_ne!(whole, secrets.sign(ID, at(), br#"{"test": 2432232315}"#));
    }

    #[test]
    fn a_bad_secret_says_how_to_write_one_and_is_not_shown() {
        let after_a_good_one = format!("{SECRET} hush");
        for (written, reported) in [
            ("", "no secret"),
            (" ", "no secret"),
            ("hush", "number 1 lacks whsec_"),
            ("whsec_", "number 1 is empty"),
            ("whsec_hush!", "number 1 is not base64"),
            (&after_a_good_one, "number 2 lacks whsec_"),
        ] {
            let error = parsed(written).unwrap_err().to_string();
            assert!(error.contains(reported) && error.contains("openssl rand"), "{written}: {error}");
            assert!(!error.contains("hush"), "{written}: {error}");
        }
        assert!(!format!("{:?}", parsed(SECRET).unwrap()).contains("MfKQ"));
    }

    #[test]
    fn padding_may_be_left_out_and_short_secrets_are_counted() {
        let with = parsed("whsec_aHVzaC1odXNoLWh1c2g=").unwrap();
        let without = parsed("whsec_aHVzaC1odXNoLWh1c2g").unwrap();
        assert_eq!(with.sign(ID, at(), BODY), without.sign(ID, at(), BODY));
        assert_eq!((with.short(), parsed(SECRET).unwrap().short()), (1, 0));
    }
}
