//! Computes length and SHA-256 while writing, for a projection that would be too large for memory.

use std::{fmt::Write, io};

use sha2::{Digest as _, Sha256};

/// Counts and hashes the bytes written to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest {
    sha256: Sha256,
    bytes: usize,
}

impl Digest {
    /// Returns the number of written bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the SHA-256 of the bytes, in hexadecimal.
    pub(crate) fn hex(self) -> String {
        self.sha256.finalize().iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a text cannot fail.
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
