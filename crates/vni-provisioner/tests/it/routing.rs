//! The routing table converges, or the job takes back what it made, and says so.

use genfleet_core::error::ErrorClass;
use serde_json::{Value, json};

use crate::{CONNECTIONS, Rig, Step, TABLES, identical, until};

fn never(rig: &Rig) {
    rig.set(&json!({"convergesAfter": "never"}));
}

#[tokio::test]
async fn a_table_that_does_not_converge_is_tried_again_without_a_second_creation() {
    let rig = Rig::new().await;
    never(&rig);
    let payload = rig.payload(&json!({}));
    let error = rig.attempt(&rig.job("a"), &payload, Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.class), ("routing_not_converged", ErrorClass::Transient));
    assert_eq!((rig.sent("GET", TABLES), rig.sent("POST", TABLES)), (10, 1));
    rig.set(&json!({"convergesAfter": 3}));
    let second = rig.job("a").with_history(true, 0);
    let report = rig.attempt(&second, &payload, error.state.unwrap()).await.unwrap();
    assert_eq!((&report["routingPolls"], &report["adopted"]), (&json!(13), &json!(false)));
    assert_eq!((rig.sent("POST", CONNECTIONS), rig.sent("DELETE", CONNECTIONS)), (1, 0));
    assert_eq!((rig.sent("GET", CONNECTIONS), rig.connections().len()), (2, 1));
}

