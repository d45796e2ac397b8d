use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: u32 = 3000;

fn status(process: &str) -> MemberStatus {
    MemberStatus { process: process.to_owned(), working: true, token_limit: 300, ..MemberStatus::default() }
}

fn own(client_limit: u32) -> OwnLimits<'static> {
    OwnLimits { process: "me", token_limit: 300, client_limit }
}

/// The members `names`, each of which has just sent a message, after the time for answers.
fn members(names: &[&str], now: Instant) -> Members {
    let mut members = Members::new(now);
    members.unknown_until = Some(now);
    members.awaits_first = false;
    for name in names {
        members.update(status(name), now);
    }
    members
}

fn requests(members: &Members, limit: u32, now: Instant) -> u32 {
    members.share(own(limit), now).per_minute
}

fn names(members: &Members) -> Vec<&str> {
    members.others().map(|status| status.process.as_str()).collect()
}

#[test]
fn those_with_work_share_the_limit_and_the_idle_ones_take_nothing() {
    let now = Instant::now();
    for (others, limit, part) in [(0, LIMIT, LIMIT), (2, LIMIT, 1000), (9, LIMIT, 300), (19, LIMIT, 150), (3, 100, 25)]
    {
        let others: Vec<String> = (0..others).map(|number| format!("p{number}")).collect();
        let mut members = members(&others.iter().map(String::as_str).collect::<Vec<_>>(), now);
        assert_eq!(requests(&members, limit, now), part, "{others:?}");
        for number in 0..50 {
            members.update(MemberStatus { working: false, ..status(&format!("idle{number}")) }, now);
        }
        assert_eq!(requests(&members, limit, now), part);
    }
}

#[test]
fn a_newcomer_counts_from_its_first_message_and_a_leaver_no_longer() {
    let now = Instant::now();
    let mut members = members(&[], now);
    assert_eq!(requests(&members, 100, now), 100);
    members.update(status("a"), now + SECOND);
    assert_eq!(requests(&members, 100, now + SECOND), 50);
    members.leave("a", now + 2 * SECOND);
    assert_eq!(requests(&members, 100, now + 2 * SECOND), 100);
    assert!(names(&members).is_empty());
}

#[test]
fn whoever_is_silent_for_ten_seconds_while_others_speak_is_forgotten() {
    let start = Instant::now();
    let mut members = members(&["dead", "alive"], start);
    for second in 1..=10 {
        let now = start + second * SECOND;
        members.update(status("alive"), now);
        members.tick(now);
        let expected: &[&str] = if second < 10 { &["alive", "dead"] } else { &["alive"] };
        assert_eq!(names(&members), expected, "after {second} s");
    }
}

#[test]
fn own_messages_that_come_back_show_that_the_others_are_silent() {
    let start = Instant::now();
    let mut members = members(&["dead"], start);
    for second in 1..=10 {
        members.note_message(start + second * SECOND);
        members.tick(start + second * SECOND);
    }
    assert!(names(&members).is_empty());
}

#[test]
fn an_interruption_removes_nobody_who_was_heard_a_little_before_the_last_message() {
    let start = Instant::now();
    let mut members = members(&["a"], start);
    members.note_message(start + 2 * SECOND);
    for second in 3..60 {
        members.tick(start + second * SECOND);
        assert_eq!(names(&members), ["a"], "after {second} s");
    }
}

#[test]
fn without_messages_the_limit_is_divided_among_all_last_known_members() {
    let start = Instant::now();
    let mut members = members(&["a"], start);
    members.update(MemberStatus { working: false, ..status("idle") }, start);
    members.update(status("b"), start);
    let later = start + 9 * SECOND;
    members.tick(later);
    assert_eq!(requests(&members, 100, later), 34, "it is still known who has work");
    for minutes in 1..100 {
        let now = start + 60 * minutes * SECOND;
        members.tick(now);
        assert!(!members.is_reachable(now));
        assert_eq!(requests(&members, 100, now), 25, "after {minutes} minutes");
    }
}

