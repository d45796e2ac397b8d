//! The URL that deliveries go to. Its path and query may be secret, so only scheme and host are shown.

use std::fmt;

use url::Url;

/// The longest URL, in bytes.
const LONGEST: usize = 2048;

/// An `http` or `https` URL without credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver(Url);

impl Receiver {
    /// Parses a URL; the error does not show it.
    pub fn parse(written: &str) -> Result<Self, &'static str> {
        let mut url = Url::parse(written).map_err(|_| "not a URL; write https://host/path")?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err("must begin with https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user name or password: deliveries are authenticated by their signature");
        }
        // It is never sent, so URLs that differ only in it are the same.
        url.set_fragment(None);
        if url.as_str().len() > LONGEST {
            return Err("is longer than 2048 bytes");
        }
        Ok(Self(url))
    }

    /// The whole URL.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }

    /// Host and port.
    pub(super) fn authority(&self) -> String {
        let port = self.0.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.0.host_str().unwrap_or_default())
    }
}

/// Scheme and host.
impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_as_scheme_and_host() {
        let receiver = Receiver::parse("https://Hooks.Example:8443/T0/hush?token=hush#there").unwrap();
        assert_eq!(receiver.to_string(), "https://hooks.example:8443");
        assert_eq!(receiver.authority(), "hooks.example:8443");
        assert!(!format!("{receiver} {receiver:?}").contains("hush"));
        assert_eq!(receiver.url().as_str(), "https://hooks.example:8443/T0/hush?token=hush");
    }

    #[test]
    fn what_cannot_be_delivered_to_is_refused_without_showing_it() {
        let long = format!("https://hooks.example/{}", "hush".repeat(512));
        for (written, reported) in [
            ("", "not a URL"),
            ("hooks.example/hush", "not a URL"),
            ("https://", "not a URL"),
            ("ftp://hooks.example/hush", "https://"),
            ("file:///hush", "https://"),
            ("https://hush@hooks.example/", "user name or password"),
            ("https://user:hush@hooks.example/", "user name or password"),
            (&long, "2048"),
        ] {
            let error = Receiver::parse(written).unwrap_err();
            assert!(error.contains(reported) && !error.contains("hush"), "{written}: {error}");
        }
    }
}
