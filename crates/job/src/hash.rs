//! SHA-256 as text, and canonical JSON for hashing: members ordered by name, without white space.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes` as 64 hexadecimal digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digest = Sha256::digest(bytes);
    let halves = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    halves.map(|half| DIGITS[usize::from(half)]).collect()
}

/// Writes `value` as canonical JSON.
pub fn canonical(value: &Value) -> String {
    canonical_of(value.clone())
}

/// Writes `value` as canonical JSON without cloning it.
pub fn canonical_of(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_object_hashes_the_same_however_it_was_written() {
        let (one, other) = (json!({"b": [{"d": 1, "c": 2}], "a": 1}), json!({"a": 1, "b": [{"c": 2, "d": 1}]}));
        assert_eq!(canonical(&one), r#"{"a":1,"b":[{"c":2,"d":1}]}"#);
        assert_eq!(canonical(&one), canonical(&other));
    }

    #[test]
    fn a_hash_is_64_digits() {
        assert_eq!(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
