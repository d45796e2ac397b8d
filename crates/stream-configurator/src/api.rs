//! The remote calls of this worker. Event streams of another provider stand in as another [`EventStreams`]. What
//! follows from a conflict is not decided here.

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
/// Where a definition is.
pub(crate) const ENDPOINT: &str = "/api/v2/configuration/event-streams/{sourceId}";

/// What became of a definition that was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Put {
    /// It is registered.
    Registered {
        /// 2xx.
        status: u16,
        /// Its version.
        etag: Option<String>,
    },
    /// 409 or 412: the version that is there is another.
    Conflict(ApiError),
}

/// A definition that is registered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredDefinition {
    /// 200.
    pub status: u16,
    /// Its version.
    pub etag: Option<String>,
    /// All that the API tells of it.
    pub body: Value,
}

/// Somewhere to register definitions.
pub(crate) trait EventStreams: Sync {
    /// Replaces the version `if_match`, an `ETag` or [`ANY`](crate::version::ANY). Safe to repeat: of a repeat after an
    /// answer that was lost the worst is a conflict with itself.
    fn put(&self, definition: &Definition, if_match: &str) -> impl Future<Output = Result<Put, ApiError>> + Send;

    /// The definition that is there, if there is one.
    fn get(&self, id: &str) -> impl Future<Output = Result<Option<StoredDefinition>, ApiError>> + Send;
}

/// The event streams of Genesys Cloud, for one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenesysEventStreams<'a> {
    job: &'a JobContext,
}

impl<'a> GenesysEventStreams<'a> {
    /// Calls on behalf of `job`.
    pub(crate) fn new(job: &'a JobContext) -> Self {
        Self { job }
    }
}

impl EventStreams for GenesysEventStreams<'_> {
    async fn put(&self, definition: &Definition, if_match: &str) -> Result<Put, ApiError> {
        let request = ApiRequest::put(ENDPOINT).at(path(definition.id())).if_match(if_match).json(definition.body());
        match self.job.send(request).await {
            Ok(answer) => {
                answer.json_of(definition.id())?;
                Ok(Put::Registered { status: answer.status, etag: answer.header("etag").map(str::to_owned) })
            }
            Err(error) if is_conflict(&error) => Ok(Put::Conflict(error)),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, id: &str) -> Result<Option<StoredDefinition>, ApiError> {
        let answer = self.job.send(ApiRequest::get(ENDPOINT).at(path(id)).about("id", id).expect(&[200, 404])).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let etag = answer.header("etag").map(str::to_owned);
        Ok(Some(StoredDefinition { status: answer.status, etag, body: answer.json()? }))
    }
}

/// An id needs no encoding: its characters are those a path may have.
fn path(id: &str) -> String {
    format!("/api/v2/configuration/event-streams/{id}")
}

fn is_conflict(error: &ApiError) -> bool {
    error.class == ErrorClass::Permanent && matches!(error.status, Some(409 | 412))
}
