//! How the operator's tool hears a fleet that it is no part of: all clients, and no part of anybody's limit. Without a
//! client's credentials it cannot tell who speaks, and says so.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    ears::{self, Ears},
    news::{News, Word},
    roster::{MOST, SILENCE},
    seal::Sealed,
    speak::{ASKED, key},
};
use genfleet_genesys::Credentials;
use genfleet_genesys::FleetKey;
use genfleet_queue::{
    QueueError,
    rabbit::{gossip::Gossip, inspect::Inspector},
};

/// A listener on one broker.
#[derive(Debug)]
pub struct Listener {
    gossip: Gossip,
    heard: Overheard,
}

/// What was heard, of at most so many processes as a fleet has.
#[derive(Debug, Default)]
struct Overheard {
    /// Of the client whose secret is known: what is signed with another is not shown.
    own: Option<(String, Ears)>,
    processes: BTreeMap<String, (Instant, News)>,
}

impl Listener {
    /// Begins to listen, and asks everybody to speak. Words of the client that `credentials` are of are verified.
    pub async fn begin(inspector: &Inspector, credentials: Option<&Credentials>) -> Result<Self, QueueError> {
        let gossip = inspector.gossip(&[key("here", "*"), key("gone", "*")]).await?;
        let mut heard = Overheard::of(credentials);
        if let Some((_, ears)) = &mut heard.own {
            gossip.tell(ASKED, ears.sign(&Word::Ask, Instant::now())).await.map_err(QueueError::Broker)?;
        }
        gossip.tell(ASKED, Word::Ask.write()).await.map_err(QueueError::Broker)?;
        Ok(Self { gossip, heard })
    }

    /// Listens for so long; who is alive then, in the order of their names.
    pub async fn listen(&mut self, time: Duration) -> Result<Vec<News>, QueueError> {
        let end = Instant::now() + time;
        while let Ok(heard) = timeout_at(end, self.gossip.next()).await {
            self.heard.hears(&heard.map_err(QueueError::Broker)?, Instant::now());
        }
        Ok(self.heard.alive(Instant::now()))
    }
}

impl Overheard {
    fn of(credentials: Option<&Credentials>) -> Self {
        let own = credentials.map(|own| (own.fingerprint(), Ears::new(own.fingerprint(), FleetKey::derive(own))));
        Self { own, processes: BTreeMap::new() }
    }

    fn hears(&mut self, body: &[u8], now: Instant) {
        let sealed = Sealed::read(body).and_then(|sealed| Some(ears::read(&sealed)?.1));
        // Older versions sign nothing.
        let Some(word) = sealed.or_else(|| Word::read(body)) else { return };
        let client = match &word {
            Word::Here(news) => &news.client,
            Word::Gone { client, .. } => client,
            Word::Ask | Word::Other => return,
        };
        let (word, verified) = match &mut self.own {
            Some((mark, ears)) if mark == client => match ears.hear(body, now, || None) {
                (Ok(word), _) => (word, true),
                (Err(_), _) => return,
            },
            Some(_) | None => (word, false),
        };
        match word {
            Word::Here(news) => self.comes(News { verified: Some(verified), ..*news }, now),
            Word::Gone { process, .. } if verified || !self.is_verified(&process) => {
                self.processes.remove(&process);
            }
            Word::Gone { .. } | Word::Ask | Word::Other => {}
        }
    }

    /// Whoever is verified is not driven out by others.
    fn comes(&mut self, news: News, now: Instant) {
        let verified = news.verified == Some(true);
        if !verified && self.is_verified(&news.process) {
            return;
        }
        if self.processes.len() >= MOST && !self.processes.contains_key(&news.process) {
            let other = self.processes.values().find(|(_, news)| news.verified != Some(true));
            let Some(other) = other.map(|(_, news)| news.process.clone()).filter(|_| verified) else { return };
            self.processes.remove(&other);
        }
        self.processes.insert(news.process.clone(), (now, news));
    }

    fn is_verified(&self, process: &str) -> bool {
        self.processes.get(process).is_some_and(|(_, news)| news.verified == Some(true))
    }

    fn alive(&mut self, now: Instant) -> Vec<News> {
        self.processes.retain(|_, (at, _)| now < *at + SILENCE);
        self.processes.values().map(|(_, news)| news.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret: &str) -> Credentials {
        Credentials { id: "id".to_owned().into(), secret: secret.to_owned().into() }
    }

    fn here(process: &str, client: &str) -> Word {
        Word::Here(Box::new(News { process: process.to_owned(), client: client.to_owned(), ..News::default() }))
    }

    /// What is shown: each process, and whether it was verified.
    fn shown(heard: &mut Overheard, now: Instant) -> Vec<(String, Option<bool>)> {
        heard.alive(now).into_iter().map(|news| (news.process, news.verified)).collect()
    }

    #[test]
    fn without_credentials_all_is_shown_as_unverified_and_no_more_than_a_fleet_has() {
        let (mut heard, now) = (Overheard::of(None), Instant::now());
        let mut signs = Ears::new("c".to_owned(), FleetKey::derive(&credentials("secret")));
        heard.hears(signs.sign(&here("signed", "c"), now).as_bytes(), now);
        heard.hears(here("unsigned", "c").write().as_bytes(), now);
        let expected = ["signed", "unsigned"].map(|name| (name.to_owned(), Some(false)));
        assert_eq!(shown(&mut heard, now), expected);
        for number in 0..1500 {
            heard.hears(here(&number.to_string(), "c").write().as_bytes(), now);
        }
        assert_eq!(shown(&mut heard, now).len(), MOST);
        assert!(shown(&mut heard, now + SILENCE).is_empty());
    }

    #[test]
    fn with_credentials_what_is_forged_or_played_again_is_not_shown_and_another_client_is_unverified() {
        let (own, now) = (credentials("secret"), Instant::now());
        let (mut heard, mark) = (Overheard::of(Some(&own)), own.fingerprint());
        let [mut honest, mut forger] =
            [&own, &credentials("guess")].map(|credentials| Ears::new(mark.clone(), FleetKey::derive(credentials)));
        let asked = heard.own.as_mut().unwrap().1.sign(&Word::Ask, now);
        for ears in [&mut honest, &mut forger] {
            let _ = ears.hear(asked.as_bytes(), now, || None);
        }
        let recorded = honest.sign(&here("honest", &mark), now);
        for number in 0..1500 {
            heard.hears(here(&format!("other {number}"), "another").write().as_bytes(), now);
            heard.hears(here(&format!("plain {number}"), &mark).write().as_bytes(), now);
            heard.hears(forger.sign(&here("forged", &mark), now).as_bytes(), now);
        }
        heard.hears(recorded.as_bytes(), now);
        let all = shown(&mut heard, now);
        assert_eq!((all.len(), all.first()), (MOST, Some(&("honest".to_owned(), Some(true)))));
        assert!(all.iter().skip(1).all(|(name, verified)| name.starts_with("other") && *verified == Some(false)));

        let gone = Word::Gone { process: "honest".to_owned(), client: "another".to_owned() };
        heard.hears(gone.write().as_bytes(), now);
        assert_eq!(shown(&mut heard, now).first(), all.first(), "nobody else says goodbye for it");
        let gone = Word::Gone { process: "honest".to_owned(), client: mark };
        heard.hears(honest.sign(&gone, now).as_bytes(), now);
        heard.hears(recorded.as_bytes(), now);
        assert!(!shown(&mut heard, now).iter().any(|(name, _)| name == "honest"));
    }
}
