//! The files in `deploy/` that make the broker's objects: written from the topology by `deploy/generate`, and compared
//! here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

#[path = "../../job/tests/made/mod.rs"]
mod made;

use genfleet_job::Kind;
use genfleet_queue::topology::topology;
use made::assert_made;
use serde_json::{Value, json};

/// The virtual host, and the queue prefix.
const VHOST: &str = "genfleet";

#[test]
fn the_definitions_hold_the_whole_topology() {
    let name = "deploy/rabbitmq/definitions.json";
    let mut definitions: Value = serde_json::from_str(&made::text(name)).unwrap();
    for (objects, found) in topology_json().as_object().unwrap() {
        let found = found.as_array().unwrap().iter().map(|object| with(object, &json!({"vhost": VHOST})));
        definitions[objects] = found.collect();
    }
    assert_made(name, &lines(&definitions));
}

#[test]
fn the_policy_that_bounds_what_producers_send_matches_every_kind_that_they_order() {
    let definitions: Value = serde_json::from_str(&made::text("deploy/rabbitmq/definitions.json")).unwrap();
    let policies = definitions["policies"].as_array().unwrap();
    let policy = policies.iter().find(|policy| policy["definition"]["max-length-bytes"].is_u64()).unwrap();
    let mut first_words: Vec<_> = Kind::of_producers().filter_map(|kind| kind.as_str().split('.').next()).collect();
    first_words.sort_unstable();
    first_words.dedup();
    assert_eq!(text(policy, "pattern"), format!(r"^genfleet\.jobs\.({})\.", first_words.join("|")));
}

/// For the messaging topology operator, if that makes the objects.
#[test]
fn the_custom_resources_hold_the_whole_topology() {
    let topology = topology_json();
    let all = |objects: &str| topology[objects].as_array().unwrap().clone();
    let exchanges = all("exchanges").into_iter().map(|it| resource("Exchange", text(&it, "name"), &exchange(&it)));
    let queues = all("queues").into_iter().map(|it| resource("Queue", text(&it, "name"), &queue(&it)));
    let bindings = all("bindings").into_iter().map(|it| {
        let name = format!("{}-{}-{}", text(&it, "source"), text(&it, "destination_type"), text(&it, "destination"));
        resource("Binding", &name, &binding(&it))
    });
    let items: Vec<Value> = exchanges.chain(queues).chain(bindings).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    assert_made("deploy/kubernetes/topology/topology.json", &lines(&list));
}

fn exchange(it: &Value) -> Value {
    json!({"name": it["name"], "type": it["type"], "durable": true, "arguments": it["arguments"]})
}

/// What is taken out of the cluster by mistake keeps its messages.
fn queue(it: &Value) -> Value {
    let mut arguments = it["arguments"].clone();
    let of_type = arguments.as_object_mut().unwrap().remove("x-queue-type").unwrap();
    json!({"name": it["name"], "type": of_type, "durable": true, "arguments": arguments, "deletionPolicy": "retain"})
}

fn binding(it: &Value) -> Value {
    json!({
        "source": it["source"], "destination": it["destination"],
        "destinationType": it["destination_type"], "routingKey": it["routing_key"],
    })
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    let place = json!({"vhost": VHOST, "rabbitmqClusterReference": {"name": "rabbitmq"}});
    json!({
        "apiVersion": "rabbitmq.com/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": with(spec, &place),
    })
}

fn topology_json() -> Value {
    serde_json::to_value(topology(VHOST)).unwrap()
}

fn with(object: &Value, more: &Value) -> Value {
    let both = object.as_object().unwrap().iter().chain(more.as_object().unwrap());
    both.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn text<'a>(object: &'a Value, member: &str) -> &'a str {
    object[member].as_str().unwrap()
}

/// An object whose lists have an entry a line.
fn lines(object: &Value) -> String {
    let members = object.as_object().unwrap().iter().map(|(name, value)| match value {
        Value::Array(entries) => {
            let entries: Vec<String> = entries.iter().map(|entry| format!("    {entry}")).collect();
            format!("  \"{name}\": [\n{}\n  ]", entries.join(",\n"))
        }
        other => format!("  \"{name}\": {other}"),
    });
    format!("{{\n{}\n}}\n", members.collect::<Vec<_>>().join(",\n"))
}
