//! The error with which a job will fail. The job's state keeps it while the job removes what it has created.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use genfleet_job::error::{ErrorClass, JobError};

/// Maximum number of bytes of the API's answer that are kept: a state is at most 16 KiB.
const MAX_ANSWER_BYTES: usize = 4096;
/// Maximum number of characters of a message that are kept.
const MAX_MESSAGE_CHARS: usize = 2000;

/// The failure of a job, as its state remembers it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Failure {
    code: String,
    message: String,
    /// True for a permanent error, false for one with which the attempts were used up.
    permanent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// The API's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<Value>,
}

impl From<&JobError> for Failure {
    fn from(error: &JobError) -> Self {
        let api = error.details.get("api").filter(|answer| answer.to_string().len() <= MAX_ANSWER_BYTES);
        Self {
            code: error.code.to_owned(),
            message: error.message.chars().take(MAX_MESSAGE_CHARS).collect(),
            permanent: error.class == ErrorClass::Permanent,
            status: error.status,
            request_id: error.request_id.clone(),
            api: api.cloned(),
        }
    }
}

impl Failure {
    /// Makes the error again. `codes` are those with which the job can fail: a metric label has to be one of a closed
    /// set.
    pub fn into_error(self, codes: &[&'static str]) -> JobError {
        let class = if self.permanent { ErrorClass::Permanent } else { ErrorClass::Transient };
        let code = codes.iter().find(|known| **known == self.code).copied().unwrap_or("unexpected_response");
        let mut error = JobError::new(class, code, self.message);
        error.status = self.status;
        error.request_id = self.request_id;
        error.details.extend(self.api.map(|answer| ("api".to_owned(), answer)));
        error
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failure_is_told_after_the_removal_as_it_was_before() {
        for class in [ErrorClass::Transient, ErrorClass::Permanent] {
            let mut error = JobError::new(class, "rejected", "no");
            error.status = Some(400);
            error.request_id = Some("r".into());
            error.details.insert("api".into(), json!({"code": "bad.request"}));
            let kept = serde_json::to_value(Failure::from(&error)).unwrap();
            let kept: Failure = serde_json::from_value(kept).unwrap();
            assert_eq!(kept.into_error(&["conflict", "rejected"]), error);
        }
    }

    #[test]
    fn a_code_of_another_version_becomes_one_that_is_known() {
        let error = JobError::permanent("of_a_later_build", "no");
        assert_eq!(Failure::from(&error).into_error(&["rejected"]).code, "unexpected_response");
    }

    #[test]
    fn a_talkative_failure_does_not_make_a_long_state() {
        let mut error = JobError::permanent("rejected", "ü".repeat(5000));
        error.details.insert("api".into(), json!({"message": "m".repeat(20_000)}));
        assert!(serde_json::to_vec(&Failure::from(&error)).unwrap().len() < 8 * 1024);
    }
}
