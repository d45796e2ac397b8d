//! From nothing to an active integration: what is called, what is sent, and that it happens once.

use genfleet_core::error::ErrorClass;
use genfleet_stream_configurator::EventbridgeState;
use serde_json::{Value, json};

use super::{Ended, Setup, payload, properties, with};

#[tokio::test]
async fn an_integration_is_created_configured_and_enabled() {
    let setup = Setup::new().await;
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!(
        setup.calls(),
        [
            "GET integrations",
            "GET integrations/types/amazon-eventbridge-source",
            "POST integrations",
            "GET integrations/{id}/config/current",
            "PUT integrations/{id}/config/current",
            "PATCH integrations/{id}",
            "GET integrations/{id}",
            "GET organizations/me",
        ]
    );
    let requests = setup.simulator.requests();
    let sent = |method: &str| requests.iter().find(|one| one.method == method && one.path.contains("/integr")).unwrap();
    assert_eq!(
        sent("GET").query.as_deref(),
        Some("integrationType=amazon-eventbridge-source&expand=config.current&pageSize=100&pageNumber=1")
    );
    assert_eq!(sent("POST").body, json!({"name": "crm", "integrationType": {"id": "amazon-eventbridge-source"}}));
    let config = json!({
        "name": "crm", "version": 1, "properties": properties(), "advanced": {}, "notes": "", "credentials": {},
    });
    assert_eq!(sent("PUT").body, config);
    assert_eq!(sent("PATCH").body, json!({"intendedState": "ENABLED"}));

    let state = setup.simulator.state();
    let (organization, there) = (&state["integrations"]["organizationId"], &setup.integrations()[0]);
    let source = format!("aws.partner/genesys.com/cloud/{}/crm-events", organization.as_str().unwrap());
    let told = json!({
        "integrationId": there["id"], "name": "crm", "created": true, "unchanged": false, "configVersion": 2,
        "conflictsResolved": 0, "reportedState": "ACTIVE", "organizationId": organization, "eventSource": source,
        "topics": ["v2.detail.events.conversation.{id}.user.end"], "propertiesSha256": report["propertiesSha256"],
        "aws": {"rules": []}, "validationSuccessRate": null, "projection": null, "warnings": report["warnings"],
    });
    assert_eq!(report, told);
    assert!(report["warnings"][0].as_str().unwrap().contains("two weeks"), "{report}");
}

#[tokio::test]
async fn what_was_created_is_recorded_before_anything_follows_and_not_looked_at_for_two_seconds() {
    let setup = Setup::new().await;
    let Ended::Again { state, again_in } = setup.attempt(&setup.job(), &payload(), EventbridgeState::default()).await
    else {
        panic!("it goes through the queue")
    };
    let state = serde_json::to_value(state).unwrap();
    assert_eq!((&state["integrationId"], &state["created"]), (&setup.integrations()[0]["id"], &json!(true)));
    assert_eq!((again_in.as_secs(), setup.calls().last().unwrap().as_str()), (2, "POST integrations"));
}

#[tokio::test]
async fn the_name_is_made_of_the_suffix_and_a_disabled_integration_is_not_enabled() {
    let setup = Setup::new().await;
    let mut job = with(&json!({"enabled": false, "notes": "by the CRM team"}));
    job.as_object_mut().unwrap().remove("name");
    let report = setup.run(&job).await.unwrap();
    assert_eq!((&report["name"], &report["reportedState"]), (&json!("genfleet-crm-events"), &json!("INACTIVE")));
    assert_eq!(setup.count("PATCH integrations/{id}"), 0);
    assert_eq!(setup.integrations()[0]["notes"], "by the CRM team");
}

#[tokio::test]
async fn the_same_job_again_writes_nothing() {
    let setup = Setup::new().await;
    let first = setup.run(&payload()).await.unwrap();
    let before = setup.calls().len();
    let second = setup.run(&payload()).await.unwrap();
    assert_eq!((&second["unchanged"], &second["created"]), (&json!(true), &json!(false)));
    for same in ["integrationId", "configVersion", "propertiesSha256", "eventSource"] {
        assert_eq!(first[same], second[same], "{same}");
    }
    assert!(setup.calls()[before..].iter().all(|call| call.starts_with("GET ")), "{:?}", setup.calls());
}

