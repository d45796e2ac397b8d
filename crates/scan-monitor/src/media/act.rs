//! The actions if malware is found. Each is safe to repeat, and is in the audit before it is sent.

use genfleet_core::{
    audit::Detail,
    error::{ErrorClass, JobError},
    genesys::ApiError,
    handler::JobContext,
};
use serde_json::{Map, Value, json};

use super::{
    api,
    payload::{MediaPayload, OnThreat, SourceKind},
    report::Findings,
};

/// The external tag of a conversation in which malware was found.
const TAG: &str = "genfleet:malware";

/// Takes the action that the job requests.
pub(crate) async fn act(
    job: &JobContext,
    payload: &MediaPayload,
    kind: SourceKind<'_>,
    findings: &Findings,
) -> Result<(), JobError> {
    let action = payload.on_threat();
    let done = match (action, kind.conversation(), kind) {
        (OnThreat::Flag, Some(conversation), _) => {
            let participant = payload.participant_id.as_deref().unwrap_or_default();
            api::flag(job, conversation, participant, &attributes(job, findings)).await
        }
        (OnThreat::Tag, Some((conversation, _)), _) => return tag(job, conversation).await,
        (OnThreat::Disconnect, Some((conversation, _)), _) => api::disconnect(job, conversation).await,
        (OnThreat::Delete, _, SourceKind::Document(document)) => api::delete(job, document).await,
        _ => Ok(()),
    };
    done.map_err(|error| action_error(action, error))
}

/// Sets the external tag. A conversation has only one, so a tag of somebody else is not overwritten.
async fn tag(job: &JobContext, conversation: &str) -> Result<(), JobError> {
    let found = api::tag_of(job, conversation).await.map_err(|error| action_error(OnThreat::Tag, error))?;
    match found.as_deref() {
        None => api::set_tag(job, conversation, TAG).await.map_err(|error| action_error(OnThreat::Tag, error)),
        Some(TAG) => {
            job.record_found(&Detail::default().with("endpoint", api::TAGS));
            Ok(())
        }
        Some(other) => {
            let message = format!(
                "malware was found, and the conversation has another external tag already ({other:.100?}), which is not overwritten; use onThreat flag"
            );
            Err(JobError::permanent("action_failed", message))
        }
    }
}

/// Returns the attributes that are set on a participant.
fn attributes(job: &JobContext, findings: &Findings) -> Map<String, Value> {
    let worst = findings.worst();
    let mut attributes = Map::new();
    let mut tell = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            attributes.insert(name.to_owned(), json!(value));
        }
    };
    tell("genfleet.scan", Some("malware"));
    tell("genfleet.scan.threat", worst.and_then(|file| file.threat.as_deref()));
    tell("genfleet.scan.sha256", worst.and_then(|file| file.sha256.as_deref()));
    tell("genfleet.scan.job", Some(job.id.as_str()));
    attributes
}

/// Converts the error of an action. An error that only delays the job keeps its code.
fn action_error(action: OnThreat, error: ApiError) -> JobError {
    let waits = matches!(error.class, ErrorClass::Held { .. } | ErrorClass::Credentials | ErrorClass::Interrupted);
    let error = JobError::from(error);
    if waits {
        return error;
    }
    let message = format!("malware was found, and {} failed: {}", action.as_str(), error.message);
    JobError { code: "action_failed", message, ..error }
}
