//! Length and SHA-256 of what is written, in one go: of a projection that would be too large to hold in memory.

use std::{fmt::Write, io};

use sha2::{Digest as _, Sha256};

/// Counts and hashes the bytes written to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest {
    sha256: Sha256,
    bytes: usize,
}

impl Digest {
    /// How many bytes were written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Their SHA-256, in hexadecimal.
    pub(crate) fn hex(self) -> String {
        self.sha256.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // A text takes everything.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl io::Write for Digest {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.sha256.update(part);
        self.bytes += part.len();
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
