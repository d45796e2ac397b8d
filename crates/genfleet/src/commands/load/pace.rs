//! So many a second, whatever becomes of them: the moment of each job is fixed in advance, and time lost is made up for.
//! A pace that slowed down with the queue would hide how slow the queue is.

use std::{fmt, str::FromStr, time::Duration};

use tokio::time::Instant;

/// So many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate(f64);

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
    /// How many fit into `duration`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast to u32 stays within its bounds"
    )]
    pub(super) fn within(self, duration: Duration) -> u32 {
        (self.0 * duration.as_secs_f64()).ceil() as u32
    }
}

/// When each is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    rate: Option<Rate>,
    begun: Instant,
}

impl Pace {
    /// From `begun` on; without a rate all are due at once.
    pub(super) fn new(rate: Option<Rate>, begun: Instant) -> Self {
        Self { rate, begun }
    }

    /// When number `number`, from 0, is due.
    pub(super) fn due(&self, number: u32) -> Instant {
        let after = self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(f64::from(number) / rate.0));
        self.begun + after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_moment_whatever_happened_before() {
        let begun = Instant::now();
        let pace = Pace::new(Some("4".parse().unwrap()), begun);
        assert_eq!(pace.due(0), begun);
        assert_eq!(pace.due(10), begun + Duration::from_millis(2500));
        assert_eq!(Pace::new(None, begun).due(1_000_000), begun);
    }

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