#[tokio::test]
async fn a_lost_answer_to_the_order_is_looked_up_by_name() {
    let setup = Setup::new().await;
    setup.fault("lost,method=POST,path=/api/v2/integrations,times=1");
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!((&report["created"], setup.integrations().len()), (&json!(true), 1));
    assert_eq!((setup.count("POST integrations"), setup.count("GET integrations")), (1, 2));
}

#[tokio::test]
async fn a_lost_answer_to_each_write_is_no_second_write_of_its_kind() {
    for method in ["PUT", "PATCH"] {
        let setup = Setup::new().await;
        setup.fault(&format!("lost,method={method},times=1"));
        let report = setup.run(&with(&json!({"onConflict": "fail"}))).await.unwrap();
        assert_eq!((&report["unchanged"], setup.integrations().len()), (&json!(false), 1), "{method}");
        assert_eq!(setup.integrations()[0]["changes"], 1, "{method}");
    }
}

#[tokio::test]
async fn a_redelivered_job_waits_until_what_an_earlier_life_created_is_listed() {
    let setup = Setup::new().await;
    let returned = setup.job().with_history(false, 1);
    let Ended::Again { state, again_in } = setup.attempt(&returned, &payload(), EventbridgeState::default()).await
    else {
        panic!("it waits")
    };
    assert_eq!((again_in.as_secs(), setup.count("POST integrations")), (15, 0));
    let Ended::Again { .. } = setup.attempt(&setup.job(), &payload(), state).await else { panic!("it creates") };
    assert_eq!(setup.integrations().len(), 1);
}

#[tokio::test]
async fn what_another_job_created_a_moment_ago_is_known_though_no_list_shows_it() {
    let setup = Setup::new().await;
    setup.set(&json!({"listLagMs": 600_000}));
    setup.run(&payload()).await.unwrap();
    let report = setup.run(&with(&json!({"topics": ["v2.other"]}))).await.unwrap();
    assert_eq!((&report["created"], setup.integrations().len()), (&json!(false), 1));
}

#[tokio::test]
async fn of_two_jobs_of_a_name_one_works_and_the_other_comes_again() {
    let setup = Setup::new().await;
    let (one, other, payload) = (setup.job(), setup.job(), payload());
    let (first, second) = tokio::join!(
        setup.attempt(&one, &payload, EventbridgeState::default()),
        setup.attempt(&other, &payload, EventbridgeState::default()),
    );
    assert!(matches!(first, Ended::Again { .. }), "{first:?}");
    let Ended::Failed(error) = second else { panic!("{second:?}") };
    assert!(matches!(error.class, ErrorClass::Held { .. }) && error.code == "name_busy", "{error:?}");
    setup.run(&payload).await.unwrap();
    assert_eq!(setup.integrations().len(), 1);
}

#[tokio::test]
async fn several_of_the_name_another_with_the_source_and_a_full_organisation_end_the_job_unwritten() {
    let other = |name: &str| json!({"integration": {"name": name, "properties": properties()}});
    let table: [(&str, Vec<Value>); 4] = [
        (
            "integration_ambiguous",
            vec![json!({"integration": {"name": "crm"}}), json!({"integration": {"name": "crm"}})],
        ),
        ("source_taken", vec![other("older")]),
        ("source_taken", vec![other("older"), json!({"integration": {"name": "crm"}})]),
        ("integration_limit_reached", vec![json!({"maxInstances": 1}), json!({"integration": {"name": "older"}})]),
    ];
    for (code, changes) in table {
        let setup = Setup::new().await;
        for change in &changes {
            setup.set(change);
        }
        let error = setup.run(&payload()).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, code));
        assert!(setup.calls().iter().all(|call| call.starts_with("GET ")), "{code}: {:?}", setup.calls());
    }
}

#[tokio::test]
async fn all_pages_are_read_and_an_empty_one_ends_a_list_without_a_total() {
    let setup = Setup::new().await;
    setup.set(&json!({"maxInstances": 500}));
    (0..100).for_each(|n| setup.set(&json!({"integration": {"name": format!("other-{n}")}})));
    setup.set(&json!({"integration": {"name": "crm", "properties": properties(), "enabled": true}}));
    let report = setup.run(&payload()).await.unwrap();
    assert_eq!((&report["unchanged"], setup.count("GET integrations")), (&json!(true), 2));
    setup.fault(r#"status=200,method=GET,path=/api/v2/integrations,body={"entities":[]},times=1"#);
    let report = setup.run(&with(&json!({"name": "second"}))).await.unwrap();
    assert_eq!((&report["created"], setup.count("GET integrations")), (&json!(true), 3));
}
