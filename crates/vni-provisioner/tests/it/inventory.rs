//! What is there already: adopted, in the way, or too much.

use std::time::Duration;

use genfleet_core::error::ErrorClass;
use serde_json::{Value, json};
use tokio::time::Instant;

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

/// Of the same organisation, apart from the usual payload.
fn another() -> Value {
    json!({"name": "another", "localIp": "10.0.51.1", "subnetCidr": "10.0.51.0/24"})
}

#[tokio::test]
async fn what_this_process_created_counts_before_reads_show_it() {
    for (change, code) in [
        (another(), "interface_limit_reached"),
        (json!({"name": "another", "localIp": "10.0.50.2"}), "interface_limit_reached"),
    ] {
        let rig = Rig::with(&["--max-interfaces", "1"]).await;
        rig.set(&json!({"readLagMs": 1200}));
        rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
        let error = rig.attempt(&rig.job("b"), &rig.payload(&change), Value::Null).await.unwrap_err();
        assert_eq!((error.code, rig.connections().len(), rig.sent("POST", CONNECTIONS)), (code, 1, 1));
    }
    let rig = Rig::new().await;
    rig.set(&json!({"readLagMs": 1200}));
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    let overlapping = rig.payload(&json!({"name": "another", "localIp": "10.0.50.2"}));
    let error = rig.attempt(&rig.job("b"), &overlapping, Value::Null).await.unwrap_err();
    assert_eq!((error.code, rig.sent("POST", CONNECTIONS)), ("ip_conflict", 1));
    let looked = rig.sent("GET", CONNECTIONS);
    let elsewhere = rig.payload(&json!({"name": "third", "localIp": "10.0.52.1", "subnetCidr": "10.0.52.0/24"}));
    rig.attempt(&rig.job("c"), &elsewhere, Value::Null).await.unwrap();
    assert_eq!(rig.sent("GET", CONNECTIONS), looked + 2, "where it decides nothing, nothing is waited for");
}

#[tokio::test]
async fn what_another_process_created_before_a_takeover_is_waited_for() {
    let mut rig = Rig::with(&["--max-interfaces", "1"]).await;
    rig.set(&json!({"readLagMs": 1200}));
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    rig.dies();
    let mut job = rig.job("b");
    job.reads_settled_at = Some(Instant::now() + Duration::from_millis(1_500));
    let error = rig.attempt(&job, &rig.payload(&another()), Value::Null).await.unwrap_err();
    assert_eq!((error.code, rig.sent("POST", CONNECTIONS)), ("interface_limit_reached", 1));
}

#[tokio::test]
async fn what_was_removed_again_does_not_count() {
    let rig = Rig::with(&["--max-interfaces", "1"]).await;
    rig.set(&json!({"convergesAfter": "never"}));
    let error = rig.attempt(&rig.last("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!(error.details["rolledBack"], true);
    rig.set(&json!({"convergesAfter": 1}));
    let looked = rig.sent("GET", CONNECTIONS);
    rig.attempt(&rig.job("b"), &rig.payload(&another()), Value::Null).await.unwrap();
    assert_eq!(rig.sent("GET", CONNECTIONS), looked + 2, "it was not waited for");
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

/// A page without its entities, and one that names a subnet that is none: what is in the way may be among them.
#[tokio::test]
async fn nothing_is_created_beside_what_cannot_be_read() {
    let rig = Rig::new().await;
    for body in [r#"{"entities":null,"total":1}"#, r#"{"total":1}"#, r#"{"entities":[],"total":1}"#] {
        rig.faults(&[&format!("status=200,method=GET,body={}", json!(body))]);
        let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Transient, "unexpected_response"), "{body}: {error:?}");
        assert!(error.message.contains("shows 0"), "{error:?}");
    }
    rig.faults(&[]);
    rig.set(&json!({"connections": [existing(1, &json!({"subnetCidr": "10.0.50.0/240"}))]}));
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Transient, "unexpected_response"));
    assert!(error.message.contains("there-1") && error.message.contains("10.0.50.0/240"), "{error:?}");
    assert_eq!(rig.sent("POST", CONNECTIONS), 0);
}
