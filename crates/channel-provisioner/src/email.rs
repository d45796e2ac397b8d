//! The routing address: an addr-spec of RFC 5322 (3.4.1) without display name and comments, with the limits of RFC
//! 5321.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::host;

const LONGEST_LOCAL_PART: usize = 64;
const LONGEST: usize = 254;

/// Converts `given` to the form that is sent (a domain beyond ASCII is IDNA-encoded), or returns the error.
pub(crate) fn addr_spec(given: &str) -> Result<String, &'static str> {
    let (local, domain) = split(given)?;
    if local.len() > LONGEST_LOCAL_PART {
        return Err("the part before the @ has at most 64 characters");
    }
    let address = format!("{local}@{}", self::domain(domain)?);
    if address.len() > LONGEST { Err("an address has at most 254 characters") } else { Ok(address) }
}

fn split(given: &str) -> Result<(&str, &str), &'static str> {
    if given.is_empty() {
        return Err("an e-mail address is missing");
    }
    let at = match given.strip_prefix('"') {
        Some(quoted) => 1 + end_of_quotes(quoted).ok_or("the quoted part before the @ is not valid")?,
        None => given.find('@').ok_or("an e-mail address has an @")?,
    };
    let (local, rest) = given.split_at(at);
    let domain = rest.strip_prefix('@').ok_or("an @ follows the quoted part: the address alone, without a name")?;
    if !local.starts_with('"') && !is_dot_atom(local) {
        return Err("the part before the @ is not valid: the address alone, without a name or brackets");
    }
    Ok((local, domain))
}

/// Returns the position of the closing quote, counted after the opening one.
fn end_of_quotes(quoted: &str) -> Option<usize> {
    let mut bytes = quoted.bytes().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(index + 1),
            b'\\' if bytes.next().is_some_and(|(_, quoted)| is_visible_or_blank(quoted)) => {}
            b'\\' => return None,
            other if is_visible_or_blank(other) => {}
            _ => return None,
        }
    }
    None
}

fn is_visible_or_blank(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' ' || byte == b'\t'
}

fn is_dot_atom(local: &str) -> bool {
    let is_atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atext))
}

fn domain(domain: &str) -> Result<String, &'static str> {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let v6 = literal.strip_prefix("IPv6:").is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        let is_address = v6 || literal.parse::<Ipv4Addr>().is_ok();
        return if is_address { Ok(domain.to_owned()) } else { Err("the domain in brackets is no IP address") };
    }
    let encoded = host::ascii(domain).map_err(|_| "the part after the @ is no valid domain")?;
    Ok(if domain.is_ascii() { domain.to_owned() } else { encoded })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_rfc_5322_pass() {
        let longest = format!("{}@example.com", "a".repeat(64));
        let good = [
            "support@example.com",
            "first.last+chat@sub.example.co.uk",
            "!#$%&'*+-/=?^_`{|}~@example.com",
            "o'brien@example.com",
            "1@2.example",
            "a@localhost",
            "Support@Example.COM",
            r#""john doe"@example.com"#,
            r#""a@b"@example.com"#,
            r#""a\"b\\c"@example.com"#,
            r#"""@example.com"#,
            "a@[192.0.2.1]",
            "a@[IPv6:2001:db8::1]",
            longest.as_str(),
        ];
        for address in good {
            assert_eq!(addr_spec(address).as_deref(), Ok(address), "{address}");
        }
        assert_eq!(addr_spec("a@bücher.example").as_deref(), Ok("a@xn--bcher-kva.example"));
    }

    #[test]
    fn what_is_no_addr_spec_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}example.com", "abcdefgh.".repeat(28));
        let bad = [
            "",
            "support",
            "@example.com",
            "support@",
            "a@b@example.com",
            "Support <support@example.com>",
            "<support@example.com>",
            "\"Support\" <support@example.com>",
            "mailto:support@example.com",
            "support@example.com, other@example.com",
            "support @example.com",
            " support@example.com",
            "support@example.com ",
            "support@exam ple.com",
            "sup..port@example.com",
            ".support@example.com",
            "support.@example.com",
            "(comment)support@example.com",
            "support@example.com(comment)",
            "süpport@example.com",
            "support@example..com",
            "support@.example.com",
            "support@-example.com",
            "support@exa_mple.com",
            "support@example.com/",
            "support@192.0.2.1",
            "support@[192.0.2.256]",
            "support@[example.com]",
            "support@[192.0.2.1",
            "support@*.example.com",
            "support@example.com:25",
            "\"support@example.com",
            "\"sup\"port@example.com",
            "\"sup\"port\"@example.com",
            "\"support\\\"@example.com",
            "\"sup\nport\"@example.com",
            "support@example.com\n",
            long_local.as_str(),
            long.as_str(),
        ];
        for address in bad {
            assert!(addr_spec(address).is_err(), "{address:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_what_passes_stays_as_it_is(given in any::<String>(), quoted in "\"[ -~]{0,9}\"?@[a-zé.]{1,9}") {
            for given in [given, quoted] {
                if let Ok(sent) = addr_spec(&given) {
                    prop_assert_eq!(addr_spec(&sent), Ok(sent));
                }
            }
        }
    }
}
