//! The meaning of an answer (SPEC 4), as data: status → [`StatusClass`] in one table, class → [`Classification`] in one
//! match. Only the API itself can end a job, as succeeded or as failed: a page that a proxy or a gateway wrote cannot
//! ([`AnswerAuthor`]). `classify.snapshot.txt` lists what happens for every status.

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::{
    answer_body::AnswerAuthor,
    http_transport::TransportFailure,
    request::{ExpectedAnswer, ExpectedBody, RepeatSafety},
};
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
    /// 409, 412: somebody else has changed or created the object first.
    Conflict,
    /// The request is permanently wrong.
    Rejected,
    /// 429.
    Throttled,
    /// 503: throttled if it says until when, else unavailable.
    Overloaded,
    /// 408 and 5xx: may succeed later.
    Unavailable,
    /// 1xx, 3xx and invalid statuses.
    Unexpected,
}

const UNEXPECTED: &str = "unexpected_response";

/// The first row that holds a status counts. A status that none holds is unexpected.
const TABLE: [(u16, u16, StatusClass); 12] = [
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
];

/// Statuses that a gateway may decide on: the request itself is too large for it, now and later.
const TOO_LARGE: [u16; 3] = [413, 414, 431];

/// The consequence of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classification {
    /// The answer that the caller expects.
    Success,
    /// Sent again once the pause is over. Counts as no attempt.
    Throttled,
    /// The token is refused: sent again with a new one, once.
    Unauthorized,
    /// The call failed.
    Failed(ErrorClass, &'static str),
}

/// Returns the class of a status.
pub(crate) fn status_class(status: u16) -> StatusClass {
    let row = TABLE.iter().find(|(from, to, _)| (*from..=*to).contains(&status));
    row.map_or(StatusClass::Unexpected, |(_, _, class)| *class)
}

/// Classifies an answer with `status` and a body of `author`.
pub(crate) fn classify_answer(
    status: u16,
    retry_after: RetryAfterHeader,
    author: AnswerAuthor,
    repeat: RepeatSafety,
    expected: ExpectedAnswer,
) -> Classification {
    let class = status_class(status);
    let classification = match classify_status(class, retry_after, repeat) {
        // These statuses concern the token or the budget, so the caller cannot expect them.
        other @ (Classification::Unauthorized | Classification::Throttled) => return other,
        _ if expected.statuses.contains(&status) => Classification::Success,
        // A success with another status counts as none.
        Classification::Success => Classification::Failed(or_ambiguous(ErrorClass::Permanent, repeat), UNEXPECTED),
        failed @ Classification::Failed(..) => failed,
    };
    let is_final = matches!(classification, Classification::Success | Classification::Failed(ErrorClass::Permanent, _));
    if is_final && !may_decide(status, class, author, expected) {
        return Classification::Failed(or_ambiguous(ErrorClass::Transient, repeat), UNEXPECTED);
    }
    classification
}

/// Returns true if `author` can end a job with this status.
fn may_decide(status: u16, class: StatusClass, author: AnswerAuthor, expected: ExpectedAnswer) -> bool {
    match author {
        // An ingress that lost its backend says 404, too: only the API's own error body counts.
        AnswerAuthor::Json | AnswerAuthor::Nobody if class == StatusClass::NotFound => false,
        AnswerAuthor::Api | AnswerAuthor::Json => true,
        // An unexpected status stays unexpected with any body.
        AnswerAuthor::Nobody => {
            expected.body == ExpectedBody::JsonOrNothing
                || !expected.statuses.contains(&status)
                || class != StatusClass::Success
        }
        AnswerAuthor::Intermediary => TOO_LARGE.contains(&status),
    }
}

/// The presence of a `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryAfterHeader {
    Present,
    Absent,
}

impl RetryAfterHeader {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(RETRY_AFTER) { Self::Present } else { Self::Absent }
    }
}

fn classify_status(class: StatusClass, retry_after: RetryAfterHeader, repeat: RepeatSafety) -> Classification {
    match class {
        StatusClass::Success => Classification::Success,
        StatusClass::Unauthorized => Classification::Unauthorized,
        StatusClass::Forbidden => Classification::Failed(ErrorClass::Permanent, "forbidden"),
        StatusClass::NotFound => Classification::Failed(ErrorClass::Permanent, "not_found"),
        StatusClass::Conflict => Classification::Failed(ErrorClass::Permanent, "conflict"),
        StatusClass::Rejected => Classification::Failed(ErrorClass::Permanent, "rejected"),
        StatusClass::Overloaded if retry_after == RetryAfterHeader::Present => Classification::Throttled,
        StatusClass::Throttled => Classification::Throttled,
        StatusClass::Overloaded | StatusClass::Unavailable => {
            Classification::Failed(or_ambiguous(ErrorClass::Transient, repeat), "api_unavailable")
        }
        StatusClass::Unexpected => Classification::Failed(ErrorClass::Permanent, UNEXPECTED),
    }
}

/// Classifies an exchange that brought no usable answer.
pub(crate) fn classify_failure(failure: TransportFailure, repeat: RepeatSafety) -> (ErrorClass, &'static str) {
    match failure {
        TransportFailure::NeverSent => (ErrorClass::Transient, "api_unavailable"),
        TransportFailure::TimedOut => (or_ambiguous(ErrorClass::Transient, repeat), "api_timeout"),
        TransportFailure::Broken => (or_ambiguous(ErrorClass::Transient, repeat), "api_unavailable"),
        TransportFailure::TooLong => (ErrorClass::Permanent, UNEXPECTED),
    }
}

