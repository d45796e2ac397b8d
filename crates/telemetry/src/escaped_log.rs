//! The log on stderr, in which foreign text cannot control a terminal or forge a line.

use std::io::{self, Write};

use genfleet_job::escape::output;

/// A writer for a log that escapes each event to one line; each call must write one event.
#[derive(Debug)]
pub(crate) struct EscapedLog<W> {
    out: W,
    colours: bool,
}

impl<W> EscapedLog<W> {
    /// Writes to `out`; keeps colours if `colours`.
    pub(crate) const fn new(out: W, colours: bool) -> Self {
        Self { out, colours }
    }
}

impl<W: Write> Write for EscapedLog<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~');
        if event.strip_suffix(b"\n").unwrap_or(event).iter().all(is_plain) {
            self.out.write_all(event)?;
            return Ok(event.len());
        }
        let text = String::from_utf8_lossy(event);
        let (body, end) = text.strip_suffix('\n').map_or((&*text, ""), |body| (body, "\n"));
        let body = output(body, self.colours).replace('\n', "\\n");
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

    #[test]
    fn a_plain_event_of_the_log_stays_as_it_is() {
        for event in ["{\"level\":\"INFO\"}\n", "no end ~", "\n", ""] {
            let mut log = Vec::new();
            EscapedLog::new(&mut log, false).write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(log).unwrap(), event);
        }
    }

    #[test]
    fn an_event_of_the_log_is_one_line_whatever_it_quotes() {
        let mut log = Vec::new();
        let event = "WARN failed error=a\u{202e}b\u{9b}31mc\u{1b}[2Je\rf\u{feff}\nERROR forged\n";
        EscapedLog::new(&mut log, false).write_all(event.as_bytes()).unwrap();
        let log = String::from_utf8(log).unwrap();
        assert_eq!(log, "WARN failed error=a\\u202eb\\u009b31mc\\u{1b}[2Je\\rf\\ufeff\\nERROR forged\n");
    }
}
