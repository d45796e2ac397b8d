//! One job of an organisation at a time, many organisations at once.

use genfleet_core::error::ErrorClass;
use serde_json::{Value, json};

use crate::{CONNECTIONS, Rig, Step};

fn another() -> Value {
    json!({"name": "another", "localIp": "10.0.51.1", "subnetCidr": "10.0.51.0/24"})
}

fn is_held(step: &Step) -> bool {
    matches!(step, Step::Failed(error) if matches!(error.class, ErrorClass::Held { .. }) && error.state.is_none())
}

#[tokio::test]
async fn the_second_job_of_an_organisation_comes_again_later() {
    let rig = Rig::new().await;
    let (first, second) = (rig.job("a"), rig.job("b"));
    let (mine, other) = (rig.payload(&json!({})), rig.payload(&another()));
    let before = second.now();
    let (one, two) = tokio::join!(rig.step(&first, &mine, Value::Null), rig.step(&second, &other, Value::Null));
    assert!(matches!(one, Step::Begun(_)) && is_held(&two), "{one:?} {two:?}");
    let Step::Failed(error) = two else { panic!("held") };
    let ErrorClass::Held { until, spread } = error.class else { panic!("held") };
    assert!((2_000..4_000).contains(&until.duration_since(before).as_millis()), "two seconds");
    assert!(spread.is_zero(), "and no more");
    assert_eq!(rig.sent("GET", CONNECTIONS), 1, "nothing was asked for it");
}

#[tokio::test]
async fn between_two_steps_of_a_job_no_other_of_its_organisation_begins() {
    let rig = Rig::new().await;
    let (mine, other) = (rig.payload(&json!({})), rig.payload(&another()));
    let Step::Begun(state) = rig.step(&rig.job("a"), &mine, Value::Null).await else { panic!("not begun") };
    assert!(is_held(&rig.step(&rig.job("b"), &other, Value::Null).await));
    let Step::Begun(state) = rig.step(&rig.job("a"), &mine, state).await else { panic!("not created") };
    assert!(is_held(&rig.step(&rig.job("b"), &other, Value::Null).await));
    assert!(matches!(rig.step(&rig.job("a"), &mine, state).await, Step::Done(_)));
    assert!(matches!(rig.step(&rig.job("b"), &other, Value::Null).await, Step::Begun(_)));
}
