//! Queues and web messaging channels.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Setup, read_answer, until};

const QUEUE: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";
const CHANNELS: &str = "/api/v2/purecloudv2/webchat";

fn channel(id: Uuid) -> Value {
    json!({"id": id, "name": "Shop", "queueId": QUEUE, "routingEmail": "a@example.com",
        "security": {"allowedDomains": ["https://example.com"]}})
}

async fn read(setup: &Setup, path: &str) -> (StatusCode, Value) {
    read_answer(setup.http.get(setup.url(path)).bearer_auth(&setup.token).send().await.unwrap()).await
}

async fn create(setup: &Setup, body: &Value) -> (StatusCode, Value) {
    read_answer(setup.post(CHANNELS).bearer_auth(&setup.token).json(body).send().await.unwrap()).await
}

fn set(setup: &Setup, change: &Value) {
    setup.simulator.set("webMessaging", change).unwrap();
}

#[tokio::test]
async fn every_queue_exists_but_those_that_are_said_to_be_missing() {
    let setup = Setup::new().await;
    let path = format!("/api/v2/routing/queues/{QUEUE}");
    let (status, queue) = read(&setup, &path).await;
    assert_eq!((status, &queue["id"]), (StatusCode::OK, &json!(QUEUE)));
    assert_eq!(read(&setup, "/api/v2/routing/queues/sales").await.0, StatusCode::NOT_FOUND);
    set(&setup, &json!({"missingQueues": [QUEUE.to_uppercase()]}));
    assert_eq!(read(&setup, &path).await.0, StatusCode::NOT_FOUND);
    assert_eq!(create(&setup, &channel(Uuid::new_v4())).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_channel_is_created_once_and_shown() {
    let setup = Setup::new().await;
    let id = Uuid::new_v4();
    let own = format!("{CHANNELS}/{id}");
    assert_eq!(read(&setup, &own).await.0, StatusCode::NOT_FOUND);
    let (status, created) = create(&setup, &channel(id)).await;
    assert_eq!((status, &created["status"]), (StatusCode::CREATED, &json!("active")));
    assert_eq!(read(&setup, &own).await, (StatusCode::OK, created.clone()));
    let (status, refused) = create(&setup, &channel(id)).await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("conflict")));
    assert_eq!(setup.simulator.state()["webMessaging"]["channels"], json!([created]));
}

#[tokio::test]
async fn a_channel_that_is_not_right_is_refused() {
    let setup = Setup::new().await;
    for (member, value) in [
        ("name", json!("")),
        ("queueId", json!("sales")),
        ("routingEmail", Value::Null),
        ("id", json!("mine")),
        ("security", json!({"allowedDomains": []})),
    ] {
        let mut body = channel(Uuid::new_v4());
        body[member] = value;
        assert_eq!(create(&setup, &body).await.0, StatusCode::BAD_REQUEST, "{member}");
    }
    let mut without_id = channel(Uuid::new_v4());
    without_id["id"] = Value::Null;
    let (status, created) = create(&setup, &without_id).await;
    assert_eq!((status, created["id"].as_str().map(str::len)), (StatusCode::CREATED, Some(36)));
}

#[tokio::test]
async fn channels_are_listed_in_pages_with_their_total() {
    let setup = Setup::new().await;
    let ids: Vec<Uuid> = (0..5).map(|_| Uuid::new_v4()).collect();
    for id in &ids {
        create(&setup, &channel(*id)).await;
    }
    let (_, page) = read(&setup, &format!("{CHANNELS}?pageSize=2&pageNumber=3")).await;
    assert_eq!((&page["total"], &page["pageCount"], &page["pageNumber"]), (&json!(5), &json!(3), &json!(3)));
    assert_eq!(page["entities"].as_array().unwrap().len(), 1);
    assert_eq!(page["entities"][0]["id"], json!(ids[4]));
    let (_, all) = read(&setup, CHANNELS).await;
    assert_eq!((all["entities"].as_array().unwrap().len(), &all["pageSize"]), (5, &json!(25)));
    for bad in ["pageSize=0", "pageSize=101", "pageNumber=0"] {
        assert_eq!(read(&setup, &format!("{CHANNELS}?{bad}")).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    set(&setup, &json!({"listing": false}));
    assert_eq!(read(&setup, CHANNELS).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn reads_lag_writes_where_a_test_wants_it() {
    let setup = Setup::new().await;
    set(&setup, &json!({"readLagMs": 300}));
    let id = Uuid::new_v4();
    assert_eq!(create(&setup, &channel(id)).await.0, StatusCode::CREATED);
    assert_eq!(read(&setup, &format!("{CHANNELS}/{id}")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(read(&setup, CHANNELS).await.1["total"], 0);
    assert_eq!(create(&setup, &channel(id)).await.0, StatusCode::CONFLICT, "a write does not lag");
    let began = std::time::Instant::now();
    until(|| began.elapsed().as_millis() > 350).await;
    assert_eq!(read(&setup, CHANNELS).await.1["total"], 1);
}

#[tokio::test]
async fn a_change_that_is_not_known_is_told() {
    let setup = Setup::new().await;
    let wrong = setup.simulator.set("webMessaging", &json!({"licenseLimit": 3})).unwrap_err();
    assert!(wrong.contains("licenseLimit"), "{wrong}");
    assert_eq!(setup.simulator.state()["webMessaging"]["listing"], true);
}
