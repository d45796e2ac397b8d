//! The typed API calls of `stream.configure`. [`EventStreams`] can be replaced in tests. The callers decide the
//! consequence of a conflict.

use std::future::Future;

use genfleet_core::{
    error::ErrorClass,
    genesys::{ApiError, ApiRequest},
    handler::JobContext,
};
use serde_json::Value;

use crate::definition::Definition;

/// The scopes that the calls need.
pub(crate) const SCOPES: [&str; 3] = ["eventstream:write", "eventstream:configuration:write", "eventstream:read"];
/// The endpoint of a definition.
pub(crate) const ENDPOINT: &str = "/api/v2/configuration/event-streams/{sourceId}";

/// The result of sending a definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Put {
    /// The definition is registered.
    Registered {
        /// The status, 2xx.
        status: u16,
        /// Its version.
        etag: Option<String>,
    },
    /// Another version exists (409 or 412).
    Conflict(ApiError),
}

/// A registered definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredDefinition {
    /// The status, 200.
    pub status: u16,
    /// Its version.
    pub etag: Option<String>,
    /// All members that the API returned.
    pub body: Value,
}

/// A service that registers definitions.
pub(crate) trait EventStreams: Sync {
    /// Replaces the version `if_match`, an `ETag` or [`ANY`](crate::version::ANY). Safe to repeat: after a lost answer,
    /// a repeat can only conflict with the first request.
    fn put(&self, definition: &Definition, if_match: &str) -> impl Future<Output = Result<Put, ApiError>> + Send;

    /// Reads the registered definition, if it exists.
    fn get(&self, id: &str) -> impl Future<Output = Result<Option<StoredDefinition>, ApiError>> + Send;
}

/// The event streams of Genesys Cloud, for one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenesysEventStreams<'a> {
    job: &'a JobContext,
}

impl<'a> GenesysEventStreams<'a> {
    /// Creates a client for `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }
}

impl EventStreams for GenesysEventStreams<'_> {
    async fn put(&self, definition: &Definition, if_match: &str) -> Result<Put, ApiError> {
        let request = ApiRequest::put(ENDPOINT).ids(&[&definition.id]).if_match(if_match).json(&definition.body);
        match self.job.send(request).await {
            Ok(answer) => {
                answer.json_of(&definition.id)?;
                Ok(Put::Registered { status: answer.status, etag: answer.header("etag").map(str::to_owned) })
            }
            Err(error) if is_conflict(&error) => Ok(Put::Conflict(error)),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, id: &str) -> Result<Option<StoredDefinition>, ApiError> {
        let answer =
            self.job.send(ApiRequest::get(ENDPOINT).ids(&[id]).expect_member("id", id).expect(&[200, 404])).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let etag = answer.header("etag").map(str::to_owned);
        Ok(Some(StoredDefinition { status: answer.status, etag, body: answer.json()? }))
    }
}

fn is_conflict(error: &ApiError) -> bool {
    error.class == ErrorClass::Permanent && matches!(error.status, Some(409 | 412))
}
