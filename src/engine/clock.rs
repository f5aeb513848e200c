//! The one source of time: wall and running. Everything else takes time as an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use crate::domain::rotation::Moment;
use crate::journal::Heartbeat;

/// Tells the time. The running time starts from what the journal remembers, and never goes back.
#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> Moment;

    /// Lets time go by within a call. A clock of a simulation goes on by itself, so that nobody waits.
    async fn sleep(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    /// What the next run is to start from.
    fn heartbeat(&self) -> Heartbeat {
        let now = self.now();
        Heartbeat { running: now.running, wall: now.trusted.then_some(now.wall), ..Heartbeat::default() }
    }

    /// The provider's own clock, as its answer told it: agreement within five minutes restores trust (I13).
    fn heard(&self, provider_time: Timestamp);
}

/// A clock that stands still until it is told to go, or somebody sleeps: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: Moment,
    heard: Option<Timestamp>,
}

impl ManualClock {
    /// Stands at this wall time, trusted, with no running time.
    pub fn new(wall: Timestamp) -> ManualClock {
        let now = Moment { wall, running: Duration::ZERO, trusted: true };
        ManualClock { state: Mutex::new(State { now, heard: None }) }
    }

    /// Both clocks go on.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.now.wall = moved(state.now.wall, SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX));
        state.now.running = state.now.running.saturating_add(by);
    }

    /// The wall clock alone moves. Whether that is noticed is for [`ManualClock::trust`] to say: judging is the real clock's.
    pub fn jump(&self, by: SignedDuration) {
        let mut state = self.state();
        state.now.wall = moved(state.now.wall, by);
    }

    pub fn trust(&self, trusted: bool) {
        self.state().now.trusted = trusted;
    }

    pub fn set(&self, now: Moment) {
        self.state().now = now;
    }

    /// What a provider's answer last said.
    pub fn last_heard(&self) -> Option<Timestamp> {
        self.state().heard
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Moment {
        self.state().now
    }

    async fn sleep(&self, by: Duration) {
        self.advance(by);
        tokio::task::yield_now().await;
    }

    fn heard(&self, provider_time: Timestamp) {
        self.state().heard = Some(provider_time);
    }
}

fn moved(wall: Timestamp, by: SignedDuration) -> Timestamp {
    wall.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_only_when_told() {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        clock.advance(Duration::from_secs(5));
        clock.jump(SignedDuration::from_secs(-3));
        clock.trust(false);
        let wall = Timestamp::from_second(2).unwrap();
        assert_eq!(clock.now(), Moment { wall, running: Duration::from_secs(5), trusted: false });
        clock.heard(wall);
        assert_eq!(clock.last_heard(), Some(wall));
    }
}
