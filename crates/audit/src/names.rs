//! The names of a chain's files. The first has the configured name; the chain continues in parts numbered from 2
//! (`audit.jsonl`, `audit.0002.jsonl`, …), which are never renamed. A second process with the same name adds its number
//! (`audit-2.jsonl`).

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// The files of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSeries {
    first: PathBuf,
}

impl FileSeries {
    /// Creates the series whose first file is `first`.
    pub(crate) fn new(first: impl Into<PathBuf>) -> Self {
        Self { first: first.into() }
    }

    /// Returns the series of the process with this number, from 1, among those that share the name.
    #[must_use]
    pub(crate) fn of_process(&self, number: u32) -> Self {
        if number == 1 { self.clone() } else { Self::new(self.path_with(&format!("-{number}"))) }
    }

    /// Returns the path of the first part.
    pub(crate) fn first(&self) -> &Path {
        &self.first
    }

    pub(crate) fn part(&self, number: u32) -> PathBuf {
        if number == 1 { self.first.clone() } else { self.path_with(&format!(".{number:04}")) }
    }

    /// Returns the number of the last existing part; 1 if there is none.
    pub(crate) fn last_part(&self) -> io::Result<u32> {
        let mut last = 1;
        for entry in fs::read_dir(self.folder())? {
            last = self.number(&self.folder().join(entry?.file_name())).unwrap_or(0).max(last);
        }
        Ok(last)
    }

    /// Returns the folder of the files.
    pub(crate) fn folder(&self) -> &Path {
        self.first.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// Returns the number of the part at `path`; `None` if it is not part of this chain.
    fn number(&self, path: &Path) -> Option<u32> {
        let name = path.file_name()?.to_str()?;
        let (stem, extension) = self.split();
        let digits = name.strip_prefix(stem.to_str()?)?.strip_prefix('.')?.strip_suffix(extension.to_str()?)?;
        let number = digits.parse().ok().filter(|number| *number > 1)?;
        (self.part(number).file_name()?.to_str()? == name).then_some(number)
    }

    /// Returns the first part's name with `between` before its extension.
    fn path_with(&self, between: &str) -> PathBuf {
        let (mut name, extension) = self.split();
        name.push(between);
        name.push(extension);
        self.first.with_file_name(name)
    }

    fn split(&self) -> (OsString, OsString) {
        let stem = self.first.file_stem().unwrap_or_default().to_owned();
        let mut extension = OsString::new();
        if let Some(after) = self.first.extension() {
            extension.push(".");
            extension.push(after);
        }
        (stem, extension)
    }
}

/// Returns the part of the name that all files of a chain have in common, for the path of any of them.
pub(crate) fn stem(path: &Path) -> PathBuf {
    let series = FileSeries::new(path);
    let (stem, extension) = series.split();
    let whole = stem.to_string_lossy();
    match whole.rsplit_once('.') {
        Some((stem, digits)) if digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            path.with_file_name(format!("{stem}{}", extension.to_string_lossy()))
        }
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_extension() {
        let series = FileSeries::new("logs/audit.jsonl");
        assert_eq!(series.part(1), Path::new("logs/audit.jsonl"));
        assert_eq!(series.part(2), Path::new("logs/audit.0002.jsonl"));
        assert_eq!(series.of_process(1), series);
        assert_eq!(series.of_process(2).part(12_345), Path::new("logs/audit-2.12345.jsonl"));
        assert_eq!(FileSeries::new("audit").part(3), Path::new("audit.0003"));
        assert_eq!(FileSeries::new("audit").folder(), Path::new("."));
    }

    #[test]
    fn a_part_is_known_by_its_name_and_nothing_else_is() {
        let series = FileSeries::new("audit.jsonl");
        for number in [2, 10, 9_999, 10_000] {
            assert_eq!(series.number(&series.part(number)), Some(number));
            assert_eq!(stem(&series.part(number)), series.first());
        }
        for other in ["audit.jsonl", "audit.2.jsonl", "audit-2.0002.jsonl", "audit.0002.jsonl.torn", "audit.0001.jsonl"]
        {
            assert_eq!(series.number(Path::new(other)), None, "{other}");
        }
        assert_eq!(stem(Path::new("a/audit-2.0002.jsonl")), Path::new("a/audit-2.jsonl"));
        assert_eq!(stem(Path::new("audit.2026.jsonl")), Path::new("audit.jsonl"), "a guess, which content overrules");
    }
}
