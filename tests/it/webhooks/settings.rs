//! Secrets, the processes that deliver, and the tool's output about webhooks.

use harness::{Amqp, Broker, Prefix, Process, Receiver, eventually, json_properties, seconds};
use serde_json::{Value, json};

use super::{SECRET, signing, taken, telling};
use crate::stack::{purge_job, simulator, worker};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_exits_64_says_what_to_do_and_shows_no_secret() {
    let check = |environment: &[(&str, &str)]| {
        let launch = Process::binary("purger").args(["--check-config"]).env("GENFLEET_QUEUE_URL", "amqp://127.0.0.1:1");
        let launch = launch.env("GENESYS_CLIENT_ID", "id").env("GENESYS_CLIENT_SECRET", "secret");
        environment.iter().fold(launch, |launch, (name, value)| launch.env(name, value)).start()
    };
    let (url, secret) = ("GENFLEET_WEBHOOK_URL", "GENFLEET_WEBHOOK_SECRET");
    for (environment, printed) in [
        (vec![(url, "https://hooks.example/hush")], "set GENFLEET_WEBHOOK_SECRET"),
        (vec![(url, "https://hooks.example/hush"), (secret, "hush")], "lacks whsec_"),
        (vec![(secret, "whsec_hush!")], "is not base64"),
        (vec![(secret, "whsec_aHVzaA== hush")], "number 2"),
        (vec![(secret, SECRET), ("GENFLEET_WEBHOOK_SECRET_FILE", "hush")], "set one of them"),
        (vec![(secret, SECRET), (url, "http://hooks.example/hush")], "--webhook-allow"),
        (vec![(secret, SECRET), (url, "https://user:hush@hooks.example/")], "user name or password"),
        (vec![(secret, SECRET), (url, "hush")], "number 1: not a URL"),
        (vec![("GENFLEET_WEBHOOK_ALLOW", "http://hooks.internal")], "10.1.0.0/16"),
        (vec![("GENFLEET_WEBHOOK_CONCURRENCY", "many")], "0 to 1000"),
        (vec![("GENFLEET_JOB_WEBHOOKS", "maybe")], "on, off"),
        (vec![("GENFLEET_WEBHOOK_DENY", "http://hooks.internal")], "10.1.0.0/16"),
        (
            vec![(secret, SECRET), (url, "https://hooks.example/hush"), ("GENFLEET_WEBHOOK_DENY", "hooks.example")],
            "--webhook-deny",
        ),
        (vec![("GENFLEET_WEBHOOK_SECRETS", "https://hooks.example/hush=HOOKS_SECRET")], "neither HOOKS_SECRET nor"),
    ] {
        let process = check(&environment);
        assert_eq!(process.wait(seconds(20)).await, 64, "{environment:?}: {}", process.stderr());
        let stderr = process.stderr();
        assert!(stderr.contains(printed) && !stderr.contains("hush"), "{environment:?}: {stderr}");
    }
    for environment in [
        vec![(url, ""), (secret, "")],
        vec![(url, "https://hooks.example/, cdn.purge=https://hooks.example/purges"), (secret, SECRET)],
        vec![(secret, SECRET), ("GENFLEET_WEBHOOK_ALLOW", "10.0.0.0/8,hooks.internal"), (url, "http://hooks.internal")],
        vec![(secret, SECRET), ("GENFLEET_WEBHOOK_ALLOW", "hooks.internal:8080"), (url, "http://hooks.internal:8080")],
        vec![
            ("GENFLEET_WEBHOOK_SECRETS", "https://a.example=A_SECRET"),
            ("A_SECRET", SECRET),
            (url, "https://a.example/x"),
        ],
        vec![("GENFLEET_JOB_WEBHOOKS", "")],
    ] {
        let process = check(&environment);
        assert_eq!(process.wait(seconds(20)).await, 0, "{environment:?}: {}", process.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_a_jobs_own_webhook_is_a_violation() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    let job = json!({ "payload": { "paths": ["/a"] }, "webhook": { "url": "https://hooks.example" } }).to_string();
    amqp.publish_job(&prefix, "cdn.purge", job, json_properties()).await;
    let event = events.next_event(seconds(20)).await;
    let violations = &event["data"]["error"]["violations"];
    assert_eq!(violations[0]["pointer"], "/webhook", "{event}");
    assert!(violations[0]["message"].as_str().unwrap().contains("GENFLEET_WEBHOOK_SECRET"), "{event}");
    assert_eq!(amqp.count(&format!("{prefix}.jobs.webhook.deliver")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_worker_delivers_but_the_one_that_is_set_not_to() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let silent = telling(worker("purger", broker, &prefix, &simulator), &[&receiver])
        .env("GENFLEET_WEBHOOK_CONCURRENCY", "0")
        .start();
    silent.wait_ready(seconds(30)).await;
    let amqp = Amqp::connect(broker.url()).await;
    let mut events = amqp.declare_events_queue(&prefix).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("job", &["/a"]), json_properties()).await;
    events.next_event(seconds(20)).await;
    let queue = format!("{prefix}.jobs.webhook.deliver");
    eventually(seconds(10), "the delivery waits", async || amqp.count(&queue).await == 1).await;
    assert_eq!(receiver.connections(), 0);

    let other = signing(worker("stream-configurator", broker, &prefix, &simulator)).start();
    taken(&receiver, 1).await;
    assert!(other.is_running() && silent.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_checks_what_it_can_know_of_a_jobs_webhook() {
    let line = |url: &str| json!({ "kind": "cdn.purge", "payload": { "paths": ["/a"] }, "webhook": { "url": url } });
    let lines = [line("https://hooks.example/a"), line("http://hooks.example/a"), line("http://hooks.internal/a")];
    let lines = lines.map(|line: Value| line.to_string()).join("\n");
    let validate = || Process::binary("genfleet").args(["validate", "-"]).stdin(lines.clone());
    let strict = validate().start();
    assert_eq!(strict.wait(seconds(20)).await, 1);
    let printed = strict.stdout_lines().join("\n");
    assert!(printed.contains("-:2: /webhook/url") && printed.contains("-:3: /webhook/url"), "{printed}");
    assert!(!printed.contains("-:1:"), "whether there is a secret is the workers' matter: {printed}");
    assert!(strict.stderr().contains("GENFLEET_WEBHOOK_SECRET"), "but it is said: {}", strict.stderr());
    let open = validate().env("GENFLEET_WEBHOOK_ALLOW", "hooks.example,hooks.internal").start();
    assert_eq!(open.wait(seconds(20)).await, 0, "{:?}", open.stdout_lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_enqueued_by_hand_can_name_a_webhook() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    let receiver = Receiver::start().await;
    let purger = signing(worker("purger", broker, &prefix, &simulator)).start();
    purger.wait_ready(seconds(30)).await;
    let enqueue = |allow: &str| {
        Process::binary("genfleet")
            .args(["enqueue", "cdn.purge", "--payload", r#"{"paths":["/a"]}"#, "--webhook", &receiver.url()])
            .env("GENFLEET_QUEUE_URL", broker.url())
            .env("GENFLEET_QUEUE_PREFIX", &prefix)
            .env("GENFLEET_WEBHOOK_ALLOW", allow)
            .start()
    };
    let refused = enqueue("");
    assert_eq!(refused.wait(seconds(20)).await, 1);
    assert!(refused.stderr().contains("/webhook/url"), "{}", refused.stderr());
    let enqueued = enqueue("127.0.0.1");
    assert_eq!(enqueued.wait(seconds(20)).await, 0, "{}", enqueued.stderr());
    let taken = taken(&receiver, 1).await;
    let delivery = &taken.values().next().unwrap()[0];
    assert_eq!(delivery.json()["subject"], enqueued.stdout_lines()[0]);
}
