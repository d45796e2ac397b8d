//! One session of a process with its fleet: on `RabbitMQ` a conversation, on the embedded queue a notice that is put up
//! again and again.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{Fleet, News, Word, fresh::Speaker, notice::Notice};
use genfleet_queue::{Queue, rabbit::RabbitQueue, sqlite::SqliteQueue};

/// Between two words where nothing happens …
const EVERY: Duration = Duration::from_secs(1);
/// … in a fleet of so many; in larger ones more, so that what all hear grows less than with the square …
const FLEET: u32 = 20;
/// … but no more than this, of which three fit into what counts as silence.
const SELDOM: Duration = Duration::from_secs(3);
/// Between two words, at least.
const AT_LEAST: Duration = Duration::from_millis(50);
/// Between two looks at whether something happened that nobody tells.
const LOOK: Duration = Duration::from_millis(250);
/// Between two notices.
const NOTICE: Duration = Duration::from_secs(2);
/// An end that moved by more was told anew.
const MOVED: u64 = 1_000;

/// Everybody hears it.
pub(super) const ASKED: &str = "ask";

/// What is told by which key: all of one client's.
pub(super) fn key(say: &str, client: &str) -> String {
    format!("{say}.{client}")
}

impl Fleet {
    /// Until this process leaves; else why it was lost.
    pub(super) async fn session(self) -> Result<(), String> {
        match &self.shared.queue {
            Queue::Rabbit(queue) => self.converse(queue).await,
            Queue::Sqlite(store) => self.post(store).await.map_err(|error| error.to_string()),
        }
    }

    async fn converse(&self, queue: &RabbitQueue) -> Result<(), String> {
        let (leaving, mark) = (&self.shared.leaving, self.shared.genesys.client_fingerprint());
        let keys = [key("*", &mark), ASKED.to_owned()];
        let gossip = async {
            queue.connected().await;
            self.roster().begins(Instant::now());
            queue.gossip(&keys).await
        };
        let Some(gossip) = leaving.run_until_cancelled(gossip).await else { return Ok(()) };
        let (mut gossip, mut changes) = (gossip?, self.shared.genesys.changes());
        self.ears().belongs_to(&mark, || self.shared.genesys.fleet_key());
        gossip.tell(ASKED, self.sign(&Word::Ask)).await?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Said::default();
        loop {
            tokio::select! {
                biased;
                () = leaving.cancelled() => break,
                heard = gossip.next() => if self.hears(&heard?, &mut said) == Change::Nothing {
                    continue;
                },
                _ = changes.changed() => said.doubtful = true,
                () = said.pause(), if said.doubtful || said.asked => {}
                _ = look.tick() => if gossip.is_lost() {
                    return Err("the connection is gone".to_owned());
                },
            }
            if said.is_too_soon() {
                continue;
            }
            let news = self.news();
            if news.client != mark {
                return Err("the credentials are of another client now".to_owned());
            }
            let others = self.roster().others().count();
            if said.is_due(&news, every(others)) {
                gossip.tell(&key("here", &mark), self.sign(&Word::Here(Box::new(news)))).await?;
            }
        }
        let gone = Word::Gone { process: self.shared.name.clone(), client: mark.clone() };
        gossip.tell(&key("gone", &mark), self.sign(&gone)).await?;
        gossip.close().await;
        Ok(())
    }

    fn sign(&self, word: &Word) -> String {
        self.ears().sign(word, Instant::now())
    }

    /// Takes notice of what was said, where it is to be believed.
    fn hears(&self, body: &[u8], said: &mut Said) -> Change {
        // The tool may have no secret: it is answered, but it hurries nobody.
        if let Some(Word::Ask) = Word::read(body) {
            said.wished = true;
            return said.may_speak();
        }
        let now = Instant::now();
        let (heard, speaker) = self.ears().hear(body, now, || self.shared.genesys.reread_fleet_key());
        said.asked |= speaker == Speaker::New;
        match heard {
            Ok(Word::Here(news)) => self.hear(*news),
            Ok(Word::Gone { process, .. }) => self.roster().left(&process, now),
            Ok(Word::Ask) => said.asked = true,
            Ok(Word::Other) | Err(_) => return said.may_speak(),
        }
        Change::Perhaps
    }

    async fn post(&self, store: &SqliteQueue) -> std::io::Result<()> {
        loop {
            let notice = Notice { at: self.shared.clock.now(), news: self.news() };
            store.post_notice(notice.write()).await?;
            if self.shared.leaving.run_until_cancelled(sleep(NOTICE)).await.is_none() {
                return store.remove_notice().await;
            }
        }
    }
}

