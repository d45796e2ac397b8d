//! Amazon `EventBridge` integrations: created, configured, switched on; late, limited and changed by others.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{Setup, read_answer};

const ALL: &str = "/api/v2/integrations";

async fn call(setup: &Setup, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let request = setup.http.request(method, setup.url(path)).bearer_auth(&setup.token);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    read_answer(request.send().await.unwrap()).await
}

async fn get(setup: &Setup, path: &str) -> (StatusCode, Value) {
    call(setup, Method::GET, path, None).await
}

async fn created(setup: &Setup, name: &str) -> String {
    let body = json!({"name": name, "integrationType": {"id": "amazon-eventbridge-source"}});
    let (status, answer) = call(setup, Method::POST, ALL, Some(&body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["id"].as_str().unwrap().to_owned()
}

fn config(version: u64) -> Value {
    json!({
        "name": "crm", "version": version, "advanced": {}, "notes": "", "credentials": {},
        "properties": {
            "awsAccountId": "123456789012", "awsAccountRegion": "us-east-1", "eventSourceSuffix": "crm",
            "eventFilter": ["v2.a"],
        },
    })
}

async fn put(setup: &Setup, id: &str, body: &Value) -> (StatusCode, Value) {
    call(setup, Method::PUT, &format!("{ALL}/{id}/config/current"), Some(body)).await
}

async fn intend(setup: &Setup, id: &str, state: &str) -> StatusCode {
    call(setup, Method::PATCH, &format!("{ALL}/{id}"), Some(&json!({"intendedState": state}))).await.0
}

async fn reported(setup: &Setup, id: &str) -> String {
    let (_, told) = get(setup, &format!("{ALL}/{id}")).await;
    told["reportedState"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_integration_is_created_configured_and_switched_on_and_off() {
    let setup = Setup::new().await;
    let id = created(&setup, "crm").await;
    let (status, read) = get(&setup, &format!("{ALL}/{id}/config/current")).await;
    assert_eq!((status, &read["version"], &read["properties"]), (StatusCode::OK, &json!(1), &json!({})));
    assert_eq!(intend(&setup, &id, "ENABLED").await, StatusCode::OK);
    assert_eq!(reported(&setup, &id).await, "ERROR", "it is not configured");
    let (status, stored) = put(&setup, &id, &config(1)).await;
    assert_eq!((status, &stored["version"]), (StatusCode::OK, &json!(2)));
    assert_eq!(reported(&setup, &id).await, "ACTIVE");
    assert_eq!(intend(&setup, &id, "DISABLED").await, StatusCode::OK);
    assert_eq!(reported(&setup, &id).await, "INACTIVE");
    assert_eq!(intend(&setup, &id, "OFF").await, StatusCode::BAD_REQUEST);
    let (status, told) = get(&setup, "/api/v2/organizations/me").await;
    assert_eq!((status, &told["id"]), (StatusCode::OK, &setup.simulator.state()["integrations"]["organizationId"]));
}

#[tokio::test]
async fn a_stale_version_and_a_configuration_that_breaks_a_rule_are_refused() {
    let setup = Setup::new().await;
    let id = created(&setup, "crm").await;
    assert_eq!(put(&setup, &id, &config(7)).await.0, StatusCode::CONFLICT);
    setup.simulator.set("integrations", &json!({"staleStatus": 400})).unwrap();
    let (status, told) = put(&setup, &id, &config(7)).await;
    let message = told["message"].as_str().unwrap();
    assert!(status == StatusCode::BAD_REQUEST && message.contains("does not match"), "{told}");
    for (pointer, value) in [
        ("/name", json!("")),
        ("/version", json!("1")),
        ("/advanced", Value::Null),
        ("/notes", json!(1)),
        ("/credentials", json!([])),
        ("/properties/awsAccountId", json!("1234")),
        ("/properties/eventSourceSuffix", json!("a/b")),
        ("/properties/eventFilter", json!([])),
    ] {
        let mut body = config(1);
        *body.pointer_mut(pointer).unwrap() = value;
        let (status, told) = put(&setup, &id, &body).await;
        assert_eq!((status, &told["code"]), (StatusCode::BAD_REQUEST, &json!("invalid.value")), "{pointer}");
    }
    assert!(setup.simulator.set("integrations", &json!({"staleStatus": 418})).is_err());
}

#[tokio::test]
async fn lists_have_pages_and_show_a_new_integration_late_and_reads_too() {
    let setup = Setup::new().await;
    let id = created(&setup, "crm").await;
    let (_, page) = get(&setup, &format!("{ALL}?expand=config.current&pageSize=1&pageNumber=1")).await;
    assert_eq!((&page["total"], &page["entities"][0]["config"]["current"]["version"]), (&json!(1), &json!(1)));
    let (_, empty) = get(&setup, &format!("{ALL}?pageSize=1&pageNumber=2")).await;
    assert_eq!((&empty["entities"], &empty["pageCount"]), (&json!([]), &json!(1)));
    let (_, other) = get(&setup, &format!("{ALL}?integrationType=another")).await;
    assert_eq!(other["total"], 0);
    assert_eq!(get(&setup, &format!("{ALL}?pageSize=101")).await.0, StatusCode::BAD_REQUEST);
    setup.simulator.set("integrations", &json!({"listLagMs": 3_600_000})).unwrap();
    assert_eq!(get(&setup, ALL).await.1["total"], 0);
    assert_eq!(get(&setup, &format!("{ALL}/{id}")).await.0, StatusCode::OK);
    setup.simulator.set("integrations", &json!({"readLagMs": 3_600_000})).unwrap();
    assert_eq!(get(&setup, &format!("{ALL}/{id}")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn names_are_not_unique_and_their_number_is_limited() {
    let setup = Setup::new().await;
    let kind = format!("{ALL}/types/amazon-eventbridge-source");
    assert_eq!(get(&setup, &kind).await.1["maxInstances"], 50);
    assert_eq!(get(&setup, &format!("{ALL}/types/another")).await.0, StatusCode::NOT_FOUND);
    assert_ne!(created(&setup, "crm").await, created(&setup, "crm").await);
    setup.simulator.set("integrations", &json!({"maxInstances": 2})).unwrap();
    let body = json!({"name": "one more", "integrationType": {"id": "amazon-eventbridge-source"}});
    assert_eq!(call(&setup, Method::POST, ALL, Some(&body)).await.0, StatusCode::BAD_REQUEST);
    for wrong in [json!({"integrationType": {"id": "amazon-eventbridge-source"}}), json!({"name": "n"})] {
        assert_eq!(call(&setup, Method::POST, ALL, Some(&wrong)).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn somebody_else_is_first_and_nothing_comes_up_where_that_is_wanted() {
    let setup = Setup::new().await;
    let seeded = json!({"name": "crm", "properties": config(1)["properties"], "enabled": true});
    setup.simulator.set("integrations", &json!({"integration": seeded, "changedByOthers": 1})).unwrap();
    let there = setup.simulator.state()["integrations"]["integrations"][0].clone();
    let id = there["id"].as_str().unwrap();
    assert_eq!(reported(&setup, id).await, "ACTIVE");
    assert_eq!(put(&setup, id, &config(1)).await.0, StatusCode::CONFLICT);
    assert_eq!(put(&setup, id, &config(2)).await.0, StatusCode::OK);
    setup.simulator.set("integrations", &json!({"failure": "no such account"})).unwrap();
    let (_, told) = get(&setup, &format!("{ALL}/{id}")).await;
    assert_eq!(told["reportedState"]["detail"]["message"], "no such account");
    setup.simulator.set("integrations", &json!({"failure": "", "activationMs": 3_600_000})).unwrap();
    assert_eq!(intend(&setup, id, "DISABLED").await, StatusCode::OK);
    assert_eq!(reported(&setup, id).await, "DEACTIVATING");
    assert!(setup.simulator.set("integrations", &json!({"colour": 2})).is_err());
}
