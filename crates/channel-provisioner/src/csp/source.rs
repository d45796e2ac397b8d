//! A source expression of a directive, by the grammar of CSP level 3 (2.3.1), with valid hosts and ports.

use crate::{domain::port, host::is_label};

/// The keywords, without their quotes.
pub(crate) const KEYWORDS: [&str; 14] = [
    "none",
    "self",
    "unsafe-inline",
    "unsafe-eval",
    "unsafe-hashes",
    "unsafe-allow-redirects",
    "strict-dynamic",
    "report-sample",
    "wasm-unsafe-eval",
    "trusted-types-eval",
    "inline-speculation-rules",
    "report-sha256",
    "report-sha384",
    "report-sha512",
];
/// Prefixes of the value of a hash.
pub(crate) const HASHES: [&str; 3] = ["sha256-", "sha384-", "sha512-"];
/// Prefix of the value of a nonce.
pub(crate) const NONCE: &str = "nonce-";
const LONGEST_NAME: usize = 253;

/// A valid source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CspSource {
    /// The text that is sent.
    pub text: String,
}

impl CspSource {
    /// Parses the source in `text`, or returns the error.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('"') {
            return Err("keywords are in single quotes");
        }
        if text.contains('\'') {
            return parse_quoted(text).map(|text| Self { text });
        }
        if is_keyword(text) {
            return Err("a keyword needs single quotes");
        }
        if !text.strip_suffix(':').is_some_and(is_scheme) {
            host_source(text)?;
        }
        Ok(Self { text: text.to_owned() })
    }

    /// Returns true for `'none'`.
    pub(crate) fn is_none(&self) -> bool {
        self.text == "'none'"
    }

    /// Returns true if it is allowed in `frame-ancestors` here.
    pub(crate) fn may_embed(&self) -> bool {
        let text = self.text.to_ascii_lowercase();
        text == "https:" || text.starts_with("https://") || text == "'self'" || text == "'none'"
    }

    /// Returns the keyword, if it removes most of the protection.
    pub(crate) fn takes_protection_away(&self) -> Option<&'static str> {
        ["'unsafe-inline'", "'unsafe-eval'"].into_iter().find(|keyword| *keyword == self.text)
    }
}

/// Parses a keyword (in lower case), a nonce or a hash (unchanged).
fn parse_quoted(text: &str) -> Result<String, &'static str> {
    let inner = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let Some(inner) = inner.filter(|inner| !inner.contains('\'')) else {
        return Err("its quotes are not balanced");
    };
    let lower = inner.to_ascii_lowercase();
    if KEYWORDS.contains(&lower.as_str()) {
        return Ok(format!("'{lower}'"));
    }
    let after = |prefix: &str| lower.starts_with(prefix).then(|| inner.get(prefix.len()..)).flatten();
    if let Some(value) = after(NONCE) {
        return is_base64(value).then(|| text.to_owned()).ok_or("it is no nonce: 'nonce-<base64>'");
    }
    if let Some(value) = HASHES.into_iter().find_map(after) {
        return is_base64(value).then(|| text.to_owned()).ok_or("it is no hash: 'sha256-<base64>'");
    }
    Err("unknown keyword")
}

fn is_keyword(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    KEYWORDS.contains(&lower.as_str()) || lower.starts_with(NONCE) || HASHES.iter().any(|hash| lower.starts_with(hash))
}

/// Returns true if `value` has at least one character of the alphabet, and then at most two `=`.
fn is_base64(value: &str) -> bool {
    let digits = value.trim_end_matches('=');
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    !digits.is_empty() && value.len() - digits.len() <= 2 && digits.bytes().all(is_digit)
}

/// Returns true if `text` is a scheme. The grammar allows dots, but here `example.com:` is a host without its port.
fn is_scheme(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'-';
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(is_inner)
}

/// Parses `[scheme "://"] host [":" port] [path]`.
fn host_source(text: &str) -> Result<(), &'static str> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        Some((before, _)) if !before.contains('/') => return Err("it has no valid scheme"),
        Some(_) | None => text,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    if !is_host(host) {
        return Err("it has no valid host");
    }
    if !port.is_none_or(is_port) {
        return Err("it has no valid port: 1 to 65535, or *");
    }
    if path.is_empty() || is_path(path) { Ok(()) } else { Err("it has no valid path: no query, no fragment") }
}

/// Parses `*`, or a host name whose first label may be `*`.
fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    host == "*" || (name.len() <= LONGEST_NAME && name.split('.').all(is_label))
}

fn is_port(written: &str) -> bool {
    written == "*" || port(written).is_some()
}

/// Checks an absolute path of RFC 3986: no empty first segment, `%` only before two hexadecimal digits.
fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/:@!$&()*+=-._~".contains(&byte);
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let is_hex = |next: Option<u8>| next.is_some_and(|digit| digit.is_ascii_hexdigit());
        let good = if byte == b'%' { is_hex(rest.next()) && is_hex(rest.next()) } else { is_plain(byte) };
        if !good {
            return false;
        }
    }
    !path.starts_with("//")
}
