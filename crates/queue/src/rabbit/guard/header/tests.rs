use lapin::{
    protocol::basic::{AMQPProperties, parse_properties},
    types::{AMQPValue, FieldTable},
};
use proptest::prelude::*;

use super::*;
use crate::defect::{MAX_HEADER_DEPTH, MAX_HEADER_VALUES};

/// What a connection with frames of 131,072 bytes has.
const LIMIT: usize = 122_880;
/// Name, type, length and the longest word.
const MARKED: usize = 1 + MARK.len() + 1 + 4 + "malformed".len();

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn text(name: &str, value: &[u8]) -> Vec<u8> {
    [short(name.as_bytes()), b"S".to_vec(), long(value)].concat()
}

/// Tables inside each other.
fn nested(depth: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..depth {
        table = [b"\x01nF".to_vec(), long(&table)].concat();
    }
    table
}

/// A content type, these headers, a delivery mode and an id.
fn header(entries: &[u8], id: &[u8]) -> Vec<u8> {
    let properties = [short(b"application/json"), long(entries), vec![2], short(id)].concat();
    [vec![0, 60, 0, 0], 2_u64.to_be_bytes().to_vec(), 0xb080_u16.to_be_bytes().to_vec(), properties].concat()
}

fn parsed(payload: &[u8]) -> AMQPProperties {
    let (rest, properties) = parse_properties(&payload[HEAD..]).unwrap();
    assert_eq!(rest, b"", "lapin wants nothing behind the last property");
    properties
}

/// What lapin gets of `payload`, and the flaw it carries.
fn given(payload: &[u8], limit: usize) -> (AMQPProperties, Option<MessageDefect>) {
    let mut payload = payload.to_vec();
    let properties = parsed(&replacement(&mut payload, limit, None).unwrap_or(payload));
    let defect = super::super::super::headers::defect(&properties);
    (properties, defect)
}

fn names(properties: &AMQPProperties) -> Vec<&str> {
    let table: Option<&FieldTable> = properties.headers().as_ref();
    table.into_iter().flat_map(|table| table.inner().keys()).map(lapin::types::ShortString::as_str).collect()
}

#[test]
fn what_is_sound_passes_as_it_is() {
    let sound = header(&[text("a", b"\xff any bytes"), nested(MAX_HEADER_DEPTH - 1)].concat(), "é".as_bytes());
    assert_eq!(replacement(&mut sound.clone(), LIMIT, None), None);
}

#[test]
fn what_passes_is_parsed_and_dropped_with_a_quarter_of_the_stack_that_lapins_thread_has() {
    const QUARTER: usize = 512 * 1024;
    let deepest = header(&nested(MAX_HEADER_DEPTH - 1), b"id");
    assert_eq!(replacement(&mut deepest.clone(), LIMIT, None), None);
    let parsing = std::thread::Builder::new().stack_size(QUARTER).spawn(move || drop(parsed(&deepest)));
    parsing.unwrap().join().unwrap();
}

#[test]
fn what_is_no_text_is_replaced_and_nothing_else_is_lost() {
    let name = [short(b"caf\xe9"), b"t\x01".to_vec()].concat();
    let (properties, defect) = given(&header(&[text("kept", b"1"), name].concat(), b"bad\xff\xfe"), LIMIT);
    assert_eq!(defect, Some(MessageDefect::NotText));
    assert_eq!(names(&properties), ["caf?", "kept", MARK]);
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "bad??");
    assert_eq!(*properties.delivery_mode(), Some(2));
}

#[test]
fn what_is_known_already_is_told_also_where_there_are_no_headers() {
    let mut bare = [vec![0, 60, 0, 0], vec![0; 8], 0x0080_u16.to_be_bytes().to_vec(), short(b"id")].concat();
    let properties = parsed(&replacement(&mut bare, LIMIT, Some(MessageDefect::NotText)).unwrap());
    assert_eq!(names(&properties), [MARK]);
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "id");
}

#[test]
fn tables_inside_each_other_are_emptied_however_many() {
    for depth in [MAX_HEADER_DEPTH, 2_000, 100_000] {
        let (properties, defect) = given(&header(&nested(depth), b"id"), usize::MAX);
        assert_eq!((names(&properties), defect), (vec![MARK], Some(MessageDefect::TooDeep)), "{depth}");
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "id");
    }
}

#[test]
fn wide_tables_are_emptied() {
    let wide: Vec<u8> = (0..=MAX_HEADER_VALUES).flat_map(|number| text(&number.to_string(), b"")).collect();
    assert_eq!(given(&header(&wide, b"id"), LIMIT).1, Some(MessageDefect::TooMany));
    let array = [b"\x01aA".to_vec(), long(&b"V".repeat(100_000))].concat();
    assert_eq!(given(&header(&array, b"id"), LIMIT).1, Some(MessageDefect::TooMany));
}

#[test]
fn what_is_too_long_is_emptied_and_what_just_fits_is_not() {
    let room = LIMIT - header(&text("a", b""), b"id").len();
    assert_eq!(given(&header(&text("a", &vec![b'x'; room]), b"id"), LIMIT).1, None);
    assert_eq!(given(&header(&text("a", &vec![b'x'; room + 1]), b"id"), LIMIT).1, Some(MessageDefect::TooLong));
}

#[test]
fn bytes_after_the_last_property_are_cut() {
    let (properties, defect) = given(&[header(&text("a", b"1"), b"id"), b"more".to_vec()].concat(), LIMIT);
    assert_eq!(defect, Some(MessageDefect::Malformed));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "id");
}

