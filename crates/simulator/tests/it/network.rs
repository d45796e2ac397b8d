//! Private connections and routing tables.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{Setup, read_answer};

const CONNECTIONS: &str = "/api/v2/organization/privateconnectivity/connections";
const TABLES: &str = "/api/v2/architect/networking/routingtables";

fn connection(organisation: &str, n: usize) -> Value {
    json!({
        "name": format!("vni-{n}"), "organizationId": organisation, "type": "ipconnect",
        "localIp": format!("10.{n}.0.1"), "remoteIp": "203.0.113.10", "subnetCidr": format!("10.{n}.0.0/16"),
        "dnsServers": ["8.8.8.8"], "routingTableId": "rt-1",
    })
}

async fn ask(setup: &Setup, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let request = setup.http.request(method, setup.url(path)).bearer_auth(&setup.token);
    let request = if let Some(body) = body { request.json(body) } else { request };
    let response = request.send().await.unwrap();
    if response.status() == StatusCode::NO_CONTENT {
        (response.status(), Value::Null)
    } else {
        read_answer(response).await
    }
}

async fn create(setup: &Setup, body: &Value) -> (StatusCode, Value) {
    ask(setup, Method::POST, CONNECTIONS, Some(body)).await
}

async fn list(setup: &Setup, query: &str) -> Value {
    ask(setup, Method::GET, &format!("{CONNECTIONS}?{query}"), None).await.1
}

#[tokio::test]
async fn a_connection_is_created_listed_and_removed() {
    let setup = Setup::new().await;
    let (status, created) = create(&setup, &connection("a", 1)).await;
    assert_eq!((status, &created["name"]), (StatusCode::CREATED, &json!("vni-1")));
    let listed = list(&setup, "organizationId=a").await;
    assert_eq!((&listed["total"], &listed["entities"][0]), (&json!(1), &created));
    assert_eq!(list(&setup, "organizationId=b").await["total"], 0);
    let path = format!("{CONNECTIONS}/{}", created["id"].as_str().unwrap());
    assert_eq!(ask(&setup, Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(ask(&setup, Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    let shown = &setup.simulator.state()["network"];
    assert_eq!((&shown["created"], &shown["deleted"], &shown["connections"]), (&json!(1), &json!(1), &json!([])));
}

#[tokio::test]
async fn names_and_addresses_are_unique_in_an_organisation_and_not_beyond_it() {
    let setup = Setup::new().await;
    create(&setup, &connection("a", 1)).await;
    let other = |change: Value| {
        let mut body = connection("a", 2);
        change.as_object().unwrap().iter().for_each(|(member, value)| body[member] = value.clone());
        body
    };
    for change in [
        json!({"name": "vni-1"}),
        json!({"localIp": "10.1.0.1"}),
        json!({"localIp": "203.0.113.10"}),
        json!({"subnetCidr": "10.0.0.0/8"}),
    ] {
        assert_eq!(create(&setup, &other(change.clone())).await.0, StatusCode::CONFLICT, "{change}");
    }
    for change in [json!({"name": ""}), json!({"type": "x"}), json!({"dnsServers": []}), json!({"subnetCidr": "10"})] {
        assert_eq!(create(&setup, &other(change.clone())).await.0, StatusCode::BAD_REQUEST, "{change}");
    }
    assert_eq!(create(&setup, &connection("b", 1)).await.0, StatusCode::CREATED);
    assert_eq!(create(&setup, &other(json!({}))).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn pages_are_capped_and_the_limit_and_the_read_lag_can_be_set() {
    let setup = Setup::new().await;
    let seeded: Vec<Value> = (0..60).map(|n| connection("a", n)).collect();
    setup.simulator.set("network", &json!({"connections": seeded, "pageCap": 25, "limit": 61})).unwrap();
    let sizes = async |number: usize| {
        let page = list(&setup, &format!("organizationId=a&pageSize=200&pageNumber={number}")).await;
        (page["entities"].as_array().unwrap().len(), page["total"].as_u64().unwrap())
    };
    assert_eq!([sizes(1).await, sizes(3).await, sizes(4).await], [(25, 60), (10, 60), (0, 60)]);
    setup.simulator.set("network", &json!({"readLagMs": 60_000})).unwrap();
    let (status, created) = create(&setup, &connection("a", 60)).await;
    assert_eq!((status, sizes(1).await.1), (StatusCode::CREATED, 60), "it does not show yet");
    let path = format!("{CONNECTIONS}/{}", created["id"].as_str().unwrap());
    assert_eq!(ask(&setup, Method::DELETE, &path, None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(create(&setup, &connection("a", 61)).await.0, StatusCode::BAD_REQUEST, "one too many");
    assert!(setup.simulator.set("network", &json!({"colour": 1})).is_err());
    assert!(setup.simulator.set("network", &json!({"convergesAfter": "soon"})).is_err());
}

#[tokio::test]
async fn a_routing_table_converges_after_some_looks_or_never() {
    let setup = Setup::new().await;
    let table = format!("{TABLES}/rt-1");
    let sync = async || {
        let (status, answer) =
            ask(&setup, Method::POST, &format!("{table}/sync"), Some(&json!({"forceSync": true}))).await;
        (status, answer["expectedHash"].clone())
    };
    let look = async || ask(&setup, Method::GET, &table, None).await.1["currentHash"].clone();
    setup.simulator.set("network", &json!({"convergesAfter": 3})).unwrap();
    let (status, expected) = sync().await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let seen = [look().await, look().await, look().await, look().await];
    assert_eq!(seen.map(|hash| hash == expected), [false, false, true, true]);
    create(&setup, &connection("a", 1)).await;
    assert_ne!(sync().await.1, expected, "its routes are others");
    setup.simulator.set("network", &json!({"convergesAfter": "never", "missingTables": ["rt-2"]})).unwrap();
    let (_, expected) = sync().await;
    for _ in 0..20 {
        assert_ne!(look().await, expected);
    }
    assert_eq!(ask(&setup, Method::GET, &format!("{TABLES}/rt-2"), None).await.0, StatusCode::NOT_FOUND);
    let refused = ask(&setup, Method::POST, &format!("{table}/sync"), Some(&json!({}))).await.0;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
}
