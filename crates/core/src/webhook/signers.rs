//! The secrets that sign deliveries: the one that `--webhook-secret` names for the receiver's URL, else the shared one.
//! So a receiver whose secret is stolen endangers no other receiver.

use std::{fmt, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    receiver::Receiver,
    signature::{SECRET_VARIABLE, WebhookSecrets},
};
use genfleet_job::options::{self, ConfigError};

/// All secrets of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Signers {
    shared: Option<WebhookSecrets>,
    /// The longest prefix first.
    own: Vec<(UrlPrefix, WebhookSecrets)>,
}

/// The receivers for which there is a secret.
#[derive(Clone, Debug)]
pub(super) enum SignedReceivers {
    All,
    Only(Arc<[UrlPrefix]>),
}

/// The beginning of URLs, up to a whole segment of the path.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct UrlPrefix(Url);

impl Signers {
    /// Reads the secrets that `written` names from the environment; `shared` signs for all other receivers.
    pub(super) fn new(shared: Option<WebhookSecrets>, written: &[SecretString]) -> Result<Self, ConfigError> {
        Self::read_with(shared, written, options::secret)
    }

    fn read_with(
        shared: Option<WebhookSecrets>,
        written: &[SecretString],
        read: impl Fn(&str) -> Result<Option<SecretString>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let each = written.iter().map(|written| written.expose_secret().trim());
        let each = each.filter(|written| !written.is_empty()).enumerate();
        let own =
            each.map(|(index, written)| parse_secret(written, index + 1, &read)).collect::<Result<Vec<_>, _>>()?;
        let mut signers = Self { shared, own };
        signers.own.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.0.as_str().len()));
        Ok(signers)
    }

    /// The secrets for `receiver`.
    pub(super) fn of(&self, receiver: &Receiver) -> Option<&WebhookSecrets> {
        let own = self.own.iter().find(|(prefix, _)| prefix.covers(receiver)).map(|(_, secrets)| secrets);
        own.or(self.shared.as_ref())
    }

    /// The receivers for which there is a secret; `None` if there is no secret at all.
    pub(super) fn signed_receivers(&self) -> Option<SignedReceivers> {
        let prefixes = || self.own.iter().map(|(prefix, _)| prefix.clone()).collect();
        match (&self.shared, self.own.is_empty()) {
            (Some(_), _) => Some(SignedReceivers::All),
            (None, false) => Some(SignedReceivers::Only(prefixes())),
            (None, true) => None,
        }
    }

    /// The number of secrets that are shorter than the standard asks for.
    pub(super) fn short(&self) -> usize {
        self.shared.iter().chain(self.own.iter().map(|(_, secrets)| secrets)).map(WebhookSecrets::short).sum()
    }
}

impl SignedReceivers {
    pub(super) fn contains(&self, receiver: &Receiver) -> bool {
        match self {
            Self::All => true,
            Self::Only(prefixes) => prefixes.iter().any(|prefix| prefix.covers(receiver)),
        }
    }
}

