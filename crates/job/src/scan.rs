//! A scan of a body before it is parsed: the number and depth of its values, duplicate members, and numbers that would
//! lose digits. One pass, without recursion.
//!
//! Does not know the grammar of JSON: the parser decides afterwards if a body is JSON at all, and then the results of
//! the scan count.

use std::{borrow::Cow, collections::HashSet, fmt::Write};

use super::{MAX_NESTING, MAX_VALUES, number, violation::Violations};
use crate::Violation;

#[cfg(test)]
mod tests;

/// The limit that a body exceeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    /// Arrays and objects are nested deeper than [`MAX_NESTING`] at this byte.
    Nesting(usize),
    /// There are more than [`MAX_VALUES`] values; with a pointer to the list or object in which the limit is exceeded.
    Values(String),
}

/// The number of members of an object beyond which names are looked up by hash.
const FEW: usize = 16;

/// Finds violations in `body` that a parsed value does not show.
pub(super) fn scan(body: &[u8]) -> Result<Violations, LimitExceeded> {
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

/// An open list or object, and the position of the scan in it.
enum Open<'a> {
    List(usize),
    Object(Names<'a>),
}

/// The names of an object's members so far.
#[derive(Default)]
struct Names<'a> {
    few: Vec<Cow<'a, [u8]>>,
    many: HashSet<Cow<'a, [u8]>>,
    /// The current member; `None` before its name was read.
    now: Option<Cow<'a, [u8]>>,
}

impl<'a> Names<'a> {
    /// Adds a name. Returns false if it is a duplicate.
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
    fn step(&mut self, byte: u8) -> Result<(), LimitExceeded> {
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
    fn text(&mut self) -> Result<(), LimitExceeded> {
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
                self.report("this member is there twice: which one counts would be chance; remove one");
            }
            return Ok(());
        }
        self.value()
    }

    fn number(&mut self) -> Result<(), LimitExceeded> {
        let end = self.end_of(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        let changed = number::explain_change(&self.body[self.at..end]);
        self.at = end;
        if let Some(how) = changed {
            self.report(how);
        }
        self.value()
    }

    /// `true`, `false`, `null`.
    fn word(&mut self) -> Result<(), LimitExceeded> {
        self.at = self.end_of(u8::is_ascii_alphabetic);
        self.value()
    }

    fn enter(&mut self, list_or_object: Open<'a>) -> Result<(), LimitExceeded> {
        if self.open.len() == MAX_NESTING {
            return Err(LimitExceeded::Nesting(self.at));
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

    fn value(&mut self) -> Result<(), LimitExceeded> {
        self.values += 1;
        if self.values <= MAX_VALUES {
            return Ok(());
        }
        self.open.pop();
        Err(LimitExceeded::Values(self.pointer()))
    }

    /// Records a violation at the current position.
    fn report(&mut self, what: &str) {
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
                    // Writing to a String does not fail.
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

    /// The end of the token that begins here.
    fn end_of(&self, is_part: impl Fn(&u8) -> bool) -> usize {
        let rest = &self.body[self.at..];
        self.at + rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())
    }
}

/// Unescapes a quoted name.
fn name(quoted: &[u8]) -> Cow<'_, [u8]> {
    let written = &quoted[1..quoted.len() - 1];
    if !written.contains(&b'\\') {
        return written.into();
    }
    serde_json::from_slice::<String>(quoted).map_or(written.into(), |name| name.into_bytes().into())
}
