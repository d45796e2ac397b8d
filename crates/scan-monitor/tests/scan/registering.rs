//! The security webhook: once per process and quarantine action, and never a job's concern.

use genfleet_core::handler::Progress;
use genfleet_simulator::FaultRule;
use serde_json::{Value, json};

use crate::stack::{CLEAN, Stack, eventually};

const WEBHOOKS: &str = "/api/v2/platform/webhooks/webhooks";
const URL: &str = "https://siem.example/in?key=hush";

impl Stack {
    /// Registrations asked for and answered.
    fn asked(&self) -> Vec<Value> {
        let requests = self.simulator.requests();
        let answered = requests.into_iter().filter(|request| request.path == WEBHOOKS && request.status.is_some());
        answered.map(|request| request.body).collect()
    }

    async fn works(&self, action: &str) {
        let step = self.step_with("{}", CLEAN, action).await;
        assert!(matches!(step, Ok(Progress::Begun { .. })), "{step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_registered_once_for_each_action() {
    let stack = Stack::with_webhook(&json!({"scanMs": 0}), URL).await;
    for round in 0..5 {
        stack.works("auto_quarantine").await;
        eventually(|| !stack.asked().is_empty()).await;
        stack.works("notify_and_hold").await;
        eventually(|| stack.asked().len() == 2).await;
        assert_eq!(stack.asked().len(), 2, "round {round}");
    }
    let expected = json!({
        "name": "genfleet-scan-sync-auto_quarantine",
        "enabled": true,
        "type": "webhook",
        "description": "Synchronizes Genesys Cloud file scan results with external SIEM",
        "eventFilters": [{"event": "files:scan:completed", "filter": {"quarantineAction": "auto_quarantine"}}],
        "url": URL,
        "headers": {"X-Security-Source": "GenesysCloud", "Content-Type": "application/json"},
    });
    assert_eq!(stack.asked()[0], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_at_once_register_once_and_one_that_is_there_is_fine() {
    let stack = Stack::with_webhook(&json!({"scanMs": 0}), URL).await;
    futures_join(&stack, 30).await;
    eventually(|| stack.asked().len() == 1).await;
    // Another process: the platform says 409, and it is not asked again.
    let other = stack.another(URL);
    for _ in 0..3 {
        let step = other.step_with("{}", CLEAN, "auto_quarantine").await;
        assert!(step.is_ok());
        eventually(|| other.answered_webhooks() == 2).await;
    }
    assert_eq!(other.answered_webhooks(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_fails_holds_up_no_job_and_is_not_tried_again_at_once() {
    for fault in [
        FaultRule { status: Some(403), ..FaultRule::default() },
        FaultRule { status: Some(500), ..FaultRule::default() },
        FaultRule { lost: true, ..FaultRule::default() },
    ] {
        let stack = Stack::with_webhook(&json!({"scanMs": 0}), URL).await;
        stack.simulator.set_faults(vec![FaultRule { path: Some(WEBHOOKS.into()), ..fault }]);
        for _ in 0..8 {
            stack.works("auto_quarantine").await;
            stack.works("allow_with_flag").await;
        }
        let seen = || stack.simulator.requests().iter().filter(|request| request.path == WEBHOOKS).count();
        eventually(|| seen() == 2).await;
        stack.works("auto_quarantine").await;
        assert_eq!(seen(), 2, "one for each action");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_nothing_is_registered() {
    let stack = Stack::start(&json!({"scanMs": 0})).await;
    stack.works("auto_quarantine").await;
    assert!(stack.asked().is_empty());
}

async fn futures_join(stack: &Stack, jobs: usize) {
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..jobs {
        let stack = stack.clone();
        running.spawn(async move { stack.works("auto_quarantine").await });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}
