//! Dates in HTTP, in the three forms that a recipient must accept (RFC 9110, 5.6.7). The weekday is ignored.

use jiff::{Timestamp, civil::DateTime, fmt::rfc2822::DateTimeParser, tz::TimeZone};

/// `01-Mar-26 12:00:42 GMT`, of RFC 850.
const RFC_850: &str = "%d-%b-%y %H:%M:%S GMT";
/// `Mar  1 12:00:42 2026`, of C's `asctime`.
const ASCTIME: &str = "%b %e %H:%M:%S %Y";

/// Parses a date in any of the three forms.
pub fn read_http_date(written: &str) -> Option<Timestamp> {
    let written = written.trim();
    if let Ok(moment) = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(written) {
        return Some(moment);
    }
    let (date, form) = match written.split_once(", ") {
        Some((_, date)) => (date, RFC_850),
        None => (written.split_once(' ')?.1, ASCTIME),
    };
    let moment = DateTime::strptime(form, date.trim_start()).ok()?;
    moment.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        let moment = "1994-11-06T08:49:37Z".parse().ok();
        for written in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Monday, 06-Nov-94 08:49:37 GMT",
            "Mon Nov  6 08:49:37 1994",
            "  Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(read_http_date(written), moment, "{written}");
        }
        assert_eq!(read_http_date("Sat Nov 26 08:49:37 1994"), "1994-11-26T08:49:37Z".parse().ok());
    }

    #[test]
    fn what_is_no_date_is_none() {
        for written in [
            "",
            " ",
            "soon",
            "17",
            "Sunday",
            "Sunday, 32-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(read_http_date(written), None, "{written}");
        }
    }
}
