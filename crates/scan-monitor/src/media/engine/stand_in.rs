//! A stand-in for an engine, for `--simulate` only: it knows the EICAR test string and nothing else.

use super::{samples::eicar, verdict::Verdict};

/// A scan by the stand-in.
#[derive(Debug)]
pub(crate) struct StandInScan {
    sample: Vec<u8>,
    /// The last bytes that were received, one less than the sample has.
    tail: Vec<u8>,
    found: bool,
}

impl StandInScan {
    /// Begins a scan.
    pub(crate) fn begin() -> Self {
        Self { sample: eicar(), tail: Vec::new(), found: false }
    }

    /// Scans the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.found |= self.tail.windows(self.sample.len()).any(|window| window == self.sample);
        let surplus = self.tail.len().saturating_sub(self.sample.len() - 1);
        self.tail.drain(..surplus);
    }

    /// Returns the verdict.
    pub(crate) fn finish(self) -> Verdict {
        if self.found { Verdict::Malware("Eicar-Test-Signature".to_owned()) } else { Verdict::Clean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_string_is_found_wherever_the_bytes_are_cut() {
        let file = [b"some text ".as_slice(), &eicar(), b" more"].concat();
        for size in [1, 7, 68, file.len()] {
            let mut scan = StandInScan::begin();
            file.chunks(size).for_each(|chunk| scan.write(chunk));
            assert!(matches!(scan.finish(), Verdict::Malware(_)), "{size}");
            let mut scan = StandInScan::begin();
            file[..70].chunks(size).for_each(|chunk| scan.write(chunk));
            assert_eq!(scan.finish(), Verdict::Clean, "{size}");
        }
    }
}
