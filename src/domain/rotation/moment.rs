//! Points in time on both clocks, and how far they are apart (I13).

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A point in time on both clocks: the wall's, and the running time that the journal adds up (I13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instant {
    pub wall: Timestamp,
    pub running: Duration,
}

/// Now, and whether the wall clock is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub wall: Timestamp,
    pub running: Duration,
    /// False after a suspicious jump: what destroys waits.
    pub trusted: bool,
}

impl Moment {
    /// The smaller of wall time and running time since then (I13).
    ///
    /// A wall clock that is believed and yet stands before `then` shows that it ran ahead then, and was set right since: it
    /// tells nothing of the time between, or an overlap begun under a clock ten years ahead would last ten years. Running time
    /// alone is safe: it never counts more than has passed.
    pub fn since(&self, then: Instant) -> Duration {
        let running = self.running.saturating_sub(then.running);
        match Duration::try_from(self.wall.duration_since(then.wall)) {
            Ok(wall) => wall.min(running),
            Err(_) if self.trusted => running,
            Err(_) => Duration::ZERO,
        }
    }

    pub fn instant(&self) -> Instant {
        Instant { wall: self.wall, running: self.running }
    }
}
