//! One session of a process with its fleet: on `RabbitMQ` it exchanges messages with the other members; on the embedded
//! queue it writes its status file again and again.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{
    MemberMessage, MemberStatus, Membership,
    replay::MessageSender,
    routing::{QUERY, key},
    status_file,
};
use genfleet_queue::{Queue, rabbit::RabbitQueue, sqlite::SqliteQueue};

/// The interval between two heartbeats in a fleet of up to [`SMALL_FLEET`] …
const HEARTBEAT: Duration = Duration::from_secs(1);
/// … and beyond that size it grows with the fleet, so that the traffic grows less than with its square …
const SMALL_FLEET: u32 = 20;
/// … up to this, of which three fit into [`SILENCE`](super::members::SILENCE).
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(3);
/// The shortest time between two heartbeats.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The interval between two checks for a change that is not signalled.
const CHECK: Duration = Duration::from_millis(250);
/// The interval between two writes of the status file.
const STATUS_FILE: Duration = Duration::from_secs(2);
/// An end of a pause that moves by more milliseconds than this means that the API closed the limit again.
const MOVED: u64 = 1_000;

impl Membership {
    /// Runs until this process leaves; returns the reason if the session is lost before.
    pub(super) async fn session(self) -> Result<(), String> {
        match &self.shared.queue {
            Queue::Rabbit(queue) => self.exchange_messages(queue).await,
            Queue::Sqlite(store) => self.write_status_file(store).await.map_err(|error| error.to_string()),
        }
    }

    async fn exchange_messages(&self, queue: &RabbitQueue) -> Result<(), String> {
        let (leaving, mark) = (&self.shared.leaving, self.shared.genesys.client_fingerprint());
        let keys = [key("*", &mark), QUERY.to_owned()];
        let channel = async {
            queue.wait_until_connected().await;
            self.members().begin(Instant::now());
            queue.control_channel(&keys).await
        };
        let Some(channel) = leaving.run_until_cancelled(channel).await else { return Ok(()) };
        let (mut channel, mut changes) = (channel?, self.shared.genesys.changes());
        self.authenticator().change_client(&mark, || self.shared.genesys.fleet_key());
        channel.publish(QUERY, self.sign(&MemberMessage::Query)).await?;
        let mut check = interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut schedule = HeartbeatSchedule::default();
        loop {
            tokio::select! {
                biased;
                () = leaving.cancelled() => break,
                body = channel.next() => if !self.receive(&body?, &mut schedule) {
                    continue;
                },
                _ = changes.changed() => schedule.changed = true,
                () = schedule.pause(), if schedule.changed || schedule.queried => {}
                _ = check.tick() => if channel.is_lost() {
                    return Err("the connection is lost".to_owned());
                },
            }
            if schedule.is_too_soon() {
                continue;
            }
            let status = self.status();
            if status.client != mark {
                return Err("the credentials are of another client now".to_owned());
            }
            let others = self.members().others().count();
            if schedule.is_due(&status, heartbeat_interval(others)) {
                let heartbeat = MemberMessage::Heartbeat(Box::new(status));
                channel.publish(&key("here", &mark), self.sign(&heartbeat)).await?;
            }
        }
        let leave = MemberMessage::Leave { process: self.shared.name.clone(), client: mark.clone() };
        channel.publish(&key("gone", &mark), self.sign(&leave)).await?;
        channel.close().await;
        Ok(())
    }

    fn sign(&self, message: &MemberMessage) -> String {
        self.authenticator().sign(message, Instant::now())
    }

    /// Applies a message if it is authentic. Returns true if a heartbeat may be due: a message that changes nothing
    /// costs no more than reading it.
    fn receive(&self, body: &[u8], schedule: &mut HeartbeatSchedule) -> bool {
        // The tool may have no secret: its query is answered, but does not speed up anything.
        if let Some(MemberMessage::Query) = MemberMessage::read(body) {
            schedule.queried_unsigned = true;
            return schedule.may_be_due();
        }
        let now = Instant::now();
        let (message, sender) = self.authenticator().accept(body, now, || self.shared.genesys.reread_fleet_key());
        schedule.queried |= sender == MessageSender::New;
        match message {
            Ok(MemberMessage::Heartbeat(status)) => self.update_member(*status),
            Ok(MemberMessage::Leave { process, .. }) => self.members().leave(&process, now),
            Ok(MemberMessage::Query) => schedule.queried = true,
            Ok(MemberMessage::Unknown) | Err(_) => return schedule.may_be_due(),
        }
        true
    }

    async fn write_status_file(&self, store: &SqliteQueue) -> std::io::Result<()> {
        loop {
            store.write_status(status_file::write(self.shared.clock.now(), self.status())).await?;
            if self.shared.leaving.run_until_cancelled(sleep(STATUS_FILE)).await.is_none() {
                return store.remove_status().await;
            }
        }
    }
}

/// The time of the next heartbeat.
#[derive(Debug, Default)]
struct HeartbeatSchedule {
    last: Option<(Instant, MemberStatus)>,
    /// A member asked since the last heartbeat.
    queried: bool,
    /// Anybody asked since the last heartbeat.
    queried_unsigned: bool,
    /// The status may have changed since the last heartbeat.
    changed: bool,
}

