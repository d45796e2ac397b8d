//! `genfleet doctor`: what it finds on a healthy installation, and on broken ones.

use genfleet_simulator::{Simulator, SimulatorOptions};
use harness::{Broker, Launch, Prefix, Process, eventually, fresh_directory, json_properties, seconds};
use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;

use crate::stack::{purge_job, simulator, simulator_with, worker};

/// The result of a run of `genfleet doctor`.
struct DoctorRun {
    code: i32,
    report: Value,
}

impl DoctorRun {
    /// Level, state and remedy of every finding of a check.
    fn of(&self, check: &str) -> Vec<(String, String, String)> {
        let findings = self.report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == check);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        findings.map(|each| (text(&each["level"]), text(&each["found"]), text(&each["do"]))).collect()
    }

    /// The level of the only finding of a check.
    fn level(&self, check: &str) -> String {
        match self.of(check).as_slice() {
            [(level, _, _)] => level.clone(),
            other => panic!("{} findings of {check} in {}", other.len(), self.report),
        }
    }

    fn assert_found(&self, check: &str, level: &str, words: &[&str]) {
        let found = self.of(check).iter().any(|(is, found, remedy)| {
            is == level && words.iter().all(|word| found.contains(word) || remedy.contains(word))
        });
        assert!(found, "{check} {level} {words:?} in {:#}", self.report);
    }
}

/// Runs `genfleet doctor` and checks that every problem has a remedy.
async fn asked(launch: Launch) -> DoctorRun {
    let process = launch.args(["--json"]).start();
    let code = process.wait(seconds(60)).await;
    let line = process.stdout_lines().concat();
    let report: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{code}: {line} {}", process.stderr()));
    for finding in report["findings"].as_array().unwrap() {
        let remedy = finding["do"].as_str().unwrap_or_default();
        assert_eq!(finding["level"] == "ok", remedy.is_empty(), "{finding}");
        assert!(!finding["lookedAt"].as_str().unwrap().is_empty(), "{finding}");
    }
    assert_eq!(report["ok"] == Value::Bool(true), code == 0, "{code}: {report}");
    DoctorRun { code, report }
}

