//! Purger.
fn main() {}
