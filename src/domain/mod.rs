//! The pure core: what the words mean, what is due, and which step comes next.
//!
//! **Architecture invariant:** nothing here knows a runtime, an SDK, a clock or a source of randomness.
//! Time, seed and facts are arguments; asked twice, a function answers the same.

pub mod access;
pub mod credential;
pub mod delivery;
pub mod dispatch;
pub mod document;
pub mod due;
pub mod environment;
pub mod fields;
#[cfg(test)]
mod fixtures;
pub mod forecast;
pub mod form;
pub mod holders;
pub mod ids;
pub mod incident;
pub mod launch;
pub mod ledger;
pub mod manual;
pub mod material;
pub mod mutants;
pub mod outbox;
pub mod policy;
pub mod provider;
pub mod quota;
pub mod reason;
pub mod recipe;
pub mod replicas;
pub mod restarts;
pub mod rollout;
pub mod rotation;
pub mod span;
pub mod succession;
pub mod template;
pub mod windows;
pub mod workload;
