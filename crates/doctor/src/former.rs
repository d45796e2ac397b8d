//! Exchanges that an earlier version declared. They work, but have a weakness that a declaration cannot remove; an
//! operator can.

use genfleet_core::queue::{
    rabbit::RabbitSettings,
    topology::{delay_step, jobs_exchange, unrouted},
};

use super::finding::{Check, Finding};

const CHECK: &str = "broker.topology";

/// Judges the `former` exchanges; `has_alternate` says whether a policy gives an exchange its alternate exchange.
pub(crate) fn judge(
    former: &[String],
    settings: &RabbitSettings,
    has_alternate: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let prefix = settings.prefix.as_str();
    let mut findings = Vec::new();
    if former.contains(&jobs_exchange(prefix)) {
        let found = "a direct exchange that an earlier version declared: a user who may publish to it may publish jobs of every kind";
        let remedy = "replace it by a topic exchange: deploy/RUNBOOK.md, \"A topology of an earlier version\"";
        findings.push(Check::new(CHECK, format!("exchange {}", jobs_exchange(prefix))).warning(found, remedy));
    }
    let steps = former.iter().filter(|name| delay_step(prefix, name).is_some() && !has_alternate(name)).count();
    if steps > 0 {
        let found = format!(
            "{steps} have no alternate exchange: a few dozen messages with an invalid routing key block a delay queue"
        );
        let pattern = format!("^{}\\.delay\\.", prefix.replace('.', "\\."));
        let remedy = format!(
            "rabbitmqctl set_policy -p VHOST --apply-to exchanges {prefix}-delays '{pattern}' '{{\"alternate-exchange\":\"{}\"}}'",
            unrouted(prefix)
        );
        findings.push(Check::new(CHECK, format!("exchanges {prefix}.delay.*")).warning(found, remedy));
    }
    findings
}
