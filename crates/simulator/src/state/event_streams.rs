//! Event stream definitions: registered, versioned by ETag.

/// Nothing yet.
#[derive(Debug, Default)]
pub(crate) struct EventStreams {}
