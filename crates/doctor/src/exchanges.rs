//! Our exchanges as the management API tells them, where AMQP could not compare them: how they route, and where what
//! matches nothing goes.

use genfleet_core::queue::topology::{Exchange, Topology};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// An exchange, as `/api/exchanges` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SeenExchange {
    name: String,
    #[serde(rename = "type")]
    routing: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

impl SeenExchange {
    fn is(&self, exchange: &Exchange) -> bool {
        json!(exchange.routing) == *self.routing && json!(exchange.arguments) == Value::Object(self.arguments.clone())
    }
}

/// Names of those that are there as an earlier version declared them.
pub(crate) fn former(wanted: &Topology, seen: &[SeenExchange]) -> Vec<String> {
    let before = wanted.exchanges.iter().filter_map(Exchange::as_before);
    let former = before.filter(|before| seen.iter().any(|seen| seen.name == before.name && seen.is(before)));
    former.map(|exchange| exchange.name).collect()
}

/// What is there otherwise than it should be, in this version or an earlier one.
pub(crate) fn differences(wanted: &Topology, seen: &[SeenExchange]) -> Vec<String> {
    let differing = |exchange: &Exchange| {
        let seen = seen.iter().find(|seen| seen.name == exchange.name)?;
        let (routing, arguments) = (json!(exchange.routing), json!(exchange.arguments));
        let same = seen.is(exchange) || exchange.as_before().is_some_and(|before| seen.is(&before));
        let is = format!("{} {}", seen.routing, Value::Object(seen.arguments.clone()));
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
    fn how_it_routes_and_where_the_rest_goes_are_compared() {
        let seen = |kind: &str, alternate: &str| -> Vec<SeenExchange> {
            let arguments = format!(r#"{{"alternate-exchange":"{alternate}"}}"#);
            let jobs = format!(r#"{{"name":"genfleet.jobs","type":"{kind}","arguments":{arguments},"durable":true}}"#);
            serde_json::from_str(&format!(r#"[{jobs},{{"name":"amq.topic","type":"topic","arguments":{{}}}}]"#))
                .unwrap()
        };
        let wanted = topology("genfleet");
        for (kind, expected) in [("topic", vec![]), ("direct", vec!["genfleet.jobs".to_owned()])] {
            assert_eq!(differences(&wanted, &seen(kind, "genfleet.unrouted")), Vec::<String>::new());
            assert_eq!(former(&wanted, &seen(kind, "genfleet.unrouted")), expected);
        }
        for (kind, alternate) in [("fanout", "genfleet.unrouted"), ("direct", "elsewhere")] {
            let message = differences(&wanted, &seen(kind, alternate));
            assert_eq!(message.len(), 1, "{message:?}");
            assert!(
                message[0].contains("exchange genfleet.jobs: is") && message[0].contains("should be topic"),
                "{message:?}"
            );
        }
    }
}
