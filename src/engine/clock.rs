//! The one source of time: wall and running. Everything else takes time as an argument.

use crate::domain::rotation::Moment;

/// Tells the time. The running time starts from what the journal remembers, and never goes back.
pub trait Clock: Send + Sync {
    fn now(&self) -> Moment;

    /// The provider's own clock, as its answer told it: agreement within five minutes restores trust (I13).
    fn heard(&self, provider_time: jiff::Timestamp);
}
