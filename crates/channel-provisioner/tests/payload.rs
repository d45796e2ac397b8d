//! Every rule of a payload, as a job brings it: through the schema and the worker's own rules, each with its pointer.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic like the test itself")]

use genfleet_channel_provisioner::{ChannelOptions, ChannelProvisioner};
use genfleet_core::{
    job::{Kind, schema::JobSchema},
    worker::{JobRules, validate_job},
};
use serde_json::{Value, json};

const OPTIONS: ChannelOptions = ChannelOptions { max_concurrent_sessions: 500, license_limit: 10 };

fn good() -> Value {
    json!({
        "name": "Shop",
        "queueId": "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "routingEmail": "chat@example.com",
        "maxConcurrentSessions": 150,
        "enabled": true,
        "security": {
            "cspHeaders": ["default-src https:", "script-src https: 'self'"],
            "xssPrevention": true,
            "sanitizeHtml": true,
            "allowedDomains": ["shop.example.com", "https://example.com:8443/"],
        },
    })
}

/// The good payload with one member (`security/cspHeaders`) set to another value; `None` takes it out.
fn with(place: &str, value: Option<Value>) -> Value {
    let mut payload = good();
    let (parent, member) = place.rsplit_once('/').unwrap_or(("", place));
    let parent = if parent.is_empty() { String::new() } else { format!("/{parent}") };
    let members = payload.pointer_mut(&parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(member.to_owned(), value),
        None => members.remove(member),
    };
    payload
}

/// Pointer and message of everything that is wrong.
fn violations(payload: &Value) -> Vec<(String, String)> {
    let rules = JobRules::new::<genfleet_channel_provisioner::Payload>(Kind::ChannelProvision, |_| vec![]);
    let body = json!({"id": "job-1", "payload": payload}).to_string();
    match validate_job::<ChannelProvisioner>(&rules, &OPTIONS, body.as_bytes(), None, None) {
        Ok(_) => Vec::new(),
        Err(rejection) => rejection.violations.into_iter().map(|one| (one.pointer, one.message)).collect(),
    }
}

#[test]
fn good_payloads_pass() {
    let table = [
        ("name", None),
        ("name", Some(json!("x"))),
        ("name", Some(json!("ü".repeat(128)))),
        ("queueId", Some(json!("00000000-0000-0000-0000-000000000000"))),
        ("queueId", Some(json!("3F2504E0-4F89-71D3-9A0C-0305E82C3301"))),
        ("routingEmail", Some(json!("\"web chat\"@example.com"))),
        ("maxConcurrentSessions", None),
        ("maxConcurrentSessions", Some(json!(1))),
        ("maxConcurrentSessions", Some(json!(500))),
        ("maxConcurrentSessions", Some(json!(20.0))),
        ("enabled", None),
        ("enabled", Some(json!(false))),
        ("security/cspHeaders", None),
        ("security/cspHeaders", Some(json!([]))),
        ("security/cspHeaders", Some(json!(["script-src 'unsafe-inline' 'unsafe-eval'"]))),
        ("security/cspHeaders", Some(json!(["connect-src wss://a.example", "img-src data: *", "style-src 'none'"]))),
        ("security/cspHeaders", Some(json!(["frame-ancestors 'self' https://a.example https:"]))),
        ("security/xssPrevention", None),
        ("security/sanitizeHtml", None),
        ("security/sanitizeHtml", Some(json!(false))),
        ("security/allowedDomains", Some(json!(["bücher.example", "BÜCHER.example"]))),
    ];
    assert_eq!(violations(&good()), []);
    for (place, value) in table {
        assert_eq!(violations(&with(place, value.clone())), [], "{place} {value:?}");
    }
}