impl UrlPrefix {
    fn covers(&self, receiver: &Receiver) -> bool {
        let (prefix, url) = (&self.0, receiver.url());
        let rest = url.path().strip_prefix(prefix.path().trim_end_matches('/'));
        prefix.origin() == url.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn parse_secret(
    written: &str,
    number: usize,
    read: impl Fn(&str) -> Result<Option<SecretString>, ConfigError>,
) -> Result<(UrlPrefix, WebhookSecrets), ConfigError> {
    let wrong = |what: &str| {
        ConfigError::new(format!(
            "--webhook-secret, number {number}: {what}; write https://host/path=NAME, where the variable NAME, or the file that NAME_FILE names, holds the secret"
        ))
    };
    let (prefix, name) = written.rsplit_once('=').ok_or_else(|| wrong("it has no =NAME"))?;
    let receiver = Receiver::parse(prefix.trim()).map_err(|error| wrong(&format!("its URL {error}")))?;
    if receiver.url().query().is_some() {
        return Err(wrong("its URL has a query"));
    }
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // A secret written in place of its name is not shown.
    if !is_name || name.as_bytes()[0].is_ascii_digit() {
        return Err(wrong("what follows = is not the name of a variable (letters, digits, _)"));
    }
    let secret = read(name)?.ok_or_else(|| wrong(&format!("neither {name} nor {name}_FILE is set")))?;
    Ok((UrlPrefix(receiver.url().clone()), WebhookSecrets::parse(name, &secret)?))
}

/// The advice for a receiver without a secret.
pub(super) fn remedy() -> String {
    format!(
        "set {SECRET_VARIABLE}, or {SECRET_VARIABLE}_FILE to a file, to whsec_ and at least 24 random bytes in base64 (openssl rand -base64 32), or name one for the receiver with --webhook-secret"
    )
}

/// Scheme and host.
impl fmt::Debug for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UrlPrefix({})", self.0.origin().ascii_serialization())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// Variables `A` and `B` hold secrets, `BAD` holds none.
    #[expect(clippy::unnecessary_wraps, reason = "as the environment is read")]
    fn read(name: &str) -> Result<Option<SecretString>, ConfigError> {
        Ok(match name {
            "A" => Some("whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB".into()),
            "B" => Some("whsec_QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJC".into()),
            "BAD" => Some("hush".into()),
            _ => None,
        })
    }

    fn signers(shared: bool, written: &[&str]) -> Result<Signers, ConfigError> {
        let shared = shared.then(|| WebhookSecrets::parse(SECRET_VARIABLE, &SHARED.into()).unwrap());
        let written: Vec<SecretString> = written.iter().map(|one| (*one).into()).collect();
        Signers::read_with(shared, &written, read)
    }

    fn receiver(url: &str) -> Receiver {
        Receiver::parse(url).unwrap()
    }

    /// Which secret signs: by its signature.
    fn signature(signers: &Signers, url: &str) -> Option<String> {
        Some(signers.of(&receiver(url))?.sign("id", jiff::Timestamp::UNIX_EPOCH, b"body"))
    }

    #[test]
    fn the_longest_prefix_that_ends_with_a_whole_segment_names_the_secret() {
        let of = |name: &str| {
            let secrets = WebhookSecrets::parse(SECRET_VARIABLE, &read(name).unwrap().unwrap()).unwrap();
            Some(secrets.sign("id", jiff::Timestamp::UNIX_EPOCH, b"body"))
        };
        let shared = WebhookSecrets::parse(SECRET_VARIABLE, &SHARED.into()).unwrap().sign(
            "id",
            jiff::Timestamp::UNIX_EPOCH,
            b"body",
        );
        let signers = signers(true, &["https://hooks.example=A", "https://hooks.example/team/b/=B", ""]).unwrap();
        for (url, secret) in [
            ("https://hooks.example/", of("A")),
            ("https://hooks.example/team/bb?x=1", of("A")),
            ("https://hooks.example/team/b", of("B")),
            ("https://hooks.example/team/b/c?d", of("B")),
            ("https://hooks.example.evil/", Some(shared.clone())),
            ("https://hooks.example:8443/", Some(shared.clone())),
            ("http://hooks.example/", Some(shared.clone())),
        ] {
            assert_eq!(signature(&signers, url), secret, "{url}");
        }
    }

    #[test]
    fn without_a_shared_secret_only_those_that_are_named_are_signed_for() {
        let signers = signers(false, &["https://hooks.example/a=A"]).unwrap();
        let signed = signers.signed_receivers().unwrap();
        for (url, is_signed) in [("https://hooks.example/a/b", true), ("https://hooks.example/b", false)] {
            assert_eq!(signed.contains(&receiver(url)), is_signed, "{url}");
            assert_eq!(signature(&signers, url).is_some(), is_signed, "{url}");
        }
        assert!(Signers::default().signed_receivers().is_none());
    }

    #[test]
    fn a_wrong_entry_is_named_by_its_number_and_not_shown() {
        for (written, reported) in [
            ("https://hooks.example/hush", "number 2: it has no =NAME"),
            ("hush=A", "number 2: its URL not a URL"),
            ("https://hooks.example/?hush=A", "number 2: its URL has a query"),
            ("https://hooks.example/hush=whsec_hush+hush", "number 2: what follows = is not the name"),
            ("https://hooks.example/hush=1A", "number 2: what follows = is not the name"),
            ("https://hooks.example/hush=C", "number 2: neither C nor C_FILE is set"),
            ("https://hooks.example/hush=BAD", "BAD: number 1 lacks whsec_"),
        ] {
            let error = signers(true, &["https://a.example=A", written]).unwrap_err().to_string();
            assert!(error.contains(reported) && !error.contains("hush"), "{written}: {error}");
        }
    }
}
