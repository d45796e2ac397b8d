//! How long the broker lets a job be worked on before it takes it back: three attempts' time at least, or a slow job is
//! taken from a healthy worker.

use std::time::Duration;

use genfleet_core::{job::Kind, message::Lane, options::format_duration, queue::topology::lane_queue};

use super::{
    finding::Finding,
    policies::{Policy, lowest},
};

/// The default of a broker.
const DEFAULT: Duration = Duration::from_secs(30 * 60);
const ATTEMPTS: u32 = 3;

/// Judges what policies say; no API shows the broker's own setting.
pub(crate) fn judge(prefix: &str, user: &[Policy], operator: &[Policy], attempt_timeout: Duration) -> Finding {
    const CHECK: &str = "broker.consumer_timeout";
    let needed = attempt_timeout.saturating_mul(ATTEMPTS);
    let wanted = format!("{} (three times --attempt-timeout) or more", format_duration(needed));
    let looked_at = format!("consumer_timeout, {wanted}");
    let lanes = [Lane::Jobs, Lane::Resume, Lane::Suspect];
    let queues = Kind::ALL.into_iter().flat_map(|kind| lanes.map(|lane| lane_queue(prefix, lane, kind)));
    let set: Vec<Option<u64>> = queues.map(|queue| lowest(user, operator, &queue, "consumer-timeout")).collect();
    let lowest = set.iter().flatten().min().map(|milliseconds| Duration::from_millis(*milliseconds));
    if let Some(lowest) = lowest.filter(|lowest| *lowest < needed) {
        let found =
            format!("a policy sets it to {}: slow jobs are taken from healthy workers", format_duration(lowest));
        return Finding::failed(
            CHECK,
            looked_at,
            found,
            "raise consumer-timeout in that policy, or lower --attempt-timeout",
        );
    }
    if let Some(lowest) = lowest.filter(|_| set.iter().all(Option::is_some)) {
        return Finding::ok(CHECK, looked_at, format!("{} by policy", format_duration(lowest)));
    }
    let look = "rabbitmqctl environment | grep consumer_timeout";
    if needed > DEFAULT {
        let found = "the broker's default of 30m is less, and no API tells what is set";
        let remedy = format!(
            "set consumer_timeout in rabbitmq.conf to {} or more ({look}), or lower --attempt-timeout",
            needed.as_millis()
        );
        return Finding::warning(CHECK, looked_at, found, remedy);
    }
    let found = "the broker's default of 30m is enough; no API tells whether another one is set";
    Finding::skipped(CHECK, looked_at, found, format!("where it was ever changed, look: {look}"))
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
    fn three_attempts_fit_or_it_is_told() {
        assert_eq!(level(None, FIVE_MINUTES), Level::Skipped);
        assert_eq!(level(None, FIVE_MINUTES * 3), Level::Warning);
        assert_eq!(level(Some(("genfleet", 899_999)), FIVE_MINUTES), Level::Failed);
        assert_eq!(level(Some(("genfleet", 900_000)), FIVE_MINUTES), Level::Ok);
        assert_eq!(level(Some(("jobs.cdn.purge", 900_000)), FIVE_MINUTES), Level::Skipped);
        assert_eq!(level(Some(("jobs.cdn.purge", 1000)), FIVE_MINUTES), Level::Failed);
    }
}
