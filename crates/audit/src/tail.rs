//! The end of an existing chain: its last line, and an incomplete line after it.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{read, record::ChainLink};

/// Number of bytes that are read from the end first; four times as many each time that is not enough.
const WINDOW: u64 = 64 * 1024;
/// The beginning of every line.
const BEGINNING: &[u8] = br#"{"action":"#;

/// The end of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainTail {
    /// Number of bytes up to the end of the last complete line.
    pub whole: u64,
    /// The incomplete line after that.
    pub torn: Vec<u8>,
    /// The last unchanged line.
    pub end: Option<ChainLink>,
    /// Number of complete lines after `end` that were changed.
    pub damaged: usize,
}

impl ChainTail {
    /// Reads the end of `file`.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut window = WINDOW;
        loop {
            let begin = length.saturating_sub(window);
            let tail = Self::in_bytes(&bytes(file, begin, length)?, begin);
            if tail.end.is_some() || begin == 0 {
                return Ok(tail);
            }
            window *= 4;
        }
    }

    /// Finds the end in `bytes`, which start at the offset `begin` of the file.
    fn in_bytes(bytes: &[u8], begin: u64) -> Self {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut tail = Self { whole: begin + whole as u64, torn: bytes[whole..].to_vec(), ..Self::default() };
        let lines = bytes[..whole].strip_suffix(b"\n").unwrap_or_default();
        // Unless the file starts here, the first piece is only a part of a line. It is then not a valid record.
        for line in lines.rsplit(|byte| *byte == b'\n').filter(|_| whole > 0) {
            match read::read(line) {
                Ok(record) => {
                    tail.end = Some(record.link());
                    return tail;
                }
                Err(_) => tail.damaged += 1,
            }
        }
        tail
    }

    /// Returns true if the file was written by another program and must not be changed.
    pub(crate) fn is_foreign(&self) -> bool {
        let length = self.torn.len().min(BEGINNING.len());
        let is_audit = self.torn[..length] == BEGINNING[..length] || self.torn.iter().all(|byte| *byte == 0);
        self.end.is_none() && (self.damaged > 0 || !is_audit)
    }
}

fn bytes(file: &File, begin: u64, end: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(end - begin).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, begin)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::{AuditSubject, Chain, Detail, Fact};

    fn lines(count: usize) -> Vec<Vec<u8>> {
        let about = AuditSubject { job: None, kind: "cdn.purge", worker: "purger", action: "x", payload_sha256: None };
        let mut chain = Chain::new("p".to_owned(), ChainLink::default());
        let mut next = || chain.append(&about, Fact::Intent, &Detail::default(), Timestamp::UNIX_EPOCH).0.bytes;
        (0..count).map(|_| next()).collect()
    }

    fn seq(tail: &ChainTail) -> Option<u64> {
        tail.end.as_ref().map(|end| end.seq)
    }

    #[test]
    fn a_last_line_cut_anywhere_is_incomplete_and_the_one_before_is_the_end() {
        let lines = lines(3);
        let whole = lines[..2].concat();
        for kept in 1..lines[2].len() {
            let tail = ChainTail::in_bytes(&[&whole, &lines[2][..kept]].concat(), 0);
            assert_eq!((seq(&tail), tail.whole, &*tail.torn), (Some(2), whole.len() as u64, &lines[2][..kept]));
            assert!(!tail.is_foreign());
        }
        assert_eq!(seq(&ChainTail::in_bytes(&lines.concat(), 0)), Some(3));
    }

    #[test]
    fn a_window_that_begins_within_a_line_finds_the_same_end() {
        let all = lines(3).concat();
        for begin in 0..lines(2).concat().len() {
            let tail = ChainTail::in_bytes(&all[begin..], begin as u64);
            assert_eq!((seq(&tail), tail.whole), (Some(3), all.len() as u64), "{begin}");
        }
    }

    #[test]
    fn the_first_line_may_be_incomplete_but_a_foreign_file_is_recognised() {
        let line = lines(1).remove(0);
        for ours in [b"".as_slice(), b"{", &line[..20], &line[..line.len() - 1], &[0; 100]] {
            let tail = ChainTail::in_bytes(ours, 0);
            assert_eq!((tail.is_foreign(), tail.end), (false, None), "{ours:?}");
        }
        for foreign in [b"127.0.0.1 localhost".as_slice(), b"127.0.0.1 localhost\n", b"{\"a\":1}\n", b"\n"] {
            assert!(ChainTail::in_bytes(foreign, 0).is_foreign(), "{foreign:?}");
        }
    }

    #[test]
    fn a_damaged_last_line_is_counted_and_the_end_is_before_it() {
        let mut lines = lines(3);
        lines[2][15] ^= 1;
        let tail = ChainTail::in_bytes(&lines.concat(), 0);
        assert_eq!((seq(&tail), tail.damaged, tail.torn.len()), (Some(2), 1, 0));
    }

    #[test]
    fn the_end_is_found_in_a_long_file() {
        let path = std::env::temp_dir().join(format!("genfleet-tail-{}", std::process::id()));
        let mut all = lines(1).concat();
        all.extend(std::iter::repeat_n(b"damaged\n", 40_000).flatten());
        std::fs::write(&path, &all).unwrap();
        let tail = ChainTail::of(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((seq(&tail), tail.damaged, tail.whole), (Some(1), 40_000, all.len() as u64));
    }
}
