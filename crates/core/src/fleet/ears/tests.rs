use std::ops::Range;

use super::{
    super::{news::News, roster::MOST},
    *,
};
use genfleet_genesys::Credentials;

fn credentials(secret: &str) -> Credentials {
    Credentials { id: "id".to_owned().into(), secret: secret.to_owned().into() }
}

fn ears(secret: &str) -> Ears {
    Ears::new("c".to_owned(), FleetKey::derive(&credentials(secret)))
}

fn here(process: &str) -> Word {
    Word::Here(Box::new(News {
        process: process.to_owned(),
        client: "c".to_owned(),
        token_limit: 300,
        client_limit: 3000,
        ..News::default()
    }))
}

fn hears(ears: &mut Ears, body: &str, now: Instant) -> Result<Word, Refusal> {
    ears.hear(body.as_bytes(), now, || None).0
}

/// Two that know each other.
fn acquainted(now: Instant) -> (Ears, Ears) {
    let (mut one, mut other) = (ears("secret"), ears("secret"));
    for _ in 0..2 {
        let (first, answer) = (one.sign(&Word::Ask, now), other.sign(&Word::Ask, now));
        let _ = (hears(&mut other, &first, now), hears(&mut one, &answer, now));
    }
    (one, other)
}

#[test]
fn a_word_of_the_client_is_believed_once_and_a_newcomer_after_it_was_answered() {
    let now = Instant::now();
    let (mut one, mut newcomer) = (ears("secret"), ears("secret"));
    let asks = newcomer.sign(&Word::Ask, now);
    assert_eq!(one.hear(asks.as_bytes(), now, || None), (Err(Refusal::Unproven), Speaker::New));
    let answer = one.sign(&here("one"), now);
    assert_eq!(newcomer.hear(answer.as_bytes(), now, || None), (Ok(here("one")), Speaker::New));
    let word = newcomer.sign(&here("newcomer"), now);
    assert_eq!(hears(&mut one, &word, now), Ok(here("newcomer")));
    assert_eq!(hears(&mut one, &word, now), Err(Refusal::Replayed));
}

#[test]
fn what_is_forged_changes_nothing_and_is_told_once_a_minute() {
    let now = Instant::now();
    let (mut one, mut other) = acquainted(now);
    let mut guesser = ears("guess");
    let deep = format!(r#"{{"v":2,"mac":"","said":{}1{}}}"#, "[".repeat(9000), "]".repeat(9000));
    let huge = format!(r#"{{"v":2,"mac":"","said":"{}"}}"#, "x".repeat(100_000));
    let signed = other.sign(&here("other"), now);
    let changed = signed.replace("3000", "3001");
    assert_ne!(changed, signed);
    for number in 0..1500 {
        let forged = guesser.sign(&here(&format!("forged-{number}")), now);
        assert_eq!(hears(&mut one, &forged, now), Err(Refusal::Forged));
        assert_eq!(hears(&mut one, &changed, now), Err(Refusal::Forged));
        for plain in [deep.as_str(), huge.as_str(), "", "[]", &here("plain").write()] {
            assert_eq!(hears(&mut one, plain, now), Err(Refusal::Unsigned));
        }
    }
    assert_eq!(hears(&mut one, &signed, now), Ok(here("other")));
    assert!(one.refused.counts.len() <= Refusal::ALL.len() && one.refused.told == Some(now));
    let told = |seconds: Range<u64>, ears: &mut Ears| {
        let at = |second| now + Duration::from_secs(second);
        seconds
            .filter(|second| {
                let _ = hears(ears, "", at(*second));
                ears.refused.told == Some(at(*second))
            })
            .count()
    };
    assert_eq!(told(1..600, &mut one), 9);
}

#[test]
fn what_is_signed_and_says_nothing_is_passed_over() {
    let now = Instant::now();
    let (mut one, other) = acquainted(now);
    for said in ["{", "[]", r#"{"say":"ask"}"#, r#"{"stamp":{"from":1,"n":1,"asks":1},"say":"sing"}"#] {
        let word = other.keys.seal(said.to_owned());
        assert_eq!(hears(&mut one, &word, now), Err(Refusal::Senseless), "{said}");
    }
}

#[test]
fn a_replaced_secret_is_found_out_by_those_that_have_the_old_one_and_all_agree_again() {
    let now = Instant::now();
    let (mut old, mut third) = acquainted(now);
    let mut new = ears("new");
    let anew = || Some(FleetKey::derive(&credentials("new")));
    let mut believed = [false; 2];
    for _ in 0..3 {
        let word = new.sign(&here("new"), now);
        believed[0] = old.hear(word.as_bytes(), now, anew).0.is_ok();
        let word = old.sign(&here("old"), now);
        believed[1] = new.hear(word.as_bytes(), now, || None).0.is_ok();
    }
    assert_eq!(believed, [true; 2]);
    let word = third.sign(&here("third"), now);
    assert_eq!(hears(&mut old, &word, now), Ok(here("third")), "it has the old one still");
}

#[test]
fn a_word_is_short_also_in_a_fleet_of_the_largest_size() {
    let now = Instant::now();
    let mut us = ears("secret");
    for _ in 0..2 * MOST {
        let word = ears("secret").sign(&Word::Ask, now);
        let _ = hears(&mut us, &word, now);
    }
    assert!(us.sign(&here("us"), now).len() < 16 * 1024);
}
