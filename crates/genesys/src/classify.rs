//! What an answer means (SPEC 4), as data: status → [`StatusClass`] in one table, class → [`Classification`] in one match. What
//! ends a job for good, for better or worse, has to be the API's own word: a page that somebody between us and it wrote,
//! a proxy or a gateway, has no say in that ([`AnswerAuthor`]).
//!
//! Does not act on it: sending again is [`crate::client`]'s, waiting [`crate::admission`]'s.
//! `classify.snapshot.txt` lists what happens for every status.

use crate::request::RepeatSafety;
use genfleet_job::error::ErrorClass;

/// Statuses that have the same consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusClass {
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

const UNEXPECTED: &str = "unexpected_response";

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

/// What a request is promised: an answer is a success where its status and its body both keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedAnswer {
    /// These, and no other. One that is no 2xx is an answer, too, where the API says it itself.
    pub statuses: &'static [u16],
    /// What a 2xx brings.
    pub body: ExpectedBody,
}

/// What the body of a success is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedBody {
    /// JSON.
    Json,
    /// JSON, or nothing.
    JsonOrNothing,
}

/// Requester wrote a body, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerAuthor {
    /// The API: an error body, its own or OAuth's.
    Api,
    /// The API, or another that speaks JSON.
    Json,
    /// Nobody: there is none.
    Nobody,
    /// Not the API, which speaks JSON of what it was asked for: a proxy, a gateway, a sign-in page, a cache with somebody
    /// else's answer.
    Intermediary,
}

/// Statuses that a gateway has a right to: the request itself is too large for it, now and later.
const TOO_LARGE: [u16; 3] = [413, 414, 431];

/// What follows from an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classification {
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
pub enum TransportFailure {
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
pub(crate) fn status_class(status: u16) -> StatusClass {
    let row = TABLE.iter().find(|(from, to, _)| (*from..=*to).contains(&status));
    row.map_or(StatusClass::Unexpected, |(_, _, class)| *class)
}

/// What follows from `status` and a body of `author`; `says_when`: the answer has a `Retry-After`.
pub(crate) fn answer(status: u16, says_when: RetryAfterHeader, author: AnswerAuthor, repeat: RepeatSafety, promise: ExpectedAnswer) -> Classification {
    let class = status_class(status);
    let verdict = match verdict(class, says_when, repeat) {
        // A matter of the token or the budget, not of the caller.
        verdict @ (Classification::Unauthorized | Classification::Throttled) => return verdict,
        _ if promise.statuses.contains(&status) => Classification::Success,
        Classification::Success => Classification::Failed(unknown_effect(repeat), UNEXPECTED),
        verdict @ Classification::Failed(..) => verdict,
    };
    let is_final = matches!(verdict, Classification::Success | Classification::Failed(ErrorClass::Permanent, _));
    if is_final && !has_a_say(status, class, author, promise) {
        return Classification::Failed(may_have_arrived(repeat), UNEXPECTED);
    }
    verdict
}

/// Whether `author` can end a job with this status.
fn has_a_say(status: u16, class: StatusClass, author: AnswerAuthor, promise: ExpectedAnswer) -> bool {
    match author {
        // What an ingress says that has lost its backend, the API says in its own words only.
        AnswerAuthor::Json | AnswerAuthor::Nobody if class == StatusClass::NotFound => false,
        AnswerAuthor::Api | AnswerAuthor::Json => true,
        // What was not promised keeps no promise better with another body.
        AnswerAuthor::Nobody => {
            promise.body == ExpectedBody::JsonOrNothing
                || !promise.statuses.contains(&status)
                || class != StatusClass::Success
        }
        AnswerAuthor::Intermediary => TOO_LARGE.contains(&status),
    }
}

/// Whether an answer has a `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryAfterHeader {
    /// It has.
    Yes,
    /// It has not.
    No,
}

