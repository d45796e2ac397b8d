//! What a job's own webhook has to keep, for the job to be taken.

use super::{
    address_guard::AddressList,
    receiver::Receiver,
    signature::VARIABLE,
    signers::{Signed, Signers},
};
use genfleet_job::Violation;

/// Whether jobs may name webhooks at all, and for whom deliveries can be signed.
#[derive(Clone, Debug, Default)]
pub enum Signing {
    /// There are secrets.
    Ready(Signed),
    /// There is none, so no job may name a webhook.
    #[default]
    Impossible,
    /// That is a matter of the workers, whose settings are not known here.
    Elsewhere,
    /// `--job-webhooks off`.
    Off,
}

impl Signing {
    /// With these secrets, where jobs `may` name webhooks.
    pub fn with(signers: &Signers, may: bool) -> Self {
        match signers.signed() {
            _ if !may => Self::Off,
            Some(signed) => Self::Ready(signed),
            None => Self::Impossible,
        }
    }

    /// Why no webhook of a job is delivered to `receiver`, or to any.
    fn hindrance(&self, receiver: Option<&Receiver>) -> Option<String> {
        match self {
            Self::Off => Some("jobs may name no webhook here: --job-webhooks is off".to_owned()),
            Self::Impossible => Some(format!("no webhook can be signed here: {VARIABLE} is not set")),
            Self::Ready(signed) if !receiver.is_none_or(|receiver| signed.holds_for(receiver)) => Some(format!(
                "no webhook can be signed for this receiver: {VARIABLE} is not set, and no --webhook-secret is for it"
            )),
            Self::Ready(_) | Self::Elsewhere => None,
        }
    }
}

/// See the module. By default no job may name a webhook.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    signing: Signing,
    list: AddressList,
}

impl Rules {
    /// With what `list` allows beside what is public and `https`, and without what it denies.
    pub fn new(signing: Signing, list: AddressList) -> Self {
        Self { signing, list }
    }

    /// What is wrong with a job that names `url`. Whether its address is public is found out when it is connected to.
    pub fn violations(&self, url: &str) -> Vec<Violation> {
        let receiver = self.receiver(url);
        let hindrance = self.signing.hindrance(receiver.as_ref().ok());
        let unsigned = hindrance.map(|told| Violation::new("/webhook", told));
        let wrong = receiver.err().map(|told| Violation::new("/webhook/url", told));
        unsigned.into_iter().chain(wrong).collect()
    }

    /// Where `url` leads, where a job may name it.
    pub fn accept(&self, url: &str) -> Option<Receiver> {
        self.receiver(url).ok().filter(|receiver| self.signing.hindrance(Some(receiver)).is_none())
    }

    fn receiver(&self, url: &str) -> Result<Receiver, &'static str> {
        let receiver = Receiver::parse(url)?;
        if self.list.denies(&receiver) {
            return Err("is not delivered to: --webhook-deny names it");
        }
        if self.list.allows_scheme(&receiver) {
            return Ok(receiver);
        }
        Err("must begin with https://; http is for receivers that --webhook-allow names")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Signing = Signing::Ready(Signed::All);

    fn pointers(signing: Signing, url: &str) -> Vec<String> {
        let (allowed, denied) = (["hooks.internal".parse().unwrap()], ["evil.example".parse().unwrap()]);
        Rules::new(signing, AddressList::new(&allowed, &denied))
            .violations(url)
            .into_iter()
            .map(|one| one.pointer)
            .collect()
    }

    #[test]
    fn a_jobs_webhook_is_signed_https_and_without_credentials() {
        for (url, wrong) in [
            ("https://hooks.example/a", false),
            ("http://hooks.example/a", true),
            ("http://hooks.internal/a", false),
            ("https://user:hush@hooks.example/a", true),
            ("ftp://hooks.example/a", true),
            ("hooks.example", true),
            ("https://evil.example/a", true),
            ("", true),
        ] {
            let at_url: &[&str] = if wrong { &["/webhook/url"] } else { &[] };
            assert_eq!(pointers(READY, url), at_url, "{url}");
            assert_eq!(pointers(Signing::Elsewhere, url), at_url, "{url}");
            for none in [Signing::Impossible, Signing::Off] {
                assert_eq!(pointers(none, url), [&["/webhook"], at_url].concat(), "{url}");
            }
        }
    }

    #[test]
    fn without_a_secret_nothing_is_sent_to_it_either() {
        let url = "https://hooks.example/a";
        assert!(Rules::default().accept(url).is_none());
        assert!(Rules::new(Signing::Off, AddressList::default()).accept(url).is_none());
        assert!(Rules::new(READY, AddressList::default()).accept(url).is_some());
        assert!(Rules::new(READY, AddressList::default()).accept("http://hooks.example/a").is_none());
    }
}
