//! Parts of the patterns in the schemas. They mean the same in ECMA 262, RE2, Rust and Python: no look-around, no `\s`,
//! `\d` or `\w`, and characters beyond ASCII as themselves.

/// A UUID in 36 characters.
pub const UUID: &str = "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$";

/// The digits of an RFC 3339 time.
pub const TIME: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";

/// All blanks of Unicode, for use inside brackets.
pub const BLANKS: &str = "\t-\r \u{85}\u{a0}\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";

/// All control characters of Unicode, for use inside brackets.
pub const CONTROLS: &str = "\0-\u{1f}\u{7f}-\u{9f}";

/// A number from 0 to 255, without leading zeros.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

/// Matches `count` numbers from 0 to 255 with dots between.
pub fn octets(count: usize) -> String {
    [OCTET].repeat(count).join("\\.")
}

/// Matches exactly one of `alternatives`, from beginning to end.
pub fn whole<S: AsRef<str>>(alternatives: &[S]) -> String {
    let alternatives: Vec<&str> = alternatives.iter().map(AsRef::as_ref).collect();
    format!("^({})$", alternatives.join("|"))
}
