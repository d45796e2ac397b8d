//! An integration that is there: what is kept, what is replaced, and past what others change.

use genfleet_core::error::ErrorClass;
use serde_json::{Value, json};

use super::{Setup, payload, properties, with};

/// As the payload asks for it, with other topics.
fn older() -> Value {
    let mut properties = properties();
    properties["eventFilter"] = json!(["v2.old"]);
    json!({"integration": {"name": "crm", "properties": properties, "enabled": true}})
}

#[tokio::test]
async fn what_is_not_known_here_is_sent_back_as_it_was_read() {
    let setup = Setup::new().await;
    let mut there = older();
    there["integration"]["properties"]["traceLevel"] = json!({"deep": [1, null]});
    there["integration"]["advanced"] = json!({"retries": 3});
    there["integration"]["credentials"] = json!({"basic": {"id": "c-1", "name": "by hand"}});
    there["integration"]["notes"] = "kept".into();
    setup.set(&there);
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!(
        (&report["created"], &report["unchanged"], &report["configVersion"]),
        (&json!(false), &json!(false), &json!(2))
    );
    let put = setup.simulator.requests().into_iter().find(|one| one.method == "PUT").unwrap();
    let mut expected = properties();
    expected["traceLevel"] = json!({"deep": [1, null]});
    let sent = json!({
        "name": "crm", "version": 1, "properties": expected, "advanced": {"retries": 3}, "notes": "kept",
        "credentials": {"basic": {"id": "c-1", "name": "by hand"}},
    });
    assert_eq!(put.body, sent);
    assert_eq!(setup.count("PATCH integrations/{id}"), 0, "it is enabled already");
}

#[tokio::test]
async fn four_stale_versions_in_a_row_are_got_past_and_both_answers_say_stale() {
    for status in [409, 400] {
        let setup = Setup::new().await;
        setup.set(&older());
        setup.set(&json!({"changedByOthers": 4, "staleStatus": status}));
        let report = setup.run(&payload()).await.unwrap();
        assert_eq!(report["conflictsResolved"], 4, "{status}");
        assert_eq!(setup.integrations()[0]["config"]["current"]["properties"], properties(), "{status}");
        assert_eq!(report["configVersion"], 6, "{status}");
    }
}

#[tokio::test]
async fn stale_versions_without_end_are_a_conflict_after_five_rounds() {
    let setup = Setup::new().await;
    setup.set(&older());
    setup.set(&json!({"changedByOthers": 100}));
    let error = setup.run(&payload()).await.unwrap_err();
    assert_eq!((error.class, error.code, &error.details["conflicts"]), (ErrorClass::Permanent, "conflict", &json!(6)));
    assert_eq!(error.details["integrationId"], setup.integrations()[0]["id"]);
    assert_eq!(setup.count("PUT integrations/{id}/config/current"), 6);
}

#[tokio::test]
async fn a_400_that_is_about_something_else_is_not_tried_again() {
    let setup = Setup::new().await;
    setup.set(&older());
    setup.fault("status=400,method=PUT");
    let error = setup.run(&payload()).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "rejected"));
    assert_eq!(setup.count("PUT integrations/{id}/config/current"), 1);
}

#[tokio::test]
async fn with_fail_another_version_ends_the_job_unwritten_and_the_named_one_is_replaced() {
    let setup = Setup::new().await;
    setup.set(&older());
    let error = setup.run(&with(&json!({"onConflict": "fail", "version": 7}))).await.unwrap_err();
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "conflict"));
    assert_eq!(setup.count("PUT integrations/{id}/config/current"), 0);
    let report = setup.run(&with(&json!({"onConflict": "fail", "version": 1}))).await.unwrap();
    assert_eq!(report["configVersion"], 2);
    let unchanged = setup.run(&with(&json!({"onConflict": "fail", "version": 1}))).await.unwrap();
    assert_eq!(unchanged["unchanged"], true, "it is as it should be: nothing is replaced");
}

#[tokio::test]
async fn with_fail_a_stale_version_is_told_at_once() {
    let setup = Setup::new().await;
    setup.set(&older());
    setup.set(&json!({"changedByOthers": 1}));
    let error = setup.run(&with(&json!({"onConflict": "fail"}))).await.unwrap_err();
    assert_eq!((error.code, setup.count("PUT integrations/{id}/config/current")), ("conflict", 1));
}

#[tokio::test]
async fn account_region_and_suffix_of_a_source_are_never_changed() {
    for (member, value) in
        [("awsAccountId", "210987654321"), ("awsAccountRegion", "us-east-1"), ("eventSourceSuffix", "other")]
    {
        let setup = Setup::new().await;
        setup.set(&older());
        let error = setup.run(&with(&json!({ member: value }))).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "source_identity_changed"), "{member}");
        assert!(error.message.contains(member), "{}", error.message);
        assert_eq!(setup.integrations()[0]["changes"], 0);
    }
}

#[tokio::test]
async fn an_integration_that_was_never_configured_takes_any_source() {
    let setup = Setup::new().await;
    setup.set(&json!({"integration": {"name": "crm"}}));
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!((&report["created"], &report["reportedState"]), (&json!(false), &json!("ACTIVE")));
}

#[tokio::test]
async fn rules_are_written_for_aws_and_tried_on_the_sample() {
    let setup = Setup::new().await;
    let rule = |name: &str| {
        json!({
            "name": name,
            "conditions": [{"field": "mediaType", "operator": "eq", "value": "VOICE"}],
            "transformations": [{"sourceField": "id", "targetField": "conversation.id", "type": "direct"}],
        })
    };
    let job = with(&json!({"rules": [rule("calls")], "sampleEvent": {"id": "c-1", "mediaType": "VOICE"}}));
    let report = setup.run(&job).await.unwrap();
    let made = &report["aws"]["rules"][0];
    assert_eq!(made["eventPattern"]["source"], json!([report["eventSource"]]));
    assert_eq!(made["eventPattern"]["detail"], json!({"eventBody": {"mediaType": ["VOICE"]}}));
    assert_eq!(made["inputTransformer"]["inputPathsMap"], json!({"v0": "$.detail.eventBody.id"}));
    assert_eq!(made["inputTransformer"]["inputTemplate"], r#"{"conversation":{"id":<v0>}}"#);
    let projected = json!({"conversation": {"id": "c-1"}});
    assert_eq!((&report["projection"], &report["validationSuccessRate"]), (&projected, &json!(1.0)));
    let mut second = rule("more");
    second["topics"] = json!(["v2.unsent"]);
    let job = with(&json!({"rules": [rule("calls"), second], "sampleEvent": {"id": "c-1"}}));
    let report = setup.run(&job).await.unwrap();
    assert_eq!(report["projection"], json!({"calls": projected, "more": projected}));
    assert_eq!((&report["unchanged"], report["warnings"].as_array().unwrap().len()), (&json!(true), 2));
    assert!(report["warnings"][1].as_str().unwrap().contains("v2.unsent"), "{report}");
}
