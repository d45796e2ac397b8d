//! Walks over the encoded fields of methods and properties, without recursion. Replaces invalid UTF-8 in names; changes
//! no length.

use std::ops::Range;

use crate::defect::{MAX_HEADER_DEPTH, MAX_HEADER_VALUES, MessageDefect};

pub(super) type WalkResult<T = ()> = Result<T, MessageDefect>;

/// A position in `bytes`. Fields that end too early or have an unknown type are [`MessageDefect::Malformed`].
pub(super) struct FieldWalk<'a> {
    bytes: &'a mut [u8],
    pub(super) at: usize,
    /// True if an invalid byte was replaced by a question mark.
    pub(super) replaced: bool,
}

/// The encoding of a value, by its type. The types are those that `RabbitMQ` writes and lapin reads.
enum FieldEncoding {
    Fixed(usize),
    /// A long string, which may contain any bytes.
    Long,
    Array,
    Table,
}

impl FieldEncoding {
    fn of(kind: u8) -> WalkResult<Self> {
        Ok(match kind {
            b'V' => Self::Fixed(0),
            b't' | b'b' | b'B' => Self::Fixed(1),
            b's' | b'U' | b'u' => Self::Fixed(2),
            b'I' | b'i' | b'f' => Self::Fixed(4),
            b'D' => Self::Fixed(5),
            b'L' | b'l' | b'd' | b'T' => Self::Fixed(8),
            b'S' | b'x' => Self::Long,
            b'A' => Self::Array,
            b'F' => Self::Table,
            _ => return Err(MessageDefect::Malformed),
        })
    }
}

