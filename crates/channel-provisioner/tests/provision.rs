//! The handler with the real client, over HTTP, against the simulator.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic like the test itself")]

mod rig;

use std::time::Duration;

use genfleet_channel_provisioner::ChannelState;
use genfleet_core::{error::ErrorClass, hash};
use genfleet_simulator::FaultRule;
use serde_json::json;
use tokio::time::Instant;

use crate::rig::{CHANNELS, QUEUE, Rig};

fn fault(rule: &str) -> Vec<FaultRule> {
    vec![rule.parse().unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_made_and_told() {
    let rig = Rig::start(10).await;
    let report = rig.provisioned("job-1").await;
    let id = rig::channel_id("job-1");
    assert_eq!((report.channel_id.as_str(), report.queue_id.as_str(), report.status), (id.as_str(), QUEUE, 201));
    assert_eq!((report.name, report.adopted, report.warnings), (format!("WebMessaging-{}", &id[..8]), false, vec![]));
    let sent = rig.posts()[0].body.clone();
    assert_eq!(report.compliance_hash, hash::sha256(hash::canonical(&sent)));
    let asked: Vec<_> = rig.simulator.requests().into_iter().filter(|one| one.path != "/oauth/token").collect();
    let asked: Vec<_> =
        asked.iter().map(|one| (one.method.as_str(), one.path.as_str(), one.query.as_deref())).collect();
    let own = format!("{CHANNELS}/{id}");
    let queue = format!("/api/v2/routing/queues/{QUEUE}");
    let expected = [
        ("GET", queue.as_str(), None),
        ("GET", own.as_str(), None),
        ("GET", CHANNELS, Some("pageSize=1&pageNumber=1")),
        ("POST", CHANNELS, None),
    ];
    assert_eq!(asked, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_queue_is_not_the_one_that_was_asked_for() {
    let rig = Rig::start(10).await;
    rig.simulator
        .set_faults(fault(r#"status=200,method=GET,path=/api/v2/routing/queues/,body={"id":"other"},times=1"#));
    rig.provisioned("job-1").await;
    let asked = rig.simulator.requests().into_iter().filter(|one| one.path.ends_with(QUEUE)).count();
    assert_eq!(asked, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_jobs_at_once_with_ten_licences_make_exactly_ten_channels() {
    let rig = Rig::start(10).await;
    let outcomes = rig.at_once(20).await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert_eq!((made, refused.len(), rig.channels().len()), (10, 10, 10));
    for error in refused {
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "license_limit_reached"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn licences_are_exact_where_reads_lag_writes() {
    let rig = Rig::start(3).await;
    rig.set(&json!({"readLagMs": 1500}));
    let outcomes = rig.at_once(8).await;
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), rig.channels().len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_answer_was_lost_is_adopted() {
    let rig = Rig::start(10).await;
    rig.set(&json!({"readLagMs": 1500}));
    rig.simulator.set_faults(fault("lost,method=POST,path=/api/v2/purecloudv2/webchat,times=1"));
    let report = rig.provisioned("job-1").await;
    assert!(report.adopted);
    assert_eq!((rig.channels().len(), rig.posts().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_leave_the_licences_exact() {
    let rig = Rig::start(5).await;
    rig.set(&json!({"readLagMs": 700}));
    rig.simulator.set_faults(fault("lost,method=POST,path=/api/v2/purecloudv2/webchat,rate=0.5"));
    let outcomes = rig.at_once(12).await;
    assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), rig.channels().len()), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_lost_itself_is_looked_for_and_comes_again() {
    let rig = Rig::start(10).await;
    rig.simulator.set_faults(fault("lost,effect=false,method=POST,path=/api/v2/purecloudv2/webchat,times=1"));
    let began = Instant::now();
    let error = rig.refused("job-1").await;
    assert_eq!((error.class, error.code), (ErrorClass::Transient, "api_unavailable"));
    assert!(began.elapsed() >= Duration::from_secs(15), "reads lag writes: {:?}", began.elapsed());
    assert_eq!(rig.posts().len(), 1, "it is not sent again before it was looked for");
    assert!(!rig.provisioned("job-1").await.adopted);
    assert_eq!(rig.channels().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_shows_no_channel_is_looked_at_and_not_believed() {
    let rig = Rig::start(10).await;
    let html = "status=200,body=<html>,content-type=text/html,times=1";
    rig.simulator.set_faults(fault(&format!("{html},effect=true,method=POST,path=/api/v2/purecloudv2/webchat")));
    assert!(rig.provisioned("job-1").await.adopted);
    for path in ["/api/v2/routing/queues", "/api/v2/purecloudv2/webchat/"] {
        rig.simulator.set_faults(fault(&format!("status=200,body=[],path={path}")));
        let error = rig.refused("job-2").await;
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "unexpected_response"), "{path}");
    }
    rig.simulator
        .set_faults(fault("status=200,path=/api/v2/purecloudv2/webchat/,body=\"{\\\"id\\\":\\\"another\\\"}\""));
    assert_eq!(rig.refused("job-2").await.code, "unexpected_response", "somebody else's channel");
    assert_eq!(rig.channels().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_page_is_waited_out_wherever_it_comes() {
    let rig = Rig::start(10).await;
    for (number, path) in
        ["/api/v2/routing/queues", "/api/v2/purecloudv2/webchat/", "/api/v2/purecloudv2/webchat"].iter().enumerate()
    {
        for status in [200, 404] {
            let page = format!("status={status},body=<html>,content-type=text/html,times=2,method=GET,path={path}");
            rig.simulator.set_faults(fault(&page));
            assert!(!rig.provisioned(&format!("job-{number}-{status}")).await.adopted, "{path} {status}");
        }
    }
    assert_eq!(rig.channels().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_delivered_again_adopts_even_where_its_channel_took_the_last_licence() {
    let rig = Rig::start(1).await;
    assert!(!rig.provisioned("job-1").await.adopted);
    let again = rig.provisioned("job-1").await;
    assert_eq!((again.adopted, again.status, again.channel_id), (true, 200, rig::channel_id("job-1")));
    assert_eq!((rig.channels().len(), rig.posts().len()), (1, 1));
    assert_eq!(rig.refused("job-2").await.code, "license_limit_reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_cannot_be_seen_yet_is_adopted_on_409() {
    let rig = Rig::start(10).await;
    rig.provisioned("job-1").await;
    // From now on the channel is as good as new.
    rig.set(&json!({"readLagMs": 2500}));
    let again = rig.provisioned("job-1").await;
    assert!(again.adopted);
    assert_eq!((rig.channels().len(), rig.posts().len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_409_that_is_about_something_else_is_a_conflict() {
    let rig = Rig::start(10).await;
    rig.simulator.set_faults(fault("status=409,method=POST,path=/api/v2/purecloudv2/webchat"));
    let error = rig.refused("job-1").await;
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "conflict", Some(409)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_may_have_taken_the_last_licence_is_given_time_to_be_seen() {
    let rig = Rig::start(1).await;
    rig.provisioned("other").await;
    for (started, delivery_count) in [(false, 1), (true, 0)] {
        let job = rig.job("job-1").with_history(started, delivery_count);
        let (state, again_in) = rig.begun(&job, ChannelState::default()).await;
        assert_eq!((state.waited, again_in), (true, Duration::from_secs(15)));
    }
    let job = rig.job("job-1").with_history(true, 0);
    let error = rig.run(&job, ChannelState { waited: true }).await.unwrap_err();
    assert_eq!(error.code, "license_limit_reached");
    let job = job.with_history(true, 1);
    assert!(rig.begun(&job, ChannelState { waited: true }).await.0.waited, "killed after it had waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_ends_the_job_before_anything_is_made() {
    let rig = Rig::start(10).await;
    rig.set(&json!({"missingQueues": [QUEUE]}));
    let error = rig.refused("job-1").await;
    assert_eq!((error.class, error.code, error.status), (ErrorClass::Permanent, "queue_not_found", Some(404)));
    assert_eq!(rig.simulator.requests().iter().filter(|one| one.path != "/oauth/token").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_lists_no_channels_is_a_warning() {
    let rig = Rig::start(1).await;
    rig.set(&json!({"listing": false}));
    for job in ["job-1", "job-2"] {
        let report = rig.provisioned(job).await;
        assert!(report.warnings.len() == 1 && report.warnings[0].contains("404"), "{:?}", report.warnings);
    }
    for status in [405, 501] {
        rig.simulator
            .set_faults(fault(&format!("status={status},method=GET,path=/api/v2/purecloudv2/webchat,after=1")));
        let report = rig.provisioned(&format!("job-{status}")).await;
        assert!(report.warnings[0].contains(&status.to_string()), "{:?}", report.warnings);
    }
}

/// Another process made the last channel and gave up the lock.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_takeover_a_count_that_may_miss_some_is_not_believed() {
    let rig = Rig::start(1).await;
    rig.set(&json!({"readLagMs": 1200}));
    rig.provisioned("job-1").await;
    let rig = rig.died();
    let mut job = rig.job("job-2");
    job.reads_settled_at = Some(Instant::now() + Duration::from_millis(1500));
    let error = rig.run(&job, ChannelState::default()).await.unwrap_err();
    assert_eq!((error.code, rig.channels().len()), ("license_limit_reached", 1));
    let counts = rig.simulator.requests().iter().filter(|one| one.method == "GET" && one.path == CHANNELS).count();
    rig.run(&job, ChannelState::default()).await.unwrap_err();
    let later = rig.simulator.requests().iter().filter(|one| one.method == "GET" && one.path == CHANNELS).count();
    assert_eq!(later, counts + 1, "what is too much needs no second count");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_while_it_waits_to_count_again_orders_nothing() {
    let rig = Rig::start(10).await;
    let mut job = rig.job("job-1");
    job.reads_settled_at = Some(Instant::now() + Duration::from_secs(3600));
    let stop = job.stop.clone();
    let stopped = async {
        rig.until(|rig| rig.simulator.requests().iter().any(|one| one.path == CHANNELS)).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(rig.run(&job, ChannelState::default()), stopped);
    assert_eq!((ended.unwrap_err().class, rig.posts().len()), (ErrorClass::Interrupted, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_begins_no_further_request_and_does_not_wait_for_its_turn() {
    let rig = Rig::start(10).await;
    // The one that has the turn hangs on its order.
    rig.simulator.set_faults(fault("latency=3s,method=POST,path=/api/v2/purecloudv2/webchat,times=1"));
    let (first, second) = (rig.job("job-1"), rig.job("job-2"));
    let stop = second.stop.clone();
    let stopped = async {
        let looked = format!("{CHANNELS}/{}", rig::channel_id("job-2"));
        rig.until(|rig| rig.simulator.requests().iter().any(|one| one.path == looked)).await;
        stop.cancel();
    };
    let second = async {
        rig.until(|rig| rig.posts().len() == 1).await;
        let began = Instant::now();
        (rig.run(&second, ChannelState::default()).await, began.elapsed())
    };
    let (first, (second, took), ()) = tokio::join!(rig.run(&first, ChannelState::default()), second, stopped);
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err().class, ErrorClass::Interrupted);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(rig.posts().len(), 1);
}
