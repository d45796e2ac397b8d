//! Rates in flags.

use std::{fmt, str::FromStr, time::Duration};

/// A number a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        match written.trim().trim_end_matches("/s").parse::<f64>() {
            Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(Self(rate)),
            _ => Err(format!("{written:?} is no rate: write how many a second, e.g. 200 or 0.5")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Rate {
    /// Returns how many are due in `duration`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast to u32 stays within its bounds"
    )]
    pub(crate) fn within(self, duration: Duration) -> u32 {
        (self.0 * duration.as_secs_f64()).ceil() as u32
    }

    /// Returns the time in which `number` are due.
    pub(crate) fn interval(self, number: u32) -> Duration {
        Duration::from_secs_f64(f64::from(number) / self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_written_in_numbers_a_second() {
        assert_eq!("200/s".parse(), Ok(Rate(200.0)));
        assert_eq!("0.5".parse(), Ok(Rate(0.5)));
        for wrong in ["0", "-1", "fast", "1e9", ""] {
            assert!(wrong.parse::<Rate>().unwrap_err().contains("how many a second"), "{wrong}");
        }
        assert_eq!(Rate(0.5).within(Duration::from_secs(3)), 2);
    }
}
