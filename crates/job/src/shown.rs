//! Text from outside, shown to people: what could steer a terminal, forge a line or make text look like another is
//! written out. The only place that decides which characters those are.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
};

/// The colours that we and our log write, as terminals read them.
const COLOURS: [&str; 13] =
    ["0m", "1m", "2m", "3m", "4m", "31m", "32m", "33m", "34m", "35m", "1;31m", "1;32m", "1;33m"];

/// `text` in one line.
pub fn line(text: &str) -> String {
    escaped(text, |character, _| character.is_ascii_control() || disguises(character))
}

/// As [`line()`], with its line breaks and tabs.
pub fn lines(text: &str) -> String {
    whole(text, false)
}

/// A whole output of ours, with its line breaks and tabs, and with its colours where it has any.
pub fn whole(text: &str, colours: bool) -> String {
    escaped(text, |character, rest| match character {
        '\n' | '\t' => false,
        '\u{1b}' => !(colours && is_colour(rest)),
        _ => character.is_ascii_control() || disguises(character),
    })
}

fn is_colour(rest: &str) -> bool {
    rest.strip_prefix('[').is_some_and(|rest| COLOURS.iter().any(|colour| rest.starts_with(colour)))
}

/// Whether `character` makes text look like another: controls of the second set (which terminals obey), marks that change
/// the direction of text, characters that nobody sees. Nothing of ours has one, so that whatever is printed can be rid
/// of them.
const fn disguises(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` with each character that `which` names, told what follows it, written out. What disguises is written as in
/// JSON, so that JSON stays what it says.
fn escaped(text: &str, which: impl Fn(char, &str) -> bool) -> String {
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

/// A line on stderr; where nobody reads it any more, none. What [`tell!`](crate::tell) does.
pub fn tell(told: fmt::Arguments<'_>) {
    let mut err = io::stderr().lock();
    let line = whole(&format!("{told}\n"), err.is_terminal());
    let _ = err.write_all(line.as_bytes());
}

/// Writes a log, an event a call, each as one line.
#[derive(Debug)]
pub struct LogLines<W> {
    out: W,
    colours: bool,
}

impl<W> LogLines<W> {
    /// Into `out`, with the colours of the log where it has any.
    pub const fn new(out: W, colours: bool) -> Self {
        Self { out, colours }
    }
}

impl<W: Write> Write for LogLines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (body, end) = text.strip_suffix('\n').map_or((&*text, ""), |body| (body, "\n"));
        let body = whole(body, self.colours).replace('\n', "\\n");
        self.out.write_all(format!("{body}{end}").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
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
        for shown in [line(HOSTILE), lines(HOSTILE), whole(HOSTILE, false), whole(HOSTILE, true)] {
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn json_says_the_same_as_before() {
        let json = whole(&serde_json::json!({ "id": HOSTILE }).to_string(), false);
        assert!(!json.chars().any(|character| character.is_control() || disguises(character)), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["id"], HOSTILE);
    }

    #[test]
    fn our_colours_stay_where_there_are_any_and_every_language_does() {
        let ours = "\u{1b}[31mgrüße\u{1b}[0m — ➜ हिन्दी שלום\n";
        assert_eq!(whole(ours, true), ours);
        assert_eq!(whole(ours, false), "\\u{1b}[31mgrüße\\u{1b}[0m — ➜ हिन्दी שלום\n");
        assert_eq!(whole("\u{1b}[8mhidden", true), "\\u{1b}[8mhidden", "that is no colour of ours");
    }

    #[test]
    fn an_event_of_the_log_is_one_line_whatever_it_quotes() {
        let mut log = Vec::new();
        let event = format!("WARN failed error={HOSTILE}\nERROR forged\n");
        LogLines::new(&mut log, false).write_all(event.as_bytes()).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert_eq!(log.matches('\n').count(), 1);
        assert!(!log.trim_end().chars().any(|character| character.is_control() || disguises(character)), "{log}");
    }
}
