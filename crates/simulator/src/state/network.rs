//! Private connections and routing tables.

/// Nothing yet.
#[derive(Debug, Default)]
pub(crate) struct Network {}
