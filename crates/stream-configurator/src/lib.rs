//! stream.configure: registers an EventBridge source definition.
