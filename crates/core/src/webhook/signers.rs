//! Which secret signs deliveries to whom: the one that `--webhook-secret` names for the receiver's URL, else the one that
//! all others share. So a receiver that loses its secret can forge what is sent to it, and nothing that others are sent.

use std::{convert::Infallible, fmt, str::FromStr, sync::Arc};

use secrecy::SecretString;
use url::Url;

use super::{
    receiver::Receiver,
    signature::{Secrets, VARIABLE},
};
use genfleet_job::options::{self, ConfigError};

/// `--webhook-secret` as written, before it is judged: an error of clap's would show it.
#[derive(Clone)]
pub struct WrittenSecret(String);

/// All secrets of a process.
#[derive(Clone, Debug, Default)]
pub struct Signers {
    shared: Option<Secrets>,
    /// The longest prefix first.
    own: Vec<(Prefix, Secrets)>,
}

/// For whom there is a secret.
#[derive(Clone, Debug)]
pub enum Signed {
    /// For everybody.
    All,
    /// For these.
    Only(Arc<[Prefix]>),
}

/// The beginning of URLs, up to a whole segment of the path.
#[derive(Clone, PartialEq, Eq)]
pub struct Prefix(Url);

impl Signers {
    /// `shared` for all that `written` names no variable for, which the environment holds.
    pub fn new(shared: Option<Secrets>, written: &[WrittenSecret]) -> Result<Self, ConfigError> {
        Self::reading(shared, written, options::secret)
    }

    fn reading(
        shared: Option<Secrets>,
        written: &[WrittenSecret],
        read: impl Fn(&str) -> Result<Option<SecretString>, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let each = written.iter().map(|written| written.0.trim()).filter(|written| !written.is_empty()).enumerate();
        let own = each.map(|(index, written)| one(written, index + 1, &read)).collect::<Result<Vec<_>, _>>()?;
        let mut signers = Self { shared, own };
        signers.own.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.0.as_str().len()));
        Ok(signers)
    }

    /// What signs deliveries to `receiver`.
    pub fn of(&self, receiver: &Receiver) -> Option<&Secrets> {
        let own = self.own.iter().find(|(prefix, _)| prefix.covers(receiver)).map(|(_, secrets)| secrets);
        own.or(self.shared.as_ref())
    }

    /// For whom there is one; `None`: for nobody.
    pub fn signed(&self) -> Option<Signed> {
        let prefixes = || self.own.iter().map(|(prefix, _)| prefix.clone()).collect();
        match (&self.shared, self.own.is_empty()) {
            (Some(_), _) => Some(Signed::All),
            (None, false) => Some(Signed::Only(prefixes())),
            (None, true) => None,
        }
    }

    /// How many are shorter than the standard asks for.
    pub fn short(&self) -> usize {
        self.shared.iter().chain(self.own.iter().map(|(_, secrets)| secrets)).map(Secrets::short).sum()
    }
}

impl Signed {
    /// Whether there is one for `receiver`.
    pub fn holds_for(&self, receiver: &Receiver) -> bool {
        match self {
            Self::All => true,
            Self::Only(prefixes) => prefixes.iter().any(|prefix| prefix.covers(receiver)),
        }
    }
}

impl Prefix {
    fn covers(&self, receiver: &Receiver) -> bool {
        let (prefix, url) = (&self.0, receiver.url());
        let rest = url.path().strip_prefix(prefix.path().trim_end_matches('/'));
        prefix.origin() == url.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn one(
    written: &str,
    number: usize,
    read: impl Fn(&str) -> Result<Option<SecretString>, ConfigError>,
) -> Result<(Prefix, Secrets), ConfigError> {
    let wrong = |what: &str| {
        ConfigError::new(format!(
            "--webhook-secret, number {number}: {what}; write https://host/path=NAME, where the variable NAME, or the file that NAME_FILE names, holds the secret"
        ))
    };
    let (prefix, name) = written.rsplit_once('=').ok_or_else(|| wrong("it has no =NAME"))?;
    let receiver = Receiver::parse(prefix.trim()).map_err(|told| wrong(&format!("its URL {told}")))?;
    if receiver.url().query().is_some() {
        return Err(wrong("its URL has a query"));
    }
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // A secret in place of its name is not shown.
    if !is_name || name.as_bytes()[0].is_ascii_digit() {
        return Err(wrong("what comes after = is no name of a variable (letters, digits, _)"));
    }
    let secret = read(name)?.ok_or_else(|| wrong(&format!("neither {name} nor {name}_FILE is set")))?;
    Ok((Prefix(receiver.url().clone()), Secrets::parse_from(name, &secret)?))
}

/// What to do where a receiver has none.
pub(super) fn remedy() -> String {
    format!(
        "set {VARIABLE}, or {VARIABLE}_FILE to a file, to whsec_ and at least 24 random bytes in base64 (openssl rand -base64 32), or name one for the receiver with --webhook-secret"
    )
}

impl FromStr for WrittenSecret {
    type Err = Infallible;

    fn from_str(written: &str) -> Result<Self, Infallible> {
        Ok(Self(written.to_owned()))
    }
}

/// Shows nothing: its path may be as good as a password.
impl fmt::Debug for WrittenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrittenSecret")
    }
}

/// Scheme and host.
impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0.origin().ascii_serialization())
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
        let shared = shared.then(|| Secrets::parse(&SHARED.into()).unwrap());
        let written: Vec<WrittenSecret> = written.iter().map(|one| one.parse().unwrap()).collect();
        Signers::reading(shared, &written, read)
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
            let secrets = Secrets::parse(&read(name).unwrap().unwrap()).unwrap();
            Some(secrets.sign("id", jiff::Timestamp::UNIX_EPOCH, b"body"))
        };
        let shared = Secrets::parse(&SHARED.into()).unwrap().sign("id", jiff::Timestamp::UNIX_EPOCH, b"body");
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
        let signed = signers.signed().unwrap();
        for (url, is_signed) in [("https://hooks.example/a/b", true), ("https://hooks.example/b", false)] {
            assert_eq!(signed.holds_for(&receiver(url)), is_signed, "{url}");
            assert_eq!(signature(&signers, url).is_some(), is_signed, "{url}");
        }
        assert!(Signers::default().signed().is_none());
    }

    #[test]
    fn what_is_written_wrong_is_told_by_its_number_and_not_shown() {
        for (written, told) in [
            ("https://hooks.example/hush", "number 2: it has no =NAME"),
            ("hush=A", "number 2: its URL not a URL"),
            ("https://hooks.example/?hush=A", "number 2: its URL has a query"),
            ("https://hooks.example/hush=whsec_hush+hush", "number 2: what comes after = is no name"),
            ("https://hooks.example/hush=1A", "number 2: what comes after = is no name"),
            ("https://hooks.example/hush=C", "number 2: neither C nor C_FILE is set"),
            ("https://hooks.example/hush=BAD", "BAD: number 1 lacks whsec_"),
        ] {
            let error = signers(true, &["https://a.example=A", written]).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("hush"), "{written}: {error}");
        }
    }
}
