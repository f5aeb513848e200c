//! The daemon from outside: the real binary against fakes that keep the truth, held to the contract alone.
//!
//! One binary for all of it, because linking is what is slow here.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a failed unwrap in a test is a failed test, and what it prints is its report"
)]
#![allow(missing_debug_implementations, reason = "nobody prints a fake")]

#[allow(dead_code, reason = "shared with tests/aws, which counts what passes")]
#[path = "../aws/proxy.rs"]
mod proxy;
#[path = "../support/mod.rs"]
mod support;

mod acceptance;
mod api;
mod aws_identity;
mod aws_test;
mod backup;
mod barrier;
mod board;
mod canary;
mod changes;
mod cli;
mod confirmations;
mod deliveries;
mod demo;
mod disk;
mod exec;
mod fakes_test;
mod generated;
mod glewlwyd_test;
mod golive;
mod incident;
mod judge;
mod manual;
mod metrics;
mod oidc_test;
mod operators;
mod overload;
mod pods;
mod rewrap;
mod rollouts;
mod scanner_test;
mod secrets;
mod stream;
mod submit;
mod tls;
mod vault;
mod wire_test;
mod world;