fn doctor(queue: &str, prefix: &str, simulator: &Simulator) -> Launch {
    Process::binary("genfleet")
        .args(["doctor", "cdn.purge"])
        .env("GENFLEET_ADMIN_ADDR", "127.0.0.1:0")
        .env("GENFLEET_QUEUE_URL", queue)
        .env("GENFLEET_QUEUE_PREFIX", prefix)
        .env("GENESYS_BASE_URL", &simulator.base_url())
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_broker_is_well_and_a_policy_an_alarm_and_a_wrong_argument_are_not() {
    let Some(broker) = Broker::private_with_management().await else { return };
    let prefix = Prefix::on(&broker);
    let simulator = simulator().await;
    let look = || doctor(broker.url(), &prefix, &simulator).env("GENFLEET_MANAGEMENT_URL", broker.management_url());

    let nothing_there = asked(look()).await;
    assert_eq!(nothing_there.code, 0, "{:#}", nothing_there.report);
    nothing_there.assert_found("broker.topology", "warning", &["none is there"]);

    let purger = worker("purger", &broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    let admin = purger.admin_addr(seconds(10)).await;
    let audit = purger.directory().join("genfleet-audit-purger.jsonl").display().to_string();
    // The management API shows new queues a moment later.
    let healthy = eventually(seconds(60), "all is well", async || {
        let output = asked(look().env("GENFLEET_ADMIN_ADDR", &admin).env("GENFLEET_AUDIT_LOG", &audit)).await;
        (output.code == 0).then_some(output)
    })
    .await;
    for check in [
        "broker.connection",
        "broker.version",
        "broker.management",
        "broker.topology",
        "broker.bindings",
        "broker.replies",
        "broker.message_size",
        "broker.nodes",
        "broker.feature_flags",
        "broker.policies",
        "broker.replicas",
        "genesys.region",
        "genesys.token",
        "genesys.api",
        "genesys.clock",
        "audit.file",
        "webhooks.secret",
        "admin.port",
    ] {
        assert_eq!(healthy.level(check), "ok", "{check} in {:#}", healthy.report);
    }
    healthy.assert_found("admin.port", "ok", &["ready"]);
    healthy.assert_found("audit.file", "ok", &["a process writes it now"]);

    healthy.assert_found("broker.message_bound", "warning", &["taken", "max_message_size"]);

    let weak = r#"{"message-ttl":60000,"queue-leader-locator":"balanced"}"#;
    broker.ctl(&["set_policy", "--apply-to", "queues", "weak", &format!("^{}\\.jobs", &*prefix), weak]).await;
    let weakened = asked(look()).await;
    assert_eq!(weakened.code, 1);
    weakened.assert_found("broker.policies", "failed", &["policy weak sets message-ttl to 60000", "jobs.cdn.purge"]);
    broker.ctl(&["clear_policy", "weak"]).await;

    broker.ctl(&["set_disk_free_limit", "100000GB"]).await;
    eventually(seconds(60), "the alarm is reported", async || {
        let output = asked(look()).await;
        output.of("broker.nodes").iter().any(|(level, found, _)| level == "failed" && found.contains("disk alarm"))
    })
    .await;
    broker.ctl(&["set_disk_free_limit", "50MB"]).await;

    purger.terminate();
    assert_eq!(purger.wait(seconds(30)).await, 0);
    declared_wrongly(&broker, &format!("{}.dead.cdn.purge", &*prefix)).await;
    let different = asked(look()).await;
    different.assert_found("broker.topology", "failed", &["dead.cdn.purge", "x-delivery-limit", "cannot be changed"]);
    assert_eq!(different.code, 1);
}

/// Declares a queue of the topology with a wrong argument.
async fn declared_wrongly(broker: &Broker, queue: &str) {
    let connection = lapin::Connection::connect(broker.url(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(3));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, arguments).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_declares_nothing_and_takes_nothing() {
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let simulator = simulator().await;
    assert_eq!(asked(doctor(broker.url(), &prefix, &simulator)).await.code, 0);
    let amqp = harness::Amqp::connect(broker.url()).await;
    assert!(amqp.try_count(&format!("{}.jobs.cdn.purge", &*prefix)).await.is_none(), "no queue was made");

    let purger = worker("purger", broker, &prefix, &simulator).start();
    purger.wait_ready(seconds(30)).await;
    purger.terminate();
    purger.wait(seconds(30)).await;
    amqp.publish_job(&prefix, "cdn.purge", purge_job("waits", &["/a"]), json_properties()).await;
    let output = asked(doctor(broker.url(), &prefix, &simulator)).await;
    assert_eq!((output.code, output.level("broker.topology").as_str()), (0, "ok"), "{:#}", output.report);
    assert_eq!(amqp.count(&format!("{}.jobs.cdn.purge", &*prefix)).await, 1, "the job still waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_a_wrong_password_and_an_api_that_is_away_are_distinguished() {
    let client = Some(("client".to_owned(), "right".to_owned()));
    let simulator = simulator_with(SimulatorOptions { client, ..SimulatorOptions::default() }).await;
    let broker = Broker::shared().await;
    let prefix = Prefix::on(broker);
    let wrong_secret = asked(doctor(broker.url(), &prefix, &simulator)).await;
    assert_eq!(wrong_secret.code, 1);
    wrong_secret.assert_found(
        "genesys.token",
        "failed",
        &["invalid_client", "GENESYS_CLIENT_SECRET", "another region"],
    );

    let away = doctor(broker.url(), &prefix, &simulator).env("GENESYS_BASE_URL", "http://127.0.0.1:1");
    asked(away).await.assert_found("genesys.token", "failed", &["no answer", "firewall"]);

    let url = broker.url().replacen("guest:guest", "guest:wrong", 1);
    let refused = asked(doctor(&url, &prefix, &simulator).env("GENESYS_CLIENT_SECRET", "right")).await;
    assert_eq!(refused.level("genesys.token"), "ok");
    if url != broker.url() {
        refused.assert_found("broker.connection", "failed", &["access is refused", "check user, password"]);
    }
    let nobody = asked(doctor("amqp://user:hidden@127.0.0.1:1", &prefix, &simulator)).await;
    nobody.assert_found("broker.connection", "failed", &["start the broker"]);
    assert!(!nobody.report.to_string().contains("hidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_queue_is_looked_at_and_left_alone() {
    let simulator = simulator().await;
    let folder = fresh_directory("doctor");
    let store = format!("sqlite:{}", folder.join("jobs.db").display());
    let fresh = asked(doctor(&store, "genfleet", &simulator)).await;
    fresh.assert_found("store.file", "ok", &["not there yet"]);
    assert!(!folder.join("jobs.db").exists());

    let up = Process::binary("genfleet")
        .args(["up", "--simulate", "--admin-addr", "127.0.0.1:0"])
        .env("GENFLEET_QUEUE_URL", &store)
        .start();
    up.wait_ready(seconds(30)).await;
    let worked = asked(doctor(&store, "genfleet", &simulator)).await;
    assert_eq!(worked.level("store.integrity"), "ok", "{:#}", worked.report);
    worked.assert_found("store.process", "ok", &["a process uses this store"]);
    up.terminate();
    assert_eq!(up.wait(seconds(30)).await, 0);
    let left = asked(doctor(&store, "genfleet", &simulator)).await;
    left.assert_found("store.process", "ok", &["no process works it"]);

    let foreign = folder.join("foreign.db");
    std::fs::write(&foreign, "no store at all, and longer than the header of one".repeat(40)).unwrap();
    let output = asked(doctor(&format!("sqlite:{}", foreign.display()), "genfleet", &simulator)).await;
    output.assert_found("store.file", "failed", &["no store of genfleet's", "name another file"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_settings_it_says_which_are_missing_and_for_people_too() {
    let process = Process::binary("genfleet").args(["doctor"]).start();
    assert_eq!(process.wait(seconds(60)).await, 1);
    let output = process.stdout_lines().join("\n");
    for words in ["failed   queue.url", "GENFLEET_QUEUE_URL", "failed   genesys.credentials", "do: "] {
        assert!(output.contains(words), "{words} in {output}");
    }
    assert!(!output.contains('\u{1b}'), "no colours where no terminal is");
    assert!(process.stderr().contains("failed"), "{}", process.stderr());
    let mistaken = Process::binary("genfleet").args(["doctor", "cdn.prune"]).start();
    assert_eq!(mistaken.wait(seconds(20)).await, 64);
    let password = ["doctor", "--management-url", "http://u:hidden@h:15672"];
    let password = Process::binary("genfleet").args(password).start();
    assert_eq!(password.wait(seconds(20)).await, 64);
    assert!(password.stderr().contains("GENFLEET_MANAGEMENT_URL") && !password.stderr().contains("hidden"));
}
