//! The parsers that anybody can reach by the library's public names, on inputs that began as real ones and were changed. Those
//! that are the crate's own have their targets beside them (`src/**/fuzz.rs`), with the same harness.
//!
//! Each target has an oracle that says more than "it didn't panic", and a control: a fault on purpose that it notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a failed unwrap in a test is a failed test"
)]

#[path = "fuzz/claims.rs"]
mod claims;
#[path = "fuzz/config.rs"]
mod config;
#[path = "fuzz/harness.rs"]
mod harness;
#[path = "fuzz/texts.rs"]
mod texts;
#[path = "fuzz/trail.rs"]
mod trail;
#[path = "fuzz/values.rs"]
mod values;
