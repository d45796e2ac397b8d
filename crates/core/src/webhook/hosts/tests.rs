//! Under paused time.

use std::sync::Arc;

use tokio::time::{advance, sleep};

use super::*;

const HANGS: Duration = Duration::from_secs(15);

fn go(entered: HostAdmission) -> HostPermit {
    match entered {
        HostAdmission::Go(permit) => permit,
        other => panic!("not let in: {other:?}"),
    }
}

fn later(entered: HostAdmission) -> Duration {
    match entered {
        HostAdmission::Later(wait) => wait,
        other => panic!("not sent away: {other:?}"),
    }
}

async fn enter(hosts: &HostLimits, host: &str) -> HostAdmission {
    hosts.admit(host, 1.0, &CancellationToken::new()).await
}

/// All deliveries that may go to "a" at once.
async fn four(hosts: &HostLimits) -> Vec<HostPermit> {
    let mut permits = Vec::new();
    for _ in 0..PER_HOST {
        permits.push(go(enter(hosts, "a").await));
    }
    permits
}

fn end(permits: Vec<HostPermit>, feedback: HostFeedback) {
    for permit in permits {
        permit.end(feedback);
    }
}

/// `count` deliveries at once that each take so long and end so.
async fn deliver(hosts: &HostLimits, host: &str, count: usize, took: Duration, feedback: HostFeedback) {
    let mut permits = Vec::new();
    for _ in 0..count {
        permits.push(go(enter(hosts, host).await));
    }
    advance(took).await;
    end(permits, feedback);
}

const FAILS: HostFeedback = HostFeedback::Fails { asked: None };

