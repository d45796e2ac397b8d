//! From bytes to a job that may run: the schema's rules and the worker's own, all violations at once. The same
//! for a worker that is about to run it and for the tool that is about to enqueue it.

use crate::{
    handler::JobHandler,
    job::{
        Job, Rejection, Violation,
        decode::{self, Decoded},
        schema::JobSchema,
    },
};

/// The job in `body` and its payload, where both keep every rule; else all they break.
pub fn job<H: JobHandler>(
    schema: &JobSchema,
    options: &H::Options,
    body: &[u8],
    message_id: Option<&str>,
    timestamp: Option<u64>,
) -> Result<(Job, H::Payload), Box<Rejection>> {
    let Decoded { job, mut violations } = decode::decode(schema, body, message_id, timestamp)?;
    let payload = serde_json::from_value::<H::Payload>(job.payload.clone());
    match &payload {
        Ok(payload) => add(&mut violations, H::validate(payload, options)),
        // What the schema refused and could not be mended: told already.
        Err(_) if violations.iter().any(|known| known.pointer.starts_with("/payload")) => {}
        Err(error) => violations.push(Violation::new("/payload", error.to_string())),
    }
    if let Some(url) = &job.webhook {
        add(&mut violations, schema.webhooks().violations(url));
    }
    match payload {
        Ok(payload) if violations.is_empty() => Ok((job, payload)),
        Ok(_) | Err(_) => {
            let message = decode::summary(&violations);
            Err(Box::new(Rejection { id: job.id, code: "invalid_job", message, violations }))
        }
    }
}

/// What is wrong with a part that is refused already is not told twice.
fn add(violations: &mut Vec<Violation>, found: Vec<Violation>) {
    let lies_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let known = violations.len();
    let new =
        found.into_iter().filter(|one| !violations[..known].iter().any(|told| lies_in(&one.pointer, &told.pointer)));
    let new: Vec<Violation> = new.collect();
    violations.extend(new);
}
