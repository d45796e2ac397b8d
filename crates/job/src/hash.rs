//! SHA-256 as text, and canonical JSON for hashing: members ordered by name, without white space.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The SHA-256 of `bytes` as 64 hexadecimal digits.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Writes `bytes` as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|half| DIGITS[usize::from(half)]));
    text
}

/// Writes `value` as canonical JSON.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            write_list(text, ['{', '}'], members, |(name, value), text| {
                write_text(name, text);
                text.push(':');
                write_canonical(value, text);
            });
        }
        Value::Array(entries) => write_list(text, ['[', ']'], entries, write_canonical),
        Value::String(content) => write_text(content, text),
        Value::Null | Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
    }
}

fn write_list<T>(
    text: &mut String,
    [open, close]: [char; 2],
    all: impl IntoIterator<Item = T>,
    write: impl Fn(T, &mut String),
) {
    text.push(open);
    for (index, one) in all.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(one, text);
    }
    text.push(close);
}

fn write_text(content: &str, text: &mut String) {
    let is_plain = |byte: u8| byte >= b' ' && !matches!(byte, b'"' | b'\\');
    if content.bytes().all(is_plain) {
        text.push('"');
        text.push_str(content);
        text.push('"');
    } else {
        text.push_str(&Value::from(content).to_string());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\\x00-\\x7f]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_json_is_the_sorted_value_as_serde_writes_it(value in any_value()) {
            let mut sorted = value.clone();
            sorted.sort_all_objects();
            prop_assert_eq!(canonical(&value), sorted.to_string());
        }
    }
}
