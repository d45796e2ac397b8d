//! Every rule of SPEC 3.2 as a worker applies it: through the schema and the rules, from a job's bytes.

use genfleet_core::{
    handler::JobHandler,
    job::Kind,
    worker::{JobRules, validate_job},
};
use serde_json::json;

use super::*;
use crate::StreamConfigurator;

mod broken;

/// The tutorial's payload, with a sample that all of it resolves with.
fn payload() -> Value {
    json!({
        "sourceId": "eventbridge-source-prod-01",
        "configuration": {
            "awsAccountId": "123456789012",
            "roleArn": "arn:aws:iam::123456789012:role/genesys-eb-role",
            "region": "us-east-1",
        },
        "filters": [
            {"eventType": "conversation.created", "conditions": [
                {"field": "metadata.source", "operator": "eq", "value": "web"},
                {"field": "metadata.routingStatus", "operator": "in", "value": ["queued", "contact"]},
            ]},
            {"eventType": "analytics.conversations.summary", "conditions": [
                {"field": "metrics.duration", "operator": "gte", "value": 30},
            ]},
        ],
        "transformations": [
            {"sourceField": "conversation.id", "targetField": "convId", "type": "direct"},
            {"sourceField": "participants", "targetField": "agentIds", "type": "extract", "path": "[].id"},
            {"sourceField": "metadata.timestamp", "targetField": "eventTime", "type": "transform", "format": "iso8601"},
        ],
        "attributeMappings": [
            {"source": "attributes.tenantId", "target": "custom.tenant"},
            {"source": "attributes.queueName", "target": "custom.queue"},
        ],
        "etag": "W/\"abc 1\"",
        "sampleEvent": {
            "conversation": {"id": "c"},
            "participants": [{"id": "p"}],
            "metadata": {"timestamp": "2024-01-15T10:00:00Z"},
            "attributes": {"tenantId": "t", "queueName": "q"},
        },
        "onConflict": "fail",
    })
}

/// Returns the pointers of a payload's violations.
fn pointers(rules: &JobRules, payload: &Value) -> Vec<String> {
    let body = json!({ "payload": payload }).to_string();
    match validate_job::<StreamConfigurator>(rules, &(), body.as_bytes(), None, None) {
        Ok(_) => Vec::new(),
        Err(rejection) => {
            assert_eq!(rejection.code, "invalid_job");
            rejection.violations.into_iter().map(|violation| violation.pointer).collect()
        }
    }
}

fn rules() -> JobRules {
    JobRules::new::<<StreamConfigurator as JobHandler>::Payload>(Kind::StreamConfigure, |_| vec![])
}

/// The payload with one place changed; a member that is not there is put there.
fn with(pointer: &str, value: &Value) -> Value {
    let mut changed = payload();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    match changed.pointer_mut(pointer) {
        Some(place) => *place = value.clone(),
        None => changed.pointer_mut(parent).unwrap()[member] = value.clone(),
    }
    changed
}

fn without(pointer: &str) -> Value {
    let mut changed = payload();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(member).unwrap();
    changed
}

#[test]
fn what_keeps_every_rule_passes() {
    let rules = rules();
    let longest_id = "x".repeat(128);
    let good = [
        ("/sourceId", json!("A-Za.z0_9")),
        ("/sourceId", json!(longest_id)),
        ("/sourceId", json!("...")),
        ("/configuration/roleArn", json!("arn:aws:iam::123456789012:role/service-role/a/b/My+Role=1,2.3@x_y-z")),
        ("/configuration/roleArn", json!("arn:aws-us-gov:iam::123456789012:role/r")),
        ("/configuration/roleArn", json!("arn:aws-cn:iam::123456789012:role/r")),
        ("/configuration/roleArn", json!("arn:aws-eusc:iam::123456789012:role/r")),
        ("/filters/0/conditions", json!([])),
        ("/filters/0/conditions/0/value", json!(null)),
        ("/filters/0/conditions/0", json!({"field": "f", "operator": "neq", "value": {"any": ["thing"]}})),
        ("/filters/0/conditions/0", json!({"field": "f", "operator": "in", "value": [1]})),
        ("/filters/0/conditions/0", json!({"field": "f", "operator": "lte", "value": -1.5})),
        ("/filters/0/conditions/0", json!({"field": "f", "operator": "gte", "value": "2026-11-20T12:00:00+01:00"})),
        ("/transformations", json!([])),
        ("/transformations/0/targetField", json!("custom.third")),
        ("/transformations/0/path", json!("[].a.b")),
        ("/attributeMappings", json!([])),
        ("/attributeMappings/0/target", json!("customized")),
        ("/etag", json!("*")),
        ("/etag", json!(null)),
        ("/sampleEvent", json!(null)),
        ("/onConflict", json!("overwrite")),
    ];
    assert_eq!(pointers(&rules, &payload()), Vec::<String>::new());
    for (pointer, value) in good {
        assert_eq!(pointers(&rules, &with(pointer, &value)), Vec::<String>::new(), "{pointer}: {value}");
    }
    for optional in ["/transformations", "/attributeMappings", "/etag", "/sampleEvent", "/onConflict"] {
        assert_eq!(pointers(&rules, &without(optional)), Vec::<String>::new(), "without {optional}");
    }
}

