//! The rules for the webhook that a job names.

use super::{
    address_guard::{AddressEntry, AddressList},
    options::JobWebhooks,
    receiver::Receiver,
    signature::SECRET_VARIABLE,
    signers::{SignedReceivers, Signers},
};
use genfleet_job::Violation;

/// The receivers to which deliveries can be signed.
#[derive(Clone, Debug, Default)]
pub(super) enum SigningAbility {
    Ready(SignedReceivers),
    /// There is no secret, so no job may name a webhook.
    #[default]
    Impossible,
    /// The workers know; their secrets are unknown here.
    Unknown,
    /// `--job-webhooks off`.
    Off,
}

impl SigningAbility {
    pub(super) fn with(signers: &Signers, job_webhooks: JobWebhooks) -> Self {
        match signers.signed_receivers() {
            _ if job_webhooks == JobWebhooks::Off => Self::Off,
            Some(signed) => Self::Ready(signed),
            None => Self::Impossible,
        }
    }

    /// The reason why webhooks of jobs cannot be delivered to `receiver`, or to any.
    fn obstacle(&self, receiver: Option<&Receiver>) -> Option<String> {
        match self {
            Self::Off => Some("jobs may name no webhook here: --job-webhooks is off".to_owned()),
            Self::Impossible => Some(format!("no webhook can be signed here: {SECRET_VARIABLE} is not set")),
            Self::Ready(signed) if !receiver.is_none_or(|receiver| signed.contains(receiver)) => Some(format!(
                "no webhook can be signed for this receiver: {SECRET_VARIABLE} is not set, and no --webhook-secret is for it"
            )),
            Self::Ready(_) | Self::Unknown => None,
        }
    }
}

/// The rules for the webhook that a job names. By default no job may name one.
#[derive(Clone, Debug, Default)]
pub struct WebhookRules {
    signing: SigningAbility,
    list: AddressList,
}

impl WebhookRules {
    pub(super) fn new(signing: SigningAbility, list: AddressList) -> Self {
        Self { signing, list }
    }

    /// The rules of workers with these settings, whose secrets are unknown here.
    pub fn of_workers(allow: &[AddressEntry], deny: &[AddressEntry], job_webhooks: JobWebhooks) -> Self {
        let signing = match job_webhooks {
            JobWebhooks::On => SigningAbility::Unknown,
            JobWebhooks::Off => SigningAbility::Off,
        };
        Self::new(signing, AddressList::new(allow, deny))
    }

    /// The violations of a job that names `url`. Its address is checked later, when a delivery connects to it.
    pub fn violations(&self, url: &str) -> Vec<Violation> {
        let receiver = self.receiver(url);
        let obstacle = self.signing.obstacle(receiver.as_ref().ok());
        let unsigned = obstacle.map(|message| Violation::new("/webhook", message));
        let wrong = receiver.err().map(|message| Violation::new("/webhook/url", message));
        unsigned.into_iter().chain(wrong).collect()
    }

    /// The receiver at `url`, if a job may name it.
    pub(super) fn accept(&self, url: &str) -> Option<Receiver> {
        self.receiver(url).ok().filter(|receiver| self.signing.obstacle(Some(receiver)).is_none())
    }

    fn receiver(&self, url: &str) -> Result<Receiver, &'static str> {
        let receiver = Receiver::parse(url)?;
        if self.list.denies(receiver.url()) {
            return Err("gets no deliveries: --webhook-deny names it");
        }
        if self.list.allows_scheme(receiver.url()) {
            return Ok(receiver);
        }
        Err("must begin with https://; http is for receivers that --webhook-allow names")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: SigningAbility = SigningAbility::Ready(SignedReceivers::All);

    fn pointers(signing: SigningAbility, url: &str) -> Vec<String> {
        let (allowed, denied) = (["hooks.internal".parse().unwrap()], ["evil.example".parse().unwrap()]);
        WebhookRules::new(signing, AddressList::new(&allowed, &denied))
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
            assert_eq!(pointers(SigningAbility::Unknown, url), at_url, "{url}");
            for none in [SigningAbility::Impossible, SigningAbility::Off] {
                assert_eq!(pointers(none, url), [&["/webhook"], at_url].concat(), "{url}");
            }
        }
    }

    #[test]
    fn without_a_secret_nothing_is_sent_to_it_either() {
        let url = "https://hooks.example/a";
        assert!(WebhookRules::default().accept(url).is_none());
        assert!(WebhookRules::new(SigningAbility::Off, AddressList::default()).accept(url).is_none());
        assert!(WebhookRules::new(READY, AddressList::default()).accept(url).is_some());
        assert!(WebhookRules::new(READY, AddressList::default()).accept("http://hooks.example/a").is_none());
    }
}
