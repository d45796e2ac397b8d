//! Percentiles by the nearest-rank method: each is one of the measured values.

use serde::Serialize;

/// The median, the 90th and 99th percentile and the maximum of some values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Percentiles {
    p50: u32,
    p90: u32,
    p99: u32,
    max: u32,
}

impl Percentiles {
    /// Computes the percentiles; `None` if there are no values.
    pub(super) fn of(mut values: Vec<u32>) -> Option<Self> {
        values.sort_unstable();
        let rank = |percent: usize| values.get((values.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        Some(Self { p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
    }

    /// Formats values in milliseconds for people.
    pub(super) fn text(&self) -> String {
        let Self { p50, p90, p99, max } = self;
        format!("p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u32>) -> Option<[u32; 4]> {
        Percentiles::of(values.into_iter().collect()).map(|p| [p.p50, p.p90, p.p99, p.max])
    }

    #[test]
    fn each_is_a_value_that_was_measured() {
        assert_eq!(of([]), None);
        assert_eq!(of([7]), Some([7; 4]));
        assert_eq!(of([2, 1]), Some([1, 2, 2, 2]));
        assert_eq!(of((1..=100).rev()), Some([50, 90, 99, 100]));
        assert_eq!(of(1..=1000), Some([500, 900, 990, 1000]));
        assert_eq!(of([5; 10]), Some([5; 4]));
    }
}