impl<'a> FieldWalk<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0, replaced: false }
    }

    pub(super) fn length(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Returns true if the entry at this position has this name.
    pub(super) fn is_named(&self, entry: usize, name: &[u8]) -> bool {
        let length = self.bytes.get(entry).copied().map(usize::from);
        length == Some(name.len()) && self.bytes[entry + 1..].starts_with(name)
    }

    pub(super) fn u16(&mut self) -> WalkResult<u16> {
        let at = self.at;
        self.skip(2)?;
        Ok(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// Skips a short string.
    pub(super) fn short(&mut self) -> WalkResult {
        let end = self.bytes.len();
        self.name(end)
    }

    pub(super) fn skip(&mut self, bytes: usize) -> WalkResult {
        let end = self.bytes.len();
        self.pass(bytes, end)
    }

    /// Reads a length of four bytes and returns the end of the field, which must not be after `end`.
    pub(super) fn long(&mut self, end: usize) -> WalkResult<usize> {
        let at = self.at;
        self.pass(4, end)?;
        let length =
            self.bytes[at..self.at].try_into().map(u32::from_be_bytes).map_err(|_| MessageDefect::Malformed)?;
        let ends = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        ends.filter(|ends| *ends <= end).ok_or(MessageDefect::Malformed)
    }

    pub(super) fn table(&mut self) -> WalkResult {
        let end = self.long(self.bytes.len())?;
        self.entries(end)
    }

    /// Skips all entries of a table that ends at `end`, including nested ones. Names in a table must be unique (AMQP
    /// 0-9-1, 4.2.5.5): of two entries with the same name the broker would read the first, and lapin the last.
    pub(super) fn entries(&mut self, end: usize) -> WalkResult {
        // The ends of the enclosing tables and arrays, and the starts of the tables.
        let mut open = [(end, Some(self.at)); MAX_HEADER_DEPTH];
        let (mut depth, mut values, mut names) = (1, 0, Vec::new());
        while depth > 0 {
            let (end, table) = open[depth - 1];
            if self.at == end {
                depth -= 1;
                continue;
            }
            values += 1;
            if values > MAX_HEADER_VALUES {
                return Err(MessageDefect::TooMany);
            }
            if let Some(table) = table {
                let from = self.at;
                self.name(end)?;
                names.push((table, from..self.at));
            }
            match self.value(end)? {
                FieldEncoding::Fixed(bytes) => self.pass(bytes, end)?,
                FieldEncoding::Long => self.at = self.long(end)?,
                inner @ (FieldEncoding::Array | FieldEncoding::Table) => {
                    let ends = self.long(end)?;
                    let table = matches!(inner, FieldEncoding::Table).then_some(self.at);
                    *open.get_mut(depth).ok_or(MessageDefect::TooDeep)? = (ends, table);
                    depth += 1;
                }
            }
        }
        if self.has_duplicates(names) { Err(MessageDefect::Malformed) } else { Ok(()) }
    }

    /// Returns true if two of these names are the same in the same table. Each has the start of its table.
    fn has_duplicates(&self, mut names: Vec<(usize, Range<usize>)>) -> bool {
        let name = |(table, place): &(usize, Range<usize>)| (*table, &self.bytes[place.clone()]);
        names.sort_unstable_by(|one, other| name(one).cmp(&name(other)));
        names.windows(2).any(|pair| name(&pair[0]) == name(&pair[1]))
    }

    /// Skips an entry without checking its value.
    pub(super) fn entry(&mut self, end: usize) -> WalkResult {
        self.name(end)?;
        match self.value(end)? {
            FieldEncoding::Fixed(bytes) => self.pass(bytes, end),
            FieldEncoding::Long | FieldEncoding::Array | FieldEncoding::Table => {
                self.at = self.long(end)?;
                Ok(())
            }
        }
    }

    fn value(&mut self, end: usize) -> WalkResult<FieldEncoding> {
        let at = self.at;
        self.pass(1, end)?;
        FieldEncoding::of(self.bytes[at])
    }

    fn name(&mut self, end: usize) -> WalkResult {
        let at = self.at;
        self.pass(1, end)?;
        let length = usize::from(self.bytes[at]);
        self.pass(length, end)?;
        self.replaced |= replace_invalid_utf8(&mut self.bytes[at + 1..self.at]);
        Ok(())
    }

    fn pass(&mut self, bytes: usize, end: usize) -> WalkResult {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= end).ok_or(MessageDefect::Malformed)?;
        Ok(())
    }
}

fn replace_invalid_utf8(bytes: &mut [u8]) -> bool {
    let mut replaced = false;
    while let Err(error) = str::from_utf8(bytes) {
        let from = error.valid_up_to();
        let to = error.error_len().map_or(bytes.len(), |length| from + length);
        bytes[from..to].fill(b'?');
        replaced = true;
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> WalkResult<bool> {
        let mut bytes = bytes.to_vec();
        let end = bytes.len();
        let mut walk = FieldWalk::new(&mut bytes);
        walk.entries(end).map(|()| walk.replaced)
    }

    /// An entry with `depth` nested tables or arrays.
    fn nested(depth: usize, kind: u8) -> Vec<u8> {
        let mut bytes = match kind {
            b'F' => b"\x01nV".to_vec(),
            _ => b"V".to_vec(),
        };
        for level in 0..depth {
            let name: &[u8] = if kind == b'F' || level + 1 == depth { b"\x01n" } else { b"" };
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            bytes = [name, &[kind], &length, &bytes].concat();
        }
        bytes
    }

    #[test]
    fn the_depth_of_tables_and_arrays_is_bounded() {
        for kind in [b'F', b'A'] {
            assert_eq!(entries(&nested(MAX_HEADER_DEPTH - 1, kind)), Ok(false));
            assert_eq!(entries(&nested(MAX_HEADER_DEPTH, kind)), Err(MessageDefect::TooDeep));
        }
    }

    #[test]
    fn the_number_of_values_is_bounded_at_any_depth() {
        let named = |count: usize| (0..count).flat_map(|n| format!("\x04{n:04}V").into_bytes()).collect::<Vec<_>>();
        assert_eq!(entries(&named(MAX_HEADER_VALUES)), Ok(false));
        assert_eq!(entries(&named(MAX_HEADER_VALUES + 1)), Err(MessageDefect::TooMany));
        let inner = b"V".repeat(MAX_HEADER_VALUES);
        let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
        assert_eq!(entries(&[b"\x01nA", length.as_slice(), &inner].concat()), Err(MessageDefect::TooMany));
    }

    #[test]
    fn no_table_has_a_name_twice() {
        let inside = |kind: &[u8], inner: &[u8]| {
            let length = u32::try_from(inner.len()).unwrap().to_be_bytes();
            [kind, &length, inner].concat()
        };
        assert_eq!(entries(b"\x01nV\x01mV\x01nt\x01"), Err(MessageDefect::Malformed));
        let table = inside(b"F", b"\x01nV\x01nV");
        assert_eq!(entries(&[b"\x01a", table.as_slice()].concat()), Err(MessageDefect::Malformed));
        let array = inside(b"A", &table);
        assert_eq!(entries(&[b"\x01a", array.as_slice()].concat()), Err(MessageDefect::Malformed));
        let array = inside(b"A", &[inside(b"F", b"\x01nV"), inside(b"F", b"\x01nV")].concat());
        assert_eq!(entries(&[b"\x01n", array.as_slice()].concat()), Ok(false), "each in a table of its own");
        assert_eq!(entries(b"\x01\xffV\x01\xfeV"), Err(MessageDefect::Malformed), "they are the same to lapin");
    }

    #[test]
    fn a_value_that_reaches_beyond_its_table_is_malformed() {
        // The inner table ends before its entry; the byte belongs to the outer one.
        assert_eq!(entries(b"\x01nF\0\0\0\x03\x01nt\x01"), Err(MessageDefect::Malformed));
        assert_eq!(entries(b"\x01nF\0\0\0\x05\x01nt\x01"), Err(MessageDefect::Malformed));
        assert_eq!(entries(b"\x01n?"), Err(MessageDefect::Malformed));
    }

    #[test]
    fn names_become_text_and_long_strings_are_unchanged() {
        let mut bytes = b"\x02a\xffS\0\0\0\x01\xff\x02\xc3(V".to_vec();
        let end = bytes.len();
        let mut walk = FieldWalk::new(&mut bytes);
        walk.entries(end).unwrap();
        assert!(walk.replaced && walk.is_at_end());
        assert_eq!(bytes, b"\x02a?S\0\0\0\x01\xff\x02?(V");
    }
}
