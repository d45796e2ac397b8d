//! `media.scan` with a real clamd, on a real broker: every result, every action, links that go wrong, and engines that
//! cannot be trusted.

use std::time::Duration;

use genfleet_simulator::FaultRule;
use harness::{Clamd, Process, eicar, encrypt, eventually, seconds};
use serde_json::{Value, json};

use self::{
    files::Files,
    rig::{MOST_BYTES, Rig, zip},
};
use crate::stack::outcomes;

mod files;
mod rig;

const CONVERSATION: &str = "6b1f0c9e-52f3-4d6f-9d3a-0c7f7a1e2b3c";
const PARTICIPANT: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_file_has_its_result_and_only_clean_and_malware_are_verdicts() {
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &[]).await;
    let nested = (0..25).fold(b"x".to_vec(), |inner, _| zip(&inner, 0));
    let table = [
        ("clean", rig.files.offer("/clean", b"all is well"), json!(false)),
        ("clean", rig.files.offer("/empty", b""), json!(false)),
        ("malware", rig.files.offer("/eicar", &eicar()), json!(true)),
        ("malware", rig.files.offer("/zipped", &zip(&eicar(), 0)), json!(true)),
        ("unscannable", rig.files.offer("/nested", &nested), json!(null)),
        ("encrypted", rig.files.offer("/encrypted", &zip(&[7; 64], 1)), json!(null)),
        ("clean", rig.files.offer("/exactly", &vec![b'x'; MOST_BYTES]), json!(false)),
        ("clean", rig.files.offer_unmeasured("/exactly-read", &vec![b'x'; MOST_BYTES]), json!(false)),
        ("too_large", rig.files.offer("/longer", &vec![b'x'; MOST_BYTES + 1]), json!(null)),
        ("too_large", rig.files.offer_unmeasured("/longer-read", &vec![b'x'; MOST_BYTES + 1]), json!(null)),
    ];
    for (index, (result, link, threat)) in table.iter().enumerate() {
        let data = rig.scan(&format!("file-{index}"), link).await;
        let report = &data["report"];
        assert_eq!((&data["outcome"], &report["result"]), (&json!("succeeded"), &json!(result)), "{link}: {data}");
        assert_eq!((&report["threatDetected"], &report["action"]), (threat, &json!("none")), "{data}");
        let is_verdict = !threat.is_null();
        assert_eq!(report["warnings"].as_array().unwrap().is_empty(), is_verdict, "{data}");
        assert!(!data.to_string().contains("hush"), "the key of a link is told: {data}");
    }
    let told = rig.scan("told", &table[2].1).await;
    let report = &told["report"];
    assert_eq!((&report["engine"]["name"], &report["engine"]["limitsTold"]), (&json!("clamd"), &json!(true)));
    assert!(report["engine"]["version"].as_str().unwrap().starts_with("ClamAV"), "{report}");
    assert_eq!((&report["bytes"], &report["mediaType"]), (&json!(68), &json!("text/x-test")));
    assert_eq!(report["threat"], "Eicar-Test.UNOFFICIAL");
    assert_eq!(told["action"], "media.scanned");
    let metrics = rig.process.metrics().await;
    assert_eq!(metrics.count("genfleet_media_scans_total", &[("result", "malware")]), 3);
    assert_eq!(metrics.count("genfleet_threats_detected_total", &[]), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_another_one_fails_before_anything_is_done() {
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &[]).await;
    let medium = json!({"conversationId": CONVERSATION, "communicationId": "c", "mediaId": "f3504e00-4f89-41d3-9a0c-0305e82c3301"});
    let payload = json!({"source": {"message": medium}, "participantId": PARTICIPANT, "sha256": "0".repeat(64)});
    let data = rig.run("other", &payload).await;
    assert_eq!(data["error"]["code"], "content_changed", "{data}");
    assert_eq!((&data["report"]["result"], &data["report"]["action"]), (&json!("malware"), &json!("none")));
    assert_eq!(rig.simulator.state()["media"]["attributes"], json!({}));
    let mut right = payload;
    right["sha256"] = data["report"]["sha256"].as_str().unwrap().to_uppercase().into();
    let data = rig.run("right", &right).await;
    assert_eq!((&data["outcome"], &data["report"]["action"]), (&json!("succeeded"), &json!("flag")), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_source_is_fetched_and_every_action_is_done_and_no_other_host_sees_the_token() {
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &[]).await;
    rig.simulator.set("media", &json!({"readyMs": 100})).unwrap();
    let file = |first: char| format!("{first}7a1c2d3-0000-4000-8000-000000000001");
    let medium = |first: char| json!({"conversationId": CONVERSATION, "communicationId": "c", "mediaId": file(first)});
    let email = json!({"conversationId": CONVERSATION, "messageId": file('f'), "attachmentId": file('f')});
    let whole = |first: char| json!({"conversationId": CONVERSATION, "messageId": file(first)});
    let document = |first: char| json!({"document": {"documentId": file(first)}});
    let jobs = [
        ("clean", json!({"source": {"message": medium('3')}, "participantId": PARTICIPANT}), "clean", "none"),
        ("uploading", json!({"source": {"message": medium('d')}, "participantId": PARTICIPANT}), "clean", "none"),
        ("flag", json!({"source": {"message": medium('f')}, "participantId": PARTICIPANT}), "malware", "flag"),
        ("silent", json!({"source": {"message": medium('f')}, "onThreat": "none"}), "malware", "none"),
        ("whole", json!({"source": whole('f'), "onThreat": "disconnect"}), "malware", "disconnect"),
        ("nothing", json!({"source": whole('0'), "onThreat": "disconnect"}), "nothing", "none"),
        ("email", json!({"source": {"email": email}, "onThreat": "tag"}), "malware", "tag"),
        ("again", json!({"source": {"email": email}, "onThreat": "tag"}), "malware", "tag"),
        ("prepared", json!({"source": document('d')}), "clean", "none"),
        ("kept", json!({"source": document('f')}), "malware", "none"),
        ("deleted", json!({"source": document('f'), "onThreat": "delete"}), "malware", "delete"),
    ];
    for (id, payload, result, action) in &jobs {
        let data = rig.run(id, payload).await;
        assert_eq!(data["outcome"], "succeeded", "{id}: {data}");
        let report = &data["report"];
        assert_eq!((&report["result"], &report["action"]), (&json!(result), &json!(action)), "{id}: {data}");
    }
    let media = rig.simulator.state()["media"].clone();
    let attributes = &media["attributes"][PARTICIPANT];
    assert_eq!((&attributes["genfleet.scan"], &attributes["genfleet.scan.job"]), (&json!("malware"), &json!("flag")));
    assert_eq!(media["tags"], json!({CONVERSATION: "genfleet:malware"}));
    assert_eq!((&media["disconnected"], &media["deleted"]), (&json!([CONVERSATION]), &json!([file('f')])));
    assert_eq!(media["fetchesWithAuthorization"], 0);
    assert!(media["fetchesTotal"].as_u64().unwrap() >= 10);
    let tagged = rig.simulator.requests().iter().filter(|request| request.method == "PUT").count();
    assert_eq!(tagged, 1, "a tag that is there is not set again");
    let downloads: Vec<_> =
        rig.simulator.requests().into_iter().filter(|request| request.path.contains("/downloads/")).collect();
    assert!(!downloads.is_empty());
    assert!(
        downloads.iter().all(|request| request.query.as_deref() == Some("issueRedirect=false&redirectToAuth=false"))
    );
    // A link of the platform may lead to any host that is listed.
    let offered = rig.files.offer("/elsewhere", b"well");
    let elsewhere = json!({"id": file('3'), "url": offered, "status": "valid"}).to_string();
    rig.simulator.set_faults(vec![FaultRule { body: Some(elsewhere), ..FaultRule::default() }]);
    let data = rig.run("elsewhere", &jobs[0].1).await;
    assert_eq!(data["report"]["result"], "clean", "{data}");
    let seen = rig.files.all_requests().join("\n").to_lowercase();
    assert!(seen.contains("get /elsewhere") && !seen.contains("authorization"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_fails_is_told_and_the_verdict_is_kept() {
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &[]).await;
    rig.simulator.set("media", &json!({"tags": {CONVERSATION: "vip"}})).unwrap();
    let medium = json!({"conversationId": CONVERSATION, "communicationId": "c", "mediaId": "f7a1c2d3-0000-4000-8000-000000000001"});
    let payload = |action| json!({"source": {"message": medium}, "participantId": PARTICIPANT, "onThreat": action});
    let data = rig.run("tag", &payload("tag")).await;
    assert_eq!(data["error"]["code"], "action_failed", "{data}");
    assert_eq!((&data["report"]["result"], &data["report"]["action"]), (&json!("malware"), &json!("none")));
    assert_eq!(rig.simulator.state()["media"]["tags"], json!({}), "another tag is not overwritten");

    let refuse = |status| FaultRule { status: Some(status), method: Some("PATCH".to_owned()), ..FaultRule::default() };
    rig.simulator.set_faults(vec![refuse(404)]);
    let data = rig.run("gone", &payload("flag")).await;
    assert_eq!((&data["error"]["code"], &data["error"]["status"]), (&json!("action_failed"), &json!(404)), "{data}");
    rig.simulator.set_faults(vec![refuse(500)]);
    let data = rig.run("failing", &payload("flag")).await;
    assert_eq!(data["error"]["code"], "attempts_exhausted", "{data}");
    assert_eq!((&data["error"]["cause"], &data["report"]["result"]), (&json!("action_failed"), &json!("malware")));
    rig.simulator.set_faults(vec![FaultRule { times: Some(1), ..refuse(503) }]);
    let data = rig.run("later", &payload("flag")).await;
    assert_eq!((&data["outcome"], &data["report"]["action"]), (&json!("succeeded"), &json!("flag")), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_may_not_be_opened_ends_the_job_at_once_and_a_dead_one_is_replaced_once() {
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &["--settle-timeout", "1s"]).await;
    let (port, well) = (rig.files.port, rig.files.offer("/well", b"well"));
    let once = rig.files.redirect("/once", &well);
    let data = rig.scan("once", &once).await;
    assert_eq!(data["report"]["result"], "clean", "{data}");
    let thrice = rig.files.redirect("/thrice", &rig.files.redirect("/twice", &once));
    assert_eq!(rig.scan("thrice", &thrice).await["report"]["result"], "clean");
    for (id, link) in [
        ("too-often", rig.files.redirect("/four", &thrice)),
        ("unlisted", format!("http://localhost:{port}/well")),
        ("private", format!("https://127.0.0.2:{port}/well")),
        ("plain", format!("http://127.0.0.2:{port}/well")),
        ("to-unlisted", rig.files.redirect("/a", &format!("http://10.0.0.1:{port}/well"))),
        ("to-private", rig.files.redirect("/b", &format!("https://127.0.0.2:{port}/well"))),
    ] {
        let data = rig.scan(id, &link).await;
        assert_eq!((&data["error"]["code"], &data["attempts"]), (&json!("address_refused"), &json!(1)), "{data}");
        assert!(!data.to_string().contains("hush"), "{data}");
    }
    let refused =
        rig.files.answer("/teapot", b"HTTP/1.1 418 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec());
    assert_eq!(rig.scan("refused", &refused).await["error"]["code"], "link_refused");
    let gone = rig.scan("gone", &format!("http://127.0.0.1:{port}/nothing?key=hush")).await;
    assert_eq!((&gone["error"]["code"], &gone["attempts"]), (&json!("link_expired"), &json!(1)), "{gone}");
    let broken =
        rig.files.answer("/broken", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\nhalf".to_vec());
    let data = rig.scan("broken", &broken).await;
    assert_eq!((&data["error"]["cause"], &data["attempts"]), (&json!("media_unavailable"), &json!(3)), "{data}");

    let medium = |id: &str| json!({"message": {"conversationId": CONVERSATION, "communicationId": "c", "mediaId": id}});
    let payload = |id: &str| json!({"source": medium(id), "onThreat": "none"});
    let file = "37a1c2d3-0000-4000-8000-000000000001";
    rig.simulator.set("media", &json!({"deadLinks": 1})).unwrap();
    let data = rig.run("dead-once", &payload(file)).await;
    assert_eq!((&data["report"]["result"], &data["attempts"]), (&json!("clean"), &json!(1)), "{data}");
    rig.simulator.set("media", &json!({"linkMs": 0})).unwrap();
    let data = rig.run("dead", &payload(file)).await;
    assert_eq!(
        (&data["error"]["code"], &data["error"]["cause"]),
        (&json!("attempts_exhausted"), &json!("link_expired"))
    );
    rig.simulator.set("media", &json!({"linkMs": 60_000, "readyMs": null})).unwrap();
    let data = rig.run("never", &payload("d7a1c2d3-0000-4000-8000-000000000001")).await;
    assert_eq!((&data["error"]["cause"], &data["attempts"]), (&json!("media_not_ready"), &json!(3)), "{data}");
    let data = rig.run("invalid", &payload("e7a1c2d3-0000-4000-8000-000000000001")).await;
    assert_eq!(data["error"]["code"], "media_invalid", "{data}");
    let email = json!({"conversationId": "c", "messageId": file, "attachmentId": "other"});
    let data = rig.run("no-attachment", &json!({"source": {"email": email}, "onThreat": "none"})).await;
    assert_eq!(data["error"]["code"], "attachment_not_found", "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_files_stream_through_bounded_memory() {
    const LENGTH: usize = 26_214_400;
    const FILES: usize = 16;
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &["--scan-max-bytes", &LENGTH.to_string()]).await;
    let link = rig.files.offer("/long", &vec![b'x'; LENGTH]);
    let before = rig.process.rss_kb();
    rig.process.forget_peak();
    for number in 0..FILES {
        rig.send(&format!("long-{number}"), &json!({"source": {"url": link}}), 3).await;
    }
    let by_job = outcomes(&mut rig.events, FILES, seconds(240)).await;
    for event in by_job.values().flatten() {
        let report = &event["data"]["report"];
        assert_eq!((&report["result"], &report["bytes"]), (&json!("clean"), &json!(LENGTH)), "{event}");
    }
    let grown = rig.process.peak_rss_kb().saturating_sub(before);
    println!("{FILES} files of {LENGTH} bytes: RSS {before} kB before, {grown} kB more at the most");
    assert!(grown < 64 * 1024, "{FILES} files of 25 MiB, 8 at a time, took {grown} kB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_in_the_middle_costs_one_attempt_and_jobs_wait_until_it_is_back() {
    if !Clamd::available() {
        return;
    }
    let mut clamd = Clamd::start().await;
    let mut rig = Rig::start(&clamd.address(), &[]).await;
    let halved = rig.files.offer("/halved", &vec![b'x'; MOST_BYTES]);
    rig.send("middle", &json!({"source": {"url": halved}}), 3).await;
    eventually(seconds(30), "the file is half way", async || rig.files.requests("/halved").len() == 1).await;
    clamd.kill().await;
    rig.files.go_on();
    rig.held("engine_gone").await;
    let well = rig.files.offer("/well", b"well");
    rig.send("waits", &json!({"source": {"url": well}}), 1).await;
    eventually(seconds(30), "both jobs wait in the queue", async || {
        let metrics = rig.process.metrics().await;
        metrics.sum("genfleet_jobs_in_flight", &[("kind", "media.scan")]) < 0.5
    })
    .await;
    rig.files.offer("/halved", b"whole");
    // It is halved again.
    rig.files.go_on();
    clamd.restart().await;
    rig.process.wait_ready(seconds(60)).await;
    let by_job = outcomes(&mut rig.events, 2, seconds(90)).await;
    for (job, events) in &by_job {
        let data = &events[0]["data"];
        assert_eq!(
            (&data["outcome"], &data["report"]["result"]),
            (&json!("succeeded"), &json!("clean")),
            "{job}: {data}"
        );
    }
    assert!(by_job["middle"][0]["data"]["attempts"].as_u64().unwrap() <= 2, "{by_job:?}");
    assert_eq!(by_job["waits"][0]["data"]["attempts"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_finds_nothing_or_does_not_tell_its_limits_is_not_believed() {
    if !Clamd::available() {
        return;
    }
    let blind = Clamd::with(&["AlertExceedsMax yes"], b"something else").await;
    let mut rig = Rig::unready(&blind.address(), &[]).await;
    rig.held("engine_blind").await;
    let link = rig.files.offer("/eicar", &eicar());
    rig.send("waits", &json!({"source": {"url": link}}), 1).await;
    let event = rig.events.next_message(Duration::from_secs(3)).await;
    assert!(event.is_none(), "a job ended by an engine that finds nothing");
    assert!(rig.files.all_requests().is_empty());
    let by_doctor = doctor(&blind.address(), &[]).await;
    assert!(by_doctor.contains("engine_blind"), "{by_doctor}");

    let silent = Clamd::with(&[], &eicar()).await;
    let rig = Rig::unready(&silent.address(), &[]).await;
    rig.held("engine_limits").await;
    assert!(rig.process.ready().await.1.to_string().contains("AlertExceedsMax yes"));
    let by_doctor = doctor(&silent.address(), &[]).await;
    assert!(by_doctor.contains("engine_limits"), "{by_doctor}");
    let mut rig = Rig::start(&silent.address(), &["--scanner-unproven-limits", "accept"]).await;
    let link = rig.files.offer("/well", b"well");
    let data = rig.scan("accepted", &link).await;
    assert_eq!((&data["report"]["result"], &data["report"]["engine"]["limitsTold"]), (&json!("clean"), &json!(false)));
    assert_eq!(data["report"]["warnings"].as_array().unwrap().len(), 1, "{data}");
    // A database that somebody made by hand is an error for the doctor only.
    let by_doctor = doctor(&silent.address(), &["--scanner-unproven-limits", "accept"]).await;
    assert!(by_doctor.contains("finds the EICAR test string") && by_doctor.contains("freshclam"), "{by_doctor}");
}

/// What the doctor says of the engine.
async fn doctor(engine: &str, arguments: &[&str]) -> String {
    let process = Process::binary("genfleet")
        .args(["doctor", "media.scan", "--json", "--queue-url", "sqlite:none.db"])
        .env("GENESYS_BASE_URL", "http://127.0.0.1:1")
        .env("GENESYS_CLIENT_ID", "client")
        .env("GENESYS_CLIENT_SECRET", "hush")
        .args(["--scanner", "clamd", "--scanner-address", engine])
        .args(arguments.iter().copied())
        .start();
    assert_eq!(process.wait(seconds(60)).await, 1, "{}", process.stderr());
    let report: Value = serde_json::from_str(&process.stdout_lines().concat()).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["check"].as_str().unwrap().starts_with("scanner."))
        .map(Value::to_string)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_kind_is_not_worked_and_a_wrong_setting_is_refused() {
    let check = async |arguments: &[&str]| {
        let process = Process::binary("scan-monitor")
            .args(["--check-config", "--queue-url", "sqlite:check.db"])
            .args(arguments.iter().copied())
            .env("GENESYS_CLIENT_ID", "client")
            .env("GENESYS_CLIENT_SECRET", "hush")
            .start();
        let code = process.wait(seconds(30)).await;
        (code, format!("{}{}", process.stdout_lines().join("\n"), process.stderr()))
    };
    let (code, told) = check(&[]).await;
    assert!(
        code == 0 && told.contains("media.scan is not worked") && told.contains("--scanner clamd"),
        "{code} {told}"
    );
    let (code, told) = check(&["--scanner", "clamd"]).await;
    assert!(code == 0 && !told.contains("is not worked"), "{code} {told}");
    for (arguments, words) in [
        (vec!["--kinds", "media.scan"], "--scanner clamd"),
        (vec!["--scanner", "clamav"], "write clamd"),
        (vec!["--scanner", "clamd", "--scanner-address", "/run/clamav/clamd.ctl"], "unix:/run/clamav/clamd.ctl"),
        (vec!["--scanner", "clamd", "--scanner-address", "tcp:scanner"], "tcp:host:3310"),
        (vec!["--scanner", "clamd", "--media-hosts", "https://files.example"], "without scheme and port"),
    ] {
        let (code, told) = check(&arguments).await;
        assert!(code == 64 && told.contains(words), "{arguments:?}: {code} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_files_is_trusted_by_the_authority_of_the_ca_file() {
    if !Clamd::available() {
        return;
    }
    let clamd = Clamd::start().await;
    let files = Files::start().await;
    let (port, authority) = encrypt(files.port).await;
    let link = files.offer("/clean", b"all is well").replace(&format!("http://127.0.0.1:{}", files.port), "");
    let link = format!("https://127.0.0.1:{port}{link}");
    let mut trusting = Rig::start(&clamd.address(), &["--genesys-ca-file", authority.to_str().unwrap()]).await;
    let data = trusting.scan("trusted", &link).await;
    assert_eq!(data["report"]["result"], "clean", "{data}");
    let mut rig = Rig::start(&clamd.address(), &[]).await;
    let data = rig.scan("unknown", &link).await;
    assert_eq!(data["error"]["cause"], "media_unavailable", "{data}");
}
