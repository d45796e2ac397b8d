//! Publishing web deployments, with the simulator as the platform.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

mod webdeployment_rig;

use std::time::Duration;

use futures_util::future::join_all;
use genfleet_channel_provisioner::WebDeploymentState;
use genfleet_core::{error::ErrorClass, handler::Progress};
use genfleet_simulator::FaultRule;
use serde_json::{Value, json};
use webdeployment_rig::{Ended, FLOW, QUEUE, Rig, payload};

const CONFIGURATIONS: &str = "/api/v2/webdeployments/configurations";
const DEPLOYMENTS: &str = "/api/v2/webdeployments/deployments";

fn fault(text: &str) -> Vec<FaultRule> {
    vec![text.parse().unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_published_with_exactly_these_calls() {
    let rig = Rig::start().await;
    let report = rig.published("job-1", &payload(json!({"queueId": QUEUE, "status": "Active"}))).await;
    assert_eq!((report.created, report.adopted, report.updated), (true, false, false));
    assert_eq!((report.configuration_version.as_str(), report.status.as_str()), ("1", "Active"));
    assert_eq!((report.queue_verified, report.edge_verified), (Some(true), Some(true)));
    assert_eq!(report.allowed_domains, ["shop.example", "xn--bcher-kva.example"]);
    assert!(report.snippet.is_some_and(|snippet| snippet.contains(&report.deployment_id)));
    assert_eq!(report.warnings, [] as [String; 0]);
    assert_eq!(report.csp[0], "connect-src https://*.mypurecloud.com wss://*.mypurecloud.com");
    assert!(report.csp.contains(&"script-src https://*.mypurecloud.com".to_owned()), "{:?}", report.csp);

    let (c, d) = (&report.configuration_id, &report.deployment_id);
    let mut calls = rig.calls();
    calls.dedup();
    let expected = [
        format!("GET /api/v2/flows/{FLOW}"),
        format!("GET /api/v2/routing/queues/{QUEUE}"),
        "GET /api/v2/architect/dependencytracking/consumedresources".to_owned(),
        format!("GET {DEPLOYMENTS}"),
        format!("GET {CONFIGURATIONS}"),
        "GET /api/v2/organizations/limits/namespaces/web.deployments".to_owned(),
        format!("POST {CONFIGURATIONS}"),
        format!("GET {CONFIGURATIONS}/{c}/versions/draft"),
        format!("POST {CONFIGURATIONS}/{c}/versions/draft/publish"),
        format!("GET {DEPLOYMENTS}"),
        format!("GET {CONFIGURATIONS}"),
        format!("POST {DEPLOYMENTS}"),
        format!("GET {DEPLOYMENTS}/{d}"),
        format!("GET {DEPLOYMENTS}/{d}/configurations"),
        format!("GET /webdeployments/v1/deployments/{d}/config.json"),
    ];
    assert_eq!(calls, expected);
    let edge = rig.simulator.requests().into_iter().find(|one| one.path.starts_with("/webdeployments")).unwrap();
    assert_eq!(edge.token, None, "the edge is asked without the token");
    let posted = rig.bodies("POST", DEPLOYMENTS);
    assert_eq!(posted[0]["configuration"], json!({"id": c, "version": "1"}));
    assert_eq!(posted[0]["status"], "Active");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_it_makes_one_configuration_and_one_deployment() {
    // Calls of a job that nothing happens to; a few more are never reached.
    let deaths = (0..16_u32).flat_map(|call| [(call, true), (call, false)]);
    let ends = deaths.map(async |(call, effect)| {
        let rig = Rig::start().await;
        rig.simulator.set_faults(fault(&format!("hang,effect={effect},after={call},times=1")));
        let report = rig.published_past_a_death("job-1", &payload(json!({"queueId": QUEUE}))).await;
        assert_eq!(rig.made(), (1, 1, 1), "call {call}, effect {effect}: configurations, their versions, deployments");
        assert_eq!(report.configuration_version, "1", "call {call}, effect {effect}");
        assert_ne!(report.created, report.adopted, "call {call}, effect {effect}");
    });
    join_all(ends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_answer_made_is_found_where_reads_lag() {
    let lost = [CONFIGURATIONS, "/publish", DEPLOYMENTS].map(async |path| {
        let rig = Rig::start().await;
        rig.set(&json!({"readLagMs": 3000}));
        let path = if path == "/publish" { format!("{CONFIGURATIONS}/") } else { path.to_owned() };
        rig.simulator.set_faults(fault(&format!("lost,method=POST,path={path},times=1")));
        let report = rig.published("job-1", &payload(json!({}))).await;
        assert_eq!(rig.made(), (1, 1, 1), "{path}");
        assert_eq!(report.adopted, path == DEPLOYMENTS, "{path}");
        assert_eq!(report.created, path != DEPLOYMENTS, "{path}");
    });
    join_all(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_lost_itself_is_looked_for_and_then_sent_again() {
    let lost = [CONFIGURATIONS, DEPLOYMENTS].map(async |path| {
        let rig = Rig::start().await;
        rig.simulator.set_faults(fault(&format!("lost,effect=false,method=POST,path={path},times=1")));
        let Ended::Failed(error, state) = rig.run("job-1", &payload(json!({})), 8).await else {
            panic!("{path}: it is not known whether it was made")
        };
        assert_eq!((error.class, error.code), (ErrorClass::Transient, "api_unavailable"), "{path}");
        let job = rig.job("job-1").with_history(true, 0);
        let report = rig.go_on(&job, &payload(json!({})), state).await.published();
        assert!(report.created, "{path}");
        assert_eq!(rig.made(), (1, 1, 1), "{path}");
    });
    join_all(lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_at_once_for_one_name_make_one_and_leave_nothing_of_the_other() {
    let rig = Rig::start().await;
    let wishes = payload(json!({}));
    let (one, other) = tokio::join!(rig.run("job-1", &wishes, 8), rig.run("job-2", &wishes, 8));
    let ends = [one, other];
    let failed: Vec<_> = ends.iter().filter_map(Ended::error).collect();
    assert_eq!(failed.len(), 1, "{ends:?}");
    assert_eq!((failed[0].class, failed[0].code), (ErrorClass::Permanent, "name_taken"));
    assert_eq!(rig.made(), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_once_make_one_and_leave_nothing_of_the_other() {
    for unique in [true, false] {
        let rig = Rig::start().await;
        rig.set(&json!({"uniqueNames": unique}));
        let another = rig.another_process();
        let wishes = payload(json!({}));
        let (one, other) = tokio::join!(rig.run("job-1", &wishes, 8), another.run("job-2", &wishes, 8));
        let ends = [one, other];
        let failed: Vec<_> = ends.iter().filter_map(Ended::error).collect();
        assert_eq!(failed.len(), 1, "{unique} {ends:?}");
        assert!(["name_taken", "conflict"].contains(&failed[0].code), "{unique} {ends:?}");
        assert_eq!(rig.made(), (1, 1, 1), "{unique}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_400_that_is_lag_is_waited_out_and_another_one_is_not() {
    let rig = Rig::start().await;
    rig.set(&json!({"referenceLagMs": 4000, "pendingMs": 0}));
    assert!(rig.published("job-1", &payload(json!({}))).await.created);
    assert_eq!(rig.made(), (1, 1, 1));
    assert!(rig.bodies("POST", DEPLOYMENTS).len() > 1, "it was refused at first");

    rig.simulator.set_faults(fault(&format!("status=400,method=POST,path={CONFIGURATIONS},times=1")));
    let error = rig.refused("job-2", &payload(json!({"name": "Other"}))).await;
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "rejected", Some(400)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_stays_is_rejected_and_the_configuration_goes() {
    let rig = Rig::start().await;
    rig.simulator.set_faults(fault(&format!("status=422,method=POST,path={DEPLOYMENTS}")));
    let error = rig.refused("job-1", &payload(json!({}))).await;
    assert_eq!((error.code, error.status), ("rejected", Some(422)));
    assert_eq!(error.details["rolledBack"], true);
    assert_eq!(rig.made(), (0, 0, 0));
    let error = rig.refused("job-2", &payload(json!({"rollback": false}))).await;
    assert_eq!((error.code, &error.details["rolledBack"]), ("rejected", &json!(false)));
    assert_eq!(rig.made(), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_in_error_fails_the_job_and_is_removed() {
    let rig = Rig::start().await;
    rig.set(&json!({"failing": ["configuration"]}));
    let error = rig.refused("job-1", &payload(json!({}))).await;
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "configuration_error"));
    assert_eq!((&error.details["rolledBack"], rig.made()), (&json!(true), (0, 0, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_in_error_fails_the_job_and_stays() {
    let rig = Rig::start().await;
    rig.set(&json!({"failing": ["deployment"]}));
    let error = rig.refused("job-1", &payload(json!({}))).await;
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "deployment_error"));
    assert_eq!(rig.made(), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_not_active_in_time_is_transient_and_goes_on_at_its_wait() {
    let mut rig = Rig::start().await;
    rig.activate = Duration::from_millis(300);
    let (error, state) = {
        // The configuration is active at once, the deployment not for a while.
        rig.set(&json!({"pendingMs": 0}));
        let job = rig.job("job-1");
        let mut state = WebDeploymentState::default();
        while json!(state)["deployment"].is_null() {
            if !json!(state)["configuration"]["version"].is_null() {
                rig.set(&json!({"pendingMs": 60_000}));
            }
            match rig.once(&job, &payload(json!({})), state).await.unwrap() {
                Progress::Begun { state: next, .. } => state = next,
                Progress::Done(report) => panic!("{report:?}"),
            }
        }
        rig.go_on(&job, &payload(json!({})), state).await.failed()
    };
    assert_eq!((error.class, error.code), (ErrorClass::Transient, "not_active"));
    rig.set(&json!({"pendingMs": 0}));
    let posts = rig.bodies("POST", DEPLOYMENTS).len();
    let report = rig.go_on(&rig.job("job-1").with_history(true, 0), &payload(json!({})), state).await.published();
    assert!(report.created);
    assert_eq!((posts, rig.bodies("POST", DEPLOYMENTS).len(), rig.made()), (1, 1, (1, 1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_takes_no_conversations_ends_the_job_before_anything_is_made() {
    let rig = Rig::start().await;
    for (change, code) in [
        (json!({"missing": true}), "flow_not_found"),
        (json!({"deleted": true}), "flow_not_found"),
        (json!({"type": "INBOUNDCALL"}), "flow_wrong_type"),
        (json!({"published": false}), "flow_not_published"),
    ] {
        rig.set(&json!({"flows": {FLOW: change}}));
        let error = rig.refused("job-1", &payload(json!({}))).await;
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, code));
    }
    rig.set(&json!({"flows": {FLOW: {}}}));
    rig.simulator.set("webMessaging", &json!({"missingQueues": [QUEUE]})).unwrap();
    assert_eq!(rig.refused("job-1", &payload(json!({"queueId": QUEUE}))).await.code, "queue_not_found");
    assert_eq!(rig.made(), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_the_flow_does_not_use_is_a_warning() {
    let rig = Rig::start().await;
    rig.set(&json!({"flows": {FLOW: {"queues": []}}}));
    let report = rig.published("job-1", &payload(json!({"queueId": QUEUE}))).await;
    assert_eq!((report.queue_verified, report.warnings.len()), (Some(false), 1));
    assert!(report.warnings[0].contains(QUEUE), "{:?}", report.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_stop_what_would_be_one_too_many() {
    let rig = Rig::start().await;
    for limits in
        [json!({"deployments.max": 0, "configuration.max": 9}), json!({"deployments.max": 9, "configuration.max": 0})]
    {
        rig.set(&json!({"limits": limits}));
        assert_eq!(rig.refused("job-1", &payload(json!({}))).await.code, "deployment_limit_reached");
    }
    assert_eq!(rig.made(), (0, 0, 0));
    rig.set(&json!({"limits": {}}));
    let report = rig.published("job-1", &payload(json!({}))).await;
    assert_eq!(report.warnings.len(), 2, "{:?}", report.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_there_is_reused_or_changed() {
    let rig = Rig::start().await;
    let first = rig.published("job-1", &payload(json!({}))).await;
    let id = &first.configuration_id;
    let reused = rig.published("job-2", &payload(json!({"name": "Second", "configuration": {"id": id}}))).await;
    assert_eq!((&reused.configuration_id, reused.configuration_version.as_str()), (id, "1"));
    rig.set(&json!({"changedByOthers": 2}));
    let document = json!({"position": {"alignment": "Left"}});
    let change = json!({"name": "Third", "configuration": {"id": id, "document": document}});
    let changed = rig.published("job-3", &payload(change)).await;
    assert_eq!((&changed.configuration_id, changed.configuration_version.as_str()), (id, "2"));
    assert_eq!(rig.bodies("PUT", CONFIGURATIONS).len(), 3, "somebody else was first twice");
    let draft = &rig.state()["configurations"][0]["draft"];
    assert_eq!((&draft["position"], &draft["languages"]), (&json!({"alignment": "Left"}), &json!(["en-us"])));
    let exact = json!({"name": "Fourth", "configuration": {"id": id, "version": "1"}});
    assert_eq!(rig.published("job-4", &payload(exact)).await.configuration_version, "1");
    for (name, configuration) in [("Fifth", json!({"id": id, "version": "3"})), ("Sixth", json!({"id": QUEUE}))] {
        let error = rig.refused("job-5", &payload(json!({"name": name, "configuration": configuration}))).await;
        assert_eq!(error.code, "configuration_not_found", "{name}");
    }
    rig.set(&json!({"changedByOthers": 9}));
    let error =
        rig.refused("job-6", &payload(json!({"name": "Seventh", "configuration": {"id": id, "document": {}}}))).await;
    assert_eq!((error.class, error.code), (ErrorClass::Permanent, "conflict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_reads_changes_and_sends_the_whole() {
    let rig = Rig::start().await;
    let first = rig.published("job-1", &payload(json!({"supportedContentId": QUEUE, "description": "Spring"}))).await;
    let taken = rig.refused("job-2", &payload(json!({}))).await;
    assert_eq!((taken.class, taken.code, rig.made()), (ErrorClass::Permanent, "name_taken", (1, 1, 1)));

    rig.set(&json!({"changedByOthers": 1}));
    let wishes = json!({"onExisting": "update", "allowedDomains": ["new.example"], "configuration": {"id": first.configuration_id}});
    let updated = rig.published("job-3", &payload(wishes)).await;
    assert_eq!((updated.created, updated.adopted, updated.updated), (false, false, true));
    assert_eq!(updated.deployment_id, first.deployment_id);
    let shown = &rig.state()["deployments"][0];
    assert_eq!(shown["allowedDomains"], json!(["new.example"]));
    assert_eq!(shown["supportedContent"], json!({"id": QUEUE}), "what the list does not show is kept");
    let description = shown["description"].as_str().unwrap();
    assert!(
        description.starts_with("Spring [genfleet:") && description.matches("[genfleet:").count() == 1,
        "{description}"
    );

    let renamed = json!({"deploymentId": first.deployment_id, "name": "Renamed", "configuration": {"id": first.configuration_id}});
    let renamed = rig.published("job-4", &payload(renamed)).await;
    assert_eq!((renamed.updated, renamed.name.as_str()), (true, "Renamed"));
    let error = rig.refused("job-5", &payload(json!({"deploymentId": FLOW, "name": "Nowhere"}))).await;
    assert_eq!((error.code, error.status), ("deployment_not_found", Some(404)));
    assert_eq!(rig.made(), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_delivered_again_adopts_its_deployment() {
    let rig = Rig::start().await;
    let first = rig.published("job-1", &payload(json!({}))).await;
    let again = rig.published("job-1", &payload(json!({}))).await;
    assert_eq!((again.created, again.adopted), (false, true));
    assert_eq!((again.deployment_id, again.configuration_id), (first.deployment_id, first.configuration_id));
    assert_eq!((again.compliance_hash, rig.made()), (first.compliance_hash, (1, 1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_late_is_waited_for_and_then_a_warning() {
    let rig = Rig::with(&["--edge-timeout", "1s"]).await;
    rig.set(&json!({"edgeLagMs": 600_000}));
    let report = rig.published("job-1", &payload(json!({}))).await;
    assert_eq!((report.edge_verified, report.warnings.len()), (Some(false), 1));
    let report = rig.published("job-2", &payload(json!({"name": "Second", "verifyEdge": false}))).await;
    assert_eq!((report.edge_verified, report.warnings.len()), (None, 0));
    let report = rig.published("job-3", &payload(json!({"name": "Third", "status": "Inactive"}))).await;
    assert_eq!((report.status.as_str(), report.edge_verified), ("Inactive", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_read_to_their_end() {
    let rig = Rig::start().await;
    rig.set(&json!({"pendingMs": 0, "limits": {}}));
    let first = rig.published("job-0", &payload(json!({"name": "Shop 0"}))).await;
    for n in 1..130 {
        rig.deploy_as_somebody_else(&format!("Shop {n}"), &first.configuration_id).await;
    }
    let error = rig.refused("job-1", &payload(json!({"name": "Shop 129"}))).await;
    assert_eq!(error.code, "name_taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_sends_nothing_more_and_keeps_what_it_knows() {
    let rig = Rig::start().await;
    rig.set(&json!({"pendingMs": 600_000}));
    let job = rig.job("job-1");
    let state = match rig.once(&job, &payload(json!({})), WebDeploymentState::default()).await.unwrap() {
        Progress::Begun { state, again_in } => {
            assert_eq!(again_in, Duration::from_secs(2), "no look sooner");
            state
        }
        Progress::Done(report) => panic!("{report:?}"),
    };
    let stopped = async {
        rig.until(|rig| rig.calls().iter().any(|call| call.ends_with("/versions/draft"))).await;
        job.stop.cancel();
    };
    let wishes = payload(json!({}));
    let (ended, ()) = tokio::join!(rig.once(&job, &wishes, state), stopped);
    let error = ended.unwrap_err();
    assert_eq!(error.class, ErrorClass::Interrupted);
    let kept: Value = error.state.unwrap();
    assert_eq!(kept["configuration"]["made"], true);
}
