//! The time at which a message was enqueued: in milliseconds if its producer says so plausibly, else by AMQP's
//! `timestamp` in whole seconds. For statistics only, because producers may write anything.

use bytes::Bytes;
use jiff::Timestamp;

use super::Message;

/// The header with the time of enqueueing in Unix milliseconds. Producers may send it, too.
pub const ENQUEUED_MS: &str = "genfleet-enqueued-ms";

/// The earliest plausible time: the beginning of 2020.
const EARLIEST: i64 = 1_577_836_800_000;
/// The plausible difference of two hosts' clocks, in milliseconds.
const CLOCKS_DIFFER: i64 = 60_000;

/// The time that a message waited in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueWait {
    /// The time in milliseconds.
    pub ms: u64,
    /// True if the beginning is known only to the second: the true figure is up to a second less.
    pub is_rough: bool,
}

impl QueueWait {
    /// Converts to seconds, for metrics.
    pub fn seconds(self) -> f64 {
        std::time::Duration::from_millis(self.ms).as_secs_f64()
    }
}

impl Message {
    /// Makes the message of a new job that is enqueued at `now`.
    pub fn new_job(body: impl Into<Bytes>, id: String, now: Timestamp) -> Self {
        Self {
            body: body.into(),
            message_id: Some(id),
            timestamp: u64::try_from(now.as_second()).ok(),
            content_type: Some("application/json".to_owned()),
            headers: [(ENQUEUED_MS.to_owned(), now.as_millisecond().into())].into(),
            ..Self::default()
        }
    }

    /// The wait from being enqueued to `at`, or from `not_before` if the job was not to start earlier; `None` if no
    /// plausible time is known.
    pub fn queue_wait(&self, not_before: Option<Timestamp>, at: Timestamp) -> Option<QueueWait> {
        let at = at.as_millisecond();
        let can_be = |ms: &i64| (EARLIEST..=at.saturating_add(CLOCKS_DIFFER)).contains(ms);
        let second = self.timestamp.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000)).filter(can_be);
        // The two times may be read on both sides of a full second.
        let agrees = |ms: &i64| second.is_none_or(|second| (second - 1000..second + 2000).contains(ms));
        let exact = self.headers.get(ENQUEUED_MS).and_then(super::HeaderValue::as_i64).filter(can_be).filter(agrees);
        let enqueued = exact.or(second)?;
        let intended = not_before.map(Timestamp::as_millisecond).filter(|intended| *intended > enqueued);
        let ms = u64::try_from(at - intended.unwrap_or(enqueued)).unwrap_or(0);
        Some(QueueWait { ms, is_rough: exact.or(intended).is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn waited(timestamp: Option<u64>, ms: Option<i64>) -> Option<(u64, bool)> {
        let mut message = Message { timestamp, ..Message::default() };
        message.headers.extend(ms.map(|ms| (ENQUEUED_MS.to_owned(), ms.into())));
        let waited = message.queue_wait(None, Timestamp::from_millisecond(NOW).unwrap());
        waited.map(|waited| (waited.ms, waited.is_rough))
    }

    #[test]
    fn what_we_enqueue_is_known_to_the_millisecond() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let message = Message::new_job("{}", "a".to_owned(), at(NOW - 1_234));
        assert_eq!(message.queue_wait(None, at(NOW)), Some(QueueWait { ms: 1_234, is_rough: false }));
        assert_eq!(message.timestamp, Some(1_799_999_998));
    }

    #[test]
    fn an_intended_wait_does_not_count() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let message = Message::new_job("{}", "a".to_owned(), at(NOW - 60_000));
        let waited = |not_before| message.queue_wait(Some(at(not_before)), at(NOW)).unwrap();
        assert_eq!(waited(NOW - 366), QueueWait { ms: 366, is_rough: false });
        assert_eq!(waited(NOW - 90_000), QueueWait { ms: 60_000, is_rough: false }, "it was over before");
        assert_eq!(waited(NOW + 4_000), QueueWait { ms: 0, is_rough: false }, "it is not over yet");
        let rough = Message { timestamp: Some(1_799_999_940), ..Message::default() };
        assert_eq!(rough.queue_wait(Some(at(NOW - 366)), at(NOW)), Some(QueueWait { ms: 366, is_rough: false }));
        assert_eq!(Message::default().queue_wait(Some(at(NOW - 366)), at(NOW)), None);
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
