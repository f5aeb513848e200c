//! Telling applications of a new version: the seam to the ways of delivery.

#[cfg(test)]
mod contract;
pub mod memory;
pub mod stream;

use std::fmt;

use crate::domain::ids::Name;

/// Something that an application can see has changed. Carries no material: who is told fetches it, and is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The credential has a new revision.
    Credential { name: Name, revision: u64 },
    /// The policies changed: access may have begun or ended.
    Policies,
}

/// Takes note of a change without waiting: a slow application must not hold up a rotation.
pub trait Delivery: Send + Sync + fmt::Debug {
    fn announce(&self, change: Change);
}
