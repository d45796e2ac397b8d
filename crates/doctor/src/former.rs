//! Exchanges as an earlier version declared them: they work, and lack something. A declaration cannot change them, an
//! operator can.

use genfleet_core::queue::{
    rabbit::RabbitSettings,
    topology::{delay_step, jobs_exchange, unrouted},
};

use super::finding::Finding;

const CHECK: &str = "broker.topology";

/// Judges those that are `former`; `has_alternate` says whether a policy gives an exchange its alternate.
pub(crate) fn judge(
    former: &[String],
    settings: &RabbitSettings,
    has_alternate: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let prefix = settings.prefix.as_str();
    let mut findings = Vec::new();
    if former.contains(&jobs_exchange(prefix)) {
        let found = "of type direct, as an earlier version declared it: whoever may publish to it may order any kind";
        let remedy = "declare it anew as a topic exchange: deploy/RUNBOOK.md, \"A topology of an earlier version\"";
        findings.push(Finding::warning(CHECK, format!("exchange {}", jobs_exchange(prefix)), found, remedy));
    }
    let steps = former.iter().filter(|name| delay_step(prefix, name).is_some() && !has_alternate(name)).count();
    if steps > 0 {
        let found = format!(
            "{steps} have no alternate exchange: a few dozen messages with a senseless key stop a step of the delays"
        );
        let pattern = format!("^{}\\.delay\\.", prefix.replace('.', "\\."));
        let remedy = format!(
            "rabbitmqctl set_policy -p VHOST --apply-to exchanges {prefix}-delays '{pattern}' '{{\"alternate-exchange\":\"{}\"}}'",
            unrouted(prefix)
        );
        findings.push(Finding::warning(CHECK, format!("exchanges {prefix}.delay.*"), found, remedy));
    }
    findings
}
