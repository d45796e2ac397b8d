//! How the operator's tool hears a fleet that it is no part of: all clients, and no part of anybody's limit.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    news::{News, Word},
    roster::SILENCE,
    speak::{ASKED, key},
};
use crate::queue::{
    QueueError,
    rabbit::{gossip::Gossip, inspect::Inspector},
};

/// A listener on one broker.
#[derive(Debug)]
pub struct Listener {
    gossip: Gossip,
    heard: BTreeMap<String, (Instant, News)>,
}

impl Listener {
    /// Begins to listen, and asks everybody to speak.
    pub async fn begin(inspector: &Inspector) -> Result<Self, QueueError> {
        let gossip = inspector.gossip(&[key("here", "*"), key("gone", "*")]).await?;
        gossip.tell(ASKED, Word::Ask.write()).await.map_err(QueueError::Broker)?;
        Ok(Self { gossip, heard: BTreeMap::new() })
    }

    /// Listens for so long; who is alive then, in the order of their names.
    pub async fn listen(&mut self, time: Duration) -> Result<Vec<News>, QueueError> {
        let end = Instant::now() + time;
        while let Ok(heard) = timeout_at(end, self.gossip.next()).await {
            match Word::read(&heard.map_err(QueueError::Broker)?) {
                Some(Word::Here(news)) => drop(self.heard.insert(news.process.clone(), (Instant::now(), *news))),
                Some(Word::Gone { process, .. }) => drop(self.heard.remove(&process)),
                Some(Word::Ask | Word::Other) | None => {}
            }
        }
        self.heard.retain(|_, (at, _)| at.elapsed() < SILENCE);
        Ok(self.heard.values().map(|(_, news)| news.clone()).collect())
    }
}
