//! What an answer means (SPEC 4), as data: status → [`StatusClass`] in one table, class → [`Verdict`] in one match.
//!
//! Does not act on it: sending again is [`crate::genesys::client`]'s, waiting [`crate::genesys::admission`]'s.
//! `classify.snapshot.txt` lists what happens for every status.

use crate::{error::ErrorClass, genesys::request::Repeat};

/// Statuses that have the same consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// 2xx.
    Success,
    /// 401: the token.
    Unauthorized,
    /// 403: the permissions.
    Forbidden,
    /// 404.
    NotFound,
    /// 409, 412: someone else was there before.
    Conflict,
    /// The request is wrong, and stays so.
    Rejected,
    /// 429.
    Throttled,
    /// 503: throttled where it says until when, else unavailable.
    Overloaded,
    /// 408 and 5xx: may go better next time.
    Unavailable,
    /// 1xx, 3xx and what is no status at all.
    Unexpected,
}

/// First row that holds a status; the last one holds all that are left.
const TABLE: [(u16, u16, StatusClass); 14] = [
    (200, 299, StatusClass::Success),
    (401, 401, StatusClass::Unauthorized),
    (403, 403, StatusClass::Forbidden),
    (404, 404, StatusClass::NotFound),
    (408, 408, StatusClass::Unavailable),
    (409, 409, StatusClass::Conflict),
    (412, 412, StatusClass::Conflict),
    (429, 429, StatusClass::Throttled),
    (400, 499, StatusClass::Rejected),
    (501, 501, StatusClass::Rejected),
    (503, 503, StatusClass::Overloaded),
    (500, 599, StatusClass::Unavailable),
    (100, 199, StatusClass::Unexpected),
    (0, u16::MAX, StatusClass::Unexpected),
];

/// Which statuses a caller takes for a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// 2xx.
    AnySuccess,
    /// These, and no other.
    These(&'static [u16]),
}

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What the caller wanted.
    Success,
    /// Not now; sent again once the gate is open. Burns nothing.
    Throttled,
    /// The token is not good: a new one, once.
    Unauthorized,
    /// The call failed.
    Failed(ErrorClass, &'static str),
}

/// Why there was no answer to speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostAnswer {
    /// No connection: the request never arrived.
    NeverSent,
    /// The time was over after sending began.
    TimedOut,
    /// The connection broke after sending began.
    Broken,
    /// The body is longer than what is read.
    TooLong,
}

/// The class of a status.
pub fn status_class(status: u16) -> StatusClass {
    let row = TABLE.iter().find(|(from, to, _)| (*from..=*to).contains(&status));
    row.map_or(StatusClass::Unexpected, |(_, _, class)| *class)
}

/// What follows from `status`; `says_when`: the answer has a `Retry-After`.
pub fn answer(status: u16, says_when: SaysWhen, repeat: Repeat, expected: Expected) -> Verdict {
    let class = status_class(status);
    if let Expected::These(statuses) = expected {
        match (class, statuses.contains(&status)) {
            (StatusClass::Unauthorized | StatusClass::Throttled, _) => {}
            (StatusClass::Overloaded, _) if says_when == SaysWhen::Yes => {}
            (_, true) => return Verdict::Success,
            (StatusClass::Success, false) => return unexpected(),
            (_, false) => {}
        }
    }
    verdict(class, says_when, repeat)
}

/// Whether an answer has a `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaysWhen {
    /// It has.
    Yes,
    /// It has not.
    No,
}

fn verdict(class: StatusClass, says_when: SaysWhen, repeat: Repeat) -> Verdict {
    match class {
        StatusClass::Success => Verdict::Success,
        StatusClass::Unauthorized => Verdict::Unauthorized,
        StatusClass::Forbidden => Verdict::Failed(ErrorClass::Permanent, "forbidden"),
        StatusClass::NotFound => Verdict::Failed(ErrorClass::Permanent, "not_found"),
        StatusClass::Conflict => Verdict::Failed(ErrorClass::Permanent, "conflict"),
        StatusClass::Rejected => Verdict::Failed(ErrorClass::Permanent, "rejected"),
        StatusClass::Throttled => Verdict::Throttled,
        StatusClass::Overloaded => match says_when {
            SaysWhen::Yes => Verdict::Throttled,
            SaysWhen::No => Verdict::Failed(may_have_arrived(repeat), "api_unavailable"),
        },
        StatusClass::Unavailable => Verdict::Failed(may_have_arrived(repeat), "api_unavailable"),
        StatusClass::Unexpected => unexpected(),
    }
}

