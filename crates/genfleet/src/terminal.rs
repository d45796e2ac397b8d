//! Output of the tool: the only writer to stdout, colours, progress bars and questions.

use std::{
    env,
    fmt::{Display, Write as _},
    io::{self, BufRead, ErrorKind, IsTerminal, Write},
};

use anyhow::Context;
use genfleet_core::escape;
pub(crate) use genfleet_core::escape::{line, lines};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// True if another program still reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Yes, as far as is known.
    There,
    /// The reader has closed its end (`genfleet … | head -1`). A command that prints without end should end; all others
    /// continue and end with their own exit codes.
    Gone,
}

/// Prints `text` and a line break on stdout. A reader that has closed its end is not an error.
pub(crate) fn print_line(text: impl Display) -> anyhow::Result<Reader> {
    print_escaped(format!("{text}\n"))
}

/// Prints `text` on stdout, with control characters escaped. A reader that has closed its end is not an error.
pub(crate) fn print_escaped(text: impl AsRef<[u8]>) -> anyhow::Result<Reader> {
    print_bytes(escape::output(&String::from_utf8_lossy(text.as_ref()), io::stdout().is_terminal()).as_bytes())
}

/// Writes `bytes` to stdout, unchanged. A reader that has closed its end is not an error.
pub(crate) fn print_bytes(bytes: impl AsRef<[u8]>) -> anyhow::Result<Reader> {
    write_to(&mut io::stdout().lock(), bytes.as_ref()).context("stdout cannot be written")
}

fn write_to(out: &mut impl Write, bytes: &[u8]) -> io::Result<Reader> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        done => done.map(|()| Reader::There),
    }
}

/// Colours, if the output is a terminal and `NO_COLOR` is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// The colours for stdout.
    pub(crate) fn stdout() -> Self {
        Self { on: io::stdout().is_terminal() && wants_colour() }
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self { on: false }
    }

    /// The colours for stderr.
    pub(crate) fn stderr() -> Self {
        Self { on: io::stderr().is_terminal() && wants_colour() }
    }

    /// Emphasises text.
    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// Dims text that is less important.
    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Marks an error.
    pub(crate) fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    /// Marks a possible error.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Marks a success.
    pub(crate) fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn wants_colour() -> bool {
    let set = |variable: &str| env::var_os(variable).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Returns the first `width` characters of `text` in one line, with an ellipsis if there are more.
pub(crate) fn truncate(text: &str, width: usize) -> String {
    let line = line(text);
    if line.chars().count() <= width {
        return line;
    }
    let mut cut: String = line.chars().take(width.saturating_sub(1)).collect();
    let _ = write!(cut, "…");
    cut
}

/// Formats a number with a noun: "1 attempt", "2 attempts", "0 processes".
pub(crate) fn count(number: impl Display, noun: &str) -> String {
    match number.to_string().as_str() {
        "1" => format!("1 {noun}"),
        number => format!("{number} {noun}{}", if noun.ends_with('s') { "es" } else { "s" }),
    }
}

/// Creates a progress bar on stderr, which is hidden without a terminal.
pub(crate) fn progress_bar(total: u64, template: &str) -> ProgressBar {
    let target =
        if io::stderr().is_terminal() { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Clears the screen; the next output starts at its top.
pub(crate) const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Returns true if the screen can be cleared.
pub(crate) fn can_clear() -> bool {
    io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Returns true if a question can be asked on the terminal.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question. Every answer but yes counts as no.
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
    fn a_reader_that_has_closed_its_end_is_not_an_error_and_a_full_disk_is_one() {
        struct Failing(ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(write_to(&mut Failing(ErrorKind::BrokenPipe), b"text").unwrap(), Reader::Gone);
        assert_eq!(write_to(&mut Failing(ErrorKind::StorageFull), b"text").unwrap_err().kind(), ErrorKind::StorageFull);
        let mut out = Vec::new();
        assert_eq!(write_to(&mut out, b"text").unwrap(), Reader::There);
        assert_eq!(out, b"text");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(truncate("grüße", 5), "grüße");
        assert_eq!(truncate("grüße aus", 5), "grüß…");
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
