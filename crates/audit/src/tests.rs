//! The audit with its tasks, on a real file that fails when a test says so.

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::{task::yield_now, time::timeout};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{record::payload_sha256, testing::Rig, writer::RETRY};

const SOON: Duration = Duration::from_secs(20);

async fn intend(rig: &Rig, jobs: &[JobId]) -> Result<Intent, Unwritten> {
    let detail = Detail::default().with("method", "POST");
    timeout(SOON, rig.audit.intend(Kind::CdnPurge, jobs, &detail, &rig.stop)).await.expect("in time")
}

fn id(job: &str) -> JobId {
    JobId::parse(job).unwrap()
}

pub(crate) fn is_held(condition: &AuditCondition) -> bool {
    matches!(condition, AuditCondition::Blocked(_))
}

#[tokio::test]
async fn what_an_earlier_life_did_is_an_effect_of_its_job_that_has_to_be_durable_with_it() {
    let rig = Rig::new();
    let trail = rig.begin("one");
    rig.audit.record_found(Kind::CdnPurge, &id("one"), &Detail::default().with("endpoint", "/things"));
    assert_eq!(trail.position(), AuditPosition { last: Some(1), sent: false });
    rig.audit.wait_until_durable(1).await.unwrap();
    let told = ["fact", "jobId", "action", "detail"].map(|member| rig.facts()[0][member].clone());
    assert_eq!(json!(told), json!(["effect", "one", "cdn_purge_executed", {"endpoint": "/things", "result": "found"}]));
}

#[tokio::test]
async fn a_shared_call_has_an_intent_and_an_effect_for_every_job_and_payloads_are_only_hashed() {
    let rig = Rig::new();
    let trails = [rig.begin("one"), rig.begin("two")];
    let mut intent = intend(&rig, &[id("one"), id("two")]).await.unwrap();
    assert_eq!(rig.facts().len(), 2, "it is in the file before the call");
    assert_eq!(trails[0].position(), AuditPosition { last: Some(1), sent: false });
    intent.mark_sent();
    intent.effect(Effect::Done, &Detail::default().with("status", 202));
    assert_eq!(
        trails.each_ref().map(JobAudit::position),
        [3, 4].map(|last| AuditPosition { last: Some(last), sent: true })
    );
    let stamp = rig.audit.fact(trails[0].about(), Fact::Outcome, &Detail::default()).unwrap();
    rig.audit.wait_until_durable(stamp.seq).await.unwrap();
    assert_eq!(rig.folder.verify(), 5);
    let told: Vec<_> = rig
        .facts()
        .iter()
        .map(|fact| [&fact["seq"], &fact["jobId"], &fact["fact"], &fact["detail"]].map(ToString::to_string).join(" "))
        .collect();
    assert_eq!(
        told,
        [
            r#"1 "one" "intent" {"method":"POST"}"#,
            r#"2 "two" "intent" {"method":"POST"}"#,
            r#"3 "one" "effect" {"intent":1,"result":"done","status":202}"#,
            r#"4 "two" "effect" {"intent":2,"result":"done","status":202}"#,
            r#"5 "one" "outcome" {}"#,
        ]
    );
    let hash = payload_sha256(&json!({"paths": ["/hush"]}));
    assert!(
        rig.facts().iter().all(|fact| fact["payloadSha256"] == hash.as_str() && fact["action"] == "cdn_purge_executed")
    );
    assert!(!rig.folder.text().contains("hush"));
}

#[tokio::test]
async fn an_intent_that_is_dropped_says_whether_the_call_was_sent() {
    let rig = Rig::new();
    let _trail = rig.begin("one");
    drop(intend(&rig, &[id("one")]).await.unwrap());
    let mut intent = intend(&rig, &[]).await.unwrap();
    intent.mark_sent();
    drop(intent);
    rig.audit.wait_until_all_durable().await.unwrap();
    let told: Vec<_> =
        rig.facts().iter().map(|fact| (fact["jobId"].clone(), fact["detail"]["result"].clone())).collect();
    assert_eq!(told[1], (json!("one"), json!("unsent")));
    assert_eq!(told[3], (Value::Null, json!("unknown")), "on the process's own behalf");
}

#[tokio::test]
async fn a_job_that_runs_again_is_not_forgotten_with_its_first_run() {
    let rig = Rig::new();
    let first = rig.begin("one");
    let second = rig.begin("one");
    drop(first);
    drop(intend(&rig, &[id("one")]).await.unwrap());
    assert!(second.position().last.is_some());
}

