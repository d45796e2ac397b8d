//! The selection of dead letters, `--dry-run`, and `discard`.

use super::*;

const OLD: &str = "2020-01-01T00:00:00Z";

fn now() -> String {
    genfleet_core::clock::Clock::now(&genfleet_core::clock::SystemClock).to_string()
}

/// Dead letters: two causes of one kind, an old one of another kind, and an undecodable one.
async fn furnish(amqp: &Amqp, prefix: &str) {
    let dead = format!("{prefix}.dead");
    let letters = [
        ("cdn.purge", "a-1", "rejected", "path \"/a\" refused", OLD, "aaaa000011112222"),
        ("cdn.purge", "a-2", "rejected", "path \"/b\" refused", &now(), "aaaa000011112222"),
        ("cdn.purge", "b-1", "attempts_exhausted", "503\u{1b}[31m", &now(), "bbbb000011112222"),
        ("file.scan", "c-1", "rejected", "no such file", OLD, "cccc000011112222"),
        ("webhook.deliver", "d-1", "attempts_exhausted", "the receiver is away", &now(), "dddd000011112222"),
    ];
    for (kind, id, reason, error, failed_at, fingerprint) in letters {
        let body = purge_job(id, &["/a"]);
        amqp.publish_raw(&dead, kind, body, given_up(id, reason, error, failed_at, fingerprint)).await;
    }
    let garbage = given_up("e-1", "undecodable", "not JSON", &now(), "eeee000011112222");
    amqp.publish_raw(&dead, "cdn.purge", b"\0\xff\"", garbage).await;
}

