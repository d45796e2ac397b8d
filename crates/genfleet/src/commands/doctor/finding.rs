//! What a check found, and how all of it is told.

use genfleet_core::tell;
use std::fmt::{Display, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::terminal::{self, Paint, count, line};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
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
pub(super) struct Finding {
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
    pub(super) fn ok(check: &'static str, looked_at: impl Display, found: impl Display) -> Self {
        Self { check, level: Level::Ok, looked_at: looked_at.to_string(), found: found.to_string(), remedy: None }
    }

    /// Not looked at, and how it can be.
    pub(super) fn skipped(
        check: &'static str,
        looked_at: impl Display,
        why: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self::of(Level::Skipped, (check, &looked_at), &why, &remedy)
    }

    /// May become a failure.
    pub(super) fn warning(
        check: &'static str,
        looked_at: impl Display,
        found: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self::of(Level::Warning, (check, &looked_at), &found, &remedy)
    }

    /// Is one.
    pub(super) fn failed(
        check: &'static str,
        looked_at: impl Display,
        found: impl Display,
        remedy: impl Display,
    ) -> Self {
        Self::of(Level::Failed, (check, &looked_at), &found, &remedy)
    }

    /// Of a level that is found out.
    pub(super) fn of(
        level: Level,
        (check, looked_at): (&'static str, &dyn Display),
        found: &dyn Display,
        remedy: &dyn Display,
    ) -> Self {
        let remedy = Some(remedy.to_string());
        Self { check, level, looked_at: looked_at.to_string(), found: found.to_string(), remedy }
    }

    fn text(&self, paint: Paint) -> String {
        let level = match self.level {
            Level::Ok => paint.green("ok     "),
            Level::Skipped => paint.dim("skipped"),
            Level::Warning => paint.yellow("warning"),
            Level::Failed => paint.red("failed "),
        };
        let mut text = format!("{level}  {:<23}  {}: {}\n", self.check, line(&self.looked_at), line(&self.found));
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(text, "         {} {}", paint.bold("do:"), line(remedy));
        }
        text
    }
}

/// All findings of one look.
#[derive(Clone, Debug)]
pub(super) struct DoctorReport {
    findings: Vec<Finding>,
}

impl DoctorReport {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self { findings }
    }

    /// Whether nothing failed.
    pub(super) fn is_well(&self) -> bool {
        self.count(Level::Failed) == 0
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    fn json(&self) -> Value {
        json!({
            "ok": self.is_well(), "failed": self.count(Level::Failed), "warnings": self.count(Level::Warning),
            "skipped": self.count(Level::Skipped), "findings": self.findings,
        })
    }

    /// On stdout; the sum for people on stderr.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        if as_json {
            return terminal::say(self.json()).map(drop);
        }
        let paint = Paint::stdout();
        terminal::put(self.findings.iter().map(|finding| finding.text(paint)).collect::<String>())?;
        let [ok, warnings, failed, skipped] =
            [Level::Ok, Level::Warning, Level::Failed, Level::Skipped].map(|level| self.count(level));
        tell!("{ok} ok, {}, {failed} failed, {skipped} skipped", count(warnings, "warning"));
        Ok(())
    }
}

/// The first few of many, and how many more there are.
pub(super) fn some(names: &[String]) -> String {
    const TOLD: usize = 5;
    let told = names.iter().take(TOLD).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > TOLD { format!("{told} and {} more", names.len() - TOLD) } else { told }
}

/// Bytes the way people read them.
pub(super) fn size(bytes: u64) -> String {
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
    fn only_what_failed_makes_it_fail() {
        let well = vec![
            Finding::ok("a", "x", "y"),
            Finding::warning("b", "x", "y", "z"),
            Finding::skipped("c", "x", "y", "z"),
        ];
        assert!(DoctorReport::new(well.clone()).is_well());
        let failed = DoctorReport::new([well, vec![Finding::failed("d", "x", "y", "z")]].concat());
        assert!(!failed.is_well());
        let told = failed.json();
        assert_eq!((&told["ok"], &told["failed"], &told["warnings"]), (&json!(false), &json!(1), &json!(1)));
        assert_eq!(told["findings"][0], json!({"check": "a", "level": "ok", "lookedAt": "x", "found": "y"}));
        assert_eq!(told["findings"][3]["do"], "z");
    }

    #[test]
    fn sizes_and_lists_are_short() {
        let shown = [1023, 1 << 20, 1_572_864, 1 << 40].map(size);
        assert_eq!(shown, ["1023 bytes", "1 MiB", "1.5 MiB", "1024 GiB"]);
        let names: Vec<_> = (1..=7).map(|number| number.to_string()).collect();
        assert_eq!(some(&names), "1, 2, 3, 4, 5 and 2 more");
        assert_eq!(some(&names[..2]), "1, 2");
    }
}
