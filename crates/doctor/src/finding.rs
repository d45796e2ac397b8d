//! The result of a check.

use std::fmt::Display;

use genfleet_core::handler::ServiceCheck;
use serde::Serialize;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Correct.
    Ok,
    /// Could not be checked. The finding gives the reason, and how to check it.
    Skipped,
    /// Works now, but may fail later.
    Warning,
    /// Does not work, or loses data.
    Failed,
}

/// The result of one check of one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The name of the check, for programs: `broker.policies`.
    pub check: &'static str,
    /// The severity.
    pub level: Level,
    /// The subject: an address, a file, a queue, ….
    pub looked_at: String,
    /// The state of the subject.
    pub found: String,
    /// The remedy; `None` if the level is [`Level::Ok`].
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// A check of one subject. Its methods make findings about it.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    name: &'static str,
    looked_at: String,
}

impl Check {
    /// Creates the check with this name, of this subject.
    pub(crate) fn new(name: &'static str, looked_at: impl Display) -> Self {
        Self { name, looked_at: looked_at.to_string() }
    }

    /// Returns a finding for a correct subject.
    pub(crate) fn ok(&self, found: impl Display) -> Finding {
        let looked_at = self.looked_at.clone();
        Finding { check: self.name, level: Level::Ok, looked_at, found: found.to_string(), remedy: None }
    }

    /// Returns a finding for a subject that could not be checked.
    pub(crate) fn skipped(&self, reason: impl Display, remedy: impl Display) -> Finding {
        self.of(Level::Skipped, reason, remedy)
    }

    pub(crate) fn warning(&self, found: impl Display, remedy: impl Display) -> Finding {
        self.of(Level::Warning, found, remedy)
    }

    /// Returns a finding for a subject that does not work.
    pub(crate) fn failed(&self, found: impl Display, remedy: impl Display) -> Finding {
        self.of(Level::Failed, found, remedy)
    }

    /// Returns a finding with a level that is not known in advance.
    pub(crate) fn of(&self, level: Level, found: impl Display, remedy: impl Display) -> Finding {
        Finding { level, remedy: Some(remedy.to_string()), ..self.ok(found) }
    }
}

impl From<ServiceCheck> for Finding {
    fn from(ServiceCheck { check, looked_at, found }: ServiceCheck) -> Self {
        let check = Check::new(check, looked_at);
        match found {
            Ok(found) => check.ok(found),
            Err((found, remedy)) => check.failed(found, remedy),
        }
    }
}

/// Joins the first five names, and says how many more there are.
pub(crate) fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let first = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{first} and {} more", names.len() - SHOWN) } else { first }
}

/// Formats a number of bytes for people: `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((unit, name)) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(unit);
    if tenths % 10 == 0 || tenths >= 1000 {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lists_are_short() {
        let shown = [1023, 1 << 20, 1_572_864, 1 << 40].map(size);
        assert_eq!(shown, ["1023 bytes", "1 MiB", "1.5 MiB", "1024 GiB"]);
        let names: Vec<_> = (1..=7).map(|number| number.to_string()).collect();
        assert_eq!(some(&names), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!(some(&names[..2]), "1, 2");
    }
}
