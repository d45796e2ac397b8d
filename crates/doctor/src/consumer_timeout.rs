//! The broker's consumer timeout: how long a job may stay unacknowledged before the broker redelivers it. If it is
//! shorter than the time of three attempts, the broker takes slow jobs away from healthy workers.

use std::time::Duration;

use genfleet_core::{job::Kind, message::Lane, options::format_duration, queue::topology::lane_queue};

use super::{
    finding::{Check, Finding},
    policies::{Policy, lowest},
};

/// The broker's default.
const DEFAULT: Duration = Duration::from_secs(30 * 60);
const ATTEMPTS: u32 = 3;

/// Judges the time-out that policies set. No API shows the broker's own setting.
pub(crate) fn judge(prefix: &str, user: &[Policy], operator: &[Policy], attempt_timeout: Duration) -> Finding {
    let needed = attempt_timeout.saturating_mul(ATTEMPTS);
    let looked_at = format!("consumer_timeout, {} (three times --attempt-timeout) or more", format_duration(needed));
    let check = Check::new("broker.consumer_timeout", looked_at);
    let lanes = [Lane::Jobs, Lane::Resume, Lane::Suspect];
    let queues = Kind::ALL.into_iter().flat_map(|kind| lanes.map(|lane| lane_queue(prefix, lane, kind)));
    let set: Vec<Option<u64>> = queues.map(|queue| lowest(user, operator, &queue, "consumer-timeout")).collect();
    let lowest = set.iter().flatten().min().map(|milliseconds| Duration::from_millis(*milliseconds));
    if let Some(lowest) = lowest.filter(|lowest| *lowest < needed) {
        let lowest = format_duration(lowest);
        return check.failed(
            format!("a policy sets it to {lowest}: the broker takes slow jobs away from healthy workers"),
            "raise consumer-timeout in that policy, or lower --attempt-timeout",
        );
    }
    if let Some(lowest) = lowest.filter(|_| set.iter().all(Option::is_some)) {
        return check.ok(format!("a policy sets it to {}", format_duration(lowest)));
    }
    let look = "rabbitmqctl environment | grep consumer_timeout";
    if needed > DEFAULT {
        let needed = needed.as_millis();
        return check.warning(
            "the broker's default of 30m is less, and no API shows its setting",
            format!("set consumer_timeout in rabbitmq.conf to {needed} or more ({look}), or lower --attempt-timeout"),
        );
    }
    check.skipped(
        "the broker's default of 30m is enough; no API shows whether the setting was changed",
        format!("if it may have been changed, look: {look}"),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn level(policy: Option<(&str, u64)>, attempt_timeout: Duration) -> Level {
        let policy = policy.map(|(pattern, milliseconds)| {
            let definition = format!(r#"{{"consumer-timeout":{milliseconds}}}"#);
            format!(r#"[{{"name":"p","pattern":"{pattern}","definition":{definition}}}]"#)
        });
        let user: Vec<Policy> = serde_json::from_str(policy.as_deref().unwrap_or("[]")).unwrap();
        judge("genfleet", &user, &[], attempt_timeout).level
    }

    #[test]
    fn a_time_out_below_three_attempts_is_reported() {
        assert_eq!(level(None, FIVE_MINUTES), Level::Skipped);
        assert_eq!(level(None, FIVE_MINUTES * 3), Level::Warning);
        assert_eq!(level(Some(("genfleet", 899_999)), FIVE_MINUTES), Level::Failed);
        assert_eq!(level(Some(("genfleet", 900_000)), FIVE_MINUTES), Level::Ok);
        assert_eq!(level(Some(("jobs.cdn.purge", 900_000)), FIVE_MINUTES), Level::Skipped);
        assert_eq!(level(Some(("jobs.cdn.purge", 1000)), FIVE_MINUTES), Level::Failed);
    }
}
