//! What the audit has of a call, and what a call does while the audit cannot be written.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use genfleet_audit::testing::{RETRY, Rig as AuditRig};
use genfleet_job::lease::{Lease, PreviousHolder};

struct Audited {
    rig: Rig,
    audit: AuditRig,
}

impl Audited {
    fn new(api: impl FnMut(&HttpRequest) -> ScriptedReply + Send + 'static) -> Self {
        let (rig, audit) = (Rig::new(api), AuditRig::new());
        rig.client.keep_audit(audit.audit.clone());
        Self { rig, audit }
    }

    fn answering(answers: impl IntoIterator<Item = ScriptedReply>) -> Self {
        let (rig, audit) = (Rig::answering(answers), AuditRig::new());
        rig.client.keep_audit(audit.audit.clone());
        Self { rig, audit }
    }

    /// `fact result` of every line, once all are there.
    async fn told(&self) -> Vec<String> {
        self.audit.audit.wait_until_all_durable().await.unwrap();
        self.audit.folder.verify();
        let word = |fact: &Value| {
            let result = fact["detail"]["result"].as_str();
            [fact["fact"].as_str(), result].into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        self.audit.facts().iter().map(word).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn an_intent_for_every_job_is_in_the_file_when_a_change_is_sent() {
    let audit = AuditRig::new();
    let folder = audit.folder.path().to_owned();
    let rig = Rig::new(move |_| {
        let there = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
        assert_eq!(there.matches(r#""fact":"intent""#).count(), 2, "{there}");
        ScriptedReply::status(202).header("inin-correlation-id", "abc")
    });
    rig.client.keep_audit(audit.audit.clone());
    let trails = [audit.begin("job-1"), audit.begin("job-2")];
    let jobs = [job(1), job(2)];
    let request = ApiRequest::post(THINGS).at("/api/v2/things/7").json(&"hush");
    rig.client.send(request, &rig.caller(&jobs)).await.unwrap();
    assert!(trails.iter().all(|trail| trail.position().sent));
    audit.audit.wait_until_all_durable().await.unwrap();
    let facts = audit.facts();
    assert_eq!(
        facts[1]["detail"],
        json!({"bodySha256": genfleet_job::hash::sha256("\"hush\""), "endpoint": THINGS, "jobs": 2, "method": "POST",
               "path": "/api/v2/things/7"})
    );
    assert_eq!(
        facts[2]["detail"],
        json!({"intent": 1, "requestId": "abc", "requests": 1, "result": "done", "status": 202})
    );
    assert!(!audit.folder.text().contains("hush"));
}

#[tokio::test(start_paused = true)]
async fn what_only_reads_leaves_nothing() {
    let audited = Audited::answering([]);
    audited.rig.get().await.unwrap();
    assert!(audited.told().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_effect_says_what_is_known() {
    let lost = || ScriptedReply::lost(TransportFailure::TimedOut);
    let unsent = || ScriptedReply::lost(TransportFailure::NeverSent);
    for (answers, result) in [
        (vec![ScriptedReply::status(400)], "refused"),
        (vec![lost()], "unknown"),
        (vec![ScriptedReply::lost(TransportFailure::TooLong)], "unknown"),
        (vec![ScriptedReply::status(500)], "unknown"),
        (vec![unsent(), unsent(), unsent(), unsent()], "unsent"),
        (vec![unsent(), ScriptedReply::status(201)], "done"),
        (vec![unsent(), ScriptedReply::status(422)], "refused"),
        (vec![ScriptedReply::status(429), ScriptedReply::status(201)], "done"),
    ] {
        let audited = Audited::answering(answers);
        let requests = match audited.rig.post().await {
            Ok(answer) => answer.requests,
            Err(error) => error.requests,
        };
        assert_eq!(audited.told().await, ["intent".to_owned(), format!("effect {result}")]);
        assert_eq!(audited.audit.facts()[1]["detail"]["requests"], requests, "one intent however often it is sent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_answer_that_was_lost_does_not_say_that_nothing_was_done() {
    let audited = Audited::answering([ScriptedReply::lost(TransportFailure::TimedOut), ScriptedReply::status(412)]);
    audited.rig.send_for(1, ApiRequest::put(THINGS).json(&"thing")).await.unwrap_err();
    assert_eq!(audited.told().await, ["intent", "effect unknown"]);
    assert_eq!(audited.audit.facts()[1]["detail"]["status"], 412);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_in_flight_is_unknown_and_one_that_is_held_is_not_intended() {
    let audited = Audited::new(|_| ScriptedReply::status(201).after(10 * SECOND));
    timeout(SECOND, audited.rig.post()).await.unwrap_err();
    assert_eq!(audited.told().await, ["intent", "effect unknown"]);

    let audited = Audited::answering([ScriptedReply::status(429).header("retry-after", "90")]);
    audited.rig.get().await.unwrap_err();
    audited.rig.post().await.unwrap_err();
    assert!(audited.told().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_the_audit_cannot_be_written_nothing_is_changed_and_intake_is_closed() {
    let audited = Audited::answering([]);
    let running = tokio::spawn(audited.rig.client.clone().run());
    audited.audit.faults.leave_room(Some(0));
    let waits = timeout(20 * RETRY, audited.rig.post()).await;
    assert!(waits.is_err(), "it waits for room");
    assert_eq!(audited.rig.sent(), 0);
    assert_eq!(audited.rig.reason(), Some(ClosedReason::Audit));
    assert!(audited.rig.client.problems()[0].contains("cannot be written"), "{:?}", audited.rig.client.problems());
    audited.rig.get().await.expect("what only reads goes");

    let opening = async {
        tokio::time::sleep(SECOND).await;
        audited.audit.faults.leave_room(None);
    };
    let (sent, ()) = tokio::join!(audited.rig.post(), opening);
    sent.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((audited.rig.reason(), audited.rig.client.problems()), (None, vec![]));
    assert_eq!(audited.told().await, ["intent", "effect unsent", "intent", "effect done"]);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_stopped_while_it_waits_for_the_audit_was_not_sent() {
    let audited = Audited::answering([]);
    audited.audit.faults.leave_room(Some(0));
    let stopping = async {
        tokio::time::sleep(SECOND).await;
        audited.rig.stop.cancel();
    };
    let (stopped, ()) = tokio::join!(audited.rig.post(), stopping);
    assert_eq!(stopped.unwrap_err().class, ErrorClass::Interrupted);
    assert_eq!(audited.rig.sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_process_that_was_suspended_is_held_until_it_is_known_to_be_the_one() {
    let rig = Rig::answering([]);
    let (lease, renewer) = Lease::begin(PreviousHolder::Nobody);
    let jobs = [job(1)];
    let caller = Caller { lease: Some(&lease), ..rig.caller(&jobs) };
    let change = || ApiRequest::post(THINGS).json(&"thing");
    rig.client.send(change(), &caller).await.unwrap();
    tokio::time::advance(60 * SECOND).await;
    rig.client.send(ApiRequest::get(THINGS), &caller).await.expect("what only reads goes");
    assert!(timeout(SECOND, rig.client.send(change(), &caller)).await.is_err(), "it is held");
    assert_eq!(rig.sent(), 2);

    let answering = async {
        tokio::time::sleep(SECOND).await;
        renewer.renew(Instant::now());
    };
    let (sent, ()) = tokio::join!(rig.client.send(change(), &caller), answering);
    sent.unwrap();
    assert_eq!(rig.sent(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_process_that_is_not_the_one_any_more_is_not_sent() {
    let rig = Rig::answering([]);
    let (lease, renewer) = Lease::begin(PreviousHolder::Nobody);
    let jobs = [job(1)];
    tokio::time::advance(60 * SECOND).await;
    let losing = async {
        drop(renewer);
        tokio::time::sleep(SECOND).await;
        rig.stop.cancel();
    };
    let caller = Caller { lease: Some(&lease), ..rig.caller(&jobs) };
    let (stopped, ()) = tokio::join!(rig.client.send(ApiRequest::post(THINGS).json(&"thing"), &caller), losing);
    assert_eq!((stopped.unwrap_err().class, rig.sent()), (ErrorClass::Interrupted, 0));
}
