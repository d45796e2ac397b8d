//! What is there already: adopted, in the way, or too much.

use serde_json::{Value, json};

use crate::{CONNECTIONS, Rig, existing, identical};

#[tokio::test]
async fn an_identical_interface_is_adopted_and_nothing_created() {
    let rig = Rig::new().await;
    rig.set(&json!({"connections": [existing(1, &json!({})), identical()]}));
    let report = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    assert_eq!((&report["interfaceId"], &report["adopted"]), (&json!("there-0"), &json!(true)));
    assert_eq!((rig.sent("POST", CONNECTIONS), rig.sent("DELETE", CONNECTIONS)), (0, 0));
}

#[tokio::test]
async fn a_conflict_on_the_last_of_three_pages_is_found_and_named() {
    let rig = Rig::with(&["--max-interfaces", "100"]).await;
    let mut sixty: Vec<Value> = (0..60).map(|n| existing(n, &json!({}))).collect();
    sixty[59]["subnetCidr"] = "10.0.0.0/16".into();
    rig.set(&json!({"connections": sixty, "pageCap": 25}));
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, &error.details["conflictsWith"]["id"]), ("ip_conflict", &json!("there-59")));
    assert_eq!((rig.sent("GET", CONNECTIONS), rig.sent("POST", CONNECTIONS)), (3, 0));
    let requests = rig.simulator.requests();
    let queries: Vec<_> = requests.iter().filter_map(|request| request.query.clone()).collect();
    assert_eq!(queries[2], format!("organizationId={}&pageSize=200&pageNumber=3", crate::OURS));
}

#[tokio::test]
async fn an_organisation_has_at_most_fifty_interfaces_unless_said_otherwise() {
    let fifty: Vec<Value> = (0..50).map(|n| existing(n, &json!({}))).collect();
    let rig = Rig::new().await;
    rig.set(&json!({"connections": fifty[..49]}));
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    let another = rig.payload(&json!({"name": "another", "localIp": "10.0.51.1", "subnetCidr": "10.0.51.0/24"}));
    let error = rig.attempt(&rig.job("b"), &another, Value::Null).await.unwrap_err();
    assert_eq!((error.code, &error.details["interfaces"]), ("interface_limit_reached", &json!(50)));
    rig.attempt(&rig.job("c"), &rig.payload(&json!({})), Value::Null)
        .await
        .expect("one that is there is no further one");
    let rig = Rig::with(&["--max-interfaces", "51"]).await;
    rig.set(&json!({"connections": fifty}));
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
}

#[tokio::test]
async fn organisations_with_the_same_addresses_are_not_in_each_others_way() {
    let rig = Rig::new().await;
    let theirs = rig.payload(&json!({"organizationId": "00000000-0000-4000-8000-000000000001"}));
    let (ours, theirs) = tokio::join!(
        async { rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap() },
        async { rig.attempt(&rig.job("b"), &theirs, Value::Null).await.unwrap() },
    );
    assert_eq!((&ours["adopted"], &theirs["adopted"]), (&json!(false), &json!(false)));
    assert_eq!(rig.connections().len(), 2);
}
