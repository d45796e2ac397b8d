//! A publication that is ready to be sent: its exchange, routing key and properties.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, ShortString},
};

use super::{convert, recent::COPY};
use crate::{
    message::{Destination, Publication, QueueError},
    topology,
};
use genfleet_job::JobId;

/// A message that is ready to be sent.
#[derive(Debug)]
pub(super) struct OutgoingMessage {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl OutgoingMessage {
    /// Routes a publication. A message without an id gets the one that the worker derives from its content, so that its
    /// later publications belong to the same job.
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
        let derived = || JobId::derive(&message.body, message.timestamp).as_str().into();
        let message_id = properties.message_id().clone().unwrap_or_else(derived);
        let properties = properties.with_message_id(message_id);
        Ok(Self { exchange, key, properties, body: message.body })
    }

    /// Describes the destination for health problems and logs.
    pub(super) fn describe(&self) -> String {
        format!("exchange {:?}, key {:?}", self.exchange.as_str(), self.key.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Destination;
    use genfleet_job::{Kind, message::Message};

    fn id(message: &Message) -> String {
        let publication = Publication { to: Destination::Jobs(Kind::CdnPurge), message: message.clone() };
        OutgoingMessage::new("g", publication).unwrap().properties.message_id().as_ref().unwrap().to_string()
    }

    #[test]
    fn a_message_without_an_id_is_given_the_one_the_worker_derives_every_time() {
        let message = Message { body: "{}".into(), timestamp: Some(1_700_000_000), ..Message::default() };
        let derived = JobId::derive(b"{}", Some(1_700_000_000));
        assert_eq!(id(&message), derived.as_str());
        assert_eq!(id(&message), id(&message));
        assert_ne!(id(&message), id(&Message { timestamp: None, ..message }));
    }

    #[test]
    fn a_message_keeps_its_own_id() {
        assert_eq!(id(&Message { message_id: Some("mine".to_owned()), ..Message::default() }), "mine");
    }
}