#[test]
fn each_broken_rule_is_told_at_its_place() {
    let table = [
        ("name", Some(json!("")), "name"),
        ("name", Some(json!("x".repeat(129))), "name"),
        ("name", Some(json!(1)), "name"),
        ("queueId", None, "queueId"),
        ("queueId", Some(Value::Null), "queueId"),
        ("queueId", Some(json!("")), "queueId"),
        ("queueId", Some(json!("sales")), "queueId"),
        ("queueId", Some(json!("3f2504e04f8911d39a0c0305e82c3301")), "queueId"),
        ("queueId", Some(json!("{3f2504e0-4f89-11d3-9a0c-0305e82c3301}")), "queueId"),
        ("queueId", Some(json!("3f2504e0-4f89-11d3-9a0c-0305e82c330g")), "queueId"),
        ("routingEmail", None, "routingEmail"),
        ("routingEmail", Some(json!("")), "routingEmail"),
        ("routingEmail", Some(json!("chat")), "routingEmail"),
        ("routingEmail", Some(json!("Chat <chat@example.com>")), "routingEmail"),
        ("routingEmail", Some(json!("chat@exa mple.com")), "routingEmail"),
        ("maxConcurrentSessions", Some(json!(0)), "maxConcurrentSessions"),
        ("maxConcurrentSessions", Some(json!(501)), "maxConcurrentSessions"),
        ("maxConcurrentSessions", Some(json!(-1)), "maxConcurrentSessions"),
        ("maxConcurrentSessions", Some(json!(1.5)), "maxConcurrentSessions"),
        ("maxConcurrentSessions", Some(json!("150")), "maxConcurrentSessions"),
        ("enabled", Some(json!("yes")), "enabled"),
        ("channelId", Some(json!("x")), "channelId"),
        ("security", None, "security"),
        ("security", Some(json!([])), "security"),
        ("security/csp", Some(json!([])), "security/csp"),
        ("security/cspHeaders", Some(json!("default-src https:")), "security/cspHeaders"),
        ("security/cspHeaders", Some(json!(["default-src https:", 1])), "security/cspHeaders/1"),
        ("security/cspHeaders", Some(json!(["img-src *", "object-src 'none'"])), "security/cspHeaders/1"),
        ("security/cspHeaders", Some(json!(["img-src *", "style-src *", "img-src https:"])), "security/cspHeaders/2"),
        ("security/cspHeaders", Some(json!(["img-src *", "IMG-SRC https:"])), "security/cspHeaders/1"),
        ("security/cspHeaders", Some(json!(["img-src *; style-src *"])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!([""])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!(["script-src https: 'self"])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!(["script-src 'unsafe'"])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!(["script-src https://a_b.example"])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!(["script-src 1x:"])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!(["frame-ancestors *"])), "security/cspHeaders/0"),
        ("security/cspHeaders", Some(json!(["frame-ancestors http://a.example"])), "security/cspHeaders/0"),
        ("security/xssPrevention", Some(json!(false)), "security/xssPrevention"),
        ("security/xssPrevention", Some(json!("true")), "security/xssPrevention"),
        ("security/sanitizeHtml", Some(json!(1)), "security/sanitizeHtml"),
        ("security/allowedDomains", None, "security/allowedDomains"),
        ("security/allowedDomains", Some(json!([])), "security/allowedDomains"),
        ("security/allowedDomains", Some(json!("example.com")), "security/allowedDomains"),
        ("security/allowedDomains", Some(json!(["a.example", null])), "security/allowedDomains/1"),
        ("security/allowedDomains", Some(json!(["a.example", "http://b.example"])), "security/allowedDomains/1"),
        ("security/allowedDomains", Some(json!(["a.example/shop"])), "security/allowedDomains/0"),
        ("security/allowedDomains", Some(json!(["user:secret@a.example"])), "security/allowedDomains/0"),
        ("security/allowedDomains", Some(json!(["*.a.example"])), "security/allowedDomains/0"),
        ("security/allowedDomains", Some(json!(["192.0.2.1"])), "security/allowedDomains/0"),
        ("security/allowedDomains", Some(json!(["[2001:db8::1]"])), "security/allowedDomains/0"),
    ];
    for (place, value, pointer) in table {
        let details = violations(&with(place, value.clone()));
        assert_eq!(details.len(), 1, "{place} {value:?}: {details:?}");
        assert_eq!(details[0].0, format!("/payload/{pointer}"), "{place} {value:?}: {details:?}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let payload = json!({
        "name": "",
        "routingEmail": "nobody",
        "maxConcurrentSessions": 501,
        "colour": "red",
        "security": {
            "cspHeaders": ["script-src 'self", "script-src https:", 7],
            "xssPrevention": false,
            "allowedDomains": ["http://a.example", "b.example", "*"],
        },
    });
    let mut details: Vec<String> = violations(&payload).into_iter().map(|(pointer, _)| pointer).collect();
    details.sort();
    let expected = [
        "colour",
        "maxConcurrentSessions",
        "name",
        "queueId",
        "routingEmail",
        "security/allowedDomains/0",
        "security/allowedDomains/2",
        "security/cspHeaders/0",
        "security/cspHeaders/1",
        "security/cspHeaders/2",
        "security/xssPrevention",
    ];
    assert_eq!(details, expected.map(|place| format!("/payload/{place}")));
    let without_security = json!({"queueId": "sales", "routingEmail": "nobody"});
    assert_eq!(violations(&without_security).len(), 3, "{:?}", violations(&without_security));
}

#[test]
fn the_schema_says_what_has_to_be_there_and_that_it_is_not_null() {
    let schema = JobSchema::new::<genfleet_channel_provisioner::Payload>(Kind::ChannelProvision);
    let payload = &schema.document()["properties"]["payload"];
    assert_eq!(payload["required"], json!(["queueId", "routingEmail", "security"]));
    assert_eq!(payload["properties"]["queueId"]["type"], "string");
    assert_eq!(payload["properties"]["security"]["required"], json!(["allowedDomains"]));
    assert_eq!(payload["properties"]["maxConcurrentSessions"]["minimum"], 1);
}
