//! The worker's own rules on a decoded job: the same for a worker that is about to run it and for the tool that
//! is about to enqueue it.

use crate::{
    handler::JobHandler,
    job::{Job, Rejection, Violation, decode},
};

/// The payload, where it keeps every rule; else all it breaks.
pub fn payload<H: JobHandler>(job: &Job) -> Result<H::Payload, Box<Rejection>> {
    let payload = serde_json::from_value::<H::Payload>(job.payload.clone());
    let mut violations = match &payload {
        Ok(payload) => H::validate(payload),
        Err(error) => vec![Violation::new("/payload", error.to_string())],
    };
    if job.webhook.is_some() {
        violations
            .push(Violation::new("/webhook", "no webhook can be signed here: GENFLEET_WEBHOOK_SECRET is not set"));
    }
    match payload {
        Ok(payload) if violations.is_empty() => Ok(payload),
        Ok(_) | Err(_) => {
            let message = decode::summary(&violations);
            Err(Box::new(Rejection { id: job.id.clone(), code: "invalid_job", message, violations }))
        }
    }
}