#[test]
fn no_violation_is_a_bare_regular_expression() {
    let rules = rules();
    for (pointer, rule) in [
        ("/sourceId", "must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ -, e.g. "),
        ("/configuration/awsAccountId", "must be the 12 digits of an AWS account, e.g. "),
        ("/configuration/roleArn", "must be the ARN of an IAM role, e.g. "),
        ("/configuration/region", "must be the name of an AWS region, e.g. "),
        ("/etag", "must be printable ASCII without a space at either end, e.g. "),
    ] {
        let body = json!({ "payload": with(pointer, &json!(" not this ")) }).to_string();
        let rejection = validate_job::<StreamConfigurator>(&rules, &(), body.as_bytes(), None, None).unwrap_err();
        let messages: Vec<&str> = rejection.violations.iter().map(|one| one.message.as_str()).collect();
        assert!(messages.iter().any(|message| message.starts_with(rule)), "{pointer}: {messages:?}");
    }
}

#[test]
fn region_names_are_told_from_what_is_none() {
    let rules = rules();
    let is_good = |region: &str| pointers(&rules, &with("/configuration/region", &json!(region))).is_empty();
    for good in [
        "us-east-1",
        "us-west-2",
        "eu-central-1",
        "eu-north-1",
        "ap-southeast-7",
        "ap-northeast-3",
        "af-south-1",
        "ca-west-1",
        "il-central-1",
        "me-south-1",
        "mx-central-1",
        "sa-east-1",
        "us-gov-west-1",
        "us-gov-east-1",
        "cn-north-1",
        "cn-northwest-1",
        "eusc-de-east-1",
        "us-iso-east-1",
        "us-isob-east-1",
        "eu-isoe-west-1",
    ] {
        assert!(is_good(good), "{good}");
    }
    for bad in [
        "",
        "us-east",
        "us-east-1a",
        "US-EAST-1",
        "us_east_1",
        "useast1",
        "us-east-0",
        "us-east-100",
        "mars-east-1",
        "global",
        "eu-frankfurt-1",
        "us-east-1 ",
        "us-east-1\n",
        "us--east-1",
        "aws-global",
        "virginia",
    ] {
        assert!(!is_good(bad), "{bad:?}");
    }
}

#[test]
fn what_breaks_a_rule_is_told_at_its_place() {
    let rules = rules();
    for (pointer, value, details) in broken::table() {
        let found = pointers(&rules, &with(pointer, &value));
        let at_place = found.iter().any(|one| *one == format!("/payload{details}"));
        assert!(at_place, "{pointer}: {value}: {found:?}");
        // A mapping of the two into a parent of both clashes with each.
        let most = if pointer == "/transformations/0/targetField" && value == "custom" { 2 } else { 1 };
        let many = found.len() > most && !matches!(pointer, "/configuration" | "/transformations/0/sourceField");
        assert!(!many, "{pointer}: {value}: {found:?}");
    }
}