#[test]
fn what_the_broker_added_is_kept_beside_what_cannot_be() {
    let death = [text("reason", b"delivery_limit"), text("queue", b"g.jobs.cdn.purge")].concat();
    let deaths = [short(b"x-death"), b"A".to_vec(), long(&[b"F".to_vec(), long(&death)].concat())].concat();
    let count = [short(b"x-delivery-count"), b"l".to_vec(), 4_i64.to_be_bytes().to_vec()].concat();
    let first = text("x-first-death-reason", b"delivery_limit");
    for hostile in [nested(2_000), text("a", &vec![b'x'; LIMIT]), b"\x01a?".to_vec()] {
        // The broker sorts the headers by name if it adds one.
        let entries = [deaths.clone(), count.clone(), first.clone(), hostile].concat();
        let (properties, defect) = given(&header(&entries, b"id"), LIMIT);
        assert!(defect.is_some());
        assert_eq!(names(&properties), ["x-death", "x-delivery-count", "x-first-death-reason", MARK]);
        let table = properties.headers().as_ref().unwrap().inner();
        assert_eq!(table.get("x-delivery-count"), Some(&AMQPValue::LongLongInt(4)));
        let Some(AMQPValue::FieldArray(deaths)) = table.get("x-death") else { panic!("an array") };
        assert_eq!(deaths.as_slice().len(), 1);
    }
}

#[test]
fn what_only_looks_like_the_brokers_is_not_kept_where_it_is_hostile() {
    let deep = [short(b"x-death"), b"F".to_vec(), long(&nested(2_000))].concat();
    let endless = text("x-first-death-queue", &vec![b'x'; LIMIT / 2]);
    let (properties, defect) = given(&header(&[deep, endless].concat(), b"id"), LIMIT);
    assert_eq!((names(&properties), defect), (vec![MARK], Some(MessageDefect::TooDeep)));
}

/// The broker reads and writes the first, lapin would read the last.
#[test]
fn of_two_with_the_brokers_name_only_the_first_can_be_kept() {
    let long = vec![b'x'; LIMIT / 2];
    let cases: [(&[u8], &[&str]); 2] = [(b"first", &["x-death", MARK]), (&long, &[MARK])];
    for (first, kept) in cases {
        let entries = [text("x-death", first), text("x-death", b"second")].concat();
        let (properties, defect) = given(&header(&entries, b"id"), LIMIT);
        assert_eq!((names(&properties).as_slice(), defect), (kept, Some(MessageDefect::Malformed)));
        let found = properties.headers().as_ref().unwrap().inner().get("x-death").cloned();
        assert_eq!(found, kept.contains(&"x-death").then(|| AMQPValue::LongString(first.to_vec().into())));
    }
}

#[test]
fn whatever_is_missing_at_the_end_lapin_gets_something_it_can_take() {
    let whole = header(&[nested(3), text("a", b"1"), text("x-delivery-count", b"2")].concat(), b"id");
    for kept in 0..whole.len() {
        assert_eq!(given(&whole[..kept], LIMIT).1, Some(MessageDefect::Malformed), "{kept}");
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |length| prop::collection::vec(any::<u8>(), length);
    let fixed = prop_oneof![
        bytes(0..1).prop_map(|_| b"V".to_vec()),
        bytes(1..2).prop_map(|bytes| [b"t".to_vec(), bytes].concat()),
        bytes(8..9).prop_map(|bytes| [b"l".to_vec(), bytes].concat()),
        bytes(5..6).prop_map(|bytes| [b"D".to_vec(), bytes].concat()),
        bytes(0..20).prop_map(|bytes| [b"S".to_vec(), long(&bytes)].concat()),
    ];
    fixed.prop_recursive(20, 64, 4, move |inner| {
        let named = (prop::collection::vec(any::<u8>(), 0..4), inner.clone());
        let table = prop::collection::vec(named.prop_map(|(name, value)| [short(&name), value].concat()), 0..4);
        let array = prop::collection::vec(inner, 0..4);
        prop_oneof![
            table.prop_map(|entries| [b"F".to_vec(), long(&entries.concat())].concat()),
            array.prop_map(|values| [b"A".to_vec(), long(&values.concat())].concat()),
        ]
    })
}

proptest! {
    #[test]
    fn lapin_can_take_whatever_passes_and_it_is_never_longer_than_the_bound(
        values in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..8), value()), 0..6),
        id in prop::collection::vec(any::<u8>(), 0..200),
        flags in prop_oneof![Just(0xb080_u16), any::<u16>()],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kept in prop_oneof![Just(usize::MAX), 0..400_usize],
        limit in prop_oneof![Just(LIMIT), 3_840..4_000_usize],
    ) {
        let entries: Vec<u8> = values.iter().flat_map(|(name, value)| [short(name), value.clone()].concat()).collect();
        let mut payload = header(&entries, &id);
        payload[HEAD..HEAD + 2].copy_from_slice(&flags.to_be_bytes());
        for (index, byte) in changes {
            let at = index.index(payload.len());
            payload[at] = byte;
        }
        payload.truncate(kept);
        let given = replacement(&mut payload, limit, None).unwrap_or(payload);
        prop_assert!(given.len() <= limit + MARKED);
        parsed(&given);
    }

    #[test]
    fn bytes_of_any_kind_become_something_that_lapin_can_take(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut payload = bytes;
        parsed(&replacement(&mut payload, LIMIT, None).unwrap_or(payload));
    }
}
