//! Some kinds are worked by one process at a time.

use super::*;

#[tokio::test]
async fn one_process_works_an_exclusive_kind_and_another_takes_over_when_it_ends() {
    on_broker(async |rig: Rig| {
        let of_vni = |id: &str| Publication {
            to: Destination::Lane { kind: Kind::VniProvision, lane: Lane::Jobs, after: Duration::ZERO },
            message: job(id),
        };
        let (first, second) = (rig.queue(), rig.queue());
        let works = first.consume(Kind::VniProvision, 1);
        first.publish(vec![of_vni("a")]).await.unwrap();
        let held = soon(works.next()).await;
        let held_for = held.settler.lease();
        let stands_by = second.consume(Kind::VniProvision, 8);
        // A kind that is not exclusive goes on beside it.
        let other = second.consume(Kind::CdnPurge, 8);
        second.publish(vec![of_vni("b"), lane(Lane::Jobs, Duration::ZERO, job("c"))]).await.unwrap();
        let delivery = soon(other.next()).await;
        assert!(delivery.settler.lease().is_none());
        delivery.settler.settle(vec![]).await.unwrap();
        assert!(timeout(Duration::from_secs(3), stands_by.next()).await.is_err(), "it stands by");
        let Health { problems, standing_by, .. } = second.health();
        assert_eq!(problems, Vec::<String>::new(), "and is ready");
        assert_eq!(standing_by, [(Kind::VniProvision, None)].into());

        let lost = tokio::spawn(async move {
            held.settler.wait_until_lost().await;
            held.message.message_id
        });
        let lease = held_for.expect("it is alone");
        assert!(lease.takeover_time().is_none(), "nobody was before it");
        assert!(lease.is_current(), "it was proven again and again while the other one stood by");
        first.close().await;
        assert_eq!(soon(lost).await.unwrap().as_deref(), Some("a"), "whoever works it learns that the lock is gone");
        let mut taken = vec![soon(stands_by.next()).await, soon(stands_by.next()).await];
        taken.sort_by_key(|delivery| delivery.message.message_id.clone());
        let ids: Vec<_> = taken.iter().map(|delivery| delivery.message.message_id.clone().unwrap()).collect();
        assert_eq!(ids, ["a", "b"]);
        for delivery in taken {
            let lease = delivery.settler.lease().expect("it is alone");
            assert!(lease.takeover_time().is_some(), "what the other one created may not show yet");
            delivery.settler.settle(vec![]).await.unwrap();
        }
        second.close().await;
        let third = rig.queue();
        let works = third.consume(Kind::VniProvision, 1);
        third.publish(vec![of_vni("d")]).await.unwrap();
        let delivery = soon(works.next()).await;
        let lease = delivery.settler.lease().expect("it is alone");
        assert!(lease.takeover_time().is_some(), "the lock was free, but only for a moment");
        delivery.settler.settle(vec![]).await.unwrap();
        third.close().await;
    })
    .await;
}

/// The exclusive queue of a node that died may stay registered: the lock is held, and nobody works.
#[tokio::test]
async fn a_lock_that_nobody_who_consumes_holds_is_told_once_jobs_wait() {
    on_broker(async |rig: Rig| {
        let (connection, channel) = rig.channel().await;
        let exclusive = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
        let name = format!("{}.lock.vni.provision", rig.prefix);
        channel.queue_declare(name.into(), exclusive, lapin::types::FieldTable::default()).await.unwrap();
        let queue = rig.queue();
        let stands_by = queue.consume(Kind::VniProvision, 1);
        let told = async |since: Duration| {
            timeout(since, async {
                loop {
                    if let Some(Some(why)) = queue.health().standing_by.get(&Kind::VniProvision) {
                        return why.clone();
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            })
            .await
        };
        assert!(told(Duration::from_secs(3)).await.is_err(), "nothing waits");
        let to = Destination::Lane { kind: Kind::VniProvision, lane: Lane::Jobs, after: Duration::ZERO };
        queue.publish(vec![Publication { to, message: job("a") }]).await.unwrap();
        let why = told(Duration::from_secs(30)).await.expect("within 30 s");
        assert!(why.starts_with("1 job waits and nobody consumes it"), "{why}");
        connection.close(200, "".into()).await.unwrap();
        soon(stands_by.next()).await.settler.settle(Vec::new()).await.unwrap();
        assert_eq!(queue.health(), Health::default());
        queue.close().await;
    })
    .await;
}