#[test]
fn after_an_interruption_each_member_has_time_to_send_again() {
    let start = Instant::now();
    let mut members = members(&["a", "b"], start);
    let back = start + 600 * SECOND;
    members.tick(back);
    members.note_message(back);
    members.tick(back);
    assert_eq!(names(&members), ["a", "b"]);
    for second in 1..=10 {
        members.update(status("b"), back + second * SECOND);
        members.tick(back + second * SECOND);
    }
    assert_eq!(names(&members), ["b"], "a sent nothing");
}

#[test]
fn until_the_others_had_time_to_answer_they_are_unknown() {
    let start = Instant::now();
    let (mut members, unknown, alone) =
        (Members::new(start), LimitShare::with_unknown_peers(LIMIT), LimitShare::alone(LIMIT));
    let part = |members: &Members, millis| members.share(own(LIMIT), start + Duration::from_millis(millis));
    assert_eq!(part(&members, 3_600_000), unknown, "the broker was unavailable all the time");
    members.begin(start);
    members.note_message(start + SECOND);
    assert_eq!(part(&members, 2_400), unknown, "the first message may be our own");
    assert_eq!(part(&members, 2_500), alone);
    let mut silent = Members::new(start);
    silent.begin(start);
    silent.begin(start + 2 * SECOND);
    assert_eq!((part(&silent, 2_900), part(&silent, 3_000)), (unknown, alone), "the wait is limited");
}

#[test]
fn what_goes_at_once_is_shared_among_all_that_are_alive() {
    let now = Instant::now();
    let mut members = members(&[], now);
    assert_eq!(members.share(own(LIMIT), now), LimitShare::with_known_peers(LIMIT, LIMIT));
    for number in 0..9 {
        members.update(MemberStatus { working: false, ..status(&number.to_string()) }, now);
    }
    assert_eq!(members.share(own(LIMIT), now), LimitShare::with_known_peers(LIMIT, LIMIT / 10));
}

#[test]
fn a_crowd_does_not_fill_the_memory() {
    let now = Instant::now();
    let mut members = Members::new(now);
    for number in 0..2 * MOST {
        members.update(status(&number.to_string()), now);
    }
    assert_eq!(members.others().count(), MOST);
}

proptest! {
    /// All processes know each other, and each computes its own share.
    #[test]
    fn in_a_settled_fleet_the_parts_never_sum_above_the_limit_and_use_it_up(
        limit in 40_u32..5000,
        fleet in prop::collection::vec((1_u32..600, any::<bool>()), 1..30),
    ) {
        let now = Instant::now();
        let limits: Vec<u32> = fleet.iter().map(|(token_limit, _)| *token_limit).collect();
        let all_work = fleet.iter().all(|(_, works)| *works);
        let reported: Vec<MemberStatus> = fleet.iter().enumerate().map(|(number, (token_limit, working))| MemberStatus {
            process: format!("p{number}"), working: *working, token_limit: *token_limit, ..MemberStatus::default()
        }).collect();
        let working: Vec<u32> = fleet.iter().filter(|(_, working)| *working).map(|(limit, _)| *limit).collect();
        let (mut total, mut used) = (0, 0);
        for (number, (_, works)) in fleet.iter().enumerate() {
            let mut members = members(&[], now);
            for (_, status) in reported.iter().enumerate().filter(|(other, _)| *other != number) {
                members.update(status.clone(), now);
            }
            let process = format!("p{number}");
            let own = OwnLimits { process: &process, token_limit: limits[number], client_limit: limit };
            let part = members.share(own, now).per_minute;
            total += if *works { part } else { 0 };
            used += if *works { part.min(limits[number]) } else { 0 };
        }
        prop_assert!(total <= limit && (total == limit || !all_work), "{total} of {limit}");
        prop_assert!(used >= limit.min(working.iter().sum()), "{used} of {limit} are used");
    }
}
