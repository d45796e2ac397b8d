//! A text with its escapes decoded, and the place in the original of each byte. A text may be escaped more than once (a
//! query string in a JSON text in a page), so it is decoded layer by layer.
//!
//! The escapes of URLs, JSON, HTML and programs' literals are known. All are decoded at once: a text that only looks
//! like an escape is found in the layer above.

use std::ops::Range;

/// The most layers below the original.
pub(super) const MOST: usize = 5;

/// Returns true for a text that reads in one way only, exactly as it is written.
pub(super) fn is_only_layer(text: &[u8]) -> bool {
    !text.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n' | b'+' | b'%' | b'\\' | b'&'))
}

/// A text in one layer of encoding.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// The decoded text: without NUL (UTF-16 has one beside each ASCII character) and line ends (long base64 has some),
    /// and with spaces for pluses (forms write the one for the other).
    pub bytes: Vec<u8>,
    /// The begin and end of each byte in the original. Bodies have at most 4 MiB.
    places: Vec<(u32, u32)>,
}

impl Layer {
    pub(super) fn of(text: &[u8]) -> Self {
        let mut layer = Self::with_capacity(text.len());
        for (at, byte) in (0_u32..).zip(text) {
            layer.put(*byte, (at, at + 1));
        }
        layer
    }

    /// Decodes one more level of escapes; `None` if there is none.
    pub(super) fn decode(&self) -> Option<Self> {
        let is_mark = |byte: &u8| matches!(byte, b'%' | b'\\' | b'&');
        let first = self.bytes.iter().position(is_mark)?;
        let mut layer = Self::with_capacity(self.bytes.len());
        layer.bytes.extend_from_slice(&self.bytes[..first]);
        layer.places.extend_from_slice(&self.places[..first]);
        let (mut at, mut found) = (first, false);
        while at < self.bytes.len() {
            let Some((character, length)) = escape(&self.bytes[at..]) else {
                layer.put(self.bytes[at], self.places[at]);
                at += 1;
                continue;
            };
            let place = (self.places[at].0, self.places[at + length - 1].1);
            match character {
                Decoded::Byte(byte) => layer.put(byte, place),
                Decoded::Character(character) => {
                    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                        layer.put(byte, place);
                    }
                }
            }
            (at, found) = (at + length, true);
        }
        found.then_some(layer)
    }

    /// Returns the place in the original of the bytes of `range`.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let places = &self.places[range];
        let end = |place: Option<&(u32, u32)>| place.map_or(0, |place| place.1 as usize);
        places.first().map_or(0, |place| place.0 as usize)..end(places.last())
    }

    fn with_capacity(length: usize) -> Self {
        Self { bytes: Vec::with_capacity(length), places: Vec::with_capacity(length) }
    }

    fn put(&mut self, byte: u8, place: (u32, u32)) {
        if !matches!(byte, 0 | b'\r' | b'\n') {
            self.bytes.push(if byte == b'+' { b' ' } else { byte });
            self.places.push(place);
        }
    }
}

enum Decoded {
    Byte(u8),
    Character(char),
}

/// Decodes the escape at the beginning of `text`; also returns its length.
fn escape(text: &[u8]) -> Option<(Decoded, usize)> {
    match text {
        [b'%', b'u', ..] => character(text, 2),
        [b'%', ..] => byte(text, 1),
        [b'\\', b'u', b'{', ..] => {
            let (character, length) = number(&text[3..], 16, b'}')?;
            Some((Decoded::Character(character), length + 3))
        }
        [b'\\', b'u', ..] => character(text, 2),
        [b'\\', b'x', ..] => byte(text, 2),
        [b'\\', b'n' | b'r', ..] => Some((Decoded::Byte(b'\n'), 2)),
        [b'\\', b't', ..] => Some((Decoded::Byte(b'\t'), 2)),
        [b'\\', escaped @ (b'\\' | b'/' | b'"' | b'\''), ..] => Some((Decoded::Byte(*escaped), 2)),
        [b'&', b'#', b'x' | b'X', ..] => entity(&text[3..], 16, 3),
        [b'&', b'#', ..] => entity(&text[2..], 10, 2),
        [b'&', ..] => NAMED
            .iter()
            .find(|(name, _)| text.starts_with(name.as_bytes()))
            .map(|(name, byte)| (Decoded::Byte(*byte), name.len())),
        _ => None,
    }
}

