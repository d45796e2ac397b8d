//! The delays: whether what they hold gets on, and for how long it may not where a node of the broker dies.

use genfleet_core::queue::topology::delay_step;

use super::{finding::Finding, queues::SeenQueue};

const CHECK: &str = "broker.delays";
/// So many are on their way at any moment.
const ON_THEIR_WAY: u64 = 32;

/// Judges whether messages whose time is over stay where they are.
pub(crate) fn overdue(prefix: &str, queues: &[SeenQueue]) -> Option<Finding> {
    let steps = queues.iter().filter(|queue| delay_step(prefix, queue.name()).is_some());
    let stuck: Vec<String> = steps
        .filter(|queue| queue.overdue() >= ON_THEIR_WAY)
        .map(|queue| format!("{} in {}", queue.overdue(), queue.name()))
        .collect();
    (!stuck.is_empty()).then(|| {
        let found = format!("their time is over and they do not get on: {}", stuck.join(", "));
        Finding::failed(CHECK, "what is delayed", found, "deploy/RUNBOOK.md, GenfleetDelaysStuck")
    })
}

/// Says how a cluster is asked for what no API tells.
pub(crate) fn confirm_timeout(nodes: usize) -> Option<Finding> {
    (nodes > 1).then(|| {
        let found = "no API tells it; by default what was on its way to a node that died is delayed by 3 minutes more";
        let remedy = "ship deploy/rabbitmq/advanced.config, and look on a node: rabbitmqctl eval \
                      'application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout).' says {ok,10000}";
        Finding::skipped(CHECK, "dead_letter_worker_publisher_confirm_timeout", found, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn what_stays_in_a_step_is_told_and_what_is_on_its_way_is_not() {
        let seen = |name: &str, dlx: u64| -> Vec<SeenQueue> {
            serde_json::from_str(&format!(r#"[{{"name":"{name}","messages_dlx":{dlx}}}]"#)).unwrap()
        };
        let message = overdue("g", &seen("g.delay.03", 40)).unwrap();
        assert!(message.level == Level::Failed && message.found.contains("40 in g.delay.03"), "{message:?}");
        assert_eq!(overdue("g", &seen("g.delay.03", 31)), None);
        assert_eq!(overdue("g", &seen("g.jobs.cdn.purge", 40)), None, "no step");
        assert!(confirm_timeout(1).is_none() && confirm_timeout(3).is_some());
    }
}
