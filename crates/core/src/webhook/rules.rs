//! What a job's own webhook has to keep, for the job to be taken.

use super::{address_guard::AllowList, receiver::Receiver, signature::VARIABLE};
use crate::job::Violation;

/// Whether deliveries of jobs can be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signing {
    /// There is a secret.
    Ready,
    /// There is none, so no job may name a webhook.
    #[default]
    Impossible,
    /// That is a matter of the workers, whose settings are not known here.
    Elsewhere,
}

/// See the module. By default no job may name a webhook.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    signing: Signing,
    allowed: AllowList,
}

impl Rules {
    /// With `allowed` beside what is public and `https`.
    pub fn new(signing: Signing, allowed: AllowList) -> Self {
        Self { signing, allowed }
    }

    /// What is wrong with a job that names `url`. Whether its address is public is found out when it is connected to.
    pub fn violations(&self, url: &str) -> Vec<Violation> {
        let unsigned = (self.signing == Signing::Impossible)
            .then(|| format!("no webhook can be signed here: {VARIABLE} is not set"))
            .map(|told| Violation::new("/webhook", told));
        let wrong = self.receiver(url).err().map(|told| Violation::new("/webhook/url", told));
        unsigned.into_iter().chain(wrong).collect()
    }

    /// Where `url` leads, where a job may name it.
    pub fn accept(&self, url: &str) -> Option<Receiver> {
        self.receiver(url).ok().filter(|_| self.signing != Signing::Impossible)
    }

    fn receiver(&self, url: &str) -> Result<Receiver, &'static str> {
        let receiver = Receiver::parse(url)?;
        if self.allowed.allows_scheme(&receiver) {
            return Ok(receiver);
        }
        Err("must begin with https://; http is for receivers that --webhook-allow names")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(signing: Signing, url: &str) -> Vec<String> {
        let allowed = AllowList::new(&["hooks.internal".parse().unwrap()]);
        Rules::new(signing, allowed).violations(url).into_iter().map(|one| one.pointer).collect()
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
            ("", true),
        ] {
            let at_url: &[&str] = if wrong { &["/webhook/url"] } else { &[] };
            assert_eq!(pointers(Signing::Ready, url), at_url, "{url}");
            assert_eq!(pointers(Signing::Elsewhere, url), at_url, "{url}");
            assert_eq!(pointers(Signing::Impossible, url), [&["/webhook"], at_url].concat(), "{url}");
        }
    }

    #[test]
    fn without_a_secret_nothing_is_sent_to_it_either() {
        let url = "https://hooks.example/a";
        assert!(Rules::default().accept(url).is_none());
        assert!(Rules::new(Signing::Ready, AllowList::default()).accept(url).is_some());
        assert!(Rules::new(Signing::Ready, AllowList::default()).accept("http://hooks.example/a").is_none());
    }
}