/// Returns `class`, or [`ErrorClass::Ambiguous`] for a create, which may have had its effect.
const fn or_ambiguous(class: ErrorClass, repeat: RepeatSafety) -> ErrorClass {
    match repeat {
        RepeatSafety::Safe => class,
        RepeatSafety::LookUpFirst => ErrorClass::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn describe(classification: Classification) -> String {
        match classification {
            Classification::Success => "success".to_owned(),
            Classification::Throttled => "throttled".to_owned(),
            Classification::Unauthorized => "new token".to_owned(),
            Classification::Failed(class, code) => format!("{} {code}", class.as_str()),
        }
    }

    const EXPECTED: ExpectedAnswer = ExpectedAnswer { statuses: &[200, 201, 202], body: ExpectedBody::Json };

    fn snapshot() -> String {
        let mut text = String::from(
            "status | the API's own error | with Retry-After | no body | a page | to be looked up first: the API's own | a page\n",
        );
        for status in 100..=599 {
            let of =
                |retry_after, author, repeat| describe(classify_answer(status, retry_after, author, repeat, EXPECTED));
            let safe = |author| of(RetryAfterHeader::Absent, author, RepeatSafety::Safe);
            let create = |author| of(RetryAfterHeader::Absent, author, RepeatSafety::LookUpFirst);
            let when = of(RetryAfterHeader::Present, AnswerAuthor::Api, RepeatSafety::Safe);
            let (own, nothing, page) =
                (safe(AnswerAuthor::Api), safe(AnswerAuthor::Nobody), safe(AnswerAuthor::Intermediary));
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
            assert_eq!(
                classify_failure(TransportFailure::NeverSent, repeat),
                (ErrorClass::Transient, "api_unavailable")
            );
        }
    }

    #[test]
    fn a_create_whose_answer_was_lost_is_ambiguous() {
        assert_eq!(
            classify_failure(TransportFailure::TimedOut, RepeatSafety::LookUpFirst),
            (ErrorClass::Ambiguous, "api_timeout")
        );
        assert_eq!(
            classify_failure(TransportFailure::Broken, RepeatSafety::LookUpFirst),
            (ErrorClass::Ambiguous, "api_unavailable")
        );
        assert_eq!(
            classify_failure(TransportFailure::TimedOut, RepeatSafety::Safe),
            (ErrorClass::Transient, "api_timeout")
        );
    }

    #[test]
    fn only_a_promised_status_is_a_success() {
        let expected = ExpectedAnswer { statuses: &[200, 401, 404, 429], ..EXPECTED };
        let of =
            |status| classify_answer(status, RetryAfterHeader::Absent, AnswerAuthor::Api, RepeatSafety::Safe, expected);
        assert_eq!(of(404), Classification::Success);
        assert_eq!(of(204), Classification::Failed(ErrorClass::Permanent, UNEXPECTED));
        assert_eq!(of(401), Classification::Unauthorized, "a matter of the token, not of the caller");
        assert_eq!(of(429), Classification::Throttled, "a matter of the budget, not of the caller");
        let create =
            classify_answer(204, RetryAfterHeader::Absent, AnswerAuthor::Nobody, RepeatSafety::LookUpFirst, expected);
        assert_eq!(create, Classification::Failed(ErrorClass::Ambiguous, UNEXPECTED), "it may have been made");
    }

    #[test]
    fn a_page_ends_no_job_whatever_its_status() {
        let expected = ExpectedAnswer { statuses: &[200, 202, 404, 405], body: ExpectedBody::JsonOrNothing };
        for status in (100..=599).filter(|status| !TOO_LARGE.contains(status)) {
            for (repeat, class) in
                [(RepeatSafety::Safe, ErrorClass::Transient), (RepeatSafety::LookUpFirst, ErrorClass::Ambiguous)]
            {
                match classify_answer(status, RetryAfterHeader::Absent, AnswerAuthor::Intermediary, repeat, expected) {
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
            let expected = ExpectedAnswer { statuses, ..EXPECTED };
            for author in [AnswerAuthor::Json, AnswerAuthor::Nobody, AnswerAuthor::Intermediary] {
                let classification =
                    classify_answer(404, RetryAfterHeader::Absent, author, RepeatSafety::Safe, expected);
                assert_eq!(classification, Classification::Failed(ErrorClass::Transient, UNEXPECTED), "{author:?}");
            }
        }
        let own = |statuses| {
            classify_answer(
                404,
                RetryAfterHeader::Absent,
                AnswerAuthor::Api,
                RepeatSafety::Safe,
                ExpectedAnswer { statuses, ..EXPECTED },
            )
        };
        assert_eq!(own(&[200]), Classification::Failed(ErrorClass::Permanent, "not_found"));
        assert_eq!(own(&[200, 404]), Classification::Success);
    }

    #[test]
    fn a_success_without_a_body_is_one_where_none_was_promised() {
        let of = |body| {
            classify_answer(
                202,
                RetryAfterHeader::Absent,
                AnswerAuthor::Nobody,
                RepeatSafety::Safe,
                ExpectedAnswer { body, ..EXPECTED },
            )
        };
        assert_eq!(of(ExpectedBody::JsonOrNothing), Classification::Success);
        assert_eq!(of(ExpectedBody::Json), Classification::Failed(ErrorClass::Transient, UNEXPECTED));
    }

    #[test]
    fn a_success_that_was_not_promised_is_none_whatever_body_was() {
        for body in [ExpectedBody::Json, ExpectedBody::JsonOrNothing] {
            for author in [AnswerAuthor::Nobody, AnswerAuthor::Json] {
                let classification = classify_answer(
                    204,
                    RetryAfterHeader::Absent,
                    author,
                    RepeatSafety::Safe,
                    ExpectedAnswer { body, ..EXPECTED },
                );
                assert_eq!(
                    classification,
                    Classification::Failed(ErrorClass::Permanent, UNEXPECTED),
                    "{body:?} {author:?}"
                );
            }
        }
    }
}
