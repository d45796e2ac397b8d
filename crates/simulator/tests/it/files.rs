//! Scans of files and webhooks, as the scan-monitor finds them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{Setup, read_answer};

const CLEAN: &str = "a1b2c3d4-e5f6-7890-abcd-ef1234567890";
const MALWARE: &str = "f1b2c3d4-e5f6-7890-abcd-ef1234567890";
const FAILING: &str = "e1b2c3d4-e5f6-7890-abcd-ef1234567890";

async fn with(rules: &Value) -> Setup {
    let setup = Setup::new().await;
    setup.simulator.set("files", rules).unwrap();
    setup
}

impl Setup {
    async fn order(&self, file: &str) -> (StatusCode, Value) {
        let request = self.post(&format!("/api/v2/files/{file}/scans")).bearer_auth(&self.token).json(&json!({}));
        read_answer(request.send().await.unwrap()).await
    }

    async fn poll(&self, file: &str, scan: &Value) -> (StatusCode, Value) {
        let url = self.url(&format!("/api/v2/files/{file}/scans/{}", scan.as_str().unwrap()));
        read_answer(self.http.get(url).bearer_auth(&self.token).send().await.unwrap()).await
    }

    async fn register(&self, webhook: &Value) -> (StatusCode, Value) {
        let request = self.post("/api/v2/platform/webhooks/webhooks").bearer_auth(&self.token).json(webhook);
        read_answer(request.send().await.unwrap()).await
    }
}

#[tokio::test]
async fn the_first_digit_of_a_file_says_how_its_scan_ends() {
    let setup = with(&json!({"scanMs": 0})).await;
    for (file, status, result, quarantined) in [
        (CLEAN, "completed", json!("clean"), false),
        (MALWARE, "completed", json!("malware"), true),
        (FAILING, "failed", Value::Null, false),
    ] {
        let (ordered, scan) = setup.order(file).await;
        assert_eq!((ordered, &scan["status"]), (StatusCode::ACCEPTED, &json!("pending")));
        let (answered, standing) = setup.poll(file, &scan["id"]).await;
        assert_eq!((answered, &standing["id"], &standing["status"]), (StatusCode::OK, &scan["id"], &json!(status)));
        assert_eq!((&standing["result"], &standing["quarantined"]), (&result, &json!(quarantined)));
    }
}

#[tokio::test]
async fn a_scan_is_unknown_then_pending_then_done_and_all_is_shown() {
    let setup = with(&json!({"scanMs": null, "unknownMs": 3_600_000})).await;
    let (_, unknown) = setup.order(CLEAN).await;
    assert_eq!(setup.poll(CLEAN, &unknown["id"]).await.0, StatusCode::NOT_FOUND);
    setup.simulator.set("files", &json!({"unknownMs": 0})).unwrap();
    let (_, endless) = setup.order(CLEAN).await;
    let (status, standing) = setup.poll(CLEAN, &endless["id"]).await;
    assert_eq!((status, &standing["status"], standing.get("result")), (StatusCode::OK, &json!("pending"), None));
    setup.simulator.set("files", &json!({"scanMs": 0})).unwrap();
    let (_, quick) = setup.order(MALWARE).await;
    setup.poll(MALWARE, &quick["id"]).await;
    let shown = &setup.simulator.state()["files"];
    assert_eq!(shown["ordered"], json!({CLEAN: 2, MALWARE: 1}));
    assert_eq!((&shown["scansTotal"], &shown["pollsTotal"]), (&json!(3), &json!(3)));
    let scans = shown["scans"].as_array().unwrap();
    assert_eq!(
        (&scans[1]["verdictUs"], &scans[1]["noticedUs"], &scans[1]["polls"]),
        (&json!(null), &json!(null), &json!(1))
    );
    let times = ["orderedUs", "verdictUs", "noticedUs"].map(|time| scans[2][time].as_u64().unwrap());
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_verdict_comes_in_its_time() {
    let setup = with(&json!({"scanMs": 50, "scanSpreadMs": 20})).await;
    let (_, scan) = setup.order(CLEAN).await;
    while let (_, standing) = setup.poll(CLEAN, &scan["id"]).await
        && standing["status"] != "completed"
    {
        assert_eq!(standing["status"], "pending");
    }
    let scan = &setup.simulator.state()["files"]["scans"][0];
    let [ordered, due, noticed] = ["orderedUs", "verdictUs", "noticedUs"].map(|time| scan[time].as_u64().unwrap());
    assert!(noticed >= due, "{scan}");
    assert!((50_000..=70_000).contains(&(due - ordered)), "{scan}");
}

#[tokio::test]
async fn a_scan_is_found_with_its_own_file_only_and_what_is_no_file_has_none() {
    let setup = Setup::new().await;
    let (_, scan) = setup.order(CLEAN).await;
    assert_eq!(setup.poll(MALWARE, &scan["id"]).await.0, StatusCode::NOT_FOUND);
    assert_eq!(setup.poll(CLEAN, &json!("nothing")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(setup.order("nothing").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(setup.order("00000000-0000-0000-0000-000000000000").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_webhook_of_a_name_is_there_once() {
    let setup = Setup::new().await;
    let webhook = json!({"name": "sync", "url": "https://siem.example/in", "eventFilters": [{"event": "e"}]});
    let (status, answer) = setup.register(&webhook).await;
    assert_eq!((status, &answer["name"]), (StatusCode::OK, &json!("sync")));
    assert_eq!(setup.register(&webhook).await.0, StatusCode::CONFLICT);
    for (name, wrong) in [("name", json!("")), ("url", json!("http://siem.example")), ("eventFilters", json!([]))] {
        let mut webhook = webhook.clone();
        webhook[name] = wrong;
        assert_eq!(setup.register(&webhook).await.0, StatusCode::BAD_REQUEST, "{name}");
    }
    assert_eq!(setup.simulator.state()["files"]["webhooks"], json!([webhook]));
}

#[tokio::test]
async fn a_change_that_is_not_understood_changes_nothing() {
    let setup = with(&json!({"scanMs": 0})).await;
    for wrong in [json!({"scanMs": "soon"}), json!({"scanms": 1}), json!([1]), json!({"unknownMs": -1})] {
        assert!(setup.simulator.set("files", &wrong).is_err(), "{wrong}");
    }
    let (_, scan) = setup.order(CLEAN).await;
    assert_eq!(setup.poll(CLEAN, &scan["id"]).await.1["status"], "completed");
}
