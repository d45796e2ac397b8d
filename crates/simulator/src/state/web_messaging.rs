//! Web messaging channels and the queues they lead to.

/// Nothing yet.
#[derive(Debug, Default)]
pub(crate) struct WebMessaging {}
