//! The same on the embedded queue, where a dead letter and its redrive are one transaction.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use genfleet_core::{
    clock::SystemClock,
    job::Kind,
    message::{HeaderValue, Lane, Message},
    queue::{
        Destination, Publication, QueueInspector, QueueLocation,
        dead_letters::DeadLetterQueue,
        sqlite::{Role, SqliteQueue},
    },
};

use super::*;

/// The store of a test.
struct Store(PathBuf);

impl Store {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("genfleet-dead-{}.db", uuid::Uuid::new_v4())))
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.0.display())
    }

    fn open(&self) -> SqliteQueue {
        SqliteQueue::open(&self.0, Role::Tool, Arc::new(SystemClock)).unwrap()
    }

    async fn bury(&self, letters: impl IntoIterator<Item = (String, &'static str, &'static str)>) {
        let store = self.open();
        let letter = |(id, kind, reason): (String, &str, &str)| {
            let headers: [(&str, HeaderValue); 5] = [
                ("genfleet-reason", reason.into()),
                ("genfleet-error", "the API answered 400".into()),
                ("genfleet-attempts", 8_i64.into()),
                ("genfleet-fingerprint", "00112233aabbccdd".into()),
                ("genfleet-generation", 0_i64.into()),
            ];
            let message = Message {
                body: purge_job(&id, &["/a"]).into(),
                message_id: Some(id),
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                ..Message::default()
            };
            Publication { to: Destination::Dead { kind: kind.to_owned() }, message }
        };
        store.publish(letters.into_iter().map(letter).collect()).await.unwrap();
        store.close().await;
    }

    /// The ids of waiting jobs, with their generations.
    async fn waiting(&self) -> BTreeMap<(String, i64), usize> {
        let (store, mut all, mut sequence) = (self.open(), BTreeMap::new(), 0);
        loop {
            let page = store.waiting_after(sequence, 1_000).await.unwrap();
            let Some(last) = page.last() else { break };
            sequence = last.sequence;
            for job in page {
                let generation = job.message.headers.get("genfleet-generation").and_then(HeaderValue::as_i64);
                *all.entry((job.message.message_id.unwrap(), generation.unwrap_or(0))).or_default() += 1;
            }
        }
        store.close().await;
        all
    }

    async fn dead(&self) -> usize {
        let store = QueueInspector::open(QueueLocation::Store(self.0.clone()), Arc::new(SystemClock)).unwrap();
        let mut count = 0;
        for queue in DeadLetterQueue::dead() {
            count += store.count(queue).await.unwrap();
        }
        store.close().await;
        usize::try_from(count).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = SqliteQueue::remove(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_redriven_with_kills_in_the_middle_lose_none_and_double_none() {
    let store = Store::new();
    store.bury((0..5_000).map(|n| (format!("again-{n}"), "cdn.purge", "rejected"))).await;
    let redrive = || tool(&store.url(), "", &["dead", "redrive", "--yes", "--window", "4"]);
    for kill in 1..=5 {
        let process = redrive();
        eventually(seconds(120), "some are redriven", async || store.dead().await <= 5_000 - kill * 800).await;
        process.kill9();
    }
    assert_eq!(redrive().wait(seconds(120)).await, 0);
    assert_eq!(store.dead().await, 0);
    let waiting = store.waiting().await;
    assert_eq!(waiting.len(), 5_000);
    assert!(waiting.iter().all(|((_, generation), times)| (*generation, *times) == (1, 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_shown_redriven_and_discarded() {
    let store = Store::new();
    let letters = [("a", "cdn.purge", "rejected"), ("b", "file.scan", "forbidden"), ("c", "unknown", "undecodable")];
    store.bury(letters.map(|(id, kind, reason)| (id.to_owned(), kind, reason))).await;
    let url = store.url();
    for _ in 0..20 {
        assert_eq!(json_of(&url, "", &["dead", "list"]).await["total"], 3);
    }
    assert_eq!(json_of(&url, "", &["dead", "list", "--kind", "unknown"]).await["groups"][0]["reason"], "undecodable");
    assert_eq!(json_of(&url, "", &["dead", "list", "--newer-than", "1h"]).await["total"], 3, "the store knows when");
    assert_eq!(json_of(&url, "", &["dead", "list", "--unrouted"]).await["total"], 0);
    let shown = json_of(&url, "", &["dead", "show", "b"]).await;
    assert_eq!((&shown["kind"], &shown["payload"]), (&json!("file.scan"), &purge_job("b", &["/a"]).into()));
    let known = json_of(&url, "", &["show", "b"]).await;
    assert_eq!((&known["deadLetters"][0]["reason"], &known["waiting"]), (&json!("forbidden"), &json!([])));

    assert_eq!(json_of(&url, "", &["dead", "redrive", "--dry-run"]).await["would"], 2, "undecodable: left");
    assert_eq!(store.dead().await, 3);
    assert_eq!(json_of(&url, "", &["dead", "redrive", "--yes"]).await["done"], 2);
    let done = json_of(&url, "", &["dead", "redrive", "--reason", "undecodable", "--yes"]).await;
    assert_eq!((&done["done"], &done["withoutKind"]), (&json!(0), &json!(1)));
    assert_eq!(store.waiting().await.keys().cloned().collect::<Vec<_>>(), [("a".into(), 1), ("b".into(), 1)]);
    let known = json_of(&url, "", &["show", "a"]).await;
    assert_eq!((&known["waiting"][0]["lane"], &known["waiting"][0]["generation"]), (&json!("jobs"), &json!(1)));
    assert_eq!(json_of(&url, "", &["dead", "discard", "--kind", "unknown", "--yes"]).await["done"], 1);
    assert_eq!(store.dead().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_job_is_worked_by_the_process_beside() {
    let store = Store::new();
    let up = Process::binary("genfleet")
        .args(["up", "cdn.purge", "--simulate", "--admin-addr", "127.0.0.1:0"])
        .env("GENFLEET_QUEUE_URL", &store.url())
        .start();
    up.wait_ready(seconds(30)).await;
    store.bury([("revived".to_owned(), "cdn.purge", "rejected")]).await;
    let url = store.url();
    assert_eq!(json_of(&url, "", &["dead", "redrive", "--yes"]).await["done"], 1);
    let known = eventually(seconds(30), "it has succeeded", async || {
        let process = tool(&url, "", &["show", "revived", "--json"]);
        process.wait(seconds(30)).await;
        let known: Value = serde_json::from_str(&process.stdout_lines().concat()).unwrap();
        (known["eventsTotal"] == 1).then_some(known)
    })
    .await;
    assert_eq!(known["events"][0]["data"]["outcome"], "succeeded");
    assert_eq!(known["events"][0]["data"]["generation"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_where_a_job_waits_and_what_audit_files_say_of_it() {
    let store = Store::new();
    let queue = store.open();
    let job = Message { body: purge_job("waits", &["/a"]).into(), ..Message::default() };
    let after = Duration::from_secs(3_600);
    let to = Destination::Lane { kind: Kind::CdnPurge, lane: Lane::Resume, after };
    queue.publish(vec![Publication { to, message: job }]).await.unwrap();
    queue.close().await;
    let audit = store.0.with_extension("jsonl");
    let facts =
        [json!({"jobId": "waits", "fact": "intent", "action": "cdn_purge_executed"}), json!({"jobId": "other"})];
    std::fs::write(&audit, format!("{}\n{}\ntorn {{\n", facts[0], facts[1])).unwrap();
    let url = store.url();
    let known = json_of(&url, "", &["show", "waits", "--audit", audit.to_str().unwrap()]).await;
    std::fs::remove_file(&audit).unwrap();
    assert_eq!(known["audit"], json!([facts[0]]));
    assert_eq!((&known["waiting"][0]["lane"], &known["waiting"][0]["running"]), (&json!("resume"), &json!(false)));
    let text = printed(&url, "", &["show", "waits"], 0).await;
    assert!(text.contains("cdn.purge  in resume, from "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_does_is_in_the_audit_and_so_is_who_had_a_job_run_again() {
    let store = Store::new();
    store.bury([("a", "rejected"), ("b", "forbidden")].map(|(id, why)| (id.to_owned(), "cdn.purge", why))).await;
    let url = store.url();
    let folder = store.0.with_extension("audits");
    std::fs::create_dir(&folder).unwrap();
    let file = |name: &str| folder.join(name).display().to_string();
    let facts = |name: &str| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let act = |action: &'static str, reason: &'static str, audit: String| {
        let process =
            Process::binary("genfleet").env("GENFLEET_QUEUE_URL", &url).env("USER", "ann").env("SUDO_USER", "");
        process.args(["dead", action, "--yes", "--reason", reason, "--audit-log", &audit]).start()
    };
    let refused = act("discard", "forbidden", file("no-such-folder/a.jsonl"));
    assert_eq!(refused.wait(seconds(30)).await, 64, "{}", refused.stderr());
    assert!(refused.stderr().contains("--audit-log"), "{}", refused.stderr());
    assert_eq!(store.dead().await, 2, "nothing was done");
    for (action, reason) in [("redrive", "rejected"), ("discard", "forbidden")] {
        let done = act(action, reason, file("operator.jsonl"));
        assert_eq!(done.wait(seconds(30)).await, 0, "{}", done.stderr());
    }
    let output: Vec<_> = facts("operator.jsonl")
        .into_iter()
        .map(|fact| {
            let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            assert!(word(&fact["detail"]["operator"]).starts_with("ann@"), "{fact}");
            (word(&fact["fact"]), word(&fact["action"]), word(&fact["jobId"]), word(&fact["detail"]["reason"]))
        })
        .collect();
    let fact =
        |fact: &str, action: &str, job: &str, reason: &str| (fact.into(), action.into(), job.into(), reason.into());
    assert_eq!(
        output,
        [
            fact("intent", "dead_redrive", "a", "rejected"),
            fact("effect", "dead_redrive", "a", "rejected"),
            fact("intent", "dead_discard", "b", "forbidden"),
            fact("effect", "dead_discard", "b", "forbidden"),
        ]
    );
    let verified = Process::binary("genfleet").args(["audit", "verify", &file("operator.jsonl")]).start();
    assert_eq!(verified.wait(seconds(30)).await, 0, "{:?}", verified.stdout_lines());
    assert!(verified.stderr().contains("rewritten a whole file"), "{}", verified.stderr());
    let worker =
        Process::binary("genfleet").args(["up", "cdn.purge", "--simulate", "--audit-log", &file("worker.jsonl")]);
    let worker = worker.env("GENFLEET_QUEUE_URL", &url).env("GENFLEET_ADMIN_ADDR", "127.0.0.1:0").start();
    eventually(seconds(60), "it ends", async || {
        std::fs::read_to_string(folder.join("worker.jsonl")).is_ok_and(|text| text.contains("\"fact\":\"outcome\""))
    })
    .await;
    worker.terminate();
    assert_eq!(worker.wait(seconds(60)).await, 0);
    let outcome = facts("worker.jsonl").pop().unwrap();
    assert!(outcome["detail"]["redrivenBy"].as_str().unwrap().starts_with("ann@"), "{outcome}");
    std::fs::remove_dir_all(folder).unwrap();
}