#[tokio::test]
async fn out_of_attempts_the_interface_is_removed_again() {
    let rig = Rig::new().await;
    never(&rig);
    let error = rig.attempt(&rig.last("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.class), ("routing_not_converged", ErrorClass::Transient));
    assert_eq!(error.details["rolledBack"], true);
    assert!(error.details["interfaceId"].is_string() && error.message.contains("removed again"), "{error:?}");
    assert_eq!(rig.connections(), Vec::<Value>::new());
}

#[tokio::test]
async fn what_was_adopted_or_is_to_stay_stays() {
    let rig = Rig::new().await;
    never(&rig);
    rig.set(&json!({"connections": [identical()]}));
    let error = rig.attempt(&rig.last("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    let summary = (&error.details["interfaceId"], &error.details["rolledBack"]);
    assert_eq!(summary, (&json!("there-0"), &json!(false)));
    let other = json!({"name": "other", "localIp": "10.0.51.1", "subnetCidr": "10.0.51.0/24", "rollback": false});
    let error = rig.attempt(&rig.last("b"), &rig.payload(&other), Value::Null).await.unwrap_err();
    assert_eq!((&error.details["rolledBack"], rig.connections().len()), (&json!(false), 2));
    assert_eq!((error.details["interfaceId"].is_string(), rig.sent("DELETE", CONNECTIONS)), (true, 0));
}

#[tokio::test]
async fn a_table_that_cannot_be_synchronised_ends_the_job_and_the_interface() {
    for (rule, code) in [("status=404", "not_found"), ("status=400", "rejected"), ("status=403", "forbidden")] {
        let rig = Rig::new().await;
        rig.faults(&[&format!("{rule},method=POST,path={TABLES}")]);
        let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
        assert_eq!((error.code, error.class), (code, ErrorClass::Permanent));
        assert!(error.details["api"].is_object() && error.status.is_some(), "{error:?}");
        assert_eq!((&error.details["rolledBack"], rig.connections().len()), (&json!(true), 0));
    }
}

#[tokio::test]
async fn an_interface_that_does_not_show_yet_is_removed_when_it_does() {
    let rig = Rig::new().await;
    rig.set(&json!({"readLagMs": 1500, "missingTables": ["rt-1"]}));
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, &error.details["rolledBack"]), ("not_found", &json!(true)));
    assert_eq!(rig.connections(), Vec::<Value>::new());
    assert!(rig.sent("DELETE", CONNECTIONS) > 1);
}

#[tokio::test]
async fn a_removal_that_fails_is_told() {
    let rig = Rig::new().await;
    never(&rig);
    rig.faults(&["status=409,method=DELETE"]);
    let error = rig.attempt(&rig.last("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, &error.details["rolledBack"]), ("routing_not_converged", &json!(false)));
    assert!(error.message.contains("could not be removed") && error.message.contains("409"), "{}", error.message);
    assert_eq!(rig.connections().len(), 1);
}

#[tokio::test]
async fn a_page_in_place_of_a_removal_removes_nothing() {
    for status in [200, 404] {
        let rig = Rig::new().await;
        never(&rig);
        let page = format!("status={status},method=DELETE,body=<html>,content-type=text/html");
        rig.faults(&[&page]);
        let error = rig.attempt(&rig.last("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
        assert_eq!((&error.details["rolledBack"], rig.connections().len()), (&json!(false), 1), "{status}");
    }
    let rig = Rig::new().await;
    never(&rig);
    rig.faults(&["status=200,method=DELETE,body=<html>,content-type=text/html,times=2"]);
    let error = rig.attempt(&rig.last("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((&error.details["rolledBack"], rig.connections().len()), (&json!(true), 0));
}

/// A process that dies between the removal and its event leaves no job that succeeds with an interface that is gone.
#[tokio::test]
async fn a_removal_that_was_begun_is_ended_whatever_the_table_does_meanwhile() {
    let rig = Rig::new().await;
    never(&rig);
    let (job, payload) = (rig.last("a"), rig.payload(&json!({})));
    let created = rig.created(&job, &payload).await;
    let Step::Begun(mut undoing) = rig.step(&job, &payload, created).await else { panic!("not given up") };
    rig.set(&json!({"convergesAfter": 1}));
    // Long ago: the second time a 404 is not waited out.
    undoing["createdAtMs"] = 0.into();
    for _ in 0..2 {
        let Step::Failed(error) = rig.step(&job, &payload, undoing.clone()).await else { panic!("not failed") };
        assert_eq!((error.code, &error.details["rolledBack"]), ("routing_not_converged", &json!(true)));
        assert_eq!(rig.connections().len(), 0);
    }
    assert_eq!(rig.sent("DELETE", CONNECTIONS), 2);
}

#[tokio::test]
async fn a_look_that_fails_is_one_of_ten() {
    let rig = Rig::new().await;
    rig.faults(&[&format!("status=404,times=3,method=GET,path={TABLES}")]);
    let report = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    assert_eq!(report["routingPolls"], 5);
    rig.faults(&[&format!("status=404,method=GET,path={TABLES}")]);
    let error = rig.attempt(&rig.job("b"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, rig.sent("GET", TABLES)), ("routing_not_converged", 15));
    assert!(error.message.contains("404"), "{}", error.message);
}

#[tokio::test]
async fn a_look_that_the_api_fails_to_answer_is_one_request() {
    let rig = Rig::new().await;
    rig.faults(&[&format!("status=503,method=GET,path={TABLES}")]);
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, rig.sent("GET", TABLES)), ("routing_not_converged", 10), "{error:?}");
}

#[tokio::test]
async fn a_job_that_is_stopped_keeps_its_interface_also_at_its_last_attempt() {
    let rig = Rig::with(&["--routing-poll-interval", "10s"]).await;
    never(&rig);
    let (job, payload) = (rig.last("a"), rig.payload(&json!({})));
    let state = rig.created(&job, &payload).await;
    let stopping = async {
        until(|| rig.sent("GET", TABLES) == 1).await;
        job.stop.cancel();
    };
    let (step, ()) = tokio::join!(rig.step(&job, &payload, state.clone()), stopping);
    let Step::Failed(error) = step else { panic!("{step:?}") };
    let kept = error.state.unwrap();
    assert_eq!((error.class, &kept["interfaceId"]), (ErrorClass::Interrupted, &state["interfaceId"]));
    assert_eq!((rig.connections().len(), rig.sent("DELETE", CONNECTIONS)), (1, 0));
}
