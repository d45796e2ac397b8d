//! Purger.
