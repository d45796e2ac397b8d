//! A maximum rate.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::commands::rate::Rate;

/// Limits a rate; without a rate nothing waits.
#[derive(Debug)]
pub(super) struct Pace {
    between: Option<Duration>,
    due: Instant,
}

impl Pace {
    /// Creates a pace with a maximum of `rate` a second.
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { between: rate.map(|rate| rate.interval(1)), due: Instant::now() }
    }

    /// Returns true if the next one has to wait.
    pub(super) fn is_ahead(&self) -> bool {
        self.between.is_some() && self.due > Instant::now()
    }

    /// Waits until the next one is due.
    pub(super) async fn turn(&mut self) {
        let Some(between) = self.between else { return };
        sleep_until(self.due).await;
        self.due = self.due.max(Instant::now()) + between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_at_four_a_second_take_two_and_a_quarter_seconds() {
        let mut pace = Pace::new(Some("4".parse().unwrap()));
        let began = Instant::now();
        for _ in 0..10 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::from_millis(2250));
        assert!(pace.is_ahead());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_is_not_made_up_for() {
        let mut pace = Pace::new(Some("1".parse().unwrap()));
        pace.turn().await;
        tokio::time::advance(Duration::from_secs(10)).await;
        let began = Instant::now();
        for _ in 0..3 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }
}
