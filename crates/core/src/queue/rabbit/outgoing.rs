//! A publication made ready to be sent: where it goes, what goes along, and what makes it known again when it comes
//! back. Sends nothing itself.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    message::BasicReturnMessage,
    types::{AMQPValue, ShortString},
};

use super::{convert, recent::COPY};
use crate::{
    job::JobId,
    queue::{Destination, Publication, QueueError, topology},
};

/// What makes a returned message known again. Two that have the same are one to the broker as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    message_id: ShortString,
    exchange: ShortString,
    key: ShortString,
}

impl Mark {
    /// Of what came back.
    pub(super) fn of(message: &BasicReturnMessage) -> Self {
        let message_id = message.properties.message_id().clone().unwrap_or_default();
        Self { message_id, exchange: message.exchange.clone(), key: message.routing_key.clone() }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
    pub(super) mark: Mark,
    is_reply: bool,
}

impl Outgoing {
    /// Routed and ready to be sent. A return is known by the message's id. A message without one is given the id
    /// that the worker derives for such a job, always the same: whatever comes of it later is still the same job.
    pub(super) fn new(prefix: &str, publication: Publication) -> Result<Self, QueueError> {
        let Publication { to, message } = publication;
        let (exchange, key) = topology::route(prefix, &to);
        let (exchange, key) = (convert::short(&exchange)?, convert::short(&key)?);
        let mut properties = convert::properties(&message)?;
        if let Destination::Lane { .. } = to {
            let mut headers = properties.headers().clone().unwrap_or_default();
            headers.insert(COPY.into(), AMQPValue::LongLongInt(fastrand::i64(..)));
            properties = properties.with_headers(headers);
        }
        let derived = || JobId::derived(&message.body, message.timestamp).as_str().into();
        let message_id = properties.message_id().clone().unwrap_or_else(derived);
        properties = properties.with_message_id(message_id.clone());
        let mark = Mark { message_id, exchange: exchange.clone(), key: key.clone() };
        let is_reply = matches!(to, Destination::Reply { .. });
        Ok(Self { exchange, key, properties, body: message.body, mark, is_reply })
    }

    /// Whether it goes to a producer's own queue.
    pub(super) fn is_reply(&self) -> bool {
        self.is_reply
    }

    /// For problems and logs.
    pub(super) fn shown(&self) -> String {
        format!("exchange {:?}, key {:?}", self.exchange.as_str(), self.key.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::Kind, queue::Message};

    fn id(message: &Message) -> String {
        let publication = Publication { to: Destination::Door(Kind::CdnPurge), message: message.clone() };
        Outgoing::new("g", publication).unwrap().properties.message_id().as_ref().unwrap().to_string()
    }

    #[test]
    fn a_message_without_an_id_is_given_the_one_the_worker_derives_every_time() {
        let message = Message { body: "{}".into(), timestamp: Some(1_700_000_000), ..Message::default() };
        let derived = JobId::derived(b"{}", Some(1_700_000_000));
        assert_eq!(id(&message), derived.as_str());
        assert_eq!(id(&message), id(&message));
        assert_ne!(id(&message), id(&Message { timestamp: None, ..message }));
    }

    #[test]
    fn a_message_keeps_its_own_id() {
        assert_eq!(id(&Message { message_id: Some("mine".to_owned()), ..Message::default() }), "mine");
    }
}
