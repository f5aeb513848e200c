//! Time that never jumps, and goes on while the machine sleeps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Tells how much time has gone by since some moment.
pub trait Monotonic: Send + Sync {
    fn now(&self) -> Duration;
}

/// The system's own: counts suspension as well, which `std::time::Instant` doesn't. A laptop or a migrated machine that wakes up
/// after its lease must know.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

impl Monotonic for BootClock {
    fn now(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs().try_into().unwrap_or_default())
    }
}
