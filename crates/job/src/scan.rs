//! The first look at a body, before anything is made of it: how many values it has and how deep they lie, members that
//! are there twice, numbers that would not keep their digits. One pass, no recursion.
//!
//! Does not know JSON's grammar: whether a body is JSON at all is what the parser says, which only then reads it. What
//! is found in a body that is none counts for nothing.

use std::{borrow::Cow, collections::HashSet, fmt::Write};

use super::{MAX_NESTING, MAX_VALUES, number, violation::Violations};
use crate::Violation;

#[cfg(test)]
mod tests;

/// Why a body is not looked at any further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// At this byte, arrays and objects lie deeper inside each other than [`MAX_NESTING`].
    Nesting(usize),
    /// There are more than [`MAX_VALUES`] values: the list or object in which the first one too many is.
    Values(String),
}

/// The names of an object with more members than this are looked up by hash.
const FEW: usize = 16;

/// What is wrong with `body` and cannot be seen any more once it is parsed.
pub(super) fn scan(body: &[u8]) -> Result<Violations, Beyond> {
    let mut scan = Scan { body, at: 0, open: Vec::new(), values: 0, found: Violations::default() };
    while let Some(byte) = body.get(scan.at) {
        scan.step(*byte)?;
    }
    Ok(scan.found)
}

struct Scan<'a> {
    body: &'a [u8],
    at: usize,
    open: Vec<Open<'a>>,
    values: usize,
    found: Violations,
}

/// A list or object that is not closed yet, and how far the scan is in it.
enum Open<'a> {
    List(usize),
    Object(Names<'a>),
}

/// The names of an object's members so far.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, [u8]>>,
    many: HashSet<Cow<'a, [u8]>>,
    /// Of the member that the scan is in; none before its name was read.
    now: Option<Cow<'a, [u8]>>,
}

impl<'a> Names<'a> {
    /// Whether it is a new one.
    fn add(&mut self, name: Cow<'a, [u8]>) -> bool {
        self.now = Some(name.clone());
        if self.few.contains(&name) {
            return false;
        }
        if self.few.len() < FEW {
            self.few.push(name);
            return true;
        }
        self.many.insert(name)
    }
}

impl<'a> Scan<'a> {
    fn step(&mut self, byte: u8) -> Result<(), Beyond> {
        match byte {
            b'"' => return self.text(),
            b'[' => return self.enter(Open::List(0)),
            b'{' => return self.enter(Open::Object(Names::default())),
            b'-' | b'0'..=b'9' => return self.number(),
            byte if byte.is_ascii_alphabetic() => return self.word(),
            b']' | b'}' => self.leave(),
            b',' => self.next(),
            _ => self.at += 1,
        }
        Ok(())
    }

    /// A member's name, or a value.
    fn text(&mut self) -> Result<(), Beyond> {
        let (begin, mut escaped) = (self.at, false);
        let rest = &self.body[begin + 1..];
        let length = rest.iter().position(|byte| {
            let plain = !std::mem::take(&mut escaped);
            escaped = plain && *byte == b'\\';
            plain && *byte == b'"'
        });
        let end = begin + 1 + length.unwrap_or(rest.len());
        self.at = end + 1;
        let body = self.body;
        if let Some(Open::Object(names)) = self.open.last_mut().filter(|_| length.is_some())
            && names.now.is_none()
        {
            if !names.add(name(&body[begin..=end])) {
                self.find("this member is there twice: which one counts would be chance; remove one");
            }
            return Ok(());
        }
        self.value()
    }

    fn number(&mut self) -> Result<(), Beyond> {
        let end = self.end_of(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let changed = number::changed(&self.body[self.at..end]);
        self.at = end;
        if let Some(how) = changed {
            self.find(how);
        }
        self.value()
    }

    /// `true`, `false`, `null`.
    fn word(&mut self) -> Result<(), Beyond> {
        self.at = self.end_of(u8::is_ascii_alphabetic);
        self.value()
    }

    fn enter(&mut self, list_or_object: Open<'a>) -> Result<(), Beyond> {
        if self.open.len() == MAX_NESTING {
            return Err(Beyond::Nesting(self.at));
        }
        self.value()?;
        self.open.push(list_or_object);
        self.at += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.open.pop();
        self.at += 1;
    }

    fn next(&mut self) {
        match self.open.last_mut() {
            Some(Open::List(index)) => *index += 1,
            Some(Open::Object(names)) => names.now = None,
            None => {}
        }
        self.at += 1;
    }

    fn value(&mut self) -> Result<(), Beyond> {
        self.values += 1;
        if self.values <= MAX_VALUES {
            return Ok(());
        }
        self.open.pop();
        Err(Beyond::Values(self.pointer()))
    }

    /// Says what is wrong where the scan is.
    fn find(&mut self, what: &str) {
        if self.found.is_full() {
            self.found.count(1);
        } else {
            self.found.push(Violation::new(self.pointer(), what));
        }
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for open in &self.open {
            match open {
                Open::List(index) => {
                    // A text takes everything.
                    let _ = write!(pointer, "/{index}");
                }
                Open::Object(names) => {
                    let name = String::from_utf8_lossy(names.now.as_deref().unwrap_or_default());
                    pointer.push('/');
                    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                }
            }
        }
        pointer
    }

    /// Where what begins here ends.
    fn end_of(&self, is_part: impl Fn(&u8) -> bool) -> usize {
        let rest = &self.body[self.at..];
        self.at + rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())
    }
}

/// The name that `quoted` writes: one may be written in several ways.
fn name(quoted: &[u8]) -> Cow<'_, [u8]> {
    let written = &quoted[1..quoted.len() - 1];
    if !written.contains(&b'\\') {
        return written.into();
    }
    serde_json::from_slice::<String>(quoted).map_or(written.into(), |name| name.into_bytes().into())
}
