//! The promises of dead letters: browsing changes nothing, and what is removed is published first.

use std::time::Duration;

use super::{KIND, Subject, message, name, next, none_comes, settings, settle};
use crate::{
    Browser, Destination, Publication, Queue, QueueInspector, QueueLocation,
    dead_letters::{DeadLetter, DeadLetterQueue, Removal, StoredMessage},
    rabbit::{RabbitSettings, TopologyMode},
};
use genfleet_job::{
    Kind,
    message::{Lane, Message},
};

const DEAD: DeadLetterQueue = DeadLetterQueue::Dead(KIND);

fn dead_letters(subject: &Subject) -> QueueInspector {
    let location = match subject {
        Subject::Sqlite(path) => QueueLocation::Store(path.clone()),
        Subject::Rabbit { url, prefix } => {
            let settings = RabbitSettings { topology: TopologyMode::Skip, ..settings(url, prefix) };
            QueueLocation::Broker(Box::new(settings))
        }
    };
    QueueInspector::open(location, std::sync::Arc::new(genfleet_job::clock::SystemClock)).unwrap()
}

fn letter(name: &str, kind: Kind) -> Publication {
    let headers = [("genfleet-reason", "rejected".into()), ("genfleet-generation", 0_i64.into())];
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Publication { to: Destination::Dead { kind: kind.to_string() }, message: Message { headers, ..message(name) } }
}

fn letters(names: std::ops::Range<u32>) -> Vec<Publication> {
    names.map(|number| letter(&format!("letter-{number}"), KIND)).collect()
}

async fn read(browser: &mut Browser) -> Vec<StoredMessage> {
    let mut all = Vec::new();
    while let Some(stored) = browser.next().await.unwrap() {
        browser.keep(&stored);
        all.push(stored);
    }
    all
}

fn id(stored: &StoredMessage) -> &str {
    stored.message.message_id.as_deref().unwrap()
}

/// The ids on `shelf`, looked at and left.
async fn lying(dead_letters: &QueueInspector, queue: DeadLetterQueue) -> Vec<String> {
    let mut browser = dead_letters.browse(queue, 0).await.unwrap();
    let all = read(&mut browser).await.iter().map(|stored| id(stored).to_owned()).collect();
    browser.close().await.unwrap();
    all
}

async fn clear(dead_letters: &QueueInspector) {
    let mut browser = dead_letters.browse(DEAD, 1).await.unwrap();
    while let Some(stored) = browser.next().await.unwrap() {
        assert_eq!(browser.remove(vec![Removal { stored, publication: None }]).await.unwrap(), 1);
    }
    browser.close().await.unwrap();
    assert_eq!(dead_letters.count(DEAD).await.unwrap(), 0);
}

async fn looking_changes_nothing(subject: &Subject, queue: &Queue) {
    queue.publish(letters(0..300)).await.unwrap();
    queue.publish(vec![letter("of another kind", Kind::FileScan)]).await.unwrap();
    let dead_letters = dead_letters(subject);
    let expected: Vec<_> = (0..300).map(|number| format!("letter-{number}")).collect();
    for _ in 0..5 {
        assert_eq!(lying(&dead_letters, DEAD).await, expected);
    }
    let mut browser = dead_letters.browse(DEAD, 0).await.unwrap();
    let first = browser.next().await.unwrap().unwrap();
    assert_eq!((browser.total(), first.position, first.queue), (300, 1, DEAD));
    assert_eq!(first.message.body, "body of letter-0");
    assert_eq!(first.headers["genfleet-reason"], "rejected");
    assert!(first.is_ours && first.death.is_none() && first.defect.is_none() && !first.published_before);
    // Dropped without a word, as by a crash.
    drop(browser);
    dead_letters.close().await;
    let dead_letters = self::dead_letters(subject);
    let mut lying = lying_soon(&dead_letters, 300).await;
    lying.sort();
    lying.dedup();
    assert_eq!(lying.len(), 300);
    let mut browser = dead_letters.browse(DeadLetterQueue::Dead(Kind::FileScan), 1).await.unwrap();
    let found = browser.next().await.unwrap().unwrap();
    browser.remove(vec![Removal { stored: found, publication: None }]).await.unwrap();
    browser.close().await.unwrap();
    clear(&dead_letters).await;
    dead_letters.close().await;
}

/// A broker takes a moment to see that somebody is gone.
async fn lying_soon(dead_letters: &QueueInspector, count: usize) -> Vec<String> {
    for _ in 0..100 {
        let lying = lying(dead_letters, DEAD).await;
        if lying.len() == count {
            return lying;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lying(dead_letters, DEAD).await
}

async fn what_is_taken_off_is_published_and_the_rest_stays(subject: &Subject, queue: &Queue) {
    queue.publish(letters(0..10)).await.unwrap();
    let dead_letters = dead_letters(subject);
    let mut browser = dead_letters.browse(DEAD, 2).await.unwrap();
    let mut number = 0;
    while let Some(stored) = browser.next().await.unwrap() {
        let letter = DeadLetter::read(stored.clone());
        let publication = (number % 4 == 1).then(|| letter.redrive(KIND, "ann@ops"));
        if number % 2 == 0 {
            browser.keep(&stored);
        } else {
            assert_eq!(browser.remove(vec![Removal { stored, publication }]).await.unwrap(), 1);
        }
        number += 1;
    }
    browser.close().await.unwrap();
    let rest: Vec<_> = (0..10).step_by(2).map(|number| format!("letter-{number}")).collect();
    assert_eq!(lying(&dead_letters, DEAD).await, rest);
    let mut consumer = queue.consume(KIND, 8);
    for expected in ["letter-1", "letter-5", "letter-9"] {
        let job = next(&mut consumer).await;
        assert_eq!((name(&job), job.lane), (expected, Lane::Jobs));
        assert_eq!(job.message.body, format!("body of {expected}"));
        let headers =
            [("genfleet-generation".to_owned(), 1_i64.into()), ("genfleet-redriven-by".to_owned(), "ann@ops".into())];
        assert_eq!(job.message.headers, headers.into_iter().collect());
        settle(job, vec![]).await;
    }
    none_comes(&mut consumer).await;
    clear(&dead_letters).await;
    dead_letters.close().await;
}

async fn what_comes_meanwhile_waits_for_the_next_look(subject: &Subject, queue: &Queue) {
    queue.publish(letters(0..3)).await.unwrap();
    let dead_letters = dead_letters(subject);
    let mut browser = dead_letters.browse(DEAD, 0).await.unwrap();
    queue.publish(letters(3..6)).await.unwrap();
    assert_eq!(read(&mut browser).await.len(), 3);
    browser.close().await.unwrap();
    assert_eq!(lying(&dead_letters, DEAD).await.len(), 6);
    clear(&dead_letters).await;
    dead_letters.close().await;
}

/// Part of the list in the parent.
pub(super) async fn all(subject: &Subject) {
    let queue = subject.open();
    while !matches!(dead_letters(subject).count(DEAD).await, Ok(0)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    looking_changes_nothing(subject, &queue).await;
    what_comes_meanwhile_waits_for_the_next_look(subject, &queue).await;
    what_is_taken_off_is_published_and_the_rest_stays(subject, &queue).await;
    queue.close().await;
}
