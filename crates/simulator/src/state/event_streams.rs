//! Event stream definitions: registered, versioned by ETag.

use serde_json::{Value, json};

/// Nothing yet.
#[derive(Debug, Default)]
pub(crate) struct EventStreams {}

impl EventStreams {
    /// What `/_sim/state` and `Simulator::state` show.
    pub(crate) fn shown(&self) -> Value {
        json!({})
    }

    /// Changes what a test or a rehearsal may change; says what is wrong with `change`.
    pub(crate) fn set(&mut self, change: &Value) -> Result<(), String> {
        Err(format!("nothing can be changed here: {change}"))
    }
}
