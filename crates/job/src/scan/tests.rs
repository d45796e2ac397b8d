use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::*;

fn pointers(body: &str) -> Vec<String> {
    scan(body.as_bytes()).unwrap().into_iter().map(|one| one.pointer).collect()
}

#[test]
fn a_member_that_is_there_twice_is_told_at_its_place_wherever_it_lies() {
    for (body, found) in [
        (r#"{"a":1,"b":{"a":1},"c":[{"a":1},{"a":1}]}"#, vec![]),
        (r#"{"id":"x","id":"x"}"#, vec!["/id"]),
        (r#"{"a":{"b":[0,{"c":1,"c":2,"c":3}]}}"#, vec!["/a/b/1/c", "/a/b/1/c"]),
        (r#"{"a~/b":1,"a~/b":2}"#, vec!["/a~0~1b"]),
        (r#"{"a":1,"\u0061":2}"#, vec!["/a"]),
        (r#"{ "a" : "a" , "a,b" : "{\"a\":1,\"a\":2}" }"#, vec![]),
        (r#"[{"a":["a","a"]},{"a":{}}]"#, vec![]),
        (r#"{"":1,"":2}"#, vec!["/"]),
    ] {
        assert_eq!(pointers(body), found, "{body}");
    }
    let many: Vec<String> = (0..100).map(|n| format!("\"m{n}\":{n}")).collect();
    assert_eq!(pointers(&format!("{{{},\"m5\":0,\"m95\":0}}", many.join(","))), ["/m5", "/m95"]);
}

#[test]
fn a_number_that_would_be_changed_is_told_at_its_place() {
    let body = r#"{"n":12345678901234567890123,"of":[1,18446744073709551615,0.1,-1e5,{"x":0.12345678901234567890}]}"#;
    assert_eq!(pointers(body), ["/n", "/of/4/x"]);
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(scan(nested(MAX_NESTING).as_bytes()), Ok(Violations::default()));
    assert_eq!(scan(nested(MAX_NESTING + 1).as_bytes()), Err(LimitExceeded::Nesting(MAX_NESTING)));
    assert_eq!(scan("[".repeat(1_000_000).as_bytes()), Err(LimitExceeded::Nesting(MAX_NESTING)));
}

#[test]
fn values_are_bounded_and_where_there_are_too_many_is_told() {
    // The object, its list, and what is in it.
    let job = |values: usize| format!(r#"{{"payload":[{}]}}"#, vec!["0"; values - 2].join(","));
    assert_eq!(scan(job(MAX_VALUES).as_bytes()), Ok(Violations::default()));
    assert_eq!(scan(job(MAX_VALUES + 1).as_bytes()), Err(LimitExceeded::Values("/payload".to_owned())));
}

/// What a body says, nothing dropped: members in their order, also those that are there twice.
#[derive(Debug, Default)]
struct Said {
    values: usize,
    twice: usize,
    depth: usize,
}

impl Said {
    fn inside(&mut self, inner: &Self) {
        self.values += inner.values;
        self.twice += inner.twice;
        self.depth = self.depth.max(inner.depth + 1);
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

const ONE: Said = Said { values: 1, twice: 0, depth: 0 };

impl<'de> Visitor<'de> for Reader {
    type Value = Said;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Said, E> {
        Ok(ONE)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Said, E> {
        Ok(ONE)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Said, E> {
        Ok(ONE)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Said, E> {
        Ok(ONE)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Said, E> {
        Ok(ONE)
    }

    fn visit_str<E>(self, _: &str) -> Result<Said, E> {
        Ok(ONE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Said, A::Error> {
        let mut said = Said { depth: 1, ..ONE };
        while let Some(inner) = list.next_element::<Said>()? {
            said.inside(&inner);
        }
        Ok(said)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Said, A::Error> {
        let (mut said, mut names) = (Said { depth: 1, ..ONE }, HashSet::new());
        while let Some((name, inner)) = members.next_entry::<String, Said>()? {
            said.twice += usize::from(!names.insert(name));
            said.inside(&inner);
        }
        Ok(said)
    }
}

/// Pieces of JSON, also such that make none together.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"a\":",
        "\"a\"",
        "\"\\u0061\":",
        "\"b\":",
        "1",
        "-2.5e3",
        "true",
        "null",
        " ",
        "{}",
        "[]",
        "{\"a\":1,\"a\":2}",
        "\"}\"",
        "\"\\\"\"",
        "é",
        "x",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |number| number.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\\\\"{}\\[\\],:]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a\"\\\\/~,:{é]{0,3}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn counted(body: &str) -> usize {
    let mut scan = Scan { body: body.as_bytes(), at: 0, open: vec![], values: 0, found: Violations::default() };
    while let Some(byte) = scan.body.get(scan.at) {
        scan.step(*byte).unwrap();
    }
    scan.values
}

proptest! {
    #[test]
    fn what_passes_reads_as_what_was_written(value in anything(), indented in any::<bool>()) {
        let body = if indented { format!("{value:#}") } else { value.to_string() };
        prop_assert_eq!(scan(body.as_bytes()), Ok(Violations::default()), "{}", body);
        prop_assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), value);
    }

    #[test]
    fn the_scan_sees_what_the_parser_reads(body in prop_oneof![pieces(), anything().prop_map(|value| value.to_string())]) {
        let scanned = scan(body.as_bytes());
        if let Ok(said) = serde_json::from_str::<Said>(&body) {
            prop_assert_eq!(scanned.unwrap().total(), said.twice, "{}", body);
            prop_assert_eq!(counted(&body), said.values, "{}", body);
        }
    }

    #[test]
    fn any_bytes_are_looked_at_to_their_end(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = scan(&body);
    }
}

#[test]
fn two_members_of_one_name_are_one_violation_each_and_only_a_hundred_are_kept() {
    let twice: Vec<String> = (0..1_300).map(|n| format!(r#""m{n}":1,"m{n}":2"#)).collect();
    let found = scan(format!("{{{}}}", twice.join(",")).as_bytes()).unwrap();
    assert_eq!((found.len(), found.total()), (100, 1_300));
    assert!(found[0].message.contains("twice"), "{}", json!(found[0]));
}
