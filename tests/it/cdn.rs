//! `cdn.purge` at the providers: Varnish itself with an origin behind it, stand-ins for the APIs that cost money, and the
//! vendors' own clients as judges of what is sent.

use harness::{Amqp, Broker, Launch, Prefix, Process, eventually, json_properties, seconds};
use serde_json::{Value, json};

use crate::stack::{assert_all_succeeded, outcomes, publish_one_path_jobs, purge_job};

mod official;
mod stand_in;
mod varnish;

use self::stand_in::{Reply, StandIn};

const DISTRIBUTION: &str = "E1EXAMPLE";
const KEY_ID: &str = "AKIDEXAMPLE";
const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A purger of another CDN on this broker. It has no credentials of Genesys Cloud.
fn purger(broker: &Broker, prefix: &Prefix, arguments: &[&str]) -> Launch {
    Process::binary("purger")
        .args(["--admin-addr", "127.0.0.1:0", "--credentials-probe", "1s", "--forbidden-probe", "1s"])
        .args(arguments.iter().copied())
        .env("GENFLEET_QUEUE_URL", broker.url())
        .env("GENFLEET_QUEUE_PREFIX", prefix)
}

fn cloudfront(broker: &Broker, prefix: &Prefix, stand_in: &StandIn) -> Launch {
    let url = stand_in.url();
    purger(broker, prefix, &["--cdn", "cloudfront", "--cdn-distribution", DISTRIBUTION, "--cdn-url", &url])
        .args(["--cdn-requests-per-minute", "60000"])
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", KEY)
}

