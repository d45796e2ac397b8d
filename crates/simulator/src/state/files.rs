//! File scans on their way to a verdict, and registered webhooks.

/// Nothing yet.
#[derive(Debug, Default)]
pub(crate) struct Files {}
