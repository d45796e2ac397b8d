//! A listener for the operator's tool, which is no member: it hears the processes of all clients and takes no share of
//! a limit. Without a client's credentials it cannot verify who sends, and says so.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    authenticate::{Authenticator, read_unverified},
    members::{MOST, SILENCE},
    message::MemberMessage,
    routing::{QUERY, key},
    signature::SignedMessage,
    status::MemberStatus,
};
use genfleet_genesys::Credentials;
use genfleet_genesys::FleetKey;
use genfleet_queue::{
    QueueError,
    rabbit::{ControlChannel, RabbitInspector},
};

/// A listener on one broker.
#[derive(Debug)]
pub struct FleetListener {
    channel: ControlChannel,
    members: AnsweringMembers,
    /// The broker took the question to the processes.
    asked: bool,
}

/// The processes that have answered, at most as many as a fleet may have.
#[derive(Debug, Default)]
struct AnsweringMembers {
    /// The client whose secret is known: messages that are signed with another are ignored.
    own: Option<(String, Authenticator)>,
    processes: BTreeMap<String, (Instant, MemberStatus)>,
}

impl FleetListener {
    /// Starts to listen. Messages of the client of `credentials` are verified.
    pub async fn begin(inspector: &RabbitInspector, credentials: Option<&Credentials>) -> Result<Self, QueueError> {
        let channel = inspector.control_channel(&[key("here", "*"), key("gone", "*")]).await?;
        Ok(Self { channel, members: AnsweringMembers::of(credentials), asked: false })
    }

    /// Asks all processes for a heartbeat, unless that was done, and listens for `time`. Returns the processes that are
    /// alive then, ordered by name; `None` if they cannot be asked, because the broker takes no publications.
    pub async fn listen(&mut self, time: Duration) -> Result<Option<Vec<MemberStatus>>, QueueError> {
        if !self.asked {
            self.asked = self.ask().await.map_err(QueueError::Broker)?;
        }
        let end = Instant::now() + time;
        while let Ok(body) = timeout_at(end, self.channel.next()).await {
            self.members.receive(&body.map_err(QueueError::Broker)?, Instant::now());
        }
        // They publish no heartbeats either while the broker has an alarm.
        self.asked &= !self.channel.is_blocked();
        let alive = self.members.alive(Instant::now());
        Ok(self.asked.then_some(alive))
    }

    async fn ask(&mut self) -> Result<bool, String> {
        if let Some((_, authenticator)) = &mut self.members.own {
            let query = authenticator.sign(&MemberMessage::Query, Instant::now());
            if !self.channel.ask(QUERY, query).await? {
                return Ok(false);
            }
        }
        self.channel.ask(QUERY, MemberMessage::Query.write()).await
    }

    /// Closes its connection; dropping it cuts it.
    pub async fn close(self) {
        self.channel.close().await;
    }
}

impl AnsweringMembers {
    fn of(credentials: Option<&Credentials>) -> Self {
        let own =
            credentials.map(|own| (own.fingerprint(), Authenticator::new(own.fingerprint(), FleetKey::derive(own))));
        Self { own, processes: BTreeMap::new() }
    }

    fn receive(&mut self, body: &[u8], now: Instant) {
        let signed = SignedMessage::read(body).and_then(|signed| Some(read_unverified(&signed)?.1));
        // Older versions sign nothing.
        let Some(message) = signed.or_else(|| MemberMessage::read(body)) else { return };
        let client = match &message {
            MemberMessage::Heartbeat(status) => &status.client,
            MemberMessage::Leave { client, .. } => client,
            MemberMessage::Query | MemberMessage::Unknown => return,
        };
        let (message, verified) = match &mut self.own {
            Some((mark, authenticator)) if mark == client => match authenticator.accept(body, now, || None) {
                (Ok(message), _) => (message, true),
                (Err(_), _) => return,
            },
            Some(_) | None => (message, false),
        };
        match message {
            MemberMessage::Heartbeat(status) => {
                self.update(MemberStatus { verified: Some(verified), ..*status }, now);
            }
            MemberMessage::Leave { process, .. } if verified || !self.is_verified(&process) => {
                self.processes.remove(&process);
            }
            MemberMessage::Leave { .. } | MemberMessage::Query | MemberMessage::Unknown => {}
        }
    }

