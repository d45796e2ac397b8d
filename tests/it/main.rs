//! Whole-product tests: a module a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers panic like the test itself"
)]

mod harness_works;
