//! Escaping of foreign text that is shown to people: characters that could control a terminal, forge a line or disguise
//! text. This is the only place that decides which characters those are.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
};

/// The colours that our output and our log use, as terminal sequences.
const COLOURS: [&str; 13] =
    ["0m", "1m", "2m", "3m", "4m", "31m", "32m", "33m", "34m", "35m", "1;31m", "1;32m", "1;33m"];

/// Escapes `text` to one line.
pub fn line(text: &str) -> String {
    escape(text, |character, _| character.is_ascii_control() || disguises(character))
}

/// Escapes `text` but for line breaks and tabs.
pub fn lines(text: &str) -> String {
    output(text, false)
}

/// Escapes a whole output but for line breaks, tabs and, if `colours`, our own colours.
pub fn output(text: &str, colours: bool) -> String {
    escape(text, |character, rest| match character {
        '\n' | '\t' => false,
        '\u{1b}' => !(colours && is_colour(rest)),
        _ => character.is_ascii_control() || disguises(character),
    })
}

fn is_colour(rest: &str) -> bool {
    rest.strip_prefix('[').is_some_and(|rest| COLOURS.iter().any(|colour| rest.starts_with(colour)))
}

/// Returns true if `character` disguises text: C1 controls (which terminals obey), marks that change the direction of
/// text, and invisible characters. The product's own texts contain none.
const fn disguises(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Escapes each character that `which` selects, given the rest of the text. Disguises are escaped as in JSON, so that
/// JSON keeps its meaning.
fn escape(text: &str, which: impl Fn(char, &str) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        if !which(character, &text[at + character.len_utf8()..]) {
            escaped.push(character);
        } else if disguises(character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.extend(character.escape_default());
        }
    }
    escaped
}

/// Writes a line to stderr and ignores a closed one. Called by [`eprint_line!`](crate::eprint_line).
pub fn print_to_stderr(message: fmt::Arguments<'_>) {
    let mut err = io::stderr().lock();
    let line = output(&format!("{message}\n"), err.is_terminal());
    let _ = err.write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Direction, C1, isolate, escape, carriage return, invisible, separator.
    const HOSTILE: &str = "a\u{202e}b\u{9b}31mc\u{2066}d\u{1b}[2Je\rf\u{200f}\u{feff}\u{2028}";

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(line("a\u{1b}[2Jb\r\nc\u{9b}"), r"a\u{1b}[2Jb\r\nc\u009b");
        assert_eq!(lines("a\n\tb\u{7}\u{202e}"), "a\n\tb\\u{7}\\u202e");
        let expected = r"a\u202eb\u009b31mc\u2066d\u{1b}[2Je\rf\u200f\ufeff\u2028";
        for shown in [line(HOSTILE), lines(HOSTILE), output(HOSTILE, false), output(HOSTILE, true)] {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn json_says_the_same_as_before() {
        let json = output(&serde_json::json!({ "id": HOSTILE }).to_string(), false);
        assert!(!json.chars().any(|character| character.is_control() || disguises(character)), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["id"], HOSTILE);
    }

    #[test]
    fn our_colours_stay_where_there_are_any_and_every_language_does() {
        let ours = "\u{1b}[31mgrüße\u{1b}[0m — ➜ हिन्दी שלום\n";
        assert_eq!(output(ours, true), ours);
        assert_eq!(output(ours, false), "\\u{1b}[31mgrüße\\u{1b}[0m — ➜ हिन्दी שלום\n");
        assert_eq!(output("\u{1b}[8mhidden", true), "\\u{1b}[8mhidden", "that is no colour of ours");
    }
}
