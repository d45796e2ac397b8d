//! Measures the lengths of parts of a sample event as JSON, each once.

use std::{collections::HashMap, io, ptr};

use serde_json::Value;

use super::projected::Projected;
use crate::field::FieldPath;

/// The known lengths: of parts by their addresses, and of values from lists by list and path.
#[derive(Default)]
pub(super) struct Lengths<'a> {
    parts: HashMap<*const Value, usize>,
    extracts: HashMap<(*const Value, &'a str), usize>,
}

impl<'a> Lengths<'a> {
    pub(super) fn of_projected(&mut self, projected: &Projected<'a>) -> usize {
        match projected {
            Projected::Value(value) => self.of(value),
            Projected::Entries { entries, path } => self.of_extract(entries, *path),
            Projected::Text(text) => written_length(&Value::from(text.as_str())),
        }
    }

    fn of_extract(&mut self, entries: &'a [Value], path: FieldPath<'a>) -> usize {
        let key = (entries.as_ptr(), path.as_str());
        if let Some(length) = self.extracts.get(&key) {
            return *length;
        }
        // Brackets and commas.
        let length =
            2 + entries.iter().filter_map(|entry| path.resolve(entry)).map(|part| self.of(part) + 1).sum::<usize>();
        self.extracts.insert(key, length);
        length
    }

    /// Measures a part. The recursion is as deep as the sample, which the limit for jobs bounds.
    fn of(&mut self, value: &'a Value) -> usize {
        if let Value::Null | Value::Bool(_) | Value::Number(_) = value {
            return written_length(value);
        }
        let place = ptr::from_ref(value);
        if let Some(length) = self.parts.get(&place) {
            return *length;
        }
        let length = match value {
            Value::Array(entries) => 2 + entries.iter().map(|entry| self.of(entry) + 1).sum::<usize>(),
            // A name, its quotes, a colon and a comma.
            Value::Object(members) => {
                2 + members.iter().map(|(name, value)| name.len() + self.of(value) + 4).sum::<usize>()
            }
            text => written_length(text),
        };
        self.parts.insert(place, length);
        length
    }
}

fn written_length(value: &Value) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, part: &[u8]) -> io::Result<usize> {
            self.0 += part.len();
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Writing to a counter cannot fail.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_is_about_as_long_as_it_is_written() {
        for value in
            [json!(null), json!("a\"é\n"), json!(-1.5), json!([]), json!({}), json!({"ab": [1, "x", {"c": []}]})]
        {
            let (length, written) = (Lengths::default().of(&value), value.to_string().len());
            // A comma too many in each list and object.
            assert!((written..=written + 4).contains(&length), "{value}: {length}, {written}");
        }
    }
}
