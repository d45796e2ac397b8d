//! Host names in domains and mail addresses: IDNA, then the letters, digits and hyphens of DNS.

use url::Host;

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// Converts `given` to lower case and IDNA, or returns the error. Converting the result again does not change it.
pub(crate) fn ascii(given: &str) -> Result<String, &'static str> {
    if given.is_empty() {
        return Err("the host is missing");
    }
    if given.contains('*') {
        return Err("wildcards are not allowed: name every host");
    }
    // The URL parser would decode it, and a host name cannot contain it.
    if given.contains('%') {
        return Err("a host name has no %");
    }
    match Host::parse(given) {
        Ok(Host::Domain(name)) => is_name(&name).then_some(name).ok_or("it is no valid host name"),
        Ok(Host::Ipv4(_) | Host::Ipv6(_)) => Err("IP addresses are not allowed: name the host"),
        Err(_) => Err("it is no valid host name"),
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

/// Checks for letters, digits and hyphens, without a hyphen at either end.
pub(crate) fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}
