//! The topology's exchanges as the management API reports them, for users who may not compare them over AMQP: their
//! types and their alternate exchanges.

use genfleet_core::queue::topology::{Exchange, Topology};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// An exchange as `/api/exchanges` reports it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportedExchange {
    name: String,
    #[serde(rename = "type")]
    routing: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

impl ReportedExchange {
    fn is(&self, exchange: &Exchange) -> bool {
        json!(exchange.routing) == *self.routing && json!(exchange.arguments) == Value::Object(self.arguments.clone())
    }
}

/// Names of the exchanges that exist as an earlier version declared them.
pub(crate) fn former(wanted: &Topology, reported: &[ReportedExchange]) -> Vec<String> {
    let before = wanted.exchanges.iter().filter_map(Exchange::as_before);
    let former = before.filter(|before| reported.iter().any(|each| each.name == before.name && each.is(before)));
    former.map(|exchange| exchange.name).collect()
}

/// Describes the exchanges that differ both from this version's and from an earlier version's declaration.
pub(crate) fn differences(wanted: &Topology, reported: &[ReportedExchange]) -> Vec<String> {
    let differing = |exchange: &Exchange| {
        let reported = reported.iter().find(|each| each.name == exchange.name)?;
        let (routing, arguments) = (json!(exchange.routing), json!(exchange.arguments));
        let same = reported.is(exchange) || exchange.as_before().is_some_and(|before| reported.is(&before));
        let is = format!("{} {}", reported.routing, Value::Object(reported.arguments.clone()));
        let should = format!("{} {arguments}", routing.as_str().unwrap_or_default());
        (!same).then(|| format!("exchange {}: is {is} and should be {should}", exchange.name))
    };
    wanted.exchanges.iter().filter_map(differing).collect()
}

#[cfg(test)]
mod tests {
    use genfleet_core::queue::topology::topology;

    use super::*;

    #[test]
    fn types_and_alternate_exchanges_are_compared() {
        let reported = |kind: &str, alternate: &str| -> Vec<ReportedExchange> {
            let arguments = format!(r#"{{"alternate-exchange":"{alternate}"}}"#);
            let jobs = format!(r#"{{"name":"genfleet.jobs","type":"{kind}","arguments":{arguments},"durable":true}}"#);
            serde_json::from_str(&format!(r#"[{jobs},{{"name":"amq.topic","type":"topic","arguments":{{}}}}]"#))
                .unwrap()
        };
        let wanted = topology("genfleet");
        for (kind, expected) in [("topic", vec![]), ("direct", vec!["genfleet.jobs".to_owned()])] {
            assert_eq!(differences(&wanted, &reported(kind, "genfleet.unrouted")), Vec::<String>::new());
            assert_eq!(former(&wanted, &reported(kind, "genfleet.unrouted")), expected);
        }
        for (kind, alternate) in [("fanout", "genfleet.unrouted"), ("direct", "elsewhere")] {
            let found = differences(&wanted, &reported(kind, alternate));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].contains("exchange genfleet.jobs: is") && found[0].contains("should be topic"),
                "{found:?}"
            );
        }
    }
}
