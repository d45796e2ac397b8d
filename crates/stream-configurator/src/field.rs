//! Paths of event fields: `a.b.c` from the event's root, `[].a.b` inside each entry of a list. Pure.

use serde_json::Value;

/// Maximum number of names in a target path, so that all JSON parsers can read the result.
pub(crate) const MOST_NAMES: usize = 32;

/// A path: names separated by dots, none of them empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldPath<'a>(&'a str);

impl<'a> FieldPath<'a> {
    /// Parses the path in `text`, if it is valid.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
        text.split('.').all(is_name).then_some(Self(text))
    }

    /// Parses `[].a.b` as a path inside each entry.
    pub(crate) fn inside_entries(text: &'a str) -> Option<Self> {
        let path = Self::parse(text.strip_prefix("[].")?)?;
        (!path.0.contains(['[', ']'])).then_some(path)
    }

    /// Returns the path as written.
    pub(crate) fn as_str(self) -> &'a str {
        self.0
    }

    /// Returns its names from the root.
    pub(crate) fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.split('.')
    }

    /// Returns its parent paths, and itself last.
    pub(crate) fn beginnings(self) -> impl Iterator<Item = &'a str> {
        let dots = self.0.match_indices('.').map(|(at, _)| at);
        dots.chain([self.0.len()]).map(move |end| &self.0[..end])
    }

    /// Returns the value at the path. A name that is a number also selects an entry of a list.
    pub(crate) fn resolve(self, root: &Value) -> Option<&Value> {
        self.names().try_fold(root, |value, name| match value {
            Value::Object(members) => members.get(name),
            Value::Array(entries) => entries.get(index(name)?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }
}

/// Parses `0`, `1`, … without leading zeros or signs.
fn index(name: &str) -> Option<usize> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    is_plain.then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_is_names_with_single_dots_between() {
        for good in ["a", "a.b", "detail-type", "a.0.b", "é.ü", "a[].b"] {
            assert!(FieldPath::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.\t", "a.\u{a0}b"] {
            assert!(FieldPath::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_inside_entries_begins_with_brackets_and_has_no_others() {
        assert_eq!(FieldPath::inside_entries("[].a.b"), FieldPath::parse("a.b"));
        for bad in ["", "[]", "[].", "[]a", "a", "[].a.", "[]..a", "[].a[].b", "[0].a", ".[].a", "[].a b"] {
            assert!(FieldPath::inside_entries(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_path_goes_through_objects_and_lists_and_nothing_else() {
        let event = json!({"a": {"b": [{"c": 1}, {"c": null}]}, "t": "text", "a.b": 2, "1": 3});
        let table = [
            ("a.b.0.c", Some(json!(1))),
            ("a.b.1.c", Some(json!(null))),
            ("1", Some(json!(3))),
            ("a.b.2.c", None),
            ("a.b.00.c", None),
            ("a.b.+1.c", None),
            ("a.b.c", None),
            ("t.length", None),
            ("a.x", None),
            ("A", None),
        ];
        for (path, found) in table {
            assert_eq!(FieldPath::parse(path).unwrap().resolve(&event).cloned(), found, "{path}");
        }
    }

    #[test]
    fn a_path_begins_with_every_path_it_lies_inside_of() {
        let beginnings: Vec<_> = FieldPath::parse("a.bc.d").unwrap().beginnings().collect();
        assert_eq!(beginnings, ["a", "a.bc", "a.bc.d"]);
    }

    fn nested(names: &[String], value: Value) -> Value {
        names.iter().rev().fold(value, |inner, name| json!({ name.as_str(): inner }))
    }

    proptest! {
        #[test]
        fn what_is_put_at_a_path_is_found_there_and_not_past_it(
            names in prop::collection::vec("[A-Za-z0-9_\\-\\[\\]é]{1,8}", 1..20), value in any::<i64>(),
        ) {
            let written = names.join(".");
            let path = FieldPath::parse(&written).unwrap();
            let event = nested(&names, value.into());
            prop_assert_eq!(path.names().collect::<Vec<_>>(), names.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(path.resolve(&event), Some(&json!(value)));
            prop_assert_eq!(path.beginnings().count(), names.len());
            let further = format!("{written}.more");
            prop_assert_eq!(FieldPath::parse(&further).unwrap().resolve(&event), None);
        }

        #[test]
        fn any_text_is_judged_and_a_path_has_only_good_names(text in any::<String>()) {
            let path = FieldPath::parse(&text);
            let good = text.split('.').all(|name| !name.is_empty() && !name.chars().any(char::is_whitespace));
            prop_assert_eq!(path.is_some(), good);
            if let Some(path) = FieldPath::inside_entries(&text) {
                prop_assert_eq!(format!("[].{}", path.as_str()), text);
            }
        }

        #[test]
        fn a_path_inside_entries_is_brackets_and_a_path(names in prop::collection::vec("[a-z0-9_]{1,8}", 1..6)) {
            let written = names.join(".");
            let entries = format!("[].{written}");
            prop_assert_eq!(FieldPath::inside_entries(&entries), FieldPath::parse(&written));
        }
    }
}
