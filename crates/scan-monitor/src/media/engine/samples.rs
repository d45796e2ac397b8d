//! The two files for testing an engine. They are created at run time, so that this program contains no file that a
//! virus scanner would report.

/// The number of nested archives, which exceeds the limits of all usual engines.
const DEPTH: usize = 25;

/// The test string that every engine reports (EICAR).
pub(crate) fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat().into_bytes()
}

/// Creates 25 nested zip files of about 2.5 kB. An engine that reports its limits does not call it clean.
pub(crate) fn nested_archive() -> Vec<u8> {
    (0..DEPTH).fold(b"x".to_vec(), |inner, _| stored_zip(&inner))
}

/// Creates a zip file with one uncompressed entry.
fn stored_zip(content: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"a";
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    // Version, flags, method, time and date (1980-01-01), checksum, both lengths, lengths of the name and of extras.
    let head = [10_u16, 0, 0, 0, 33].map(u16::to_le_bytes).concat();
    let sizes = [crc32(content), length, length].map(u32::to_le_bytes).concat();
    let common = [head, sizes, [1_u16, 0].map(u16::to_le_bytes).concat()].concat();

    let local = [b"PK\x03\x04".as_slice(), &common, NAME, content].concat();
    // Comment, disk, attributes, and the position of the entry, all 0.
    let central = [b"PK\x01\x02\x0a\x00".as_slice(), &common, &[0; 14], NAME].concat();
    let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
    for part in [&central, &local] {
        end.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
    end.extend([0, 0]);
    [local, central, end].concat()
}

/// Computes the checksum of zip files (CRC-32).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_what_they_are_meant_to_be() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(eicar().len(), 68);
        let nested = nested_archive();
        assert_eq!(nested.windows(4).filter(|window| window == b"PK\x03\x04").count(), DEPTH);
        assert!(nested.len() < 4096, "{}", nested.len());
    }
}
