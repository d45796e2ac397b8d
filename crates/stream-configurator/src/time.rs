//! Checks and converts times. Pure.

use jiff::{Timestamp, civil};

/// The format of date and time, in which `d` stands for a digit.
const DATE_AND_TIME: &[u8] = b"dddd-dd-ddTdd:dd:dd";
const OFFSET: &[u8] = b"dd:dd";
/// Length of a day in minutes.
const DAY: i32 = 24 * 60;

/// Returns true if `text` is a time of RFC 3339: date, `T`, time and offset, such as `2026-11-20T12:00:00Z`. This
/// includes the very end of the year 9999, which is beyond the range of an instant, and which people write for "never".
pub(crate) fn is_rfc3339(text: &str) -> bool {
    let Some((date_and_time, rest)) = text.as_bytes().split_at_checked(DATE_AND_TIME.len()) else { return false };
    if !fits(date_and_time, DATE_AND_TIME) {
        return false;
    }
    let local = &text[..DATE_AND_TIME.len()];
    let (Some(offset), Ok(local)) = (offset(without_fraction(rest)), local.parse::<civil::DateTime>()) else {
        return false;
    };
    let is_leap_second = date_and_time.ends_with(b":60");
    !is_leap_second || is_end_of_day(local, offset)
}

/// Returns true at midnight UTC, where a leap second is inserted.
fn is_end_of_day(local: civil::DateTime, offset: i32) -> bool {
    let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
    (minute - offset).rem_euclid(DAY) == DAY - 1
}

/// Converts `text` to an ISO 8601 time. A time of RFC 3339 is not changed; other ways to write an instant
/// (`2026-11-20T12:00:00.000+0000`) are converted. `None` if it is not a time.
pub(crate) fn iso8601(text: &str) -> Option<String> {
    if is_rfc3339(text) {
        return Some(text.to_owned());
    }
    text.parse::<Timestamp>().ok().map(|instant| instant.to_string())
}

fn without_fraction(rest: &[u8]) -> &[u8] {
    let Some(fraction) = rest.strip_prefix(b".") else { return rest };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 { rest } else { &fraction[digits..] }
}

/// Parses an offset and returns it in minutes; at most 23:59 in either direction.
fn offset(written: &[u8]) -> Option<i32> {
    let (sign, digits) = match written {
        [b'Z' | b'z'] => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let number = |at: usize| i32::from(digits[at] - b'0') * 10 + i32::from(digits[at + 1] - b'0');
    let (hours, minutes) = fits(digits, OFFSET).then(|| (number(0), number(3)))?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

fn fits(text: &[u8], shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text.iter().zip(shape).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte.eq_ignore_ascii_case(other),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_time_with_an_offset_is_one_of_rfc_3339() {
        for good in [
            "2026-11-20T12:00:00Z",
            "2026-11-20t12:00:00z",
            "2026-11-20T12:00:00.00000000000000000001Z",
            "2026-11-20T12:00:00.123456+02:00",
            "2024-02-29T00:00:00-00:00",
            "2016-12-31T23:59:60Z",
            "2016-12-31T15:59:60.5-08:00",
            "9999-12-31T23:59:59Z",
            "0000-01-01T00:00:00+23:59",
        ] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "now",
            "2026-11-20",
            "2026-11-20T12:00:00",
            "2026-11-20T12:00Z",
            "2026-11-20 12:00:00Z",
            "2026-11-20T12:00:00.Z",
            "2026-11-20T12:00:00+0200",
            "2026-11-20T12:00:00+02",
            "2026-11-20T12:00:00Z[Etc/UTC]",
            "2026-11-20T12:00:00Z ",
            "20261120T120000Z",
            "2025-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-20T24:00:00Z",
            "2026-11-20T12:00:00+24:00",
            "2026-11-20T12:00:00-25:59",
            "2026-11-20T12:00:00+23:60",
            "2016-12-31T23:58:60Z",
            "2016-12-31T23:59:60+01:00",
            "२०२६-11-20T12:00:00Z",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }

    #[test]
    fn a_time_written_another_way_is_written_anew_and_one_of_rfc_3339_stays() {
        let table = [
            ("2024-01-15T10:00:00.000Z", Some("2024-01-15T10:00:00.000Z")),
            ("2024-01-15T12:00:00+02:00", Some("2024-01-15T12:00:00+02:00")),
            ("2024-01-15T12:00:00.000+0200", Some("2024-01-15T10:00:00Z")),
            ("yesterday", None),
            ("2024-01-15", None),
            ("", None),
        ];
        for (text, written) in table {
            assert_eq!(iso8601(text).as_deref(), written, "{text}");
        }
    }
}
