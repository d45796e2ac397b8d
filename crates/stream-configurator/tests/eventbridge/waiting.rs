//! An integration that is on its way, does not come up, is not seen yet or is gone.

use genfleet_core::error::ErrorClass;
use genfleet_stream_configurator::EventbridgeState;
use serde_json::{Value, json};

use super::{Ended, Setup, payload, properties, with};

fn there() -> Value {
    json!({"integration": {"name": "crm", "properties": properties(), "enabled": false}})
}

/// A state of a job whose integration is there, with these members.
fn state(setup: &Setup, members: &Value) -> EventbridgeState {
    let mut state = json!({"integrationId": setup.integrations()[0]["id"]});
    for (name, value) in members.as_object().unwrap() {
        state[name] = value.clone();
    }
    serde_json::from_value(state).unwrap()
}

#[tokio::test]
async fn an_integration_is_looked_at_until_it_is_active() {
    let setup = Setup::new().await;
    setup.set(&there());
    setup.set(&json!({"activationMs": 300}));
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!((&report["reportedState"], &report["unchanged"]), (&json!("ACTIVE"), &json!(false)));
    assert_eq!((setup.count("GET integrations/{id}"), setup.count("PATCH integrations/{id}")), (2, 1));
}

#[tokio::test]
async fn one_that_is_switched_off_is_awaited_inactive() {
    let setup = Setup::new().await;
    setup.run(&payload()).await.unwrap();
    let report = setup.run(&with(&json!({"enabled": false}))).await.unwrap();
    assert_eq!((&report["reportedState"], &report["unchanged"]), (&json!("INACTIVE"), &json!(false)));
    assert_eq!(setup.integrations()[0]["intendedState"], "DISABLED");
}

#[tokio::test]
async fn one_that_reports_an_error_fails_the_job_with_the_platforms_reason() {
    let setup = Setup::new().await;
    setup.set(&there());
    setup.set(&json!({"failure": "The AWS account does not exist"}));
    let error = setup.run(&payload()).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "integration_error"));
    assert!(error.message.contains("The AWS account does not exist"), "{}", error.message);
}

#[tokio::test]
async fn waits_in_the_queue_grow_and_end_as_not_active_which_may_be_tried_again() {
    let setup = Setup::new().await;
    setup.set(&there());
    setup.set(&json!({"activationMs": 3_600_000}));
    let now = setup.job().now();
    let configured = json!({"version": 1, "conflicts": 0, "propertiesSha256": "0"});
    for (waits, again_in) in [(1, 10), (2, 20), (3, 40), (9, 40)] {
        let waiting = json!({"configured": configured, "waits": waits, "waitingSince": now});
        let Ended::Again { again_in: told, .. } =
            setup.attempt(&setup.job(), &payload(), state(&setup, &waiting)).await
        else {
            panic!("it waits")
        };
        assert_eq!(told.as_secs(), again_in, "{waits}");
    }
    let long_ago = now - std::time::Duration::from_secs(181);
    let waiting = json!({"configured": configured, "waits": 6, "waitingSince": long_ago});
    let ended = setup.attempt(&setup.job(), &payload(), state(&setup, &waiting)).await;
    let Ended::Failed(error) = ended else { panic!("{ended:?}") };
    assert_eq!((error.class, error.code), (ErrorClass::Transient, "not_active"));
    assert!(error.message.contains("ACTIVATING, not ACTIVE"), "{}", error.message);
    let next: EventbridgeState = serde_json::from_value(error.state.unwrap()).unwrap();
    setup.set(&json!({"activationMs": 0}));
    assert!(matches!(setup.attempt(&setup.job(), &payload(), next).await, Ended::Done(_)), "the next attempt finds it");
}

#[tokio::test]
async fn what_was_created_and_cannot_be_seen_yet_is_waited_for() {
    let setup = Setup::new().await;
    setup.set(&json!({"readLagMs": 3_000}));
    let Ended::Again { state: created, .. } =
        setup.attempt(&setup.job(), &payload(), EventbridgeState::default()).await
    else {
        panic!("it creates")
    };
    let ended = setup.attempt(&setup.job(), &payload(), created).await;
    assert!(matches!(ended, Ended::Done(_)), "{ended:?}");
    assert!(setup.count("GET integrations/{id}/config/current") > 1);

    setup.set(&json!({"readLagMs": 3_600_000}));
    let ago = |seconds| setup.job().now() - std::time::Duration::from_secs(seconds);
    let created = state(&setup, &json!({"createdAt": ago(20), "created": true}));
    let Ended::Again { again_in, .. } = setup.attempt(&setup.job(), &payload(), created).await else {
        panic!("it waits in the queue")
    };
    assert_eq!(again_in.as_secs(), 5);
    let created = state(&setup, &json!({"createdAt": ago(121), "created": true}));
    let ended = setup.attempt(&setup.job(), &payload(), created).await;
    let Ended::Failed(error) = ended else { panic!("{ended:?}") };
    assert_eq!((error.class, error.code), (ErrorClass::Transient, "not_found"));
    assert_eq!(serde_json::from_value::<EventbridgeState>(error.state.unwrap()).unwrap(), EventbridgeState::default());
}

#[tokio::test]
async fn a_job_that_is_asked_to_stop_sends_nothing_more() {
    let setup = Setup::new().await;
    let job = setup.job();
    job.stop.cancel();
    let ended = setup.attempt(&job, &payload(), EventbridgeState::default()).await;
    let Ended::Failed(error) = ended else { panic!("{ended:?}") };
    assert_eq!((error.class, setup.calls().len()), (ErrorClass::Interrupted, 0));
}

#[tokio::test]
async fn a_missing_permission_names_all_that_are_needed() {
    let setup = Setup::new().await;
    setup.fault("status=403,method=GET");
    let error = setup.run(&payload()).await.unwrap_err();
    assert_eq!(error.code, "forbidden");
    assert!(error.message.contains("integrations:integration:edit"), "{}", error.message);
}
