//! Numbers of a job: those that would change when they are parsed to 64 bits, and the whole ones.

use serde::{Deserialize, Deserializer};
use serde_json::Number;

/// The number of significant digits that a 64-bit float always keeps.
const SAFE_DIGITS: usize = 15;
/// The number of digits of an exponent that a 64-bit float always keeps.
const SAFE_EXPONENT_DIGITS: usize = 2;

/// The reason why parsing would change the number; `None` if it would not. Invalid and infinite numbers are left to the
/// parser.
pub(super) fn explain_change(written: &[u8]) -> Option<&'static str> {
    let written = std::str::from_utf8(written).ok()?;
    if !written.contains(['.', 'e', 'E']) {
        let fits = written.parse::<i64>().is_ok() || written.parse::<u64>().is_ok();
        return (!fits).then_some("an integer beyond 64 bits would be changed: send it as a text");
    }
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let digits = |text: &str| text.bytes().filter(u8::is_ascii_digit).count();
    if digits(mantissa) <= SAFE_DIGITS && digits(exponent) <= SAFE_EXPONENT_DIGITS {
        return None;
    }
    let number = written.parse::<f64>().ok().filter(|number| number.is_finite())?;
    let same = decimal(written).is_some_and(|written| shortest(number).contains(&Some(written)));
    (!same).then_some("a number with more digits than 64 bits hold would be changed: send it as a text, or round it")
}

/// The decimals that programs write for `number`: the fewest digits that are read as it. Where two are equally near,
/// some write the even one, as `serde_json` does, and some the other.
fn shortest(number: f64) -> [Option<(String, i64)>; 2] {
    [format!("{number:e}"), serde_json::Value::from(number).to_string()].map(|written| decimal(&written))
}

/// The digits of a decimal number without zeros at either end, and their power of ten.
fn decimal(written: &str) -> Option<(String, i64)> {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let (whole, fraction) = mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa, ""));
    let all = [whole.trim_start_matches('-'), fraction].concat();
    let digits = all.trim_end_matches('0');
    let power = exponent.parse::<i64>().ok()? + i64::try_from(all.len() - digits.len()).ok()?;
    let power = power - i64::try_from(fraction.len()).ok()?;
    let digits = digits.trim_start_matches('0');
    Some((digits.to_owned(), if digits.is_empty() { 0 } else { power }))
}

/// Parses a member that the schema limits to integers, for `deserialize_with`. In JSON Schema `8.0` is an integer, too,
/// which `serde` refuses. What is beyond `i64` becomes its limit; what `T` cannot hold becomes `None`, and the schema
/// must refuse it.
///
/// # Errors
/// The member is neither a number nor null.
pub fn whole_number<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let number = Option::<Number>::deserialize(deserializer)?;
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let to_integer = |number: Number| number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
    Ok(number.and_then(to_integer).and_then(|number| number.try_into().ok()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_changed_where_64_bits_do_not_hold_it() {
        for kept in [
            "0",
            "-0",
            "7",
            "-0.0",
            "0.1",
            "1e30",
            "1E+2",
            "18446744073709551615",
            "-9223372036854775808",
            "0.1000000000000000055511151231257827",
            "123456789012345678e-3",
            "1e22",
            "0.30000000000000004",
            "5e-324",
            "1.7976931348623157e308",
            "100000000000000000000.0",
            "-641755204372979.2",
            "-641755204372979.3",
            "0.00000000000000000000000000000",
        ] {
            let same = !["0.1000000000000000055511151231257827", "123456789012345678e-3"].contains(&kept);
            assert_eq!(explain_change(kept.as_bytes()).is_none(), same, "{kept}");
        }
        for beyond in [
            "18446744073709551616",
            "-9223372036854775809",
            "12345678901234567890123",
            "100000000000000000000",
            "0.12345678901234567890",
            "9007199254740993.0",
            "1e-400",
            "1e-99999999999999999999999",
        ] {
            assert!(explain_change(beyond.as_bytes()).is_some(), "{beyond}");
        }
    }

    proptest! {
        #[test]
        fn every_number_that_is_written_by_a_program_is_kept(bits in any::<u64>(), whole in any::<i64>(), short in any::<i32>()) {
            let numbers = [f64::from_bits(bits), f64::from(short), f64::from(short) / 1000.0];
            for number in numbers.into_iter().filter(|number| number.is_finite()) {
                let written = serde_json::Value::from(number).to_string();
                prop_assert_eq!(explain_change(written.as_bytes()), None, "{}", written);
                prop_assert_eq!(serde_json::from_str::<f64>(&written).unwrap().to_bits(), number.to_bits());
            }
            prop_assert_eq!(explain_change(whole.to_string().as_bytes()), None);
        }

        #[test]
        fn what_is_kept_reads_as_what_is_written(digits in "[0-9]{1,25}", fraction in "[0-9]{1,25}", power in -30_i64..30) {
            let written = format!("{digits}.{fraction}e{power}");
            let number: f64 = written.parse().unwrap();
            let same = shortest(number).contains(&decimal(&written));
            prop_assert_eq!(explain_change(written.as_bytes()).is_none(), same, "{}", written);
        }
    }
}
