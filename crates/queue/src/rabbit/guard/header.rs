//! Checks whether lapin can read the properties of a message in the payload of a header frame, and replaces them if it
//! cannot.

use std::ops::Range;

use super::{
    MARK,
    walk::{FieldWalk, WalkResult},
};
use crate::defect::MessageDefect;

/// Length of class, weight and body length in bytes; the flags follow.
const HEAD: usize = 12;
/// The flags that stand for properties.
const KNOWN: u16 = 0xfffc;
/// Index of the headers among the properties.
const HEADERS: usize = 2;

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

/// Headers that the broker sets. They are kept, if they are valid, when all others are removed.
const BROKERS: [&[u8]; 8] = [
    b"x-death",
    b"x-delivery-count",
    b"x-first-death-exchange",
    b"x-first-death-queue",
    b"x-first-death-reason",
    b"x-last-death-exchange",
    b"x-last-death-queue",
    b"x-last-death-reason",
];
/// Maximum length of all other properties and a mark together.
const OTHERS: usize = 3 * 1024;

#[derive(Clone, Copy)]
enum Property {
    Short,
    Table,
    Fixed(usize),
}

/// The positions of the properties, as far as they could be found.
#[derive(Default)]
struct PropertyPositions {
    flags: u16,
    /// The properties before the headers.
    before: Range<usize>,
    /// The entries of the headers. If their end is invalid, they reach to the end of the payload.
    entries: Range<usize>,
    /// The properties after the headers; `None` if their positions could not be found.
    after: Option<Range<usize>>,
    /// The reason why lapin cannot read the headers.
    defect: Option<MessageDefect>,
}

/// Returns a payload that replaces `payload`, no longer than `limit` and a mark. `None` if lapin can read the payload
/// unchanged, and no defect of the message is `known` from its method.
pub(super) fn replacement(payload: &mut [u8], limit: usize, known: Option<MessageDefect>) -> Option<Vec<u8>> {
    let mut places = PropertyPositions::default();
    let mut walk = FieldWalk::new(payload);
    let walked = places.find(&mut walk);
    let (replaced, surplus) = (walk.replaced, !walk.is_at_end());
    let lost = walked.err().or(places.defect).or(surplus.then_some(MessageDefect::Malformed));
    let lost = if payload.len() > limit { Some(MessageDefect::TooLong) } else { lost };
    let defect = lost.or(replaced.then_some(MessageDefect::NotText)).or(known)?;
    let headers = match lost {
        None => payload[places.entries.clone()].to_vec(),
        Some(_) => broker_entries(payload, places.entries.clone(), limit.saturating_sub(OTHERS) / BROKERS.len()),
    };
    Some(places.with_headers(payload, &[headers, mark(defect)].concat()))
}

impl PropertyPositions {
    fn find(&mut self, walk: &mut FieldWalk<'_>) -> WalkResult {
        walk.skip(HEAD)?;
        let flags = walk.u16()?;
        let begin = walk.at;
        for (index, property) in PROPERTIES.into_iter().enumerate() {
            if index == HEADERS {
                self.before = begin..walk.at;
            }
            if flags & (0x8000 >> index) != 0 {
                match property {
                    Property::Short => walk.short()?,
                    Property::Table => self.find_headers(walk)?,
                    Property::Fixed(bytes) => walk.skip(bytes)?,
                }
            }
            if index == HEADERS {
                self.after = Some(walk.at..walk.at);
            }
        }
        self.flags = flags & KNOWN;
        self.after = self.after.take().map(|after| after.start..walk.at);
        Ok(())
    }

    /// Finds the headers, and continues after them even if they are invalid.
    fn find_headers(&mut self, walk: &mut FieldWalk<'_>) -> WalkResult {
        let all = walk.length();
        self.entries = (walk.at + 4).min(all)..all;
        let end = walk.long(all)?;
        self.entries.end = end;
        self.defect = walk.entries(end).err();
        walk.at = end;
        Ok(())
    }

    /// Returns the payload with other `headers`.
    fn with_headers(&self, payload: &[u8], headers: &[u8]) -> Vec<u8> {
        // If a property is invalid, all properties are removed, because the flags would not match.
        let whole = self.after.as_ref().filter(|_| self.flags != 0);
        let (before, after) =
            whole.map_or((&[][..], &[][..]), |after| (&payload[self.before.clone()], &payload[after.clone()]));
        let flags = (if whole.is_some() { self.flags } else { 0 }) | (0x8000 >> HEADERS);
        let length = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let mut head = payload[..payload.len().min(HEAD)].to_vec();
        head.resize(HEAD, 0);
        [&head, flags.to_be_bytes().as_slice(), before, &length.to_be_bytes(), headers, after].concat()
    }
}

/// Returns the entries that the broker has set, each of at most `longest` bytes. Of two with the same name the first is
/// used, because the broker writes to that one.
fn broker_entries(payload: &mut [u8], entries: Range<usize>, longest: usize) -> Vec<u8> {
    let mut walk = FieldWalk::new(payload);
    walk.at = entries.start;
    let mut found: [Option<Range<usize>>; BROKERS.len()] = Default::default();
    while walk.at < entries.end {
        let from = walk.at;
        if walk.entry(entries.end).is_err() {
            break;
        }
        let place = BROKERS.iter().position(|name| walk.is_named(from, name));
        if let Some(place) = place {
            found[place].get_or_insert(from..walk.at);
        }
    }
    let mut kept = Vec::new();
    for entry in found.into_iter().flatten().filter(|entry| entry.len() <= longest) {
        let mut entry = payload[entry].to_vec();
        let end = entry.len();
        if FieldWalk::new(&mut entry).entries(end).is_ok() {
            kept.append(&mut entry);
        }
    }
    kept
}

fn mark(defect: MessageDefect) -> Vec<u8> {
    let (name, word) = (MARK.as_bytes(), defect.as_str().as_bytes());
    let short = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap_or_default();
    [&[short(name)], name, &[b'S', 0, 0, 0, short(word)], word].concat()
}

#[cfg(test)]
mod tests;
