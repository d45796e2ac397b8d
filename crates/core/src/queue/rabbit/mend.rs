//! What of a frame lapin takes for text, made text: a byte that is no UTF-8 becomes a question mark, in place, and
//! nothing else changes.
//!
//! `RabbitMQ` holds names, ids and keys to be bytes, lapin (4.12.3) holds them to be text and ends the connection over
//! one that is not. Whoever looks at dead letters has to see those too: they are what such a message ends as.
//! [`stream`] puts this between the broker and lapin.

pub(super) mod stream;

/// What text there is in the frames that carry messages; other frames hold names of ours.
const DELIVER: (u16, u16) = (60, 60);
const GET_OK: (u16, u16) = (60, 71);
const RETURN: (u16, u16) = (60, 50);

/// Properties in the order of their flags, from the highest bit.
const PROPERTIES: [Property; 14] = [
    Property::Short,    // content type
    Property::Short,    // content encoding
    Property::Table,    // headers
    Property::Fixed(1), // delivery mode
    Property::Fixed(1), // priority
    Property::Short,    // correlation id
    Property::Short,    // reply to
    Property::Short,    // expiration
    Property::Short,    // message id
    Property::Fixed(8), // timestamp
    Property::Short,    // type
    Property::Short,    // user id
    Property::Short,    // app id
    Property::Short,    // cluster id
];

#[derive(Clone, Copy)]
enum Property {
    Short,
    Table,
    Fixed(usize),
}

/// Mends the arguments of a method; whether there was anything to mend. What does not parse is left to lapin.
pub(super) fn method(payload: &mut [u8]) -> bool {
    let mut walk = Walk { bytes: payload, at: 0, mended: false };
    let _ = walk.method();
    walk.mended
}

/// Mends the properties of a message, as [`method`].
pub(super) fn properties(payload: &mut [u8]) -> bool {
    let mut walk = Walk { bytes: payload, at: 0, mended: false };
    let _ = walk.properties();
    walk.mended
}

/// The delivery tag, where the method hands over a message.
pub(super) fn delivery_tag(payload: &[u8]) -> Option<u64> {
    let name = (u16_at(payload, 0)?, u16_at(payload, 2)?);
    let at = match name {
        DELIVER => 5 + usize::from(*payload.get(4)?),
        GET_OK => 4,
        _ => return None,
    };
    payload.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// One pass over a payload; `None` where it ends too early or holds what this does not know.
struct Walk<'a> {
    bytes: &'a mut [u8],
    at: usize,
    mended: bool,
}

impl Walk<'_> {
    fn method(&mut self) -> Option<()> {
        let name = (self.u16()?, self.u16()?);
        match name {
            DELIVER => {
                self.short()?;
                self.skip(9)?;
            }
            GET_OK => self.skip(9)?,
            RETURN => {
                self.skip(2)?;
                self.short()?;
            }
            _ => return Some(()),
        }
        self.short()?;
        self.short()
    }

    fn properties(&mut self) -> Option<()> {
        // Class, weight and the body's length.
        self.skip(12)?;
        let flags = self.u16()?;
        for (index, property) in PROPERTIES.into_iter().enumerate() {
            if flags & (0x8000 >> index) != 0 {
                match property {
                    Property::Short => self.short()?,
                    Property::Table => self.table()?,
                    Property::Fixed(bytes) => self.skip(bytes)?,
                }
            }
        }
        Some(())
    }

    fn table(&mut self) -> Option<()> {
        let end = self.end()?;
        while self.at < end {
            self.short()?;
            self.value()?;
        }
        Some(())
    }

    fn array(&mut self) -> Option<()> {
        let end = self.end()?;
        while self.at < end {
            self.value()?;
        }
        Some(())
    }

    /// Types as `RabbitMQ` writes them and lapin reads them. A long string may be any bytes.
    fn value(&mut self) -> Option<()> {
        let kind = *self.bytes.get(self.at)?;
        self.skip(1)?;
        match kind {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => {
                self.at = self.end()?;
                Some(())
            }
            b'A' => self.array(),
            b'F' => self.table(),
            _ => None,
        }
    }

    fn short(&mut self) -> Option<()> {
        let length = usize::from(*self.bytes.get(self.at)?);
        let text = self.bytes.get_mut(self.at + 1..self.at + 1 + length)?;
        self.mended |= make_text(text);
        self.skip(1 + length)
    }

    /// Where what follows a length of four bytes ends.
    fn end(&mut self) -> Option<usize> {
        let length = self.bytes.get(self.at..self.at + 4)?.try_into().ok().map(u32::from_be_bytes)?;
        self.skip(4)?;
        let end = self.at.checked_add(usize::try_from(length).ok()?)?;
        (end <= self.bytes.len()).then_some(end)
    }

    fn u16(&mut self) -> Option<u16> {
        let number = u16_at(self.bytes, self.at)?;
        self.skip(2)?;
        Some(number)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.at = self.at.checked_add(bytes)?;
        (self.at <= self.bytes.len()).then_some(())
    }
}