fn verdict(class: StatusClass, says_when: RetryAfterHeader, repeat: RepeatSafety) -> Classification {
    match class {
        StatusClass::Success => Classification::Success,
        StatusClass::Unauthorized => Classification::Unauthorized,
        StatusClass::Forbidden => Classification::Failed(ErrorClass::Permanent, "forbidden"),
        StatusClass::NotFound => Classification::Failed(ErrorClass::Permanent, "not_found"),
        StatusClass::Conflict => Classification::Failed(ErrorClass::Permanent, "conflict"),
        StatusClass::Rejected => Classification::Failed(ErrorClass::Permanent, "rejected"),
        StatusClass::Throttled => Classification::Throttled,
        StatusClass::Overloaded => match says_when {
            RetryAfterHeader::Present => Classification::Throttled,
            RetryAfterHeader::Absent => Classification::Failed(may_have_arrived(repeat), "api_unavailable"),
        },
        StatusClass::Unavailable => Classification::Failed(may_have_arrived(repeat), "api_unavailable"),
        StatusClass::Unexpected => Classification::Failed(ErrorClass::Permanent, UNEXPECTED),
    }
}

/// What follows where no answer came.
pub(crate) fn lost(why: TransportFailure, repeat: RepeatSafety) -> (ErrorClass, &'static str) {
    match why {
        TransportFailure::NeverSent => (ErrorClass::Transient, "api_unavailable"),
        TransportFailure::TimedOut => (may_have_arrived(repeat), "api_timeout"),
        TransportFailure::Broken => (may_have_arrived(repeat), "api_unavailable"),
        TransportFailure::TooLong => (ErrorClass::Permanent, UNEXPECTED),
    }
}

/// A success that was not promised is none; a create may have had its effect all the same.
const fn unknown_effect(repeat: RepeatSafety) -> ErrorClass {
    match repeat {
        RepeatSafety::Safe => ErrorClass::Permanent,
        RepeatSafety::LookUpFirst => ErrorClass::Ambiguous,
    }
}

