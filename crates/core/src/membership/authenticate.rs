//! Authentication of messages: only those that are signed for the process's own client, each once, are accepted. All
//! others change nothing: they are counted, and logged once a minute.

use std::{collections::BTreeMap, time::Duration};

use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::{
    message::MemberMessage,
    rejection::MessageRejection,
    replay::{MessageSender, MessageStamp, ReplayGuard},
    signature::{SignedMessage, SigningKeys},
};
use genfleet_genesys::FleetKey;
use genfleet_job::metric;

/// The interval between two log lines about rejected messages.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The signed content of a message.
#[derive(Serialize, Deserialize)]
struct StampedMessage<M> {
    stamp: MessageStamp,
    #[serde(flatten)]
    message: M,
}

/// Signs the messages of one client and verifies them.
#[derive(Debug)]
pub(super) struct Authenticator {
    client: String,
    keys: SigningKeys,
    replay: ReplayGuard,
    rejected: RejectedMessages,
}

impl Authenticator {
    pub(super) fn new(client: String, key: FleetKey) -> Self {
        Self { client, keys: SigningKeys::new(key), replay: ReplayGuard::new(), rejected: RejectedMessages::default() }
    }

    /// Follows a change of the process's credentials to another client.
    pub(super) fn change_client(&mut self, client: &str, key: impl FnOnce() -> FleetKey) {
        if self.client != client {
            (self.client, self.keys) = (client.to_owned(), SigningKeys::new(key()));
        }
    }

    pub(super) fn sign(&mut self, message: &MemberMessage, now: Instant) -> String {
        let stamped = StampedMessage { stamp: self.replay.stamp(now), message };
        // Plain data: it has no member that cannot be written.
        self.keys.sign(serde_json::to_string(&stamped).unwrap_or_default())
    }

    /// Authenticates `body`, and tells whether its sender waits for our answer; `reload` reads the client's key again.
    pub(super) fn accept(
        &mut self,
        body: &[u8],
        now: Instant,
        reload: impl FnOnce() -> Option<FleetKey>,
    ) -> (Result<MemberMessage, MessageRejection>, MessageSender) {
        let (accepted, sender) = self.verify(body, now, reload);
        if let Err(rejection) = accepted {
            self.rejected.add(rejection, now);
        }
        (accepted, sender)
    }

    fn verify(
        &mut self,
        body: &[u8],
        now: Instant,
        reload: impl FnOnce() -> Option<FleetKey>,
    ) -> (Result<MemberMessage, MessageRejection>, MessageSender) {
        let reject = |rejection| (Err(rejection), MessageSender::Known);
        let Some(signed) = SignedMessage::read(body) else { return reject(MessageRejection::Unsigned) };
        if !self.keys.verify(&signed, now, reload) {
            return reject(MessageRejection::Forged);
        }
        let Some((stamp, message)) = read_unverified(&signed) else { return reject(MessageRejection::Senseless) };
        match self.replay.check(&stamp, now) {
            Err(MessageRejection::Replayed) => reject(MessageRejection::Replayed),
            Err(rejection) => (Err(rejection), self.replay.note_challenge(&stamp, now)),
            Ok(()) => (Ok(message), self.replay.note_challenge(&stamp, now)),
        }
    }
}

/// Reads a signed message without verifying its signature.
pub(super) fn read_unverified(signed: &SignedMessage) -> Option<(MessageStamp, MemberMessage)> {
    let stamped: StampedMessage<MemberMessage> = serde_json::from_str(&signed.content).ok()?;
    Some((stamped.stamp, stamped.message.limit()?))
}

/// Messages that were rejected since the last log line.
#[derive(Debug, Default)]
struct RejectedMessages {
    counts: BTreeMap<MessageRejection, u32>,
    logged: Option<Instant>,
}

impl RejectedMessages {
    fn add(&mut self, rejection: MessageRejection, now: Instant) {
        counter!(metric::FLEET_REFUSED, "reason" => rejection.as_str()).increment(1);
        // The first message of every newcomer is unproven.
        if rejection == MessageRejection::Unproven {
            return;
        }
        *self.counts.entry(rejection).or_default() += 1;
        if self.logged.is_none_or(|logged| now >= logged + LOG_INTERVAL) {
            self.logged = Some(now);
            let counts: Vec<String> = std::mem::take(&mut self.counts)
                .into_iter()
                .map(|(rejection, count)| format!("{count} {rejection}"))
                .collect();
            warn!(
                refused = counts.join(", "),
                "messages on the fleet's exchange were rejected: they are from another version, signed with another client secret, or forged"
            );
        }
    }
}

#[cfg(test)]
mod tests;