    /// Records the status of a process. An unverified one never displaces a verified one.
    fn update(&mut self, status: MemberStatus, now: Instant) {
        let verified = status.verified == Some(true);
        if !verified && self.is_verified(&status.process) {
            return;
        }
        if self.processes.len() >= MOST && !self.processes.contains_key(&status.process) {
            let other = self.processes.values().find(|(_, status)| status.verified != Some(true));
            let Some(other) = other.map(|(_, status)| status.process.clone()).filter(|_| verified) else { return };
            self.processes.remove(&other);
        }
        self.processes.insert(status.process.clone(), (now, status));
    }

    fn is_verified(&self, process: &str) -> bool {
        self.processes.get(process).is_some_and(|(_, status)| status.verified == Some(true))
    }

    fn alive(&mut self, now: Instant) -> Vec<MemberStatus> {
        self.processes.retain(|_, (at, _)| now < *at + SILENCE);
        self.processes.values().map(|(_, status)| status.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(secret: &str) -> Credentials {
        Credentials { id: "id".to_owned().into(), secret: secret.to_owned().into() }
    }

    fn heartbeat(process: &str, client: &str) -> MemberMessage {
        MemberMessage::Heartbeat(Box::new(MemberStatus {
            process: process.to_owned(),
            client: client.to_owned(),
            ..MemberStatus::default()
        }))
    }

    /// The processes that are shown, and if they are verified.
    fn list_members(members: &mut AnsweringMembers, now: Instant) -> Vec<(String, Option<bool>)> {
        members.alive(now).into_iter().map(|status| (status.process, status.verified)).collect()
    }

    #[test]
    fn without_credentials_all_is_shown_as_unverified_and_no_more_than_a_fleet_has() {
        let (mut members, now) = (AnsweringMembers::of(None), Instant::now());
        let mut signs = Authenticator::new("c".to_owned(), FleetKey::derive(&credentials("secret")));
        members.receive(signs.sign(&heartbeat("signed", "c"), now).as_bytes(), now);
        members.receive(heartbeat("unsigned", "c").write().as_bytes(), now);
        let expected = ["signed", "unsigned"].map(|name| (name.to_owned(), Some(false)));
        assert_eq!(list_members(&mut members, now), expected);
        for number in 0..1500 {
            members.receive(heartbeat(&number.to_string(), "c").write().as_bytes(), now);
        }
        assert_eq!(list_members(&mut members, now).len(), MOST);
        assert!(list_members(&mut members, now + SILENCE).is_empty());
    }

    #[test]
    fn with_credentials_what_is_forged_or_played_again_is_not_shown_and_another_client_is_unverified() {
        let (own, now) = (credentials("secret"), Instant::now());
        let (mut members, mark) = (AnsweringMembers::of(Some(&own)), own.fingerprint());
        let [mut honest, mut forger] = [&own, &credentials("guess")]
            .map(|credentials| Authenticator::new(mark.clone(), FleetKey::derive(credentials)));
        let asked = members.own.as_mut().unwrap().1.sign(&MemberMessage::Query, now);
        for authenticator in [&mut honest, &mut forger] {
            let _ = authenticator.accept(asked.as_bytes(), now, || None);
        }
        let recorded = honest.sign(&heartbeat("honest", &mark), now);
        for number in 0..1500 {
            members.receive(heartbeat(&format!("other {number}"), "another").write().as_bytes(), now);
            members.receive(heartbeat(&format!("plain {number}"), &mark).write().as_bytes(), now);
            members.receive(forger.sign(&heartbeat("forged", &mark), now).as_bytes(), now);
        }
        members.receive(recorded.as_bytes(), now);
        let all = list_members(&mut members, now);
        assert_eq!((all.len(), all.first()), (MOST, Some(&("honest".to_owned(), Some(true)))));
        assert!(all.iter().skip(1).all(|(name, verified)| name.starts_with("other") && *verified == Some(false)));

        let gone = MemberMessage::Leave { process: "honest".to_owned(), client: "another".to_owned() };
        members.receive(gone.write().as_bytes(), now);
        assert_eq!(list_members(&mut members, now).first(), all.first(), "no other process can end its membership");
        let gone = MemberMessage::Leave { process: "honest".to_owned(), client: mark };
        members.receive(honest.sign(&gone, now).as_bytes(), now);
        members.receive(recorded.as_bytes(), now);
        assert!(!list_members(&mut members, now).iter().any(|(name, _)| name == "honest"));
    }
}
