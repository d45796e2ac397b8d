use std::ops::Range;

use super::{
    super::{members::MOST, status::MemberStatus},
    *,
};
use genfleet_genesys::Credentials;

fn credentials(secret: &str) -> Credentials {
    Credentials { id: "id".to_owned().into(), secret: secret.to_owned().into() }
}

fn authenticator(secret: &str) -> Authenticator {
    Authenticator::new("c".to_owned(), FleetKey::derive(&credentials(secret)))
}

fn heartbeat(process: &str) -> MemberMessage {
    MemberMessage::Heartbeat(Box::new(MemberStatus {
        process: process.to_owned(),
        client: "c".to_owned(),
        token_limit: 300,
        client_limit: 3000,
        ..MemberStatus::default()
    }))
}

fn accept(authenticator: &mut Authenticator, body: &str, now: Instant) -> Result<MemberMessage, MessageRejection> {
    authenticator.accept(body.as_bytes(), now, || None).0
}

/// Two that know each other.
fn acquainted(now: Instant) -> (Authenticator, Authenticator) {
    let (mut one, mut other) = (authenticator("secret"), authenticator("secret"));
    for _ in 0..2 {
        let (first, answer) = (one.sign(&MemberMessage::Query, now), other.sign(&MemberMessage::Query, now));
        let _ = (accept(&mut other, &first, now), accept(&mut one, &answer, now));
    }
    (one, other)
}

#[test]
fn a_message_of_the_client_is_accepted_once_and_a_newcomer_after_it_was_answered() {
    let now = Instant::now();
    let (mut one, mut newcomer) = (authenticator("secret"), authenticator("secret"));
    let asks = newcomer.sign(&MemberMessage::Query, now);
    assert_eq!(one.accept(asks.as_bytes(), now, || None), (Err(MessageRejection::Unproven), MessageSender::New));
    let answer = one.sign(&heartbeat("one"), now);
    assert_eq!(newcomer.accept(answer.as_bytes(), now, || None), (Ok(heartbeat("one")), MessageSender::New));
    let message = newcomer.sign(&heartbeat("newcomer"), now);
    assert_eq!(accept(&mut one, &message, now), Ok(heartbeat("newcomer")));
    assert_eq!(accept(&mut one, &message, now), Err(MessageRejection::Replayed));
}

#[test]
fn forged_messages_change_nothing_and_are_logged_once_a_minute() {
    let now = Instant::now();
    let (mut one, mut other) = acquainted(now);
    let mut guesser = authenticator("guess");
    let deep = format!(r#"{{"v":2,"mac":"","said":{}1{}}}"#, "[".repeat(9000), "]".repeat(9000));
    let huge = format!(r#"{{"v":2,"mac":"","said":"{}"}}"#, "x".repeat(100_000));
    let signed = other.sign(&heartbeat("other"), now);
    let changed = signed.replace("3000", "3001");
    assert_ne!(changed, signed);
    for number in 0..1500 {
        let forged = guesser.sign(&heartbeat(&format!("forged-{number}")), now);
        assert_eq!(accept(&mut one, &forged, now), Err(MessageRejection::Forged));
        assert_eq!(accept(&mut one, &changed, now), Err(MessageRejection::Forged));
        for plain in [deep.as_str(), huge.as_str(), "", "[]", &heartbeat("plain").write()] {
            assert_eq!(accept(&mut one, plain, now), Err(MessageRejection::Unsigned));
        }
    }
    assert_eq!(accept(&mut one, &signed, now), Ok(heartbeat("other")));
    assert!(one.rejected.counts.len() <= MessageRejection::ALL.len() && one.rejected.logged == Some(now));
    let logged = |seconds: Range<u64>, authenticator: &mut Authenticator| {
        let at = |second| now + Duration::from_secs(second);
        seconds
            .filter(|second| {
                let _ = accept(authenticator, "", at(*second));
                authenticator.rejected.logged == Some(at(*second))
            })
            .count()
    };
    assert_eq!(logged(1..600, &mut one), 9);
}

#[test]
fn a_signed_message_that_cannot_be_read_is_ignored() {
    let now = Instant::now();
    let (mut one, other) = acquainted(now);
    for said in ["{", "[]", r#"{"say":"ask"}"#, r#"{"stamp":{"from":1,"n":1,"asks":1},"say":"sing"}"#] {
        let message = other.keys.sign(said.to_owned());
        assert_eq!(accept(&mut one, &message, now), Err(MessageRejection::Senseless), "{said}");
    }
}

#[test]
fn after_a_secret_is_replaced_all_processes_agree_again() {
    let now = Instant::now();
    let (mut old, mut third) = acquainted(now);
    let mut new = authenticator("new");
    let reload = || Some(FleetKey::derive(&credentials("new")));
    let mut accepted = [false; 2];
    for _ in 0..3 {
        let message = new.sign(&heartbeat("new"), now);
        accepted[0] = old.accept(message.as_bytes(), now, reload).0.is_ok();
        let message = old.sign(&heartbeat("old"), now);
        accepted[1] = new.accept(message.as_bytes(), now, || None).0.is_ok();
    }
    assert_eq!(accepted, [true; 2]);
    let message = third.sign(&heartbeat("third"), now);
    assert_eq!(accept(&mut old, &message, now), Ok(heartbeat("third")), "it has the old one still");
}

#[test]
fn a_message_is_short_even_in_the_largest_fleet() {
    let now = Instant::now();
    let mut us = authenticator("secret");
    for _ in 0..2 * MOST {
        let message = authenticator("secret").sign(&MemberMessage::Query, now);
        let _ = accept(&mut us, &message, now);
    }
    assert!(us.sign(&heartbeat("us"), now).len() < 16 * 1024);
}