/// What follows where no answer came.
pub fn lost(why: LostAnswer, repeat: Repeat) -> (ErrorClass, &'static str) {
    match why {
        LostAnswer::NeverSent => (ErrorClass::Transient, "api_unavailable"),
        LostAnswer::TimedOut => (may_have_arrived(repeat), "api_timeout"),
        LostAnswer::Broken => (may_have_arrived(repeat), "api_unavailable"),
        LostAnswer::TooLong => (ErrorClass::Permanent, "unexpected_response"),
    }
}

const fn unexpected() -> Verdict {
    Verdict::Failed(ErrorClass::Permanent, "unexpected_response")
}

const fn may_have_arrived(repeat: Repeat) -> ErrorClass {
    match repeat {
        Repeat::Safe => ErrorClass::Transient,
        Repeat::LookUpFirst => ErrorClass::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn told(verdict: Verdict) -> String {
        match verdict {
            Verdict::Success => "success".to_owned(),
            Verdict::Throttled => "throttled".to_owned(),
            Verdict::Unauthorized => "new token".to_owned(),
            Verdict::Failed(class, code) => format!("{} {code}", class.as_str()),
        }
    }

    fn snapshot() -> String {
        let mut text =
            String::from("status | safe to repeat | with Retry-After | to be looked up first | with Retry-After\n");
        for status in 100..=599 {
            let of = |says_when, repeat| told(answer(status, says_when, repeat, Expected::AnySuccess));
            let (safe, safe_when) = (of(SaysWhen::No, Repeat::Safe), of(SaysWhen::Yes, Repeat::Safe));
            let (look, look_when) = (of(SaysWhen::No, Repeat::LookUpFirst), of(SaysWhen::Yes, Repeat::LookUpFirst));
            writeln!(text, "{status} | {safe} | {safe_when} | {look} | {look_when}").unwrap();
        }
        text
    }

    #[test]
    fn every_status_does_what_the_snapshot_lists() {
        let listed = include_str!("classify.snapshot.txt");
        let found = snapshot();
        for (number, (listed, found)) in listed.lines().zip(found.lines()).enumerate() {
            assert_eq!(listed, found, "line {}", number + 1);
        }
        assert_eq!(listed.lines().count(), found.lines().count());
    }

    #[test]
    fn a_request_that_never_arrived_is_transient_whatever_it_does() {
        for repeat in [Repeat::Safe, Repeat::LookUpFirst] {
            assert_eq!(lost(LostAnswer::NeverSent, repeat), (ErrorClass::Transient, "api_unavailable"));
        }
    }

    #[test]
    fn a_create_whose_answer_was_lost_is_ambiguous() {
        assert_eq!(lost(LostAnswer::TimedOut, Repeat::LookUpFirst), (ErrorClass::Ambiguous, "api_timeout"));
        assert_eq!(lost(LostAnswer::Broken, Repeat::LookUpFirst), (ErrorClass::Ambiguous, "api_unavailable"));
        assert_eq!(lost(LostAnswer::TimedOut, Repeat::Safe), (ErrorClass::Transient, "api_timeout"));
    }

    #[test]
    fn a_status_the_caller_asked_for_is_a_success_and_another_2xx_is_not() {
        let of = |status| answer(status, SaysWhen::No, Repeat::Safe, Expected::These(&[200, 401, 404, 429]));
        assert_eq!(of(404), Verdict::Success);
        assert_eq!(of(204), unexpected());
        assert_eq!(of(401), Verdict::Unauthorized, "a matter of the token, not of the caller");
        assert_eq!(of(429), Verdict::Throttled, "a matter of the budget, not of the caller");
    }
}
