//! The version in `If-Match`. Gateways may change an `ETag`: they weaken it (`W/"7"`) or mark compressed answers
//! (`"7-gzip"`). `If-Match` compares strongly, so the API accepts neither form. Pure.

/// The value of `If-Match` for any version, and for none.
pub(crate) const ANY: &str = "*";

const ENCODINGS: [&str; 4] = ["gzip", "br", "deflate", "zstd"];
const SEPARATORS: [char; 4] = ['-', ';', ':', '+'];

/// The version to replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The version as the API sent it.
    message: String,
    form: Form,
    /// Number of times in a row that it was refused although it still existed.
    refused: u32,
    /// Number of times in a row that it was refused although nothing existed.
    absent: u32,
}

/// The form in which a version is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The form in which the API sent it.
    Told,
    /// The form before a gateway changed it.
    Original,
}

impl Version {
    /// Creates the version of a job, unchanged; any version if the job names none.
    pub(crate) fn of_job(etag: Option<&str>) -> Self {
        Self { message: etag.unwrap_or(ANY).to_owned(), form: Form::Told, refused: 0, absent: 0 }
    }

    /// Returns the version for the next try after this one was refused and nothing exists.
    #[must_use]
    pub(crate) fn after_missing(&self) -> Self {
        Self { absent: self.absent + 1, ..Self::of_job(None) }
    }

    /// Returns the value of the `If-Match` header.
    pub(crate) fn if_match(&self) -> String {
        match self.form {
            Form::Told => self.message.clone(),
            Form::Original => original(&self.message),
        }
    }

    /// Returns how often in a row it was refused although it still existed.
    pub(crate) fn refusals(&self) -> u32 {
        self.refused
    }

    /// Returns how often in a row it was refused although nothing existed.
    pub(crate) fn absences(&self) -> u32 {
        self.absent
    }

    /// Returns the version as it was before a gateway changed it, if that is different.
    pub(crate) fn original_form(&self) -> Option<Self> {
        let restored = Self { form: Form::Original, ..self.clone() };
        (restored.if_match() != self.if_match()).then_some(restored)
    }

    /// Returns the version for the next try after this one was refused: the existing one, `etag`. If that is still this
    /// one, its other form.
    #[must_use]
    pub(crate) fn after(&self, etag: &str) -> Self {
        let is_this = original(&self.message) == original(etag);
        let form = if is_this && self.form == Form::Original { Form::Told } else { Form::Original };
        Self { message: etag.to_owned(), form, refused: if is_this { self.refused + 1 } else { 0 }, absent: 0 }
    }
}

/// Returns `etag` without the additions of gateways.
fn original(etag: &str) -> String {
    let etag = etag.strip_prefix("W/").unwrap_or(etag);
    let (quote, mut tag) = match etag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(tag) => ("\"", tag),
        None => ("", etag),
    };
    while let Some(shorter) = without_encoding(tag) {
        tag = shorter;
    }
    format!("{quote}{tag}{quote}")
}

fn without_encoding(tag: &str) -> Option<&str> {
    let left = ENCODINGS.iter().find_map(|encoding| tag.strip_suffix(encoding)?.strip_suffix(SEPARATORS))?;
    let left = left.trim_end_matches(SEPARATORS);
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gateways_add_is_taken_away() {
        for (message, was) in [
            ("\"7\"", "\"7\""),
            ("W/\"7\"", "\"7\""),
            ("\"7-gzip\"", "\"7\""),
            ("\"7--gzip\"", "\"7\""),
            ("W/\"7;br\"", "\"7\""),
            ("W/\"7-zstd-gzip\"", "\"7\""),
            ("7-deflate", "7"),
            ("\"-gzip\"", "\"-gzip\""),
            ("\"gzip\"", "\"gzip\""),
            ("\"7-gz\"", "\"7-gz\""),
            ("*", "*"),
            ("\"", "\""),
            ("", ""),
        ] {
            assert_eq!(original(message), was, "{message}");
        }
    }

    #[test]
    fn a_version_that_is_refused_and_still_there_is_named_in_its_other_form() {
        let first = Version::of_job(None).after("W/\"7-gzip\"");
        assert_eq!((first.if_match().as_str(), first.refusals()), ("\"7\"", 0));
        let second = first.after("\"7\"");
        assert_eq!((second.if_match().as_str(), second.refusals()), ("\"7\"", 1));
        let second = first.after("W/\"7-gzip\"");
        assert_eq!((second.if_match().as_str(), second.refusals()), ("W/\"7-gzip\"", 1));
        let third = second.after("\"7-gzip\"");
        assert_eq!((third.if_match().as_str(), third.refusals()), ("\"7\"", 2));
        assert_eq!(third.after("\"8\"").refusals(), 0, "somebody changed it");
    }

    #[test]
    fn what_a_job_names_is_sent_as_it_is_and_can_be_restored_once() {
        let named = Version::of_job(Some("W/\"7\""));
        assert_eq!(named.if_match(), "W/\"7\"");
        let restored = named.original_form().unwrap();
        assert_eq!((restored.if_match().as_str(), restored.original_form()), ("\"7\"", None));
        assert_eq!(Version::of_job(Some("\"7\"")).original_form(), None);
        assert_eq!(Version::of_job(None).original_form(), None);
    }
}
