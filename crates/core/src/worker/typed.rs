//! The border to a handler's types. What runs jobs knows no payload and no state, so it is compiled once, and not once for
//! each kind.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    attempt::AttemptResult,
    validate::{JobRules, validate_job},
};
use crate::handler::{JobContext, JobHandler};
use genfleet_job::{Job, Rejection};

/// Decodes and validates a body, with the id and the timestamp of its message.
pub(crate) type Validate = Box<dyn Fn(&[u8], Option<&str>, Option<u64>) -> Validated + Send + Sync>;
pub(crate) type Validated = Result<(Job, ValidPayload), Box<Rejection>>;

/// The payload of a valid job. Takes the state that the job carries, as JSON, and fails if another version wrote it.
pub(crate) type ValidPayload = Box<dyn FnOnce(Option<&str>) -> serde_json::Result<Run> + Send>;

/// Hands the job to its handler.
pub(crate) type Run = Box<dyn FnOnce(&JobContext) -> BoxFuture<'_, AttemptResult> + Send>;

/// Validates jobs by `rules` and by those of the worker, for `handler`.
pub(crate) fn validate_for<H: JobHandler>(handler: Arc<H>, options: H::Options, rules: JobRules) -> Validate {
    Box::new(move |body, message_id, timestamp| {
        let (job, payload) = validate_job::<H>(&rules, &options, body, message_id, timestamp)?;
        let handler = Arc::clone(&handler);
        let with_state = move |state: Option<&str>| {
            let state = state.map_or_else(|| Ok(H::State::default()), serde_json::from_str)?;
            let run: Run = Box::new(move |context| {
                async move { AttemptResult::of(handler.handle(context, payload, state).await) }.boxed()
            });
            Ok(run)
        };
        Ok((job, Box::new(with_state)))
    })
}
