//! Our exchanges as the management API tells them, where AMQP could not compare them: how they route, and where what
//! matches nothing goes.

use genfleet_core::queue::topology::{Exchange, Topology};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// An exchange, as `/api/exchanges` tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct SeenExchange {
    name: String,
    #[serde(rename = "type")]
    routing: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// What is there otherwise than it should be.
pub fn differences(wanted: &Topology, seen: &[SeenExchange]) -> Vec<String> {
    let differing = |exchange: &Exchange| {
        let seen = seen.iter().find(|seen| seen.name == exchange.name)?;
        let (routing, arguments) = (json!(exchange.routing), json!(exchange.arguments));
        let same = routing == *seen.routing && arguments == Value::Object(seen.arguments.clone());
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
        assert_eq!(differences(&wanted, &seen("direct", "genfleet.unrouted")), Vec::<String>::new());
        for (kind, alternate) in [("topic", "genfleet.unrouted"), ("direct", "elsewhere")] {
            let told = differences(&wanted, &seen(kind, alternate));
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("exchange genfleet.jobs: is") && told[0].contains("should be direct"), "{told:?}");
        }
    }
}
