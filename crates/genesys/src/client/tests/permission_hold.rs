//! Permissions that are missing.

use super::*;

fn forbidden(permitted: &Arc<Mutex<bool>>) -> Rig {
    let permitted = Arc::clone(permitted);
    Rig::new(move |_| {
        if *permitted.lock().unwrap() {
            ScriptedReply::status(202)
        } else {
            ScriptedReply::status(403).body(r#"{"code":"missing.permissions","message":"you may not"}"#)
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_costs_five_jobs_and_no_more() {
    let permitted = Arc::new(Mutex::new(false));
    let rig = forbidden(&permitted);
    for number in 0..5 {
        assert_eq!(rig.reason(), None);
        let error = rig.send_for(number, ApiRequest::post(THINGS)).await.unwrap_err();
        assert_eq!((error.class, error.code), (ErrorClass::Permanent, "forbidden"));
        assert!(error.message.contains("things:write things:read") && error.message.contains("you may not"), "{error}");
    }
    assert_eq!(rig.reason(), Some(ClosedReason::Forbidden));
    assert!(rig.client.problems()[0].contains("things:write things:read"));
    assert_eq!(rig.client.admission(Kind::FileScan), Admission::Open);

    for number in 5..20 {
        let error = rig.send_for(number, ApiRequest::post(THINGS)).await.unwrap_err();
        assert_eq!((held_for(&rig, &error), error.requests), (60, 0));
    }
    tokio::time::sleep(60 * SECOND).await;
    let error = rig.send_for(20, ApiRequest::post(THINGS)).await.unwrap_err();
    assert_eq!(
        (held_for(&rig, &error), error.requests, error.status),
        (60, 1, Some(403)),
        "the probe is not lost either"
    );

    *permitted.lock().unwrap() = true;
    tokio::time::sleep(60 * SECOND).await;
    rig.send_for(21, ApiRequest::post(THINGS)).await.unwrap();
    assert_eq!(rig.reason(), None);
}

#[tokio::test(start_paused = true)]
async fn jobs_in_flight_when_the_hold_begins_wait() {
    let permitted = Arc::new(Mutex::new(false));
    let rig = Arc::new(forbidden(&permitted));
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move { rig.send_for(number, ApiRequest::post(THINGS)).await })
        })
        .collect();
    let mut failed = 0;
    for call in calls {
        match call.await.unwrap().unwrap_err().class {
            ErrorClass::Permanent => failed += 1,
            ErrorClass::Held { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(failed, 5);
}

#[tokio::test(start_paused = true)]
async fn the_jobs_of_a_shared_request_are_judged_one_by_one_by_who_shared_it() {
    let permitted = Arc::new(Mutex::new(false));
    let rig = forbidden(&permitted);
    let jobs: Vec<JobId> = (0..8).map(job).collect();
    let error = rig.client.send(ApiRequest::post(THINGS), &rig.caller(&jobs)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Permanent);
    assert_eq!(rig.reason(), None, "nobody was judged yet");
    let judged = jobs.iter().map(|job| rig.client.judge_forbidden(Kind::CdnPurge, THINGS, job));
    assert_eq!(judged.filter(Option::is_none).count(), 5);
    assert_eq!(rig.reason(), Some(ClosedReason::Forbidden));
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_the_changes_hears_of_every_hold() {
    let rig = forbidden(&Arc::new(Mutex::new(false)));
    let mut changes = rig.client.changes();
    rig.send_for(0, ApiRequest::post(THINGS)).await.unwrap_err();
    changes.mark_unchanged();
    for number in 1..5 {
        assert!(!changes.has_changed().unwrap());
        rig.send_for(number, ApiRequest::post(THINGS)).await.unwrap_err();
    }
    assert!(changes.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_holds_no_job_is_over_until_the_next_job_tries_again() {
    let rig = forbidden(&Arc::new(Mutex::new(false)));
    for number in 0..5 {
        rig.send_for(number, ApiRequest::post(THINGS)).await.unwrap_err();
    }
    tokio::time::sleep(69 * SECOND).await;
    assert_eq!((rig.client.problems().len(), rig.client.status().holds.len()), (1, 1), "held jobs may still come back");

    tokio::time::sleep(SECOND).await;
    assert_eq!((rig.client.problems(), rig.client.status().holds), (vec![], vec![]), "nobody took the probe");
    assert_eq!(rig.client.warnings(), [format!("cdn.purge was forbidden on {THINGS}; the next job tries it again")]);
    assert!(!gate_is_shut(&rig, ClosedReason::Forbidden));

    let error = rig.send_for(5, ApiRequest::post(THINGS)).await.unwrap_err();
    assert_eq!((held_for(&rig, &error), error.requests), (60, 1), "it is the probe, and is not lost");
    assert_eq!((rig.client.problems().len(), rig.client.status().holds.len()), (1, 1));
    assert_eq!(rig.client.warnings(), Vec::<String>::new());
    assert!(gate_is_shut(&rig, ClosedReason::Forbidden));
}
