//! What a check found.

use std::fmt::Display;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be looked at; why, and how it can be.
    Skipped,
    /// Works, and may not for long.
    Warning,
    /// Does not work, or loses something.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Names the check, for programs: `broker.policies`.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub looked_at: String,
    /// What was found there.
    pub found: String,
    /// What to do; none where all is well.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, looked_at: impl Display, found: impl Display) -> Self {
        Self { check, level: Level::Ok, looked_at: looked_at.to_string(), found: found.to_string(), remedy: None }
    }

    /// Not looked at, and how it can be.
    pub fn skipped(check: &'static str, looked_at: impl Display, why: impl Display, remedy: impl Display) -> Self {
        Self::of(Level::Skipped, (check, &looked_at), &why, &remedy)
    }

    /// May become a failure.
    pub(crate) fn warning(
        check: &'static str,
        looked_at: impl Display,
        found: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self::of(Level::Warning, (check, &looked_at), &found, &remedy)
    }

    /// Is one.
    pub fn failed(check: &'static str, looked_at: impl Display, found: impl Display, remedy: impl Display) -> Self {
        Self::of(Level::Failed, (check, &looked_at), &found, &remedy)
    }

    /// Of a level that is found out.
    pub(crate) fn of(
        level: Level,
        (check, looked_at): (&'static str, &dyn Display),
        found: &dyn Display,
        remedy: &dyn Display,
    ) -> Self {
        let remedy = Some(remedy.to_string());
        Self { check, level, looked_at: looked_at.to_string(), found: found.to_string(), remedy }
    }
}

/// The first few of many, and how many more there are.
pub(crate) fn some(names: &[String]) -> String {
    const TOLD: usize = 5;
    let message = names.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > TOLD { format!("{message} and {} more", names.len() - TOLD) } else { message }
}

/// Bytes the way people read them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.into_iter().find(|(unit, _)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(unit, name)| {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            if tenths % 10 == 0 || tenths >= 1000 {
                format!("{} {name}", tenths / 10)
            } else {
                format!("{}.{} {name}", tenths / 10, tenths % 10)
            }
        },
    )
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