impl HeartbeatSchedule {
    fn is_too_soon(&self) -> bool {
        self.last.as_ref().is_some_and(|(at, _)| at.elapsed() < SHORTEST_PAUSE)
    }

    /// Returns true if a heartbeat may be due even though a message changed nothing.
    fn may_be_due(&self) -> bool {
        self.queried || self.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= HEARTBEAT)
    }

    /// Waits until the next heartbeat is allowed.
    async fn pause(&self) {
        if let Some((at, _)) = &self.last {
            sleep_until(*at + SHORTEST_PAUSE).await;
        }
    }

    /// Decides if `status` is sent now; if so, it counts as sent.
    fn is_due(&mut self, status: &MemberStatus, every: Duration) -> bool {
        self.changed = false;
        let due = match &self.last {
            None => true,
            Some((at, last)) => {
                let every = if self.queried_unsigned { HEARTBEAT } else { every };
                self.queried || at.elapsed() >= every || is_urgent(last, status)
            }
        };
        if due {
            self.last = Some((Instant::now(), status.clone()));
            (self.queried, self.queried_unsigned) = (false, false);
        }
        due
    }
}

/// The interval between two heartbeats of a process that has so many `others` beside it.
fn heartbeat_interval(others: usize) -> Duration {
    let others = u32::try_from(others).unwrap_or(u32::MAX);
    HEARTBEAT.saturating_mul(others / SMALL_FLEET).clamp(HEARTBEAT, LONGEST_HEARTBEAT)
}

/// Returns true if the other members must know the change at once.
fn is_urgent(last: &MemberStatus, status: &MemberStatus) -> bool {
    let reasons = |status: &MemberStatus| status.shut.iter().map(|hold| hold.reason.clone()).collect::<Vec<_>>();
    let closed_again = match (last.client_shut_ms, status.client_shut_ms) {
        (Some(last), Some(now)) => now > last.saturating_add(MOVED),
        (last, now) => last.is_some() != now.is_some(),
    };
    closed_again || last.working != status.working || reasons(last) != reasons(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shut(millis: u64) -> MemberStatus {
        MemberStatus { client_shut_ms: Some(millis), ..MemberStatus::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_heartbeat_is_sent_at_first_every_second_when_asked_and_on_changes() {
        let (mut schedule, calm) = (HeartbeatSchedule::default(), MemberStatus::default());
        assert!(!schedule.is_too_soon() && schedule.is_due(&calm, HEARTBEAT));
        schedule.queried = true;
        assert!(schedule.is_too_soon(), "not twice in a moment");
        schedule.pause().await;
        assert!(!schedule.is_too_soon() && schedule.is_due(&calm, HEARTBEAT), "the question is not forgotten");
        tokio::time::advance(SHORTEST_PAUSE).await;
        assert!(!schedule.is_due(&calm, HEARTBEAT));
        assert!(schedule.is_due(&MemberStatus { working: true, ..calm.clone() }, HEARTBEAT));
        assert!(!schedule.is_due(&MemberStatus { working: true, requests_last_minute: 7, ..calm }, HEARTBEAT));
        tokio::time::advance(HEARTBEAT).await;
        assert!(schedule.is_due(&MemberStatus { working: true, ..MemberStatus::default() }, HEARTBEAT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unsigned_query_is_answered_within_a_second_and_no_sooner() {
        let (mut schedule, calm) = (HeartbeatSchedule::default(), MemberStatus::default());
        assert!(schedule.is_due(&calm, LONGEST_HEARTBEAT));
        schedule.queried_unsigned = true;
        tokio::time::advance(HEARTBEAT / 2).await;
        assert!(!schedule.may_be_due() && !schedule.is_due(&calm, LONGEST_HEARTBEAT));
        tokio::time::advance(HEARTBEAT / 2).await;
        assert!(schedule.may_be_due() && schedule.is_due(&calm, LONGEST_HEARTBEAT));
        tokio::time::advance(HEARTBEAT).await;
        assert!(!schedule.is_due(&calm, LONGEST_HEARTBEAT), "it was answered");
    }

    #[test]
    fn a_large_fleet_sends_fewer_heartbeats_and_never_seems_silent() {
        let reported = [0, 1, 20, 39, 40, 60, 5000].map(|others| heartbeat_interval(others).as_secs());
        assert_eq!(reported, [1, 1, 1, 1, 2, 3, 3]);
        assert!(LONGEST_HEARTBEAT * 3 < super::super::members::SILENCE);
    }

    #[test]
    fn a_limit_that_closes_is_urgent_and_its_approaching_end_is_not() {
        assert!(is_urgent(&MemberStatus::default(), &shut(20_000)));
        assert!(!is_urgent(&shut(20_000), &shut(19_000)));
        assert!(is_urgent(&shut(19_000), &shut(60_000)), "it was closed anew");
        assert!(is_urgent(&shut(100), &MemberStatus::default()));
    }
}
