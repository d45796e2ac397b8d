//! file.scan: orders a virus scan and follows it to its verdict.