const fn may_have_arrived(repeat: RepeatSafety) -> ErrorClass {
    match repeat {
        RepeatSafety::Safe => ErrorClass::Transient,
        RepeatSafety::LookUpFirst => ErrorClass::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn told(verdict: Classification) -> String {
        match verdict {
            Classification::Success => "success".to_owned(),
            Classification::Throttled => "throttled".to_owned(),
            Classification::Unauthorized => "new token".to_owned(),
            Classification::Failed(class, code) => format!("{} {code}", class.as_str()),
        }
    }

    const PROMISE: ExpectedAnswer = ExpectedAnswer { statuses: &[200, 201, 202], body: ExpectedBody::Json };

    fn snapshot() -> String {
        let mut text = String::from(
            "status | the API's own error | with Retry-After | no body | a page | to be looked up first: the API's own | a page\n",
        );
        for status in 100..=599 {
            let of = |says_when, author, repeat| told(answer(status, says_when, author, repeat, PROMISE));
            let safe = |author| of(RetryAfterHeader::Absent, author, RepeatSafety::Safe);
            let create = |author| of(RetryAfterHeader::Absent, author, RepeatSafety::LookUpFirst);
            let when = of(RetryAfterHeader::Present, AnswerAuthor::Api, RepeatSafety::Safe);
            let (own, nothing, page) = (safe(AnswerAuthor::Api), safe(AnswerAuthor::Nobody), safe(AnswerAuthor::Intermediary));
            let (created, unknown) = (create(AnswerAuthor::Api), create(AnswerAuthor::Intermediary));
            writeln!(text, "{status} | {own} | {when} | {nothing} | {page} | {created} | {unknown}").unwrap();
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
        for repeat in [RepeatSafety::Safe, RepeatSafety::LookUpFirst] {
            assert_eq!(lost(TransportFailure::NeverSent, repeat), (ErrorClass::Transient, "api_unavailable"));
        }
    }

    #[test]
    fn a_create_whose_answer_was_lost_is_ambiguous() {
        assert_eq!(lost(TransportFailure::TimedOut, RepeatSafety::LookUpFirst), (ErrorClass::Ambiguous, "api_timeout"));
        assert_eq!(lost(TransportFailure::Broken, RepeatSafety::LookUpFirst), (ErrorClass::Ambiguous, "api_unavailable"));
        assert_eq!(lost(TransportFailure::TimedOut, RepeatSafety::Safe), (ErrorClass::Transient, "api_timeout"));
    }

    #[test]
    fn only_a_promised_status_is_a_success() {
        let promise = ExpectedAnswer { statuses: &[200, 401, 404, 429], ..PROMISE };
        let of = |status| answer(status, RetryAfterHeader::Absent, AnswerAuthor::Api, RepeatSafety::Safe, promise);
        assert_eq!(of(404), Classification::Success);
        assert_eq!(of(204), Classification::Failed(ErrorClass::Permanent, UNEXPECTED));
        assert_eq!(of(401), Classification::Unauthorized, "a matter of the token, not of the caller");
        assert_eq!(of(429), Classification::Throttled, "a matter of the budget, not of the caller");
        let create = answer(204, RetryAfterHeader::Absent, AnswerAuthor::Nobody, RepeatSafety::LookUpFirst, promise);
        assert_eq!(create, Classification::Failed(ErrorClass::Ambiguous, UNEXPECTED), "it may have been made");
    }

    #[test]
    fn a_page_ends_no_job_whatever_its_status() {
        let promise = ExpectedAnswer { statuses: &[200, 202, 404, 405], body: ExpectedBody::JsonOrNothing };
        for status in (100..=599).filter(|status| !TOO_LARGE.contains(status)) {
            for (repeat, class) in [(RepeatSafety::Safe, ErrorClass::Transient), (RepeatSafety::LookUpFirst, ErrorClass::Ambiguous)]
            {
                match answer(status, RetryAfterHeader::Absent, AnswerAuthor::Intermediary, repeat, promise) {
                    Classification::Failed(found, _) => assert_eq!(found, class, "{status}"),
                    Classification::Throttled | Classification::Unauthorized => {}
                    Classification::Success => panic!("{status} is a success"),
                }
            }
        }
    }

    #[test]
    fn a_404_is_an_answer_and_an_error_in_the_apis_own_words_only() {
        for statuses in [&[200][..], &[200, 404]] {
            let promise = ExpectedAnswer { statuses, ..PROMISE };
            for author in [AnswerAuthor::Json, AnswerAuthor::Nobody, AnswerAuthor::Intermediary] {
                let verdict = answer(404, RetryAfterHeader::Absent, author, RepeatSafety::Safe, promise);
                assert_eq!(verdict, Classification::Failed(ErrorClass::Transient, UNEXPECTED), "{author:?}");
            }
        }
        let own = |statuses| answer(404, RetryAfterHeader::Absent, AnswerAuthor::Api, RepeatSafety::Safe, ExpectedAnswer { statuses, ..PROMISE });
        assert_eq!(own(&[200]), Classification::Failed(ErrorClass::Permanent, "not_found"));
        assert_eq!(own(&[200, 404]), Classification::Success);
    }

    #[test]
    fn a_success_without_a_body_is_one_where_none_was_promised() {
        let of = |body| answer(202, RetryAfterHeader::Absent, AnswerAuthor::Nobody, RepeatSafety::Safe, ExpectedAnswer { body, ..PROMISE });
        assert_eq!(of(ExpectedBody::JsonOrNothing), Classification::Success);
        assert_eq!(of(ExpectedBody::Json), Classification::Failed(ErrorClass::Transient, UNEXPECTED));
    }

    #[test]
    fn a_success_that_was_not_promised_is_none_whatever_body_was() {
        for body in [ExpectedBody::Json, ExpectedBody::JsonOrNothing] {
            for author in [AnswerAuthor::Nobody, AnswerAuthor::Json] {
                let verdict = answer(204, RetryAfterHeader::Absent, author, RepeatSafety::Safe, ExpectedAnswer { body, ..PROMISE });
                assert_eq!(verdict, Classification::Failed(ErrorClass::Permanent, UNEXPECTED), "{body:?} {author:?}");
            }
        }
    }
}
