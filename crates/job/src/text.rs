//! The encoding of input: a byte order mark is skipped, and other encodings than UTF-8 are named.

use std::{fs, io, path::Path};

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Removes the byte order mark. An error names the encoding of recognised input that is not UTF-8.
pub fn strip_mark(bytes: &[u8]) -> Result<&[u8], &'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => {
            Err("this is UTF-16; UTF-8 is expected: convert it")
        }
        [0x1f, 0x8b, ..] => Err("this is compressed with gzip; plain UTF-8 is expected: uncompress it"),
        _ => Ok(bytes.strip_prefix(MARK).unwrap_or(bytes)),
    }
}

/// Removes the byte order mark, and line ends at the end.
pub fn trim(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches(['\n', '\r'])
}

/// Reads a file without its byte order mark.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = fs::read(path)?;
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_loses_its_mark_and_its_line_ends_and_nothing_else() {
        assert_eq!(trim("\u{feff} a b \r\n\n"), " a b ");
        assert_eq!(trim("\u{feff}\n"), "");
    }

    #[test]
    fn a_file_is_read_without_its_mark() {
        let path = std::env::temp_dir().join(format!("genfleet-mark-{}", uuid::Uuid::new_v4()));
        fs::write(&path, "\u{feff}-----BEGIN").unwrap();
        let read = read(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), b"-----BEGIN");
    }

    #[test]
    fn a_mark_is_skipped_once_and_other_encodings_are_named() {
        let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert_eq!(strip_mark(b"{}"), Ok(b"{}".as_slice()));
        assert_eq!(strip_mark(b""), Ok(b"".as_slice()));
        assert_eq!(strip_mark("\u{feff}{}".as_bytes()), Ok(b"{}".as_slice()));
        assert_eq!(strip_mark("\u{feff}\u{feff}".as_bytes()), Ok("\u{feff}".as_bytes()));
        for (bytes, name) in [
            (utf_16("\u{feff}{}"), "UTF-16"),
            (utf_16("{\"a\":1}"), "UTF-16"),
            (b"\xfe\xff\0{".to_vec(), "UTF-16"),
            (b"\0{\0}".to_vec(), "UTF-16"),
            (b"\x1f\x8b\x08\0".to_vec(), "gzip"),
        ] {
            assert!(strip_mark(&bytes).is_err_and(|reported| reported.contains(name)), "{bytes:?}");
        }
    }
}
