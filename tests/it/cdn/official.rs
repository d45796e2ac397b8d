//! What the vendors' own libraries for Python make of our requests.

use std::path::Path;

use harness::Python;
use serde_json::{Value, json};

use super::{
    DISTRIBUTION, KEY, KEY_ID, accepted, job, run,
    stand_in::{Recorded, Reply, StandIn},
};

async fn python() -> Option<Python> {
    Python::with("cdn", &["botocore", "cloudflare", "fastly"]).await
}

/// Runs the script with this on its standard input, and returns what it prints.
async fn ask(python: &Python, about: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/cdn/official.py");
    serde_json::from_str(&python.run(&script, &[], &about.to_string()).await).unwrap()
}

fn as_json(request: &Recorded) -> Value {
    json!({
        "method": request.method, "path": request.path, "query": request.query, "headers": request.headers,
        "body": request.body,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_computes_the_same_signature_and_reads_the_same_paths() {
    let Some(python) = python().await else { return };
    let stand_in = StandIn::start(|_| accepted()).await;
    let url = stand_in.url();
    for token in [None, Some("AQoDYXdzEJr//session+token==")] {
        let events = run(&[job("signed", &["/é&<x>/a+b.js", "/img/*"])], |launch| {
            let launch = launch
                .args(["--cdn", "cloudfront", "--cdn-distribution", DISTRIBUTION, "--cdn-url", &url])
                .env("AWS_ACCESS_KEY_ID", KEY_ID)
                .env("AWS_SECRET_ACCESS_KEY", KEY);
            token.into_iter().fold(launch, |launch, token| launch.env("AWS_SESSION_TOKEN", token))
        })
        .await;
        assert_eq!(events[0]["data"]["outcome"], "succeeded", "{events:?}");
        let request = stand_in.requests().pop().unwrap();
        let about = json!({
            "check": "signature", "request": as_json(&request), "url": format!("{url}{}", request.path), "id": KEY_ID,
            "key": KEY, "token": token,
        });
        let found = ask(&python, &about).await;
        assert_eq!(found["authorization"], request.headers["authorization"]);
        assert_eq!(found["paths"], json!(["/%C3%A9%26%3Cx%3E/a%2Bb.js", "/img/*"]), "{found}");
        assert_eq!(found["path"], request.path, "where botocore itself sends an invalidation");
        assert_eq!(found["members"], json!(["CallerReference", "Paths"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflares_own_client_sends_the_same_requests() {
    let Some(python) = python().await else { return };
    let envelope = r#"{"success":true,"errors":[],"messages":[],"result":{"id":"z1"}}"#;
    let stand_in = StandIn::start(move |_| Reply::new(200, envelope)).await;
    let url = stand_in.url();
    let jobs = [job("files", &["/x.css", "/y.js"])];
    let arguments = ["--cdn", "cloudflare", "--cdn-zone", "z9", "--cdn-hosts", "a.example", "--cdn-url", &url];
    let launch = |launch: harness::Launch| launch.args(arguments).env("CLOUDFLARE_API_TOKEN", "hush-hush-hush");
    run(&jobs, launch).await;
    run(&[job("folder", &["/img/*"])], launch).await;
    run(&[job("all", &["/*"])], launch).await;
    let ours = stand_in.requests();
    stand_in.forget();
    let sent = [
        json!({ "files": ["https://a.example/x.css", "https://a.example/y.js"] }),
        json!({ "prefixes": ["a.example/img"] }),
        json!({ "hosts": ["a.example"] }),
    ];
    let about = json!({ "check": "cloudflare", "url": url, "zone": "z9", "token": "hush-hush-hush", "purges": sent });
    ask(&python, &about).await;
    let theirs = stand_in.requests();
    assert_eq!((ours.len(), theirs.len()), (3, 3));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.line(), theirs.line());
        assert_eq!(ours.headers["authorization"], theirs.headers["authorization"]);
        assert_eq!(ours.headers["content-type"], theirs.headers["content-type"]);
        let read = |body: &str| serde_json::from_str::<Value>(body).unwrap();
        assert_eq!(read(&ours.body), read(&theirs.body));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fastlys_own_client_sends_the_same_requests() {
    let Some(python) = python().await else { return };
    let stand_in = StandIn::start(|_| {
        Reply::new(200, r#"{"status":"ok","id":"108-1"}"#).header("content-type", "application/json")
    })
    .await;
    let url = stand_in.url();
    let arguments = ["--cdn", "fastly", "--cdn-hosts", "a.example", "--cdn-url", &url];
    let launch = |launch: harness::Launch| launch.args(arguments).env("FASTLY_API_TOKEN", "hush-hush-hush");
    let events = run(&[job("one", &["/x/y.css"])], launch).await;
    assert_eq!(events[0]["data"]["outcome"], "succeeded", "{events:?}");
    let ours = stand_in.requests();
    stand_in.forget();
    let about = json!({ "check": "fastly", "url": url, "token": "hush-hush-hush", "purges": ["a.example/x/y.css"] });
    ask(&python, &about).await;
    let theirs = stand_in.requests();
    assert_eq!((ours.len(), theirs.len()), (1, 1));
    assert_eq!(ours[0].line(), theirs[0].line());
    for header in ["fastly-key", "accept"] {
        assert_eq!(ours[0].headers[header], theirs[0].headers[header]);
    }
}