/// Runs jobs with `genfleet run` to their end; their events.
async fn run(jobs: &[Value], launch: impl FnOnce(Launch) -> Launch) -> Vec<Value> {
    let lines = jobs.iter().map(|job| format!("{job}\n")).collect::<Vec<_>>().concat();
    let process = launch(Process::binary("genfleet").args(["run", "-", "--kinds", "cdn.purge"])).stdin(lines).start();
    process.wait(seconds(120)).await;
    process.stdout_lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn job(id: &str, paths: &[&str]) -> Value {
    json!({ "id": id, "kind": "cdn.purge", "payload": { "paths": paths, "allowPurgeAll": true } })
}

fn accepted() -> Reply {
    let body = "<?xml version=\"1.0\"?>\n<Invalidation xmlns=\"http://cloudfront.amazonaws.com/doc/2020-05-31/\">\
                <Id>I2J0I21PCUYOIK</Id><Status>InProgress</Status></Invalidation>";
    Reply::new(201, body)
}

fn refused(status: u16, code: &str) -> Reply {
    Reply::new(
        status,
        format!(
            "<?xml version=\"1.0\"?>\n<ErrorResponse xmlns=\"http://cloudfront.amazonaws.com/doc/2020-05-31/\"><Error>\
             <Type>Sender</Type><Code>{code}</Code><Message>it says</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        ),
    )
}

/// The paths of an invalidation.
fn invalidated(body: &str) -> Vec<&str> {
    body.split("<Path>").skip(1).filter_map(|rest| Some(rest.split_once("</Path>")?.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_share_invalidations_and_two_purgers_one_of_them_killed_lose_nothing() {
    const JOBS: usize = 3_000;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let stand_in = StandIn::start(|_| accepted()).await;
    let first = cloudfront(broker, &prefix, &stand_in).start();
    first.wait_ready(seconds(60)).await;
    let second = cloudfront(broker, &prefix, &stand_in).start();
    second.wait_ready(seconds(60)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    publish_one_path_jobs(&amqp, &prefix, "shared", JOBS).await;
    eventually(seconds(60), "a part of the jobs is done", async || !stand_in.requests().is_empty()).await;
    first.kill9();

    let by_job = outcomes(&mut events, JOBS, seconds(120)).await;
    assert_all_succeeded(&by_job);
    let report = &by_job["shared-7"][0]["data"]["report"];
    assert_eq!((&report["status"], &report["requestIds"]), (&json!("InProgress"), &json!(["I2J0I21PCUYOIK"])));
    let requests = stand_in.requests();
    assert!(requests.len() < JOBS / 4, "{} requests", requests.len());
    let mut references = std::collections::BTreeSet::new();
    let mut paths = std::collections::BTreeSet::new();
    for request in &requests {
        assert_eq!(request.line(), format!("POST /2020-05-31/distribution/{DISTRIBUTION}/invalidation"));
        let reference = request.body.split("<CallerReference>").nth(1).unwrap().split('<').next().unwrap();
        assert!(references.insert(reference.to_owned()), "every request has a reference of its own");
        paths.extend(invalidated(&request.body).into_iter().map(str::to_owned));
    }
    assert_eq!(paths.len(), JOBS);
    assert!(second.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_invalidation_burns_no_attempt_and_splits_nobody() {
    // As Amazon says it: with 400, which is no refusal of the content.
    let stand_in = StandIn::start(|number| match number {
        0 => refused(400, "TooManyInvalidationsInProgress").header("retry-after", "1"),
        _ => accepted(),
    })
    .await;
    let url = stand_in.url();
    let mut wanted = job("throttled", &["/a", "/b", "/img/*"]);
    wanted["maxAttempts"] = json!(1);
    let events = run(&[wanted], |launch| {
        launch
            .args(["--cdn", "cloudfront", "--cdn-distribution", DISTRIBUTION, "--cdn-url", &url])
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", KEY)
    })
    .await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["data"]["outcome"], "succeeded", "{events:?}");
    let bodies: Vec<String> = stand_in.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0], bodies[1], "the same request, by the same reference");
    assert_eq!(invalidated(&bodies[0]), ["/a", "/b", "/img/*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_path_is_found_and_fails_its_job_alone() {
    let stand_in = StandIn::judging(|request| {
        let is_bad = invalidated(&request.body).contains(&"/bad");
        if is_bad { refused(400, "InvalidArgument") } else { accepted() }
    })
    .await;
    let url = stand_in.url();
    let jobs = [job("good", &["/a", "/b"]), job("bad", &["/bad"]), job("also-good", &["/c"])];
    let events = run(&jobs, |launch| {
        launch
            .args(["--cdn", "cloudfront", "--cdn-distribution", DISTRIBUTION, "--cdn-url", &url])
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", KEY)
    })
    .await;
    for event in &events {
        let is_bad = event["subject"] == "bad";
        assert_eq!(event["data"]["outcome"], if is_bad { "failed" } else { "succeeded" }, "{event}");
        if is_bad {
            assert_eq!(
                (&event["data"]["error"]["code"], &event["data"]["error"]["path"]),
                (&json!("rejected"), &json!("/bad"))
            );
        }
    }
    assert_eq!(events.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_let_jobs_wait_and_readyz_names_the_hold() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let is_well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = is_well.clone();
    let stand_in = StandIn::start(move |_| {
        let is_well = told.load(std::sync::atomic::Ordering::Relaxed);
        if is_well { accepted() } else { refused(403, "SignatureDoesNotMatch") }
    })
    .await;
    let purger = cloudfront(broker, &prefix, &stand_in).start();
    purger.wait_ready(seconds(60)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    for n in 0..20 {
        let body =
            json!({ "id": format!("held-{n}"), "payload": { "paths": [format!("/held/{n}")] }, "maxAttempts": 1 });
        amqp.publish_job(&prefix, "cdn.purge", body.to_string(), json_properties()).await;
    }
    eventually(seconds(60), "/readyz names the hold and the remedy", async || {
        let (status, said) = purger.ready().await;
        let said = said.to_string();
        let is_told = status == 503 && said.contains("cdn_credentials") && said.contains("AWS_SECRET_ACCESS_KEY");
        if is_told { Ok(()) } else { Err(format!("{status} {said}")) }
    })
    .await;
    assert_eq!(purger.metrics().await.get("genfleet_gate_state{reason=\"cdn_credentials\"}"), Some(1.0));
    is_well.store(true, std::sync::atomic::Ordering::Relaxed);
    let by_job = outcomes(&mut events, 20, seconds(120)).await;
    assert_all_succeeded(&by_job);
    purger.wait_ready(seconds(60)).await;
    assert_eq!(amqp.count(&format!("{prefix}.dead.cdn.purge")).await, 0);
    assert!(!purger.stderr().contains(KEY), "no secret is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cdn_that_fails_or_throttles_lets_jobs_wait_and_the_process_stays_ready() {
    let broker = Broker::shared().await;
    for (reason, bad) in [
        ("cdn_unavailable", refused(500, "InternalError")),
        ("cdn_throttled", refused(429, "Slow").header("retry-after", "3")),
    ] {
        let prefix = Prefix::on(broker);
        let is_well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = is_well.clone();
        let stand_in =
            StandIn::start(
                move |_| {
                    if told.load(std::sync::atomic::Ordering::Relaxed) { accepted() } else { bad.clone() }
                },
            )
            .await;
        // Without sharing, each job has requests of its own, which count.
        let purger = cloudfront(broker, &prefix, &stand_in)
            .args(["--batch-linger", "0ms", "--retry-initial", "60s", "--breaker-probe", "1s"])
            .start();
        purger.wait_ready(seconds(60)).await;
        let amqp = Amqp::connect(broker.url()).await;
        let mut events = amqp.declare_events_queue(&prefix).await;
        for n in 0..30 {
            let body = json!({ "id": format!("held-{n}"), "payload": { "paths": [format!("/held/{n}")] } });
            amqp.publish_job(&prefix, "cdn.purge", body.to_string(), json_properties()).await;
        }
        let gate = async || purger.metrics().await.count("genfleet_gate_state", &[("reason", reason)]);
        eventually(seconds(60), format!("{reason} is told"), async || gate().await == 1).await;
        eventually(seconds(60), "/readyz names it and is well", async || {
            let (status, said) = purger.ready().await;
            if status == 200 && said.to_string().contains(reason) { Ok(()) } else { Err(format!("{status} {said}")) }
        })
        .await;
        is_well.store(true, std::sync::atomic::Ordering::Relaxed);
        let by_job = outcomes(&mut events, 30, seconds(120)).await;
        assert_all_succeeded(&by_job);
        let attempts = by_job.values().map(|events| events[0]["data"]["attempts"].as_u64().unwrap());
        assert_eq!(attempts.max(), Some(1), "no attempt was lost");
        eventually(seconds(60), "it is over", async || gate().await == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cdn_needs_is_checked_before_anything_starts() {
    let check = async |arguments: &[&str], variables: &[(&str, &str)]| {
        let launch = Process::binary("purger").args(["--check-config", "--queue-url", "sqlite:jobs.db"]);
        let launch = launch.args(arguments.iter().copied());
        let process = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start();
        (process.wait(seconds(60)).await, process.stderr())
    };
    let token = ("CLOUDFLARE_API_TOKEN", "hush-hush-hush");
    for (arguments, variables, missing) in [
        (&["--cdn", "akamai"][..], &[][..], "akamai"),
        (&["--cdn", "cloudfront"], &[], "--cdn-distribution"),
        (&["--cdn", "cloudflare", "--cdn-hosts", "a.example", "--cdn-zone", "z"], &[], "CLOUDFLARE_API_TOKEN"),
        (&["--cdn", "cloudflare", "--cdn-hosts", "a.example"], &[token], "--cdn-zone"),
        (&["--cdn", "cloudflare", "--cdn-zone", "z"], &[token], "--cdn-hosts"),
        (&["--cdn", "varnish"], &[], "--cdn-servers"),
        (&["--cdn", "fastly", "--cdn-hosts", "a.example"], &[], "FASTLY_API_TOKEN"),
    ] {
        let (code, said) = check(arguments, variables).await;
        assert!(code == 64 && said.contains(missing), "{arguments:?}: {code} {said}");
    }
    for (arguments, variables) in [
        (&["--cdn", "cloudfront", "--cdn-distribution", DISTRIBUTION][..], &[][..]),
        (&["--cdn", "cloudflare", "--cdn-zone", "z", "--cdn-hosts", "a.example"], &[token]),
        (&["--cdn", "varnish", "--cdn-servers", "http://127.0.0.1:6081"], &[]),
    ] {
        let (code, said) = check(arguments, variables).await;
        assert_eq!(code, 0, "{arguments:?} needs no credentials of Genesys Cloud: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflare_and_fastly_get_what_they_take_and_refuse_the_rest_with_the_remedy() {
    let stand_in = StandIn::judging(|request| match request.path.as_str() {
        path if path.starts_with("/purge/") => Reply::new(200, r#"{"status":"ok","id":"108-1"}"#),
        _ => Reply::new(200, r#"{"success":true,"errors":[],"messages":[],"result":{"id":"z1"}}"#),
    })
    .await;
    let url = stand_in.url();
    let jobs = [job("files", &["/é.css", "/img/*", "/*"]), job("within", &["/a*"])];
    let events = run(&jobs, |launch| {
        launch
            .args(["--cdn", "cloudflare", "--cdn-zone", "z9", "--cdn-hosts", "a.example,b.example", "--cdn-url", &url])
            .env("CLOUDFLARE_API_TOKEN", "hush-hush-hush")
    })
    .await;
    let by_id =
        |events: &[Value], id: &str| events.iter().find(|event| event["subject"] == id).unwrap()["data"].clone();
    assert_eq!(by_id(&events, "files")["outcome"], "succeeded", "{events:?}");
    assert_eq!(by_id(&events, "files")["report"]["status"], 200);
    let within = by_id(&events, "within");
    assert_eq!((&within["error"]["code"], &within["error"]["path"]), (&json!("rejected"), &json!("/a*")));
    assert!(within["error"]["message"].as_str().unwrap().contains("/*"), "{within}");
    let sent = stand_in.requests();
    assert!(sent.iter().all(|request| request.line() == "POST /client/v4/zones/z9/purge_cache"));
    assert!(sent.iter().all(|request| request.headers["authorization"] == "Bearer hush-hush-hush"));
    let bodies: Vec<Value> = sent.iter().map(|request| serde_json::from_str(&request.body).unwrap()).collect();
    // `/*` covers the others, which ride along.
    assert_eq!(bodies, [json!({ "hosts": ["a.example", "b.example"] })]);

    stand_in.forget();
    let jobs = [job("one", &["/x y".replace(' ', "%20").as_str()]), job("folder", &["/img/*"])];
    let events = run(&jobs, |launch| {
        launch
            .args(["--cdn", "fastly", "--cdn-hosts", "a.example,b.example", "--cdn-url", &url])
            .env("FASTLY_API_TOKEN", "hush-hush-hush")
    })
    .await;
    assert_eq!(by_id(&events, "one")["report"]["requestIds"], json!(["108-1", "108-1"]), "{events:?}");
    assert_eq!(by_id(&events, "one")["report"]["status"], "ok");
    assert_eq!(by_id(&events, "folder")["error"]["code"], "rejected");
    let lines: Vec<String> = stand_in.requests().iter().map(stand_in::Recorded::line).collect();
    assert_eq!(lines, ["POST /purge/a.example/x%20y", "POST /purge/b.example/x%20y"]);
    assert!(stand_in.requests().iter().all(|request| request.headers["fastly-key"] == "hush-hush-hush"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_whether_the_cdn_would_take_purges() {
    let stand_in = StandIn::judging(|request| match request.method.as_str() {
        "GET" => Reply::new(401, r#"{"success":false,"errors":[{"code":1000,"message":"Invalid API Token"}]}"#),
        _ => Reply::new(500, ""),
    })
    .await;
    let url = stand_in.url();
    let doctor = Process::binary("genfleet")
        .args([
            "doctor",
            "cdn.purge",
            "--json",
            "--queue-url",
            "sqlite:jobs.db",
            "--cdn",
            "cloudflare",
            "--cdn-zone",
            "z9",
        ])
        .args(["--cdn-hosts", "a.example", "--cdn-url", &url])
        .env("CLOUDFLARE_API_TOKEN", "hush-hush-hush")
        .start();
    assert_eq!(doctor.wait(seconds(60)).await, 1);
    let report: Value = serde_json::from_str(&doctor.stdout_lines().join("\n")).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == "cdn").unwrap();
    assert_eq!(found["level"], "failed", "{found}");
    assert!(found["do"].as_str().unwrap().contains("CLOUDFLARE_API_TOKEN"), "{found}");
    assert!(findings.iter().any(|finding| finding["check"] == "genesys.token" && finding["level"] == "skipped"));
    assert!(stand_in.requests().iter().all(|request| request.method == "GET"), "nothing was purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_stands_in_for_every_cdn_and_no_secret_is_needed() {
    for arguments in [
        &["--cdn", "cloudfront", "--cdn-distribution", DISTRIBUTION][..],
        &["--cdn", "cloudflare", "--cdn-zone", "z9", "--cdn-hosts", "a.example"],
        &["--cdn", "varnish", "--cdn-servers", "http://cache.example:6081"],
        &["--cdn", "fastly", "--cdn-hosts", "a.example"],
    ] {
        let jobs = [job("one", &["/a"]), job("two", &["/b/c"])];
        let events = run(&jobs, |launch| launch.args(["--simulate"]).args(arguments.iter().copied())).await;
        assert_eq!(events.len(), 2, "{arguments:?}");
        for event in &events {
            assert_eq!(event["data"]["outcome"], "succeeded", "{arguments:?}: {event}");
            assert_eq!(
                event["data"]["report"]["requestIds"].as_array().map(Vec::len),
                Some(1),
                "{arguments:?}: {event}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_requests_are_sent_than_a_minute_may_have() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let stand_in = StandIn::start(|_| Reply::new(200, "")).await;
    let url = stand_in.url();
    let arguments = ["--cdn", "varnish", "--cdn-servers", url.as_str(), "--cdn-requests-per-minute", "5"];
    let purger = purger(broker, &prefix, &arguments).start();
    purger.wait_ready(seconds(60)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let paths: Vec<String> = (0..6).map(|n| format!("/{n}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let began = tokio::time::Instant::now();
    amqp.publish_job(&prefix, "cdn.purge", purge_job("paced", &paths), json_properties()).await;
    eventually(seconds(60), "five are sent", async || stand_in.requests().len() == 5).await;
    let event = events.next_event(seconds(120)).await;
    assert_eq!(event["data"]["outcome"], "succeeded", "{event}");
    assert!(began.elapsed() > seconds(55), "the sixth waited for the next minute: {:?}", began.elapsed());
}
