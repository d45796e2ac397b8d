//! When a message was put on the queue: to the millisecond where its producer says so and it can be true, else by AMQP's
//! `timestamp`, which has whole seconds. For figures only: a producer may write what it likes, so nothing is decided by it.

use jiff::Timestamp;

use super::Message;

/// Unix milliseconds at which the message was put on the queue. Producers may send it, too.
pub const ENQUEUED_MS: &str = "genfleet-enqueued-ms";

/// The beginning of 2020: nothing on a queue is older, and a timestamp of 0 says nothing.
const EARLIEST: i64 = 1_577_836_800_000;
/// The clocks of two hosts differ by less, in milliseconds.
const CLOCKS_DIFFER: i64 = 60_000;

/// How long a message waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// In milliseconds.
    pub ms: u64,
    /// Its beginning is known to the second only: the true figure is up to a second less.
    pub is_rough: bool,
}

impl Waited {
    /// For metrics.
    pub fn seconds(self) -> f64 {
        std::time::Duration::from_millis(self.ms).as_secs_f64()
    }
}

impl Message {
    /// The message, put on the queue at `now`.
    #[must_use]
    pub fn enqueued(mut self, now: Timestamp) -> Self {
        self.timestamp = u64::try_from(now.as_second()).ok();
        self.headers.insert(ENQUEUED_MS.to_owned(), now.as_millisecond().into());
        self
    }

    /// From when it was put on the queue to `at`; `None` where nothing says when, or nothing that can be true.
    pub fn waited(&self, at: Timestamp) -> Option<Waited> {
        let at = at.as_millisecond();
        let can_be = |ms: &i64| (EARLIEST..=at.saturating_add(CLOCKS_DIFFER)).contains(ms);
        let second = self.timestamp.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000)).filter(can_be);
        // Two clock readings may lie on both sides of a full second.
        let agrees = |ms: &i64| second.is_none_or(|second| (second - 1000..second + 2000).contains(ms));
        let exact = self.headers.get(ENQUEUED_MS).and_then(super::HeaderValue::as_i64).filter(can_be).filter(agrees);
        let ms = u64::try_from(at - exact.or(second)?).unwrap_or(0);
        Some(Waited { ms, is_rough: exact.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn waited(timestamp: Option<u64>, ms: Option<i64>) -> Option<(u64, bool)> {
        let mut message = Message { timestamp, ..Message::default() };
        message.headers.extend(ms.map(|ms| (ENQUEUED_MS.to_owned(), ms.into())));
        let waited = message.waited(Timestamp::from_millisecond(NOW).unwrap());
        waited.map(|waited| (waited.ms, waited.is_rough))
    }

    #[test]
    fn what_we_enqueue_is_known_to_the_millisecond() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let message = Message::default().enqueued(at(NOW - 1_234));
        assert_eq!(message.waited(at(NOW)), Some(Waited { ms: 1_234, is_rough: false }));
        assert_eq!(message.timestamp, Some(1_799_999_998));
    }

    #[test]
    fn a_second_is_rough_and_never_less_than_nothing() {
        assert_eq!(waited(Some(1_799_999_990), None), Some((10_000, true)));
        assert_eq!(waited(Some(1_800_000_007), None), Some((0, true)), "the producer's clock is ahead");
        assert_eq!(waited(None, None), None);
    }

    #[test]
    fn what_cannot_be_true_says_nothing() {
        for timestamp in [0, 1, 1_500_000_000, 1_800_000_061, 1_800_000_000_000, u64::MAX] {
            assert_eq!(waited(Some(timestamp), None), None, "{timestamp}");
        }
        for ms in [i64::MIN, -1, 0, 1_800_000_000, NOW + 60_001, i64::MAX] {
            assert_eq!(waited(None, Some(ms)), None, "{ms}");
            assert_eq!(waited(Some(1_799_999_990), Some(ms)), Some((10_000, true)), "{ms}: the timestamp counts");
        }
    }

    #[test]
    fn milliseconds_count_where_the_timestamp_is_none_or_the_same() {
        assert_eq!(waited(Some(0), Some(NOW - 1_500)), Some((1_500, false)));
        assert_eq!(waited(Some(1_799_999_998), Some(NOW - 1_500)), Some((1_500, false)));
        assert_eq!(waited(Some(1_799_999_999), Some(NOW - 1_001)), Some((1_001, false)), "read just before it");
        assert_eq!(waited(Some(1_799_999_000), Some(NOW - 1_500)), Some((1_000_000, true)));
    }
}
