//! How the tool speaks to whoever reads it: the one writer to stdout; colours, questions, and text from outside that
//! must not steer a terminal.

use std::{
    env,
    fmt::{Display, Write as _},
    io::{self, BufRead, ErrorKind, IsTerminal, Write},
};

use anyhow::Context;

/// Whether anybody reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// As far as is known.
    There,
    /// It took what it wanted and went (`genfleet … | head -1`). Whoever writes without end, ends now; everybody else
    /// goes on with their work, and ends with their own exit code.
    Gone,
}

/// `text` and a line's end on stdout. A reader that went away is no error.
pub fn say(text: impl Display) -> anyhow::Result<Reader> {
    put(format!("{text}\n"))
}

/// `text` on stdout, without what could disguise it (see [`disguises`]). A reader that went away is no error.
pub fn put(text: impl AsRef<[u8]>) -> anyhow::Result<Reader> {
    put_exactly(undisguised(&String::from_utf8_lossy(text.as_ref())).as_bytes())
}

/// `bytes` on stdout, as they are. A reader that went away is no error.
pub fn put_exactly(bytes: impl AsRef<[u8]>) -> anyhow::Result<Reader> {
    written(&mut io::stdout().lock(), bytes.as_ref()).context("stdout cannot be written")
}

fn written(out: &mut impl Write, bytes: &[u8]) -> io::Result<Reader> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        done => done.map(|()| Reader::There),
    }
}

/// Colours, where the output is a terminal and nobody asked for none (`NO_COLOR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For stdout.
    pub fn stdout() -> Self {
        Self { on: io::stdout().is_terminal() && wanted() }
    }

    /// For nobody.
    #[cfg(test)]
    pub const fn none() -> Self {
        Self { on: false }
    }

    /// For stderr.
    pub fn stderr() -> Self {
        Self { on: io::stderr().is_terminal() && wanted() }
    }

    /// What matters most.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What matters least.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// What went wrong.
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What may be wrong.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// What went well.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn wanted() -> bool {
    let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// `text` in one line: whatever could move the cursor, change colours or disguise text is written out.
pub fn line(text: &str) -> String {
    escaped(text, |character| character.is_ascii_control() || disguises(character))
}

/// As [`line()`], with its line breaks and tabs.
pub fn lines(text: &str) -> String {
    escaped(text, |character| {
        (character.is_ascii_control() && !['\n', '\t'].contains(&character)) || disguises(character)
    })
}

/// `text` with its controls, and without what could disguise it.
fn undisguised(text: &str) -> String {
    escaped(text, disguises)
}

/// Whether `character` makes text look like another: controls of the second set (which terminals obey), marks that change
/// the direction of text, characters that nobody sees. Nothing of ours has one, so that whatever is printed can be rid
/// of them.
const fn disguises(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What disguises is written as in JSON, so that JSON stays what it says.
fn escaped(text: &str, which: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        if !which(character) {
            escaped.push(character);
        } else if disguises(character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.extend(character.escape_default());
        }
        escaped
    })
}

/// The first `width` characters of `text` in one line, and a sign where there are more.
pub fn cut(text: &str, width: usize) -> String {
    let line = line(text);
    if line.chars().count() <= width {
        return line;
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    let _ = write!(cut, "…");
    cut
}

/// Empties the screen; what comes next begins at its top.
pub const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Whether the screen can be emptied.
pub fn can_clear() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether somebody is there to be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but yes is no.
pub fn ask(question: &str) -> io::Result<bool> {
    let mut err = io::stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(line("a\u{1b}[2Jb\r\nc\u{9b}"), r"a\u{1b}[2Jb\r\nc\u009b");
        assert_eq!(lines("a\n\tb\u{7}\u{202e}"), "a\n\tb\\u{7}\\u202e");
    }

    #[test]
    fn text_is_not_disguised_and_json_says_the_same() {
        let disguised = "a\u{202e}b\u{2066}c\u{85}d\u{9b}31m\u{200f}\u{feff}\u{2028}";
        for shown in [line(disguised), lines(disguised), undisguised(disguised)] {
            assert_eq!(shown, r"a\u202eb\u2066c\u0085d\u009b31m\u200f\ufeff\u2028");
        }
        let json = undisguised(&serde_json::json!({ "id": disguised }).to_string());
        assert!(!json.chars().any(disguises), "{json}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["id"], disguised);
        let ours = "\u{1b}[31mgrüße\u{1b}[0m — ➜ हिन्दी שלום\n";
        assert_eq!(undisguised(ours), ours, "colours and every language stay");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
        struct Failing(ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(written(&mut Failing(ErrorKind::BrokenPipe), b"text").unwrap(), Reader::Gone);
        assert_eq!(written(&mut Failing(ErrorKind::StorageFull), b"text").unwrap_err().kind(), ErrorKind::StorageFull);
        let mut out = Vec::new();
        assert_eq!(written(&mut out, b"text").unwrap(), Reader::There);
        assert_eq!(out, b"text");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(cut("grüße", 5), "grüße");
        assert_eq!(cut("grüße aus", 5), "grüß…");
    }

    #[test]
    fn without_colours_there_are_none() {
        assert_eq!(Paint { on: false }.red("a"), "a");
        assert_eq!(Paint { on: true }.red("a"), "\u{1b}[31ma\u{1b}[0m");
    }
}
