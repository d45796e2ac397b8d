//! The POST and all that can become of it: there is one interface in the end, and it is known whose.

use std::time::Duration;

use genfleet_core::error::ErrorClass;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{CONNECTIONS, OURS, Rig, Step, TABLES, existing, until};

#[tokio::test]
async fn a_creation_is_announced_then_a_step_of_its_own_and_what_follows_does_not_repeat_it() {
    let rig = Rig::new().await;
    let (job, payload) = (rig.job("a"), rig.payload(&json!({"description": "prod"})));
    let Step::Begun(next) = rig.step(&job, &payload, Value::Null).await else { panic!("not begun") };
    assert_eq!(rig.sent("POST", CONNECTIONS), 0, "that it will be sent is durable first");
    let Step::Begun(state) = rig.step(&job, &payload, next).await else { panic!("not created") };
    assert_eq!(rig.sent("POST", TABLES), 0, "so is its answer");
    let sent =
        rig.simulator.requests().into_iter().find(|request| request.method == "POST" && request.path == CONNECTIONS);
    let expected = json!({
        "name": "new", "organizationId": OURS, "type": "ipconnect", "localIp": "10.0.50.1", "remoteIp": "127.0.0.1",
        "subnetCidr": "10.0.50.0/24", "dnsServers": ["8.8.8.8"], "routingTableId": "rt-1", "description": "prod",
    });
    assert_eq!(sent.unwrap().body, expected);
    let lists = rig.sent("GET", CONNECTIONS);
    let report = rig.attempt(&job, &payload, state.clone()).await.unwrap();
    assert_eq!((rig.sent("GET", CONNECTIONS), rig.sent("POST", CONNECTIONS)), (lists, 1));
    assert_eq!(report["interfaceId"], rig.connections()[0]["id"]);
    let summary = ["adopted", "routingPolls", "uptimeRate"].map(|member| report[member].clone());
    assert_eq!(summary, [json!(false), json!(2), json!(1.0)]);
    assert!(report["provisionMs"].is_u64() && report.as_object().unwrap().len() == 5, "{report}");
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_found_and_is_this_jobs_own() {
    let rig = Rig::new().await;
    rig.set(&json!({"readLagMs": 1200}));
    rig.faults(&["lost,times=1,method=POST,path=/api/v2/organization/"]);
    let state = rig.created(&rig.job("a"), &rig.payload(&json!({}))).await;
    assert_eq!((&state["created"], rig.connections().len(), rig.sent("POST", CONNECTIONS)), (&json!(true), 1, 1));
    let report = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), state).await.unwrap();
    assert_eq!((&report["interfaceId"], &report["adopted"]), (&rig.connections()[0]["id"], &json!(false)));
}

#[tokio::test]
async fn a_creation_answered_with_something_unreadable_is_looked_up() {
    let rig = Rig::new().await;
    rig.faults(&["body=<html>,times=1,method=POST,path=/api/v2/organization/"]);
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    assert_eq!((rig.connections().len(), rig.sent("POST", CONNECTIONS)), (1, 1));
}

#[tokio::test]
async fn a_creation_that_was_lost_itself_is_tried_again_after_reads_had_time_to_show_it() {
    let rig = Rig::new().await;
    rig.faults(&["lost,effect=false,times=1,method=POST,path=/api/v2/organization/"]);
    let begun = Instant::now();
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.class, &error.state.unwrap()["order"]), (ErrorClass::Ambiguous, &Value::Null));
    assert!(begun.elapsed() >= Duration::from_secs(15));
    rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap();
    assert_eq!(rig.connections().len(), 1);
}

/// Somebody makes the same a moment before, and reads do not show it yet.
#[tokio::test]
async fn what_somebody_else_made_and_a_409_told_is_adopted() {
    let mut rig = Rig::new().await;
    rig.set(&json!({"readLagMs": 1500, "convergesAfter": "never"}));
    let payload = rig.payload(&json!({}));
    rig.created(&rig.job("somebody"), &payload).await;
    rig.dies();
    let error = rig.attempt(&rig.last("a"), &payload, Value::Null).await.unwrap_err();
    assert_eq!(error.code, "routing_not_converged");
    assert_eq!((&error.details["rolledBack"], rig.connections().len()), (&json!(false), 1), "it is not its own");
    assert_eq!(rig.sent("POST", CONNECTIONS), 2);
}