async fn ids(amqp: &Amqp, queue: &str) -> Vec<String> {
    let all = amqp.get_all(queue).await;
    all.iter().map(|one| one.properties.message_id().as_ref().unwrap().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_by_sort_and_every_filter_says_which() {
    let (broker, prefix, amqp) = grounds().await;
    furnish(&amqp, &prefix).await;
    let listed = json_of(broker.url(), &prefix, &["dead", "list"]).await;
    assert_eq!(listed["total"], 6);
    let first = &listed["groups"][0];
    assert_eq!((&first["count"], &first["fingerprint"]), (&json!(2), &json!("aaaa000011112222")));
    assert_eq!((&first["kind"], &first["reason"]), (&json!("cdn.purge"), &json!("rejected")));
    assert_eq!((&first["firstSeen"], &first["example"]["id"]), (&json!(OLD), &json!("a-1")));
    assert!(first["lastSeen"].as_str().unwrap() > "2026");

    for (arguments, total) in [
        (&["--kind", "file.scan"] as &[&str], 1),
        (&["--kind", "file.scan,webhook.deliver"], 2),
        (&["--kind", "unknown"], 0),
        (&["--reason", "rejected"], 3),
        (&["--reason", "rejected", "--kind", "cdn.purge"], 2),
        (&["--fingerprint", "AAAA"], 2),
        (&["--fingerprint", "aaaa,bbbb"], 3),
        (&["--id", "b-1"], 1),
        (&["--older-than", "1d"], 2),
        (&["--newer-than", "1d"], 4),
        (&["--older-than", "1h", "--reason", "rejected", "--kind", "cdn.purge"], 1),
        (&["--unrouted"], 0),
    ] {
        let listed = json_of(broker.url(), &prefix, &[&["dead", "list"], arguments].concat()).await;
        assert_eq!(listed["total"], total, "{arguments:?}");
    }
    for (arguments, output) in [
        (&["--kind", "cdn.prune"] as &[&str], "cdn.purge"),
        (&["--fingerprint", "a"], "is not a fingerprint"),
        (&["--older-than", "7"], "write 20ms, 5s, 10m, 1h or 7d"),
    ] {
        let refused = tool(broker.url(), &prefix, &[&["dead", "list"], arguments].concat());
        assert_eq!(refused.wait(seconds(20)).await, 64, "{arguments:?}");
        assert!(refused.stderr().contains(output), "{}", refused.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn for_people_a_table_says_how_many_and_nothing_steers_their_terminal() {
    let (broker, prefix, amqp) = grounds().await;
    furnish(&amqp, &prefix).await;
    let table = printed(broker.url(), &prefix, &["dead", "list"], 0).await;
    assert!(table.contains("COUNT  KIND") && table.contains("6 dead letters, in 5 groups"), "{table}");
    assert!(table.contains("e.g. a-1: path \"/a\" refused"), "{table}");
    assert!(!table.contains('\u{1b}') && table.contains(r"503\u{1b}[31m"), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_shown_whole_by_its_id_and_by_its_fingerprint() {
    let (broker, prefix, amqp) = grounds().await;
    furnish(&amqp, &prefix).await;
    let shown = json_of(broker.url(), &prefix, &["dead", "show", "b-1"]).await;
    assert_eq!((&shown["id"], &shown["attempts"], &shown["generation"]), (&json!("b-1"), &json!(8), &json!(0)));
    assert_eq!((&shown["reason"], &shown["worker"]), (&json!("attempts_exhausted"), &json!("purger")));
    assert_eq!(shown["payload"], purge_job("b-1", &["/a"]));
    assert_eq!(shown["headers"]["genfleet-error"], "503\u{1b}[31m");
    let raw = tool(broker.url(), &prefix, &["dead", "show", "e-1", "--raw"]);
    assert_eq!(raw.wait(seconds(20)).await, 0);
    assert_eq!(raw.stdout_lines(), ["\0\u{fffd}\""], "byte for byte, as far as the harness keeps bytes");
    let binary = json_of(broker.url(), &prefix, &["dead", "show", "eeee"]).await;
    assert_eq!((&binary["payloadBase64"], &binary["payload"]), (&json!("AP8i"), &Value::Null));
    let both = printed(broker.url(), &prefix, &["dead", "show", "aaaa0000"], 0).await;
    assert!(both.contains("a-1  cdn.purge  rejected") && both.contains("a-2"), "{both}");
    let one = tool(broker.url(), &prefix, &["dead", "show", "aaaa0000", "--limit", "1"]);
    assert_eq!(one.wait(seconds(20)).await, 0);
    assert!(!one.stdout_lines().join("\n").contains("a-2") && one.stderr().contains("1 more"));
    assert!(tool(broker.url(), &prefix, &["dead", "show", "nobody"]).wait(seconds(20)).await == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_urls_are_shown_as_scheme_and_host_and_nothing_is_disguised() {
    let (broker, prefix, amqp) = grounds().await;
    let job =
        json!({ "id": "hooked", "webhook": { "url": "https://hooks.example/T0/hush" }, "payload": {} }).to_string();
    let error = "refused\u{202e}\u{9b}31m";
    let letter = given_up("hooked", "rejected", error, OLD, "aaaa000011112222");
    amqp.publish_raw(&format!("{prefix}.dead"), "cdn.purge", job.clone(), letter).await;
    for arguments in [&["dead", "show"] as &[&str], &["dead", "show", "--full"], &["dead", "show", "--json"]] {
        let shown = printed(broker.url(), &prefix, arguments, 0).await;
        assert!(shown.contains("https://hooks.example") && !shown.contains("hush"), "{arguments:?}: {shown}");
        assert!(shown.contains(r"refused\u202e\u009b31m"), "{arguments:?}: {shown}");
    }
    let shown = json_of(broker.url(), &prefix, &["dead", "show"]).await;
    assert_eq!((&shown["error"], &shown["bytes"]), (&json!(error), &json!(job.len())), "JSON says the same");
    let known = printed(broker.url(), &prefix, &["show", "hooked", "--json"], 0).await;
    assert!(!known.contains("hush"), "{known}");
    assert_eq!(printed(broker.url(), &prefix, &["dead", "show", "--raw"], 0).await, job);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing_and_a_filtered_redrive_leaves_the_others_in_order() {
    let (broker, prefix, amqp) = grounds().await;
    furnish(&amqp, &prefix).await;
    let dead = format!("{prefix}.dead.cdn.purge");
    let would = json_of(broker.url(), &prefix, &["dead", "redrive", "--reason", "rejected", "--dry-run"]).await;
    assert_eq!((&would["would"], &would["dryRun"]), (&json!(3), &json!(true)));
    assert_eq!(ids(&amqp, &dead).await, ["a-1", "a-2", "b-1", "e-1"]);

    let arguments = ["dead", "redrive", "--kind", "cdn.purge", "--reason", "rejected", "--limit", "1", "--yes"];
    let done = json_of(broker.url(), &prefix, &arguments).await;
    assert_eq!((&done["done"], &done["kinds"]["cdn.purge"]), (&json!(1), &json!(1)));
    assert_eq!(ids(&amqp, &dead).await, ["a-2", "b-1", "e-1"]);
    let named = ["dead", "redrive", "--kind", "cdn.purge", "--id", "b-1", "--yes"];
    let output = printed(broker.url(), &prefix, &named, 0).await;
    assert!(output.starts_with("1 redriven (cdn.purge 1)\n2 not selected"), "{output}");
    assert_eq!(ids(&amqp, &dead).await, ["a-2", "e-1"]);

    let jobs = amqp.get_all(&format!("{prefix}.jobs.cdn.purge")).await;
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0].body, purge_job("a-1", &["/a"]).as_bytes());
    assert_eq!((jobs[0].exchange.as_str(), jobs[0].routing_key.as_str()), (&*format!("{prefix}.work"), "cdn.purge"));
    assert_eq!(sent_along(&jobs[0]), ["genfleet-generation", "genfleet-redriven-by"], "no state, no attempts");
    assert_eq!(jobs[0].header("genfleet-generation").as_deref(), Some("1"));
    assert_eq!(jobs[0].properties.message_id().as_ref().unwrap().as_str(), "a-1");
    assert_eq!(*jobs[0].properties.delivery_mode(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_gone_and_everything_only_where_that_was_said() {
    let (broker, prefix, amqp) = grounds().await;
    furnish(&amqp, &prefix).await;
    let dead = format!("{prefix}.dead.cdn.purge");
    let would = printed(broker.url(), &prefix, &["dead", "discard", "--older-than", "1d", "--dry-run"], 0).await;
    assert!(would.contains("would discard 2 of 2 dead letters; nothing was changed"), "{would}");
    let done = json_of(broker.url(), &prefix, &["dead", "discard", "--older-than", "1d", "--yes"]).await;
    assert_eq!((&done["done"], &done["action"]), (&json!(2), &json!("discard")));
    assert_eq!(ids(&amqp, &dead).await, ["a-2", "b-1", "e-1"]);
    let done = json_of(broker.url(), &prefix, &["dead", "discard", "--yes"]).await;
    assert_eq!(done["done"], 4);
    assert_eq!(json_of(broker.url(), &prefix, &["dead", "list"]).await["total"], 0);
    assert_eq!(amqp.count(&format!("{prefix}.jobs.cdn.purge")).await, 0, "nothing of it was run");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_to_ask_nothing_is_done_unless_yes_was_said() {
    let (broker, prefix, amqp) = grounds().await;
    furnish(&amqp, &prefix).await;
    for action in ["redrive", "discard"] {
        for filter in [&[] as &[&str], &["--id", "a-1"], &["--limit", "1", "--json"]] {
            let refused = tool(broker.url(), &prefix, &[&["dead", action], filter].concat());
            assert_eq!(refused.wait(seconds(20)).await, 64, "{action} {filter:?}");
            assert!(refused.stderr().contains("say --yes"), "{}", refused.stderr());
        }
    }
    assert_eq!(ids(&amqp, &format!("{prefix}.dead.cdn.purge")).await, ["a-1", "a-2", "b-1", "e-1"]);
    assert_eq!(amqp.count(&format!("{prefix}.jobs.cdn.purge")).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_or_fails_again_is_left_out_until_it_is_named() {
    let (broker, prefix, amqp) = grounds().await;
    let dead = format!("{prefix}.dead");
    let reasons = ["attempts_exhausted", "crash_loop", "invalid_job", "undecodable", "kind_mismatch", "too_large"];
    for (id, reason) in ["good", "killer", "broken", "torn", "other", "large"].into_iter().zip(reasons) {
        let letter = given_up(id, reason, "no", OLD, "aaaa000011112222");
        amqp.publish_raw(&dead, "cdn.purge", purge_job(id, &["/a"]), letter).await;
    }
    let would = json_of(broker.url(), &prefix, &["dead", "redrive", "--dry-run"]).await;
    assert_eq!((&would["would"], &would["leftOut"]), (&json!(1), &json!(5)));
    assert_eq!(json_of(broker.url(), &prefix, &["dead", "list"]).await["total"], 6, "they are to be seen");
    let output = printed(broker.url(), &prefix, &["dead", "redrive", "--yes"], 0).await;
    assert!(
        output.starts_with("1 redriven (cdn.purge 1)\n5 left out")
            && output.contains("undecodable,kind_mismatch,too_large"),
        "{output}"
    );
    let none = json_of(broker.url(), &prefix, &["dead", "discard", "--yes"]).await;
    assert_eq!((&none["done"], &none["leftOut"]), (&json!(3), &json!(2)), "what is discarded is not run again");
    assert_eq!(ids(&amqp, &format!("{prefix}.dead.cdn.purge")).await, ["killer", "broken"]);
    let misspelt = tool(broker.url(), &prefix, &["dead", "redrive", "--reason", "crash-loop", "--yes"]);
    assert_eq!(misspelt.wait(seconds(20)).await, 64);
    assert!(
        misspelt.stderr().contains("the reasons are") && misspelt.stderr().contains("crash_loop"),
        "{}",
        misspelt.stderr()
    );
    let named = ["dead", "redrive", "--reason", "crash_loop,invalid_job", "--yes"];
    assert_eq!(json_of(broker.url(), &prefix, &named).await["done"], 2);
    assert_eq!(ids(&amqp, &format!("{prefix}.jobs.cdn.purge")).await, ["good", "killer", "broken"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matched_no_queue_is_listed_and_redriven_if_its_kind_is_given() {
    let (broker, prefix, amqp) = grounds().await;
    let door = format!("{prefix}.jobs");
    let forged = |id: &str| given_up(id, "rejected", "forged", OLD, "ffff000011112222");
    let prune = json!({ "id": "typo", "kind": "cdn.prune", "payload": { "paths": ["/a"] } }).to_string();
    amqp.publish_raw(&door, "cdn.prune", prune, forged("typo")).await;
    let named = json!({ "id": "named", "kind": "cdn.purge", "payload": { "paths": ["/a"] } }).to_string();
    amqp.publish_raw(&door, "cdn.purg", named, json_properties()).await;
    amqp.publish_raw(&door, "webhook.deliver", "{}", json_properties().with_message_id("asked".into())).await;
    let output = tool(broker.url(), &prefix, &["dead", "list"]);
    assert_eq!(output.wait(seconds(20)).await, 0);
    assert!(output.stderr().contains("3 messages matched no queue"), "{}", output.stderr());
    let listed = json_of(broker.url(), &prefix, &["dead", "list", "--unrouted"]).await;
    assert_eq!((&listed["total"], &listed["groups"][0]["reason"]), (&json!(3), &json!("unrouted")));
    let shown = json_of(broker.url(), &prefix, &["dead", "show", "typo", "--unrouted"]).await;
    assert_eq!((&shown["routingKey"], &shown["kind"]), (&json!("cdn.prune"), &Value::Null));
    assert!(shown["error"].as_str().unwrap().contains("cdn.prune"), "{shown}");

    let done = json_of(broker.url(), &prefix, &["dead", "redrive", "--unrouted", "--yes"]).await;
    assert_eq!((&done["done"], &done["withoutKind"]), (&json!(1), &json!(2)));
    for how in ["--yes", "--dry-run"] {
        let kind_missing = tool(broker.url(), &prefix, &["dead", "redrive", "--unrouted", how]);
        assert_eq!(kind_missing.wait(seconds(20)).await, 64);
        let told = kind_missing.stderr();
        assert!(told.contains("the kind of 2 unrouted messages is not known") && told.contains("--as KIND"), "{told}");
    }
    let as_purge = ["dead", "redrive", "--unrouted", "--id", "typo", "--as", "cdn.purge", "--yes"];
    assert_eq!(json_of(broker.url(), &prefix, &as_purge).await["done"], 1);
    let jobs = amqp.get_all(&format!("{prefix}.jobs.cdn.purge")).await;
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[1].json()["kind"], "cdn.purge", "or it would end as kind_mismatch");
    assert!(
        jobs.iter().all(|job| job.header("genfleet-generation").as_deref() == Some("1")),
        "a forged one counts not"
    );
    assert_eq!(ids(&amqp, &format!("{prefix}.unrouted")).await, ["asked"]);
}
