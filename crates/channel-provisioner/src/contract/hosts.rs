//! Host names, domains and addresses as JSON Schema can state them: exactly for ASCII, and loosely for other
//! characters, because no pattern can express IDNA.

use super::any_case;
use genfleet_core::contract::pattern::{BLANKS, octets, whole};
use serde_json::{Value, json};

/// Matches a label of a host name.
const LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
/// Matches a port from 1 to 65535.
pub(super) const PORT: &str =
    "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";

const ATOM: &str = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
const QUOTED: &str = "\"([\t !#-\\[\\]-~]|\\\\[\t -~])*\"";

/// Matches labels separated by dots.
pub(super) fn ascii() -> String {
    format!("{LABEL}(\\.{LABEL})*")
}

/// Matches at least one character beyond ASCII.
fn beyond_ascii() -> String {
    let beyond = format!("[^\0-\u{9f}{BLANKS}]");
    format!("([A-Za-z0-9.-]|{beyond})*{beyond}([A-Za-z0-9.-]|{beyond})*")
}

/// Refuses a last label that is a number, which would make the host an IP address.
fn number(before: &str, after: &str) -> Value {
    json!({ "not": { "pattern": format!("{before}([0-9]+|0[Xx][0-9A-Fa-f]*){after}$") } })
}

/// Returns the schema of an entry of `allowedDomains`.
pub(super) fn domain() -> Value {
    let form = |host: String| format!("({}://)?({host})(:{PORT})?/?", any_case("https"));
    json!({
        "pattern": whole(&[form(ascii()), form(beyond_ascii())]),
        "allOf": [number("(^|[/.])", "(:[0-9]+)?/?")],
    })
}

/// Returns the schema of an entry of a web deployment's `allowedDomains`.
pub(crate) fn bare_host() -> Value {
    json!({ "pattern": whole(&[ascii(), beyond_ascii()]), "allOf": [number("(^|[.])", "")] })
}

/// Returns the schema of `routingEmail`.
pub(super) fn email() -> Value {
    let local = format!("({ATOM}(\\.{ATOM})*|{QUOTED})");
    let literal = format!("\\[({}|IPv6:[0-9A-Fa-f:.]+)\\]", octets(4));
    let domains = [ascii(), beyond_ascii(), literal].join("|");
    json!({
        "pattern": whole(&[format!("{local}@({domains})")]),
        "allOf": [
            number("[@.]", ""),
            { "not": { "pattern": "^[^\"@]{65}" } },
            { "if": { "pattern": "^[\0-\u{7f}]*$" }, "then": { "maxLength": 254 } },
        ],
    })
}