#[tokio::test]
async fn only_lines_that_a_task_waits_for_wake_the_thread_that_lingers() {
    let (chain, stop) = (Chain::new("p".to_owned(), ChainLink::default()), CancellationToken::new());
    let audit = Audit::with(Some(chain), 0, Arc::new(SystemClock));
    let lingers = || audit.shared.state().lingers;
    let linger = || {
        let mut state = audit.shared.state();
        state.waiting.clear();
        state.lingers = true;
    };
    linger();
    let job = audit.begin(Kind::CdnPurge, &id("one"), "cdn_purge_executed", "hash");
    let stamp = audit.fact(job.about(), Fact::Outcome, &Detail::default()).unwrap();
    assert!(lingers(), "no task waits for this line");
    assert_eq!(audit.wait_until_durable(stamp.seq).now_or_never(), None);
    assert!(!lingers(), "it has to be durable");
    linger();
    let intent = audit.propose(Kind::CdnPurge, &[id("one")], &Detail::default());
    assert!(lingers(), "no task waits for this line yet");
    let woken = async {
        while lingers() {
            yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = intent.wait_until_written(&stop) => panic!("there is no writer"),
        () = woken => {}
    }
    assert!(!lingers(), "it has to be written");
}

#[tokio::test]
async fn many_at_once_are_in_one_chain() {
    let rig = Rig::new();
    let one = async |n: usize| {
        let job = format!("job-{n}");
        let trail = rig.begin(&job);
        intend(&rig, &[id(&job)]).await.unwrap().effect(Effect::Done, &Detail::default());
        let stamp = rig.audit.fact(trail.about(), Fact::Outcome, &Detail::default()).unwrap();
        timeout(SOON, rig.audit.wait_until_durable(stamp.seq)).await.expect("in time").unwrap();
    };
    futures_util::future::join_all((0..500).map(one)).await;
    assert_eq!(rig.folder.verify(), 1500);
    assert!(rig.folder.files().len() > 1, "over several files");
}

#[tokio::test(start_paused = true)]
async fn with_no_room_nothing_is_intended_and_nothing_durable_until_there_is() {
    let rig = Rig::new();
    let trail = rig.begin("one");
    let mut intent = intend(&rig, &[id("one")]).await.unwrap();
    intent.mark_sent();
    rig.faults.leave_room(Some(10));
    intent.effect(Effect::Done, &Detail::default());
    rig.wait_for(is_held).await;
    assert!(rig.audit.conditions().borrow().trouble().unwrap().contains("cannot be written"));
    rig.audit.wait_until_durable(1).await.unwrap();
    assert!(is_held(&rig.audit.conditions().borrow()), "a successful sync does not free space");
    let outcome = rig.audit.fact(trail.about(), Fact::Outcome, &Detail::default()).unwrap();
    let waits = timeout(20 * RETRY, rig.audit.wait_until_durable(outcome.seq)).await;
    assert!(waits.is_err(), "nothing may be acknowledged");
    let before = rig.folder.text();
    let waits =
        timeout(20 * RETRY, rig.audit.intend(Kind::CdnPurge, &[id("one")], &Detail::default(), &rig.stop)).await;
    assert!(waits.is_err(), "no call may be sent");
    rig.stop.cancel();
    intend(&rig, &[id("one")]).await.expect_err("whoever is stopped does not wait");
    assert_eq!(rig.folder.text(), before);
    assert_eq!(rig.folder.verify(), 1);

    rig.faults.leave_room(None);
    rig.wait_for(|condition| *condition == AuditCondition::Writable).await;
    timeout(SOON, rig.audit.wait_until_durable(outcome.seq)).await.expect("in time").unwrap();
    assert_eq!(rig.folder.verify(), 3, "what was refused left nothing");
    assert!(!rig.tasks_ended());
}

#[tokio::test(start_paused = true)]
async fn an_intent_that_hits_the_full_disk_is_not_followed_by_its_call() {
    let rig = Rig::new();
    rig.faults.leave_room(Some(10));
    let trail = rig.begin("one");
    let stopping = async {
        rig.wait_for(is_held).await;
        rig.stop.cancel();
    };
    let jobs = [id("one")];
    let (refused, ()) = tokio::join!(intend(&rig, &jobs), stopping);
    refused.expect_err("it is not in the file");
    assert!(!trail.position().sent);
    rig.faults.leave_room(None);
    timeout(SOON, rig.audit.wait_until_all_durable()).await.expect("in time").unwrap();
    assert_eq!(rig.facts()[1]["detail"]["result"], "unsent");
}

#[tokio::test]
async fn a_failed_sync_ends_the_process_and_nothing_counts_as_durable_after_it() {
    let mut rig = Rig::new();
    let stamp = rig.audit.fact(rig.begin("one").about(), Fact::Outcome, &Detail::default()).unwrap();
    rig.audit.wait_until_durable(stamp.seq).await.unwrap();
    rig.faults.fail_syncs();
    let stamp = rig.audit.fact(rig.begin("two").about(), Fact::Outcome, &Detail::default()).unwrap();
    let durable = timeout(SOON, rig.audit.wait_until_durable(stamp.seq)).await.expect("in time");
    assert_eq!(durable, Err(Unwritten));
    assert_eq!(timeout(SOON, rig.exits.next()).await.expect("in time"), "audit sync");
    intend(&rig, &[id("one")]).await.expect_err("no call is sent any more");
    let proposed = rig.audit.propose(Kind::CdnPurge, &[id("one")], &Detail::default());
    proposed.wait_until_written(&rig.stop).await.expect_err("none that was proposed already, either");
}

#[tokio::test]
async fn a_file_that_is_removed_ends_the_process_and_nothing_counts_as_durable_after_it() {
    let mut rig = Rig::new();
    let trail = rig.begin("one");
    let seq = |trail: &JobAudit| rig.audit.fact(trail.about(), Fact::Outcome, &Detail::default()).unwrap().seq;
    rig.audit.wait_until_durable(seq(&trail)).await.unwrap();
    std::fs::remove_file(rig.folder.path().join("audit.jsonl")).unwrap();
    let lost = seq(&trail);
    assert!(timeout(SOON, rig.audit.wait_until_durable(lost)).await.expect("in time").is_err());
    assert_eq!(timeout(SOON, rig.exits.next()).await.expect("in time"), "audit sync");
}

#[tokio::test]
async fn without_an_audit_nothing_waits_and_nothing_is_written() {
    let audit = Audit::off();
    let trail = audit.begin(Kind::CdnPurge, &id("one"), "x", "");
    let intent =
        audit.intend(Kind::CdnPurge, &[id("one")], &Detail::default(), &CancellationToken::new()).await.unwrap();
    intent.effect(Effect::Done, &Detail::default());
    assert_eq!(audit.fact(trail.about(), Fact::Outcome, &Detail::default()), None);
    assert_eq!(trail.position(), AuditPosition::default());
    audit.wait_until_all_durable().await.unwrap();
    audit.wait_until_writable().await.unwrap();
}

#[tokio::test]
async fn what_was_written_last_is_durable_when_it_is_closed() {
    let rig = Rig::new();
    for _ in 0..100 {
        drop(rig.audit.propose(Kind::CdnPurge, &[], &Detail::default()));
    }
    rig.audit.close().await;
    rig.supervisor.stop().await;
    assert_eq!(rig.folder.verify(), 200);
}

impl Rig {
    fn tasks_ended(mut self) -> bool {
        futures_util::FutureExt::now_or_never(self.exits.next()).is_some()
    }
}

/// The log lines of this thread.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(event);
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    fn anchors(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let anchor = |line: &str| Some(line.split_once("anchor=")?.1.split_once(' ')?.0.to_owned());
        text.lines().filter_map(anchor).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_chain_is_told_once_a_minute_while_it_moves_and_at_the_end() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logs = tracing::subscriber::set_default(subscriber);
    let rig = Rig::new();
    let write = async || {
        let intent = intend(&rig, &[id("a")]).await.unwrap();
        drop(intent);
        rig.audit.wait_until_all_durable().await.unwrap();
    };
    let last = || {
        let facts = rig.facts();
        let fact = facts.last().unwrap();
        format!("{}:{}", fact["seq"], fact["hash"].as_str().unwrap())
    };
    write().await;
    write().await;
    let first = last();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(logged.anchors(), std::slice::from_ref(&first), "once, though five minutes passed");
    write().await;
    let second = last();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(logged.anchors(), [first, second.clone()]);
    rig.audit.close().await;
    assert_eq!(logged.anchors().last(), Some(&second));
}
