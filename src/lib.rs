//! Keywright keeps the credentials of API providers, proves that each belongs to its environment,
//! rotates them by policy and pushes the new ones to the applications.
//!
//! `ARCHITECTURE.md` is the map. Read `domain` first: all decisions are there.

#[cfg(test)]
extern crate self as keywright;

pub mod api;
pub mod cli;
pub mod cluster;
pub mod delivery;
pub mod domain;
pub mod embedded;
pub mod engine;
pub mod faults;
#[cfg(test)]
#[path = "../tests/fuzz/harness.rs"]
mod fuzz;
#[cfg(test)]
mod golden;
pub mod identities;
pub mod issuers;
pub mod journal;
mod outbound;
pub mod policies;
mod rate;
pub mod runtime;
pub mod sealing;
pub mod stores;
