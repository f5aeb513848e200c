//! What the engine counts: the seam to the metrics.

use std::time::Duration;

/// Takes counts without waiting. Names of steps and outcomes are constants of the code, never from outside.
pub trait Meter: Send + Sync {
    /// A rotation ended: `revoked` or `abandoned`.
    fn rotation_ended(&self, _outcome: &'static str) {}

    fn step_took(&self, _step: &'static str, _took: Duration) {}

    /// From the promotion to the first disclosure of the new version.
    fn pushed(&self, _latency: Duration) {}
}

/// Counts nothing.
#[derive(Debug, Default)]
pub struct NoMeter;

impl Meter for NoMeter {}
