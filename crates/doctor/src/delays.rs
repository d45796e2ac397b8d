//! The delay queues: whether they pass their messages on, and how long a delay can become when a node of the broker
//! fails.

use genfleet_core::queue::topology::delay_step;

use super::{
    finding::{Check, Finding},
    queues::ReportedQueue,
};

const CHECK: &str = "broker.delays";
/// The number of messages that a delay queue passes on at the same time.
const IN_TRANSIT: u64 = 32;

/// Fails if messages stay in a delay queue after their time.
pub(crate) fn overdue(prefix: &str, queues: &[ReportedQueue]) -> Option<Finding> {
    let steps = queues.iter().filter(|queue| delay_step(prefix, &queue.name).is_some());
    let stuck: Vec<String> = steps
        .filter(|queue| queue.messages_dlx >= IN_TRANSIT)
        .map(|queue| format!("{} in {}", queue.messages_dlx, queue.name))
        .collect();
    (!stuck.is_empty()).then(|| {
        let found = format!("messages are stuck after their time: {}", stuck.join(", "));
        Check::new(CHECK, "delayed messages").failed(found, "deploy/RUNBOOK.md, GenfleetDelaysStuck")
    })
}

/// Says how to read a setting of a cluster that no API shows.
pub(crate) fn confirm_timeout(nodes: usize) -> Option<Finding> {
    (nodes > 1).then(|| {
        let found =
            "no API shows it; by default, messages in transit to a node that fails are delayed by 3 more minutes";
        let remedy = "install deploy/rabbitmq/advanced.config, and check on a node that rabbitmqctl eval \
                      'application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout).' prints {ok,10000}";
        Check::new(CHECK, "dead_letter_worker_publisher_confirm_timeout").skipped(found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn stuck_messages_are_reported_and_messages_in_transit_are_not() {
        let queues = |name: &str, dlx: u64| -> Vec<ReportedQueue> {
            serde_json::from_str(&format!(r#"[{{"name":"{name}","messages_dlx":{dlx}}}]"#)).unwrap()
        };
        let finding = overdue("g", &queues("g.delay.03", 40)).unwrap();
        assert!(finding.level == Level::Failed && finding.found.contains("40 in g.delay.03"), "{finding:?}");
        assert_eq!(overdue("g", &queues("g.delay.03", 31)), None);
        assert_eq!(overdue("g", &queues("g.jobs.cdn.purge", 40)), None, "not a delay queue");
        assert!(confirm_timeout(1).is_none() && confirm_timeout(3).is_some());
    }
}
