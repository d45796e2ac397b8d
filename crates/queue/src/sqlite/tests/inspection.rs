//! Looking without taking, other processes, and batches.

use super::*;
use crate::sqlite::{Batch, LoadOutcome, count};

#[tokio::test]
async fn counts_tell_where_jobs_are() {
    let folder = Folder::new();
    let queue = folder.worker();
    let later = Duration::from_mins(1);
    let publications = vec![
        new_job("held"),
        new_job("waiting"),
        lane(Lane::Jobs, later, "delayed"),
        lane(Lane::Resume, later, "delayed"),
        dead("file.scan", "dead"),
    ];
    queue.publish(publications).await.unwrap();
    let _held = next(&mut queue.consume(KIND, 1)).await;
    let counts = queue.counts().await.unwrap();
    let jobs = counts.lanes[&(KIND, Lane::Jobs)];
    assert_eq!((jobs.waiting, jobs.delayed, jobs.claimed, jobs.oldest.is_some()), (1, 1, 1, true));
    assert_eq!(counts.lanes[&(KIND, Lane::Resume)].delayed, 1);
    assert_eq!(counts.dead["file.scan"], 1);
    assert_eq!(queue.count_unfinished().await.unwrap(), 4);
    let waiting = queue.waiting_after(0, 10).await.unwrap();
    assert_eq!(waiting.iter().map(|each| each.claimed).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(waiting[3].lane, Lane::Resume);
    let ready = count::ready(&folder.raw(), KIND, clock().now()).unwrap();
    assert_eq!(ready, [("jobs", 1), ("resume", 0), ("suspect", 0), ("dead", 1)]);
}

#[tokio::test]
async fn the_last_million_events_are_kept() {
    let folder = Folder::new();
    let queue = folder.worker();
    for sequence in [1, 999, 1_000, 1_001, 1_000_998] {
        const SQL: &str = "INSERT INTO event (sequence, key, inserted_at, body) VALUES (?1, 'k', 0, x'')";
        folder.raw().execute(SQL, [sequence]).unwrap();
    }
    let sequences = async || {
        let events = queue.events_after(0, 10).await.unwrap();
        events.into_iter().map(|event| event.sequence).collect::<Vec<_>>()
    };
    queue.publish(vec![event("one")]).await.unwrap();
    assert_eq!(sequences().await, [1, 999, 1_000, 1_001, 1_000_998, 1_000_999]);
    queue.publish(vec![event("two")]).await.unwrap();
    queue.publish(vec![event("three")]).await.unwrap();
    assert_eq!(sequences().await, [1_001, 1_000_998, 1_000_999, 1_001_000, 1_001_001]);
}

#[tokio::test]
async fn events_are_read_on_from_where_one_was() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish((0..5).map(|number| event(&number.to_string())).collect()).await.unwrap();
    let first = queue.events_after(0, 2).await.unwrap();
    let rest = queue.events_after(first[1].sequence, 10).await.unwrap();
    let bodies: Vec<_> = first.iter().chain(&rest).map(|event| event.body.clone()).collect();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn what_another_process_adds_is_seen() {
    let folder = Folder::new();
    let (worker, tool) = (folder.worker(), folder.tool());
    let mut consumer = worker.consume(KIND, 1);
    assert!(nothing(&mut consumer).await);
    tool.publish(vec![new_job("job")]).await.unwrap();
    let delivery = next(&mut consumer).await;
    delivery.settler.settle(vec![event("event")]).await.unwrap();
    let seen = comes_true(|| async {
        tool.wait_for_event().await;
        !tool.events_after(0, 1).await.unwrap().is_empty()
    });
    assert!(seen.await);
}

#[tokio::test]
async fn a_dead_letter_is_redriven_once() {
    let folder = Folder::new();
    let queue = folder.worker();
    queue.publish(vec![dead("file.scan", "a"), dead("cdn.purge", "b"), dead("file.scan", "c")]).await.unwrap();
    let letters = queue.dead_letters(Some("file.scan"), 0, 10).await.unwrap();
    assert_eq!(letters.iter().map(|letter| letter.message.body.clone()).collect::<Vec<_>>(), ["a", "c"]);
    let again = || vec![lane(Lane::Jobs, Duration::ZERO, "a")];
    assert!(queue.redrive(letters[0].sequence, again()).await.unwrap());
    assert!(!queue.redrive(letters[0].sequence, again()).await.unwrap());
    assert_eq!(queue.count_unfinished().await.unwrap(), 1);
    let all: Vec<_> = queue.dead_letters(None, 0, 10).await.unwrap().iter().map(|each| each.sequence).collect();
    for (sequence, there) in [(all[0], true), (all[1], true), (99, false)] {
        assert_eq!(queue.redrive(sequence, Vec::new()).await.unwrap(), there, "discarded");
    }
    assert!(queue.dead_letters(None, 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_is_loaded_once_and_goes_on_where_it_was() {
    let folder = Folder::new();
    let queue = folder.worker();
    let batch = |sha256: &str| Batch { source: "jobs.jsonl".to_owned(), sha256: sha256.to_owned(), total: 2 };
    assert_eq!(queue.batch().await.unwrap(), None);
    let outcome = queue.load(batch("aa"), vec![new_job("job"), event("bad line")]).await.unwrap();
    assert_eq!(outcome, LoadOutcome::Loaded);
    queue.set_batch_cursor(1).await.unwrap();
    queue.close().await;

    let queue = folder.worker();
    let outcome = queue.load(batch("aa"), vec![new_job("job")]).await.unwrap();
    assert_eq!(outcome, LoadOutcome::Already { printed: 1 });
    let outcome = queue.load(batch("bb"), vec![new_job("job")]).await.unwrap();
    assert_eq!(outcome, LoadOutcome::Refused { recorded: batch("aa") });
    assert_eq!(queue.count_unfinished().await.unwrap(), 1);
    assert_eq!((queue.batch().await.unwrap(), queue.batch_cursor().await.unwrap()), (Some(batch("aa")), 1));
}

#[tokio::test]
async fn a_batch_is_loaded_into_no_store_of_other_jobs() {
    for (name, published) in
        [("job", new_job("job")), ("event", event("done")), ("letter", dead("file.scan", "given up"))]
    {
        let folder = Folder::new();
        let queue = folder.worker();
        let batch = Batch { source: "jobs.jsonl".to_owned(), sha256: "aa".to_owned(), total: 1 };
        assert_eq!(queue.could_load(&batch).await.unwrap(), LoadOutcome::Loaded, "it is empty");
        queue.publish(vec![published]).await.unwrap();
        assert_eq!(queue.could_load(&batch).await.unwrap(), LoadOutcome::Foreign, "{name}");
        assert_eq!(queue.load(batch, vec![new_job("ours")]).await.unwrap(), LoadOutcome::Foreign, "{name}");
        assert_eq!(queue.batch().await.unwrap(), None, "{name}");
        assert_eq!(queue.count_unfinished().await.unwrap(), u64::from(name == "job"), "{name}");
    }
}
