//! Event stream definitions: versions, conflicts, and what a definition has to be.

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::{Setup, header, read_answer};

const ORDERS: &str = "/api/v2/configuration/event-streams/orders";

fn orders() -> Value {
    json!({
        "id": "orders",
        "eventStreamType": "aws-eventbridge",
        "configuration": {
            "awsAccountId": "123456789012",
            "roleArn": "arn:aws:iam::123456789012:role/genesys",
            "region": "us-east-1",
        },
        "filters": [{"eventType": "conversation.created", "conditions": [
            {"field": "metadata.source", "operator": "eq", "value": "web"},
            {"field": "metadata.status", "operator": "in", "value": ["queued"]},
        ]}],
        "transformations": [
            {"sourceField": "participants", "targetField": "agents", "type": "extract", "path": "[].id"},
            {"sourceField": "time", "targetField": "at", "type": "transform", "format": "iso8601"},
        ],
        "attributeMappings": [{"source": "a", "target": "b"}],
    })
}

fn put(setup: &Setup, if_match: &str, definition: &Value) -> RequestBuilder {
    let request = setup.http.put(setup.url(ORDERS)).bearer_auth(&setup.token).header("if-match", if_match);
    request.json(definition)
}

/// The status and the `ETag`.
async fn answered(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    (response.status(), header(&response, "etag"))
}

async fn read(setup: &Setup) -> (StatusCode, String, Value) {
    let response = setup.http.get(setup.url(ORDERS)).bearer_auth(&setup.token).send().await.unwrap();
    let etag = header(&response, "etag");
    let (status, body) = read_answer(response).await;
    (status, etag, body)
}

#[tokio::test]
async fn a_definition_is_created_and_then_replaced_by_who_knows_its_version() {
    let setup = Setup::new().await;
    assert_eq!(read(&setup).await.0, StatusCode::NOT_FOUND);
    let (status, first) = answered(put(&setup, "*", &orders())).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, second) = answered(put(&setup, &first, &orders())).await;
    assert_eq!((status, first == second), (StatusCode::OK, false));
    let (status, _) = answered(put(&setup, &first, &orders())).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let (status, etag, body) = read(&setup).await;
    assert_eq!((status, &etag, &body["filters"]), (StatusCode::OK, &second, &orders()["filters"]));
    let (status, third) = answered(put(&setup, "*", &orders())).await;
    assert_eq!(status, StatusCode::OK);
    let shown = &setup.simulator.state()["eventStreams"]["definitions"]["orders"];
    assert_eq!((&shown["etag"], &shown["changes"], &shown["definition"]), (&json!(third), &json!(3), &orders()));
}

#[tokio::test]
async fn a_version_of_what_is_not_there_matches_nothing() {
    let setup = Setup::new().await;
    assert_eq!(answered(put(&setup, "\"v1\"", &orders())).await.0, StatusCode::PRECONDITION_FAILED);
    assert_eq!(setup.simulator.state()["eventStreams"]["definitions"], json!({}));
}

#[tokio::test]
async fn a_change_without_if_match_is_refused() {
    let setup = Setup::new().await;
    let request = setup.http.put(setup.url(ORDERS)).bearer_auth(&setup.token).json(&orders());
    assert_eq!(answered(request).await.0, StatusCode::PRECONDITION_REQUIRED);
}

#[tokio::test]
async fn somebody_else_is_first_as_often_as_is_wanted() {
    let setup = Setup::new().await;
    setup.simulator.set("eventStreams", &json!({"definition": orders()})).unwrap();
    setup.simulator.set("eventStreams", &json!({"changedByOthers": 2})).unwrap();
    let (_, mut etag, _) = read(&setup).await;
    for _ in 0..2 {
        assert_eq!(answered(put(&setup, &etag, &orders())).await.0, StatusCode::PRECONDITION_FAILED);
        let (_, changed, body) = read(&setup).await;
        assert_ne!((&changed, &body["configuration"]), (&etag, &orders()["configuration"]));
        etag = changed;
    }
    assert_eq!(answered(put(&setup, &etag, &orders())).await.0, StatusCode::OK);
    assert!(setup.simulator.set("eventStreams", &json!({"colour": 2})).is_err());
    assert!(setup.simulator.set("eventStreams", &json!({"definition": {"id": "x"}})).is_err());
}

#[tokio::test]
async fn a_definition_that_breaks_a_rule_is_refused() {
    let setup = Setup::new().await;
    let bad = [
        ("/id", json!("other")),
        ("/eventStreamType", json!("kinesis")),
        ("/configuration/awsAccountId", json!("12345678901")),
        ("/configuration/roleArn", json!("arn:aws:iam::210987654321:role/genesys")),
        ("/configuration/region", json!("")),
        ("/filters", json!([])),
        ("/filters/0/eventType", json!(1)),
        ("/filters/0/conditions", json!(null)),
        ("/filters/0/conditions/0/operator", json!("like")),
        ("/filters/0/conditions/1/value", json!([])),
        ("/transformations", json!({})),
        ("/transformations/0/type", json!("copy")),
        ("/transformations/0/path", json!("id")),
        ("/transformations/1/format", json!("unix")),
        ("/transformations/1/targetField", json!("")),
        ("/attributeMappings/0/source", json!(null)),
    ];
    for (pointer, value) in bad {
        let mut definition = orders();
        *definition.pointer_mut(pointer).unwrap() = value;
        let (status, body) = read_answer(put(&setup, "*", &definition).send().await.unwrap()).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid.value")), "{pointer}");
    }
    let mut unknown = orders();
    unknown["sampleEvent"] = json!({});
    assert_eq!(answered(put(&setup, "*", &unknown)).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(setup.simulator.state()["eventStreams"]["definitions"], json!({}));
}

#[tokio::test]
async fn a_definition_has_at_most_262144_bytes() {
    let setup = Setup::new().await;
    let mut definition = orders();
    definition["filters"][0]["eventType"] = json!("");
    let padding = 262_144 - definition.to_string().len();
    for (more, status) in [(0, StatusCode::CREATED), (1, StatusCode::PAYLOAD_TOO_LARGE)] {
        definition["filters"][0]["eventType"] = json!("e".repeat(padding + more));
        assert_eq!(answered(put(&setup, "*", &definition)).await.0, status, "{more}");
    }
}