#[tokio::test(start_paused = true)]
async fn four_deliveries_go_to_a_host_at_once_and_others_meanwhile() {
    let hosts = HostLimits::new(16, 1.0);
    let permits = four(&hosts).await;
    later(enter(&hosts, "a").await);
    let other = go(enter(&hosts, "b").await);
    drop(permits);
    go(enter(&hosts, "a").await);
    drop(other);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_answers_is_waited_for_a_little_in_memory() {
    let hosts = HostLimits::new(16, 1.0);
    let permits = four(&hosts).await;
    let waiting = tokio::spawn({
        let hosts = hosts.clone();
        async move { go(enter(&hosts, "a").await) }
    });
    sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    end(permits, HostFeedback::Answers);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_waited_for_once() {
    let hosts = HostLimits::new(16, 1.0);
    let _turns = four(&hosts).await;
    let began = Instant::now();
    later(enter(&hosts, "a").await);
    assert_eq!(began.elapsed(), PATIENCE);
    later(enter(&hosts, "a").await);
    assert_eq!(began.elapsed(), PATIENCE, "the second one is sent away at once");
}

#[tokio::test(start_paused = true)]
async fn the_more_hosts_there_are_the_fewer_wait_in_memory_for_one() {
    let hosts = HostLimits::new(16, 1.0);
    let waiting = |count: usize| {
        (0..count).map(|_| {
            let hosts = hosts.clone();
            // What it was given is kept with the task.
            tokio::spawn(async move { enter(&hosts, "a").await })
        })
    };
    // Alone, a host may hold all places: four under way, twelve in line, and the next is sent away at once.
    let alone: Vec<_> = waiting(17).collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(alone.iter().filter(|one| one.is_finished()).count(), 5, "four went, one was sent away");
    for one in alone {
        one.abort();
        drop(one.await);
    }
    // With another at work, half.
    let _other = go(enter(&hosts, "b").await);
    let shared: Vec<_> = waiting(9).collect();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(shared.iter().filter(|one| one.is_finished()).count(), 5, "four went, one was sent away");
}

#[tokio::test(start_paused = true)]
async fn those_sent_away_by_a_busy_host_come_back_at_the_pace_it_takes_them() {
    let hosts = HostLimits::new(4, 1.0);
    deliver(&hosts, "a", 1, Duration::from_millis(400), HostFeedback::Answers).await;
    let _turns = four(&hosts).await;
    let mut waits = Vec::new();
    for _ in 0..5000 {
        waits.push(later(enter(&hosts, "a").await));
    }
    assert_eq!(waits[..3], [100, 200, 300].map(Duration::from_millis));
    assert_eq!(waits[4999], Duration::from_secs(300), "but not for ever");
}

#[tokio::test(start_paused = true)]
async fn after_four_failures_in_a_row_one_goes_at_a_time_with_a_rest_after_it() {
    let hosts = HostLimits::new(16, 1.0);
    deliver(&hosts, "a", 3, HANGS, FAILS).await;
    let three = [enter(&hosts, "a").await, enter(&hosts, "a").await].map(go);
    drop(three);
    deliver(&hosts, "a", 1, HANGS, FAILS).await;
    assert!(later(enter(&hosts, "a").await) >= Duration::from_secs(45 - 1));
    advance(Duration::from_secs(45)).await;
    let probe = go(enter(&hosts, "a").await);
    later(enter(&hosts, "a").await);
    advance(HANGS).await;
    probe.end(FAILS);
    later(enter(&hosts, "a").await);
}

#[tokio::test(start_paused = true)]
async fn one_that_refuses_fast_hardly_rests_and_its_deliveries_soon_use_up_their_tries() {
    let hosts = HostLimits::new(16, 1.0);
    deliver(&hosts, "a", 4, Duration::from_millis(1), FAILS).await;
    advance(Duration::from_millis(3)).await;
    for _ in 0..1000 {
        deliver(&hosts, "a", 1, Duration::from_millis(1), FAILS).await;
        advance(Duration::from_millis(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_it() {
    let hosts = HostLimits::new(16, 1.0);
    deliver(&hosts, "a", 4, HANGS, FAILS).await;
    advance(Duration::from_secs(45)).await;
    deliver(&hosts, "a", 1, Duration::from_millis(5), HostFeedback::Answers).await;
    deliver(&hosts, "a", 4, Duration::from_millis(5), HostFeedback::Answers).await;
}

#[tokio::test(start_paused = true)]
async fn hosts_that_fail_hold_at_most_half_of_all_places() {
    let hosts = HostLimits::new(8, 1.0);
    for name in ["a", "b", "c", "d", "e"] {
        deliver(&hosts, name, 4, HANGS, FAILS).await;
    }
    advance(Duration::from_secs(60)).await;
    let mut probes = Vec::new();
    for name in ["a", "b", "c", "d"] {
        probes.push(go(enter(&hosts, name).await));
    }
    later(enter(&hosts, "e").await);
    let living = go(enter(&hosts, "f").await);
    drop(probes.pop());
    probes.push(go(enter(&hosts, "e").await));
    drop(living);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_waits_a_quarter_as_long_as_its_host_has_been_failing() {
    let hosts = HostLimits::new(16, 1.0);
    deliver(&hosts, "a", 4, Duration::from_millis(1), FAILS).await;
    assert_eq!(later(enter(&hosts, "a").await), Duration::from_secs(2), "at first");
    for (outage, wait) in [(400, 100), (4000, 1000), (100_000, 3600)] {
        let hosts = HostLimits::new(16, 1.0);
        deliver(&hosts, "a", 4, Duration::from_millis(1), FAILS).await;
        advance(Duration::from_secs(outage)).await;
        let probe = go(enter(&hosts, "a").await);
        assert_eq!(later(enter(&hosts, "a").await), Duration::from_secs(wait), "{outage}");
        let spread = later(hosts.admit("a", 0.0, &CancellationToken::new()).await);
        assert_eq!(spread, Duration::from_secs(wait) / 2, "{outage}");
        drop(probe);
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_rehearsal_these_waits_are_shorter_too() {
    let hosts = HostLimits::new(16, 0.001);
    deliver(&hosts, "a", 4, HANGS, FAILS).await;
    assert_eq!(later(enter(&hosts, "a").await), Duration::from_millis(45));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_asks_for_a_pause_has_it_within_bounds() {
    for (asked, given) in [(30, 30), (100_000, 300)] {
        let hosts = HostLimits::new(16, 1.0);
        let asked = Some(Duration::from_secs(asked));
        deliver(&hosts, "a", 1, Duration::from_millis(5), HostFeedback::Fails { asked }).await;
        assert_eq!(later(enter(&hosts, "a").await), Duration::from_secs(given));
        advance(Duration::from_secs(given)).await;
        go(enter(&hosts, "a").await);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waited_in_line_does_not_go_to_a_host_that_failed_meanwhile() {
    let hosts = HostLimits::new(16, 1.0);
    let permits = four(&hosts).await;
    let waiting = tokio::spawn({
        let hosts = hosts.clone();
        async move { later(enter(&hosts, "a").await) }
    });
    sleep(Duration::from_millis(10)).await;
    end(permits, FAILS);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cut_short_takes_no_place() {
    let hosts = HostLimits::new(16, 1.0);
    let permits = four(&hosts).await;
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(matches!(hosts.admit("a", 0.0, &stop).await, HostAdmission::Stopped));
    drop(permits);
    let all = hosts.lock();
    assert_eq!((all.hosts["a"].line, all.hosts["a"].under_way(hosts.0.bounds)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_hosts_are_remembered() {
    let hosts = HostLimits::new(2, 1.0);
    let busy = go(enter(&hosts, "busy").await);
    for n in 0..5000 {
        deliver(&hosts, &format!("host-{n}"), 1, Duration::from_millis(1), HostFeedback::Answers).await;
    }
    let all = hosts.lock();
    assert_eq!(all.hosts.len(), REMEMBERED);
    assert!(all.hosts.contains_key("busy"));
    drop(all);
    drop(busy);
}

#[tokio::test(start_paused = true)]
async fn with_one_place_one_goes_at_a_time() {
    let hosts = HostLimits::new(1, 1.0);
    let permit = go(enter(&hosts, "a").await);
    later(enter(&hosts, "a").await);
    drop(permit);
    deliver(&hosts, "a", 1, HANGS, FAILS).await;
    assert_eq!(Arc::strong_count(&hosts.0), 1, "nothing holds on to it");
}

const ADDRESS: &str = "203.0.113.7";

/// Enters "host", and says that it is at `address`.
async fn connect(hosts: &HostLimits, host: &str, address: &str) -> Result<HostPermit, Duration> {
    let mut permit = go(enter(hosts, host).await);
    permit.use_address(address.parse().unwrap(), 1.0).map(|()| permit)
}

#[tokio::test(start_paused = true)]
async fn one_address_holds_half_of_all_places_under_however_many_ports_it_goes() {
    let hosts = HostLimits::new(16, 1.0);
    let mut slow = Vec::new();
    for port in 1..=4 {
        for _ in 0..PER_HOST {
            slow.extend(connect(&hosts, &format!("slow:{port}"), ADDRESS).await);
        }
    }
    assert_eq!(slow.len(), 8 + 2, "eight, and the first to each of two ports more");
    let mut honest = Vec::new();
    for _ in 0..PER_HOST {
        honest.push(connect(&hosts, "honest", "203.0.113.8").await.unwrap());
    }
    connect(&hosts, "honest:2", ADDRESS).await.unwrap();
    drop(slow);
    assert!(connect(&hosts, "slow:1", ADDRESS).await.is_ok());
    drop(honest);
    assert_eq!(hosts.lock().addresses.len(), 0, "what ended is not remembered");
}

#[tokio::test(start_paused = true)]
async fn a_network_of_ipv6_counts_as_one_address_and_a_mapped_one_as_what_it_maps() {
    for (many, other) in [("2001:db8:1:2::", "2001:db8:1:3::1"), ("::ffff:203.0.113.", "203.0.114.7")] {
        let hosts = HostLimits::new(4, 1.0);
        let at = |last: u8| if many.ends_with('.') { format!("{many}7") } else { format!("{many}{last}") };
        let _turns = [connect(&hosts, "a", &at(1)).await.unwrap(), connect(&hosts, "b", &at(2)).await.unwrap()];
        let _third = connect(&hosts, "c", &at(3)).await.unwrap();
        assert!(connect(&hosts, "d", &at(4)).await.is_err(), "{many}");
        assert!(connect(&hosts, "d", other).await.is_ok(), "{many}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_answers_slowly_is_delivered_to_one_at_a_time() {
    let hosts = HostLimits::new(16, 1.0);
    deliver(&hosts, "a", 1, Duration::from_secs(14), HostFeedback::Answers).await;
    let permit = go(enter(&hosts, "a").await);
    assert_eq!(later(enter(&hosts, "a").await), Duration::from_secs(14));
    permit.end(HostFeedback::Answers);
    drop(four(&hosts).await);
}
