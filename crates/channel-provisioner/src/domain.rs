//! Hosts that may embed a channel. Every way of writing a domain becomes `https://host[:port]`, or a violation.

use crate::host;

/// The default port of `https`.
const HTTPS_PORT: u16 = 443;

/// Converts `given` to `https://host[:port]`, or returns the error. Converting the result again does not change it.
pub(crate) fn normalise(given: &str) -> Result<String, String> {
    if given.is_empty() {
        return Err("a domain is empty".to_owned());
    }
    if given.chars().any(|character| character.is_whitespace() || character.is_control()) {
        return Err("a domain has no white space and no control characters".to_owned());
    }
    let authority = without_scheme(given)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains('@') {
        return Err("a domain has no user and no password".to_owned());
    }
    if authority.contains(['/', '\\', '?', '#']) {
        return Err("a domain has no path, no query and no fragment".to_owned());
    }
    let (name, port) = split_port(authority)?;
    let host = host::ascii(name).map_err(|wrong| format!("{given:?}: {wrong}"))?;
    Ok(match port {
        None | Some(HTTPS_PORT) => format!("https://{host}"),
        Some(port) => format!("https://{host}:{port}"),
    })
}

fn without_scheme(given: &str) -> Result<&str, String> {
    match given.split_once("://") {
        None => Ok(given),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok(rest),
        Some((scheme, _)) => Err(format!("only https is allowed, found {scheme}://")),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), String> {
    if authority.starts_with('[') {
        return Err("IP addresses are not allowed: name the host".to_owned());
    }
    let Some((name, written)) = authority.split_once(':') else { return Ok((authority, None)) };
    let port = port(written).ok_or_else(|| format!("{written:?} is no port: 1 to 65535"))?;
    Ok((name, Some(port)))
}

/// Parses the port of a URL: digits, from 1 to 65535.
pub(crate) fn port(written: &str) -> Option<u16> {
    let digits = written.bytes().all(|byte| byte.is_ascii_digit());
    written.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_good_way_of_writing_a_domain_becomes_one_form() {
        let table = [
            ("example.com", "https://example.com"),
            ("Shop.Example.COM", "https://shop.example.com"),
            ("https://example.com", "https://example.com"),
            ("HTTPS://Example.com/", "https://example.com"),
            ("example.com/", "https://example.com"),
            ("example.com:8443", "https://example.com:8443"),
            ("https://example.com:8443/", "https://example.com:8443"),
            ("example.com:443", "https://example.com"),
            ("localhost", "https://localhost"),
            ("bücher.example", "https://xn--bcher-kva.example"),
            ("https://BÜCHER.example:444", "https://xn--bcher-kva.example:444"),
            ("xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("例え。テスト", "https://xn--r8jz45g.xn--zckzah"),
            ("1a.2b.example", "https://1a.2b.example"),
        ];
        for (given, sent) in table {
            assert_eq!(normalise(given).as_deref(), Ok(sent), "{given}");
        }
    }

    #[test]
    fn a_bad_domain_is_told_which_rule_it_breaks() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = "a.".repeat(126) + "example";
        let table = [
            ("", "empty"),
            (" example.com", "white space"),
            ("exa mple.com", "white space"),
            ("example.com\n", "white space"),
            ("example\u{0}.com", "control"),
            ("http://example.com", "only https"),
            ("HTTP://example.com", "only https"),
            ("ftp://example.com", "only https"),
            ("wss://example.com", "only https"),
            ("//example.com", "no path"),
            ("example.com/shop", "no path"),
            ("https://example.com/shop/", "no path"),
            ("https://example.com//", "no path"),
            ("example.com?a", "no path"),
            ("example.com#a", "no path"),
            ("example.com\\a", "no path"),
            ("user@example.com", "no user"),
            ("https://user:secret@example.com", "no user"),
            ("*", "wildcards"),
            ("*.example.com", "wildcards"),
            ("https://*.example.com", "wildcards"),
            ("＊.example.com", "no valid host"),
            ("192.0.2.1", "IP addresses"),
            ("https://192.0.2.1:8443", "IP addresses"),
            ("127.1", "IP addresses"),
            ("0x7f000001", "IP addresses"),
            ("１９２.0.2.1", "IP addresses"),
            ("[2001:db8::1]", "IP addresses"),
            ("https://[::1]/", "IP addresses"),
            ("2001:db8::1", "no port"),
            ("256.256.256.256", "no valid host"),
            ("example.com:", "no port"),
            ("example.com:0", "no port"),
            ("example.com:65536", "no port"),
            ("example.com:+80", "no port"),
            ("example.com:http", "no port"),
            ("https:example.com", "no port"),
            ("https://", "missing"),
            (":8443", "missing"),
            (".example.com", "no valid host"),
            ("example..com", "no valid host"),
            ("example.com.", "no valid host"),
            ("-example.com", "no valid host"),
            ("example-.com", "no valid host"),
            ("my_shop.example.com", "no valid host"),
            ("example%2ecom", "no %"),
            ("xn--a.example", "no valid host"),
            (long_label.as_str(), "no valid host"),
            (long_name.as_str(), "no valid host"),
        ];
        for (given, rule) in table {
            let wrong = normalise(given).expect_err(given);
            assert!(wrong.contains(rule), "{given:?}: {wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_what_passes_stays_as_it_is(given in any::<String>()) {
            if let Ok(sent) = normalise(&given) {
                prop_assert_eq!(normalise(&sent), Ok(sent));
            }
        }

        #[test]
        fn text_that_looks_like_a_domain_is_judged_too(given in "(https?://)?[a-zÄ*_@%./:0-9-]{1,20}(:[0-9]{0,6})?/?") {
            if let Ok(sent) = normalise(&given) {
                let host = sent.strip_prefix("https://").unwrap();
                prop_assert!(host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:".contains(&byte)));
                prop_assert_eq!(normalise(&sent), Ok(sent));
            }
        }

        #[test]
        fn plain_hosts_pass(labels in prop::collection::vec("[a-z][a-z0-9]{0,9}", 1..5), port in 1_u16..) {
            let host = labels.join(".");
            prop_assert!(normalise(&host).is_ok());
            let with_port = format!("https://{host}:{port}/");
            prop_assert!(normalise(&with_port).is_ok());
        }
    }
}
