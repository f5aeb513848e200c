//! Gathers facts, asks the domain what is next, performs it through the seams, and journals it.
//!
//! **Architecture invariant:** sees traits only; no adapter is named here.

pub mod audit;
pub mod clock;
pub mod errors;
pub mod views;
mod stub;
pub use stub::Reader;