const NAMED: [(&str, u8); 8] = [
    ("&amp;", b'&'),
    ("&lt;", b'<'),
    ("&gt;", b'>'),
    ("&quot;", b'"'),
    ("&apos;", b'\''),
    ("&plus;", b'+'),
    ("&sol;", b'/'),
    ("&equals;", b'='),
];

/// Decodes two hexadecimal digits after `before` bytes.
fn byte(text: &[u8], before: usize) -> Option<(Decoded, usize)> {
    let digits = text.get(before..before + 2)?;
    let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | hex(*digit)?))?;
    Some((Decoded::Byte(value), before + 2))
}

/// Decodes four hexadecimal digits after `before` bytes, and once more for a surrogate pair.
fn character(text: &[u8], before: usize) -> Option<(Decoded, usize)> {
    let unit = |text: &[u8]| -> Option<u16> {
        let digits = text.get(before..before + 4)?;
        digits.iter().try_fold(0, |value, digit| Some(value << 4 | u16::from(hex(*digit)?)))
    };
    let length = before + 4;
    let first = unit(text)?;
    let second = text.get(length..).filter(|rest| rest.starts_with(&text[..before])).and_then(unit);
    let units = [first, second.unwrap_or_default()];
    match char::decode_utf16(units).next()? {
        Ok(character) => Some((Decoded::Character(character), character.len_utf16() * length)),
        Err(_) => None,
    }
}

fn entity(text: &[u8], radix: u32, before: usize) -> Option<(Decoded, usize)> {
    let (character, length) = number(text, radix, b';')?;
    Some((Decoded::Character(character), before + length))
}

/// Decodes a character's number up to `end`; also returns its length with `end`.
fn number(text: &[u8], radix: u32, end: u8) -> Option<(char, usize)> {
    let length = text.iter().take(8).position(|byte| *byte == end)?;
    let digits = std::str::from_utf8(&text[..length]).ok()?;
    let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    Some((character, length + 1))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> String {
        let layer = Layer::of(text.as_bytes()).decode();
        layer.map_or("none".to_owned(), |layer| String::from_utf8_lossy(&layer.bytes).into_owned())
    }

    #[test]
    fn escapes_are_decoded_and_what_only_looks_like_one_is_left() {
        for (text, read) in [
            ("%41%2f%2F%c3%a9%u0042", "A//éB"),
            (r#"\u0041\/\"\\\x2f\u{e9}\ud83d\ude00\n\'"#, r#"A/"\/é😀'"#),
            ("&#65;&#x2f;&amp;&lt;&gt;&quot;&apos;&plus;&sol;&equals;", "A/&<>\"' /="),
            ("%2541 \\\\u0041 &amp;#65;", "%41 \\u0041 &#65;"),
            (r"%4 %zz %u00 \u00 \ud83d \q & &#; &#x; &#99999999; &nbsp; \u{} % \", "none"),
            ("s\0e\0c\0\r\n+%00%0a%2b\\u0000", "sec  "),
        ] {
            assert_eq!(decode(text), read, "{text}");
        }
    }

    #[test]
    fn a_text_without_escapes_is_its_only_layer() {
        for byte in 0..=u8::MAX {
            let text = [b'a', byte, b'4', b'1', b';'];
            let first = Layer::of(&text);
            let is_changed = first.bytes != text || first.decode().is_some();
            assert!(!(is_changed && is_only_layer(&text)), "{byte}");
        }
        assert!(is_only_layer("7d9cbd9a-3f4d, W/\"é\" {'a': [1.5]}".as_bytes()));
    }

    #[test]
    fn every_byte_is_known_in_the_original() {
        let text = "é%41\\u0042\0 &amp;%2543";
        let first = Layer::of(text.as_bytes());
        let second = first.decode().unwrap();
        let third = second.decode().unwrap();
        assert!(third.decode().is_none());
        let origin = |layer: &Layer, read: &str| {
            let at = layer.bytes.windows(read.len()).position(|bytes| bytes == read.as_bytes()).unwrap();
            text[layer.origin(at..at + read.len())].to_owned()
        };
        assert_eq!(origin(&first, "é%41"), "é%41");
        assert_eq!(origin(&second, "AB"), "%41\\u0042");
        assert_eq!(origin(&second, "&"), "&amp;");
        assert_eq!(origin(&third, "C"), "%2543");
        assert_eq!(origin(&third, " &C"), " &amp;%2543");
    }
}
