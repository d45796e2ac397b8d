//! The address of the management API: the configured one, or the usual port of the broker.

use genfleet_core::{options::ConfigError, queue::rabbit::BrokerAddress};
use reqwest::Url;

/// The default ports, plain and with TLS.
const PORTS: (u16, u16) = (15672, 15671);

/// Parses the configured address. Errors do not repeat it, because it may contain a password.
pub(crate) fn parse_base(written: &str) -> Result<Url, ConfigError> {
    let wrong = |why: &str| ConfigError::new(format!("GENFLEET_MANAGEMENT_URL is not a usable address: {why}"));
    let url = Url::parse(written.trim()).map_err(|error| wrong(&error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has to begin with http:// or https://"));
    }
    Ok(url)
}

/// Returns the queue's host with the usual port of the management API.
pub(crate) fn default_base(queue: &BrokerAddress) -> anyhow::Result<Url> {
    let host = if queue.host.contains(':') { format!("[{}]", queue.host) } else { queue.host.clone() };
    let (scheme, port) = if queue.secure { ("https", PORTS.1) } else { ("http", PORTS.0) };
    Ok(Url::parse(&format!("{scheme}://{host}:{port}"))?)
}

/// Decodes a user or password from an address.
pub(crate) fn decode(text: &str) -> String {
    // In a form these two characters have another meaning than in an address.
    let form = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    Url::parse(&format!("http://h/?{form}"))
        .ok()
        .and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guess_is_the_queues_host_with_the_usual_port() {
        let address = |host: &str, secure| BrokerAddress {
            host: host.to_owned(),
            secure,
            virtual_host: "/".to_owned(),
            user: "u".to_owned(),
            password: "p".to_owned().into(),
        };
        assert_eq!(default_base(&address("rabbit.example", false)).unwrap().as_str(), "http://rabbit.example:15672/");
        assert_eq!(default_base(&address("::1", true)).unwrap().as_str(), "https://[::1]:15671/");
    }

    #[test]
    fn an_error_about_an_address_does_not_show_its_password() {
        for wrong in ["u:hush@h:15672", "ftp://u:hush@h", "http://u:hush@h:port", ""] {
            let message = parse_base(wrong).unwrap_err().to_string();
            assert!(message.contains("GENFLEET_MANAGEMENT_URL") && !message.contains("hush"), "{message}");
        }
        for (written, meant) in [("p%40ss+w%2Frd", "p@ss+w/rd"), ("a&b=c", "a&b=c"), ("gr%C3%BCn", "grün"), ("", "")] {
            assert_eq!(decode(written), meant);
        }
    }
}