#[test]
fn what_is_missing_is_told_where_it_should_be() {
    let rules = rules();
    for member in [
        "/sourceId",
        "/configuration",
        "/configuration/awsAccountId",
        "/configuration/roleArn",
        "/configuration/region",
        "/filters",
        "/filters/0/eventType",
        "/filters/0/conditions",
        "/filters/0/conditions/0/field",
        "/filters/0/conditions/0/operator",
        "/filters/0/conditions/0/value",
        "/transformations/0/sourceField",
        "/transformations/0/targetField",
        "/transformations/0/type",
        "/transformations/1/path",
        "/transformations/2/format",
        "/attributeMappings/0/source",
        "/attributeMappings/0/target",
    ] {
        assert_eq!(pointers(&rules, &without(member)), [format!("/payload{member}")]);
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_whoever_finds_it() {
    let wrong = json!({
        "configuration": {
            "awsAccountId": "123456789012", "roleArn": "arn:aws:iam::210987654321:role/r", "region": "mars",
        },
        "filters": [{"eventType": "e", "conditions": [
            {"field": "f", "operator": "like", "value": 1},
            {"field": "f", "operator": "in", "value": []},
            {"operator": 5},
        ]}],
        "transformations": [
            {"sourceField": "a", "targetField": "t", "type": "copy"},
            {"sourceField": "a", "targetField": "t", "type": "extract"},
            {"sourceField": "a", "targetField": "u", "type": "transform", "format": "iso8601"},
        ],
        "attributeMappings": [{"source": "b", "target": "u.x"}],
        "sampleEvent": {"a": 1},
        "colour": "red",
    });
    let mut found = pointers(&rules(), &wrong);
    found.sort();
    let expected = [
        "/payload/attributeMappings/0",
        "/payload/attributeMappings/0/target",
        "/payload/colour",
        "/payload/configuration/region",
        "/payload/configuration/roleArn",
        "/payload/filters/0/conditions/0/operator",
        "/payload/filters/0/conditions/1/value",
        "/payload/filters/0/conditions/2/field",
        "/payload/filters/0/conditions/2/operator",
        "/payload/filters/0/conditions/2/value",
        "/payload/sourceId",
        "/payload/transformations/0/type",
        "/payload/transformations/1/path",
        "/payload/transformations/1/targetField",
        "/payload/transformations/2",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_word_that_is_none_of_those_allowed_is_told_which_are() {
    let changed = with("/filters/0/conditions/0/operator", &json!("like"));
    let body = json!({ "payload": changed }).to_string();
    let rejection = validate_job::<StreamConfigurator>(&rules(), &(), body.as_bytes(), None, None).unwrap_err();
    assert_eq!(rejection.violations[0].message, r#"must be one of "eq", "neq", "in", "gte", "lte""#);
}

#[test]
fn a_target_inside_one_that_clashes_itself_clashes_too() {
    let targets = ["a.b", "a", "a.c", "b", "a.b"];
    let mappings: Vec<Value> = targets.iter().map(|target| json!({"source": "s", "target": target})).collect();
    let mut changed = payload();
    changed["attributeMappings"] = mappings.into();
    changed["sampleEvent"] = Value::Null;
    let found = pointers(&rules(), &changed);
    assert_eq!(found, [1, 2, 4].map(|n| format!("/payload/attributeMappings/{n}/target")));
}

#[test]
fn a_definition_has_at_most_262144_bytes() {
    let rules = rules();
    let sized = |bytes: usize| {
        let mut changed = with("/filters/0/eventType", &json!(""));
        let short = crate::definition::Definition::of(&serde_json::from_value(changed.clone()).unwrap()).bytes;
        // Each of these letters is two bytes and one character.
        changed["filters"][0]["eventType"] = format!("{}{}", "é", "e".repeat(bytes - short - 2)).into();
        changed
    };
    assert_eq!(pointers(&rules, &sized(262_144)), Vec::<String>::new());
    assert_eq!(pointers(&rules, &sized(262_145)), ["/payload"]);
    // What is not sent does not count.
    let large_sample = with("/sampleEvent/more", &json!("x".repeat(300_000)));
    assert_eq!(pointers(&rules, &large_sample), Vec::<String>::new());
}

#[test]
fn a_thousand_long_targets_are_judged_quickly() {
    let name = vec!["n"; 300].join(".");
    let mappings: Vec<Value> = (0..1_000).map(|n| json!({"source": "s", "target": format!("{name}.{n}")})).collect();
    let mut changed = payload();
    changed["attributeMappings"] = mappings.into();
    changed["sampleEvent"] = Value::Null;
    let body = json!({ "payload": changed }).to_string();
    let judged = validate_job::<StreamConfigurator>(&rules(), &(), body.as_bytes(), None, None);
    let found = judged.unwrap_err().violations;
    assert!(found.iter().all(|one| one.pointer.ends_with("/target")), "{found:?}");
    // And one for the length of them all.
    assert_eq!(found.total(), 1_001);
}

#[test]
fn the_contract_lists_what_is_required_and_hides_what_is_not_allowed() {
    let rules = rules();
    let payload = &rules.schema().document()["properties"]["payload"];
    assert_eq!(payload["required"], json!(["sourceId", "configuration", "filters"]));
    assert_eq!(payload["properties"]["configuration"]["required"], json!(["awsAccountId", "roleArn", "region"]));
    assert!(!payload.to_string().contains("unknown"), "{payload}");
}