#[tokio::test]
async fn an_order_without_an_answer_is_remembered_while_nobody_can_look_and_what_it_made_is_taken_back() {
    let rig = Rig::new().await;
    rig.set(&json!({"convergesAfter": "never"}));
    let (job, payload) = (rig.job("a"), rig.payload(&json!({})));
    let Step::Begun(next) = rig.step(&job, &payload, Value::Null).await else { panic!("not begun") };
    let lost = format!("lost,times=1,method=POST,path={CONNECTIONS}");
    rig.faults(&[&lost, &format!("status=400,after=1,method=GET,path={CONNECTIONS}")]);
    let Step::Failed(error) = rig.step(&job, &payload, next).await else { panic!("not failed") };
    let state = error.state.unwrap();
    assert_eq!((error.class, &state["order"], rig.connections().len()), (ErrorClass::Permanent, &json!("sent"), 1));
    rig.faults(&[]);
    let error = rig.attempt(&rig.last("a"), &payload, state).await.unwrap_err();
    assert_eq!((error.code, &error.details["rolledBack"]), ("routing_not_converged", &json!(true)));
    assert_eq!((rig.connections(), rig.sent("POST", CONNECTIONS)), (vec![], 1));
}

/// What came back unsettled may have been worked; what comes for the first time was not.
#[tokio::test]
async fn what_is_there_is_this_jobs_own_only_where_it_may_have_ordered_it() {
    for (delivery_count, rolled_back) in [(1, true), (0, false)] {
        let mut rig = Rig::new().await;
        rig.set(&json!({"convergesAfter": "never"}));
        let (job, payload) = (rig.last("a"), rig.payload(&json!({})));
        let Step::Begun(next) = rig.step(&job, &payload, Value::Null).await else { panic!("not begun") };
        rig.step(&job, &payload, next.clone()).await;
        rig.dies();
        let job = job.with_history(false, delivery_count);
        let error = rig.attempt(&job, &payload, next).await.unwrap_err();
        assert_eq!(error.details["rolledBack"], rolled_back);
        assert_eq!((rig.connections().is_empty(), rig.sent("POST", CONNECTIONS)), (rolled_back, 1));
    }
}

/// The process died after the POST; the next one's reads lag, so it POSTs again and is refused.
#[tokio::test]
async fn what_a_dead_process_ordered_and_a_409_tells_is_this_jobs_own() {
    let mut rig = Rig::new().await;
    rig.set(&json!({"readLagMs": 1500, "convergesAfter": "never"}));
    let (job, payload) = (rig.last("a"), rig.payload(&json!({})));
    let Step::Begun(next) = rig.step(&job, &payload, Value::Null).await else { panic!("not begun") };
    rig.step(&job, &payload, next.clone()).await;
    rig.dies();
    let job = job.with_history(false, 1);
    let error = rig.attempt(&job, &payload, next).await.unwrap_err();
    assert_eq!((&error.details["rolledBack"], rig.connections().len()), (&json!(true), 0));
    assert_eq!(rig.sent("POST", CONNECTIONS), 2);
}

#[tokio::test]
async fn a_look_that_fails_before_anything_is_sent_forgets_that_it_was_about_to_be() {
    let rig = Rig::new().await;
    let (job, payload) = (rig.job("a"), rig.payload(&json!({})));
    let Step::Begun(next) = rig.step(&job, &payload, Value::Null).await else { panic!("not begun") };
    assert_eq!(next["order"], "next");
    rig.faults(&[&format!("status=400,times=1,method=GET,path={CONNECTIONS}")]);
    let Step::Failed(error) = rig.step(&job, &payload, next).await else { panic!("not failed") };
    assert_eq!(error.state.unwrap()["order"], Value::Null);
}

#[tokio::test]
async fn a_409_for_a_name_is_a_conflict_that_names_the_other() {
    let rig = Rig::new().await;
    rig.set(&json!({"connections": [existing(1, &json!({"name": "new"}))]}));
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.class, error.status), ("ip_conflict", ErrorClass::Permanent, Some(409)));
    assert_eq!(error.details["conflictsWith"]["id"], "there-1");
    assert!(error.message.contains("there-1"), "{}", error.message);
}

#[tokio::test]
async fn a_refused_creation_fails_with_what_the_api_said() {
    let rig = Rig::new().await;
    rig.faults(&["status=422,method=POST,path=/api/v2/organization/"]);
    let error = rig.attempt(&rig.job("a"), &rig.payload(&json!({})), Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.class, error.status), ("rejected", ErrorClass::Permanent, Some(422)));
    assert!(error.details["api"].is_object());
}

#[tokio::test]
async fn a_job_that_is_stopped_while_it_looks_says_so() {
    let rig = Rig::new().await;
    rig.faults(&["lost,effect=false,method=POST,path=/api/v2/organization/"]);
    let (job, payload) = (rig.job("a"), rig.payload(&json!({})));
    let stopping = async {
        until(|| rig.sent("GET", CONNECTIONS) == 3).await;
        job.stop.cancel();
    };
    let (ended, ()) = tokio::join!(rig.attempt(&job, &payload, Value::Null), stopping);
    let error = ended.unwrap_err();
    assert_eq!((error.class, &error.state.unwrap()["order"]), (ErrorClass::Interrupted, &json!("sent")));
}
