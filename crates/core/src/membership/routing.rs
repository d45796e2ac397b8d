//! Routing keys on the fleet's exchange.

/// The routing key of a query, which all processes receive.
pub(super) const QUERY: &str = "ask";

/// The routing key of messages of one sort (`here`, `gone`) of one client; `*` matches any.
pub(super) fn key(sort: &str, client: &str) -> String {
    format!("{sort}.{client}")
}