/// Whether there may be something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Perhaps,
    /// Whoever floods us with words costs no more than their reading.
    Nothing,
}

/// What was said last, and what is still owed.
#[derive(Debug, Default)]
struct Said {
    last: Option<(Instant, News)>,
    /// Somebody of the fleet asked since.
    asked: bool,
    /// Anybody asked since.
    wished: bool,
    /// Something may have changed since.
    doubtful: bool,
}

impl Said {
    /// Whether nothing is to be said yet, whatever happened.
    fn is_too_soon(&self) -> bool {
        self.last.as_ref().is_some_and(|(at, _)| at.elapsed() < AT_LEAST)
    }

    /// What follows from a word that means nothing here: what is due is said all the same.
    fn may_speak(&self) -> Change {
        let due = self.asked || self.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= EVERY);
        if due { Change::Perhaps } else { Change::Nothing }
    }

    /// Until something may be said again.
    async fn pause(&self) {
        if let Some((at, _)) = &self.last {
            sleep_until(*at + AT_LEAST).await;
        }
    }

    /// Whether `news` has to be told, as they are `every` so often; they are taken for told then.
    fn is_due(&mut self, news: &News, every: Duration) -> bool {
        self.doubtful = false;
        let due = match &self.last {
            None => true,
            Some((at, last)) => {
                let every = if self.wished { EVERY } else { every };
                self.asked || at.elapsed() >= every || differs(last, news)
            }
        };
        if due {
            self.last = Some((Instant::now(), news.clone()));
            (self.asked, self.wished) = (false, false);
        }
        due
    }
}

/// How often something is said where nothing happens, beside so many others.
fn every(others: usize) -> Duration {
    let others = u32::try_from(others).unwrap_or(u32::MAX);
    EVERY.saturating_mul(others / FLEET).clamp(EVERY, SELDOM)
}

/// Whether the others have to know at once.
fn differs(last: &News, news: &News) -> bool {
    let reasons = |news: &News| news.shut.iter().map(|shut| shut.reason.clone()).collect::<Vec<_>>();
    let closed_anew = match (last.client_shut_ms, news.client_shut_ms) {
        (Some(last), Some(now)) => now > last.saturating_add(MOVED),
        (last, now) => last.is_some() != now.is_some(),
    };
    closed_anew || last.working != news.working || reasons(last) != reasons(news)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shut(millis: u64) -> News {
        News { client_shut_ms: Some(millis), ..News::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn something_is_said_at_first_every_second_when_asked_and_when_it_changes() {
        let (mut said, calm) = (Said::default(), News::default());
        assert!(!said.is_too_soon() && said.is_due(&calm, EVERY));
        said.asked = true;
        assert!(said.is_too_soon(), "not twice in a moment");
        said.pause().await;
        assert!(!said.is_too_soon() && said.is_due(&calm, EVERY), "the question is not forgotten");
        tokio::time::advance(AT_LEAST).await;
        assert!(!said.is_due(&calm, EVERY));
        assert!(said.is_due(&News { working: true, ..calm.clone() }, EVERY));
        assert!(!said.is_due(&News { working: true, requests_last_minute: 7, ..calm }, EVERY));
        tokio::time::advance(EVERY).await;
        assert!(said.is_due(&News { working: true, ..News::default() }, EVERY));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_without_a_secret_is_answered_within_a_second_and_no_sooner() {
        let (mut said, calm) = (Said::default(), News::default());
        assert!(said.is_due(&calm, SELDOM));
        said.wished = true;
        tokio::time::advance(EVERY / 2).await;
        assert!(said.may_speak() == Change::Nothing && !said.is_due(&calm, SELDOM));
        tokio::time::advance(EVERY / 2).await;
        assert!(said.may_speak() == Change::Perhaps && said.is_due(&calm, SELDOM));
        tokio::time::advance(EVERY).await;
        assert!(!said.is_due(&calm, SELDOM), "it was answered");
    }

    #[test]
    fn a_crowd_speaks_less_often_and_never_so_seldom_that_it_seems_silent() {
        let told = [0, 1, 20, 39, 40, 60, 5000].map(|others| every(others).as_secs());
        assert_eq!(told, [1, 1, 1, 1, 2, 3, 3]);
        assert!(SELDOM * 3 < super::super::roster::SILENCE);
    }

    #[test]
    fn a_limit_that_closes_is_told_at_once_and_its_end_that_comes_nearer_is_not() {
        assert!(differs(&News::default(), &shut(20_000)));
        assert!(!differs(&shut(20_000), &shut(19_000)));
        assert!(differs(&shut(19_000), &shut(60_000)), "it was closed anew");
        assert!(differs(&shut(100), &News::default()));
    }
}
