//! The report of a successful job.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{definition::Definition, payload::Payload, projection::Projection, register::Registered};

/// The report of a registered definition.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamReport {
    /// Name of the definition.
    pub source_id: String,
    /// The HTTP status of the last answer.
    pub status: u16,
    /// The definition's version, as the API reports it.
    pub etag: Option<String>,
    /// The AWS region.
    pub region: String,
    /// SHA-256 of the sent body, which is canonical JSON.
    pub payload_sha256: String,
    /// True if the definition was already registered as requested.
    pub unchanged: bool,
    /// Number of changes by others before the definition was registered.
    pub conflicts_resolved: u32,
    /// Share of transformations and mappings that resolved with the sample event; null without one.
    pub validation_success_rate: Option<f64>,
    /// Result for the sample event, or its SHA-256; null without one.
    pub projection: Option<Value>,
}

impl StreamReport {
    /// Creates the report of `definition` for `payload`.
    pub(crate) fn new(
        payload: Payload,
        definition: &Definition,
        registered: Registered,
        projection: Option<Projection>,
    ) -> Self {
        let (projection, rate) = projection.map(|made| (made.event, made.success_rate)).unzip();
        Self {
            source_id: payload.source_id,
            status: registered.status,
            etag: registered.etag,
            region: payload.configuration.region,
            payload_sha256: definition.sha256.clone(),
            unchanged: registered.unchanged,
            conflicts_resolved: registered.conflicts_resolved,
            validation_success_rate: rate,
            projection,
        }
    }
}
