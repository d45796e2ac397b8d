//! How the tool speaks to whoever reads it: the one writer to stdout; colours and questions.

use std::{
    env,
    fmt::{Display, Write as _},
    io::{self, BufRead, ErrorKind, IsTerminal, Write},
};

use anyhow::Context;
use genfleet_core::escape;
pub(crate) use genfleet_core::escape::{line, lines};

/// Whether anybody reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As far as is known.
    There,
    /// It took what it wanted and went (`genfleet … | head -1`). Whoever writes without end, ends now; everybody else
    /// goes on with their work, and ends with their own exit code.
    Gone,
}

/// `text` and a line's end on stdout. A reader that went away is no error.
pub(crate) fn say(text: impl Display) -> anyhow::Result<Reader> {
    put(format!("{text}\n"))
}

/// `text` on stdout, without what could steer or deceive (see [`shown`]). A reader that went away is no error.
pub(crate) fn put(text: impl AsRef<[u8]>) -> anyhow::Result<Reader> {
    put_exactly(escape::output(&String::from_utf8_lossy(text.as_ref()), io::stdout().is_terminal()).as_bytes())
}

/// `bytes` on stdout, as they are. A reader that went away is no error.
pub(crate) fn put_exactly(bytes: impl AsRef<[u8]>) -> anyhow::Result<Reader> {
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
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For stdout.
    pub(crate) fn stdout() -> Self {
        Self { on: io::stdout().is_terminal() && wanted() }
    }

    /// For nobody.
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self { on: false }
    }

    /// For stderr.
    pub(crate) fn stderr() -> Self {
        Self { on: io::stderr().is_terminal() && wanted() }
    }

    /// What matters most.
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What matters least.
    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// What went wrong.
    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What may be wrong.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// What went well.
    pub(crate) fn green(self, text: &str) -> String {
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

/// The first `width` characters of `text` in one line, and a sign where there are more.
pub(crate) fn cut(text: &str, width: usize) -> String {
    let line = line(text);
    if line.chars().count() <= width {
        return line;
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    let _ = write!(cut, "…");
    cut
}

/// A number and what it counts: "1 attempt", "2 attempts", "0 processes".
pub(crate) fn count(number: impl Display, noun: &str) -> String {
    match number.to_string().as_str() {
        "1" => format!("1 {noun}"),
        number => format!("{number} {noun}{}", if noun.ends_with('s') { "es" } else { "s" }),
    }
}

/// Empties the screen; what comes next begins at its top.
pub(crate) const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Whether the screen can be emptied.
pub(crate) fn can_clear() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether somebody is there to be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks; anything but yes is no.
pub(crate) fn ask(question: &str) -> io::Result<bool> {
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
    fn one_is_singular() {
        assert_eq!([0, 1, 2].map(|number| count(number, "process")), ["0 processes", "1 process", "2 processes"]);
        assert_eq!(count(1, "attempt"), "1 attempt");
    }

    #[test]
    fn without_colours_there_are_none() {
        assert_eq!(Paint { on: false }.red("a"), "a");
        assert_eq!(Paint { on: true }.red("a"), "\u{1b}[31ma\u{1b}[0m");
    }
}
