//! What counts as a time. Pure.

use jiff::Timestamp;

/// `d` stands for a digit.
const DATE_AND_TIME: &[u8] = b"dddd-dd-ddTdd:dd:dd";
const OFFSET: &[u8] = b"dd:dd";
/// In seconds. The only one that may have one more is the last of a day, at UTC.
const DAY: i64 = 24 * 60 * 60;

/// Whether `text` is a time of RFC 3339: date, `T`, time and offset, such as `2026-11-20T12:00:00Z`.
pub fn is_rfc3339(text: &str) -> bool {
    let Some((date_and_time, rest)) = text.as_bytes().split_at_checked(DATE_AND_TIME.len()) else { return false };
    let is_leap_second = date_and_time.ends_with(b":60");
    let exists = |instant: Timestamp| !is_leap_second || instant.as_second().rem_euclid(DAY) == DAY - 1;
    fits(date_and_time, DATE_AND_TIME)
        && is_offset(without_fraction(rest))
        && text.parse::<Timestamp>().is_ok_and(exists)
}

/// `text` as an ISO 8601 time: as it is where it keeps RFC 3339, written anew where it is another way to name an
/// instant (`2026-11-20T12:00:00.000+0000`); `None` where it names none.
pub fn iso8601(text: &str) -> Option<String> {
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

fn is_offset(rest: &[u8]) -> bool {
    match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', offset @ ..] => fits(offset, OFFSET),
        _ => false,
    }
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
            "2026-11-20T12:00:00.123456+02:00",
            "2024-02-29T00:00:00-00:00",
            "2016-12-31T23:59:60Z",
            "2016-12-31T15:59:60.5-08:00",
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