fn make_text(bytes: &mut [u8]) -> bool {
    let mut mended = false;
    while let Err(error) = str::from_utf8(bytes) {
        let from = error.valid_up_to();
        let to = error.error_len().map_or(bytes.len(), |length| from + length);
        bytes[from..to].fill(b'?');
        mended = true;
    }
    mended
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short(text: &[u8]) -> Vec<u8> {
        [&[u8::try_from(text.len()).unwrap()], text].concat()
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// Headers and a message id, with everything a table can hold before what is to be mended.
    fn header(name: &[u8], id: &[u8]) -> Vec<u8> {
        let deep = [short(name), b"t\x01".to_vec()].concat();
        let array = [b"S".to_vec(), long(b"\xff any bytes"), b"F".to_vec(), long(&deep), b"V".to_vec()].concat();
        let numbers = [
            [short(b"b"), b"b\x01".to_vec()].concat(),
            [short(b"s"), b"s\x01\x02".to_vec()].concat(),
            [short(b"I"), b"I\x01\x02\x03\x04".to_vec()].concat(),
            [short(b"D"), b"D\x01\x02\x03\x04\x05".to_vec()].concat(),
            [short(b"T"), b"T\x01\x02\x03\x04\x05\x06\x07\x08".to_vec()].concat(),
        ];
        let table = [numbers.concat(), short(b"a"), b"A".to_vec(), long(&array), short(name), b"V".to_vec()].concat();
        let flags = 0b0010_0000_1000_0000_u16.to_be_bytes();
        [vec![0, 60, 0, 0], 2_u64.to_be_bytes().to_vec(), flags.to_vec(), long(&table), short(id)].concat()
    }

    #[test]
    fn names_of_headers_at_any_depth_and_ids_become_text_and_the_rest_stays() {
        let mut bytes = header(b"caf\xe9", b"bad\xff\xfe");
        assert!(properties(&mut bytes));
        assert_eq!(bytes, header(b"caf?", b"bad??"));
    }

    #[test]
    fn what_is_text_is_not_touched() {
        let good = header("café".as_bytes(), b"job-1");
        let mut bytes = good.clone();
        assert!(!properties(&mut bytes));
        assert_eq!(bytes, good);
    }

    #[test]
    fn keys_of_deliveries_become_text() {
        let deliver = |key: &[u8]| {
            [vec![0, 60, 0, 60], short(b"tag"), 7_u64.to_be_bytes().to_vec(), vec![0], short(b"g.jobs"), short(key)]
                .concat()
        };
        let mut bytes = deliver(b"cdn.\xc3(");
        assert!(method(&mut bytes));
        assert_eq!(bytes, deliver(b"cdn.?("));
        assert_eq!(delivery_tag(&bytes), Some(7));
        let mut got = [vec![0, 60, 0, 71], 8_u64.to_be_bytes().to_vec(), vec![0], short(b"\xff"), short(b"k")].concat();
        assert!(method(&mut got));
        assert_eq!(delivery_tag(&got), Some(8));
    }

    proptest! {
        #[test]
        fn nothing_is_lengthened_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for mend in [method, properties] {
                let mut mended = bytes.clone();
                mend(&mut mended);
                prop_assert_eq!(mended.len(), bytes.len());
            }
            delivery_tag(&bytes);
        }

        #[test]
        fn whatever_was_mended_is_text_then(id in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = header(b"name", &id);
            prop_assert_eq!(properties(&mut bytes), str::from_utf8(&id).is_err());
            let at = bytes.len() - id.len();
            prop_assert!(str::from_utf8(&bytes[at..]).is_ok());
        }
    }
}
