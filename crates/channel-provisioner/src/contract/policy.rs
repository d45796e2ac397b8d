//! Directives of a Content Security Policy as JSON Schema can state them.

use super::any_case;
use serde_json::{Value, json};

use super::hosts::{PORT, ascii};
use crate::csp::{
    DIRECTIVES, LONGEST,
    source::{HASHES, KEYWORDS, NONCE},
};

const BLANK: &str = "[\t\n\u{c}\r ]";
const SCHEME: &str = "[A-Za-z][A-Za-z0-9+-]*";

/// Returns the schema of `cspHeaders`.
pub(super) fn headers() -> Value {
    let entry = json!({
        "maxLength": LONGEST,
        "pattern": format!("^{BLANK}*({})({BLANK}+({}))+{BLANK}*$", names(), source()),
        "allOf": [unquoted_keyword(), none_alone(), frame_ancestors()],
    });
    let once = |name: &&str| {
        let named = format!("^{BLANK}*{}({BLANK}|$)", any_case(name));
        json!({ "contains": { "type": "string", "pattern": named }, "minContains": 0, "maxContains": 1 })
    };
    json!({ "items": entry, "allOf": DIRECTIVES.iter().map(once).collect::<Vec<_>>() })
}

fn names() -> String {
    DIRECTIVES.map(any_case).join("|")
}

fn source() -> String {
    let base64 = "[A-Za-z0-9+/_-]+={0,2}";
    let keywords = KEYWORDS.map(any_case).join("|");
    let secrets = format!("({}|{}){base64}", any_case(NONCE), HASHES.map(any_case).join("|"));
    let host = format!("({SCHEME}://)?(\\*|(\\*\\.)?{})(:(\\*|{PORT}))?({})?", ascii(), path());
    format!("'({keywords}|{secrets})'|{SCHEME}:|{host}")
}

/// Matches an absolute path whose first segment is not empty.
fn path() -> String {
    let escape = "%[0-9A-Fa-f][0-9A-Fa-f]";
    let plain = "A-Za-z0-9:@!$&()*+=._~-";
    format!("/(([{plain}]|{escape})([/{plain}]|{escape})*)?")
}

/// Refuses a keyword without its quotes, which would be a host.
fn unquoted_keyword() -> Value {
    let keywords = KEYWORDS.map(any_case).join("|");
    let beginnings = [NONCE].iter().chain(&HASHES).map(|each| any_case(each)).collect::<Vec<_>>().join("|");
    json!({ "not": { "pattern": format!("{BLANK}(({keywords})({BLANK}|$)|{beginnings})") } })
}

fn none_alone() -> Value {
    let none = any_case("'none'");
    json!({ "anyOf": [
        { "not": { "pattern": none } },
        { "pattern": format!("^{BLANK}*[A-Za-z-]+{BLANK}+{none}{BLANK}*$") },
    ] })
}

fn frame_ancestors() -> Value {
    let name = any_case("frame-ancestors");
    let https = any_case("https:");
    let may = format!("{https}|{https}//[^\t\n\u{c}\r ]*|{}|{}", any_case("'self'"), any_case("'none'"));
    json!({ "anyOf": [
        { "not": { "pattern": format!("^{BLANK}*{name}({BLANK}|$)") } },
        { "pattern": format!("^{BLANK}*{name}({BLANK}+({may}))*{BLANK}*$") },
    ] })
}
