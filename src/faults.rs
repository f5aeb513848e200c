//! Faults on purpose: every durable write passes a named point, and a point can be made to fail before or after its effect.
//!
//! The crash matrix takes its list of points from a run without faults ([`Faults::trace`]), so that a new write is covered by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many names of points a trace keeps; points are counted beyond it.
pub const TRACE_MAX: usize = 100_000;

/// Which side of its effect a point fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    Before,
    After,
}

impl When {
    pub const ALL: [When; 2] = [When::Before, When::After];
}

/// A point failed because it was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fault was injected")]
pub struct Fault;

impl Fault {
    /// What seams say of it, in their own error for "can't be reached".
    pub const REASON: &str = "a fault was injected";
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    trace: Vec<&'static str>,
    armed: Option<(usize, When)>,
    /// The process is to be taken for dead from the fault on.
    crashes: bool,
    dead: bool,
    fired: Option<&'static str>,
}

/// A handle on the points of all wrapped seams; its copies are the same handle. Points are numbered from 0 in the order in
/// which they are met.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

/// One point that is being passed.
#[derive(Debug)]
#[must_use]
pub struct Point {
    fails: Option<When>,
}

impl Faults {
    /// The point with this number fails once.
    pub fn arm(&self, index: usize, when: When) {
        let mut state = self.state();
        (state.armed, state.crashes) = (Some((index, when)), false);
    }

    /// The point with this number fails, and everything after it, reads too, until [`Faults::revive`]: as if the process had died there.
    pub fn crash_at(&self, index: usize, when: When) {
        let mut state = self.state();
        (state.armed, state.crashes) = (Some((index, when)), true);
    }

    pub fn disarm(&self) {
        self.state().armed = None;
    }

    /// The process starts anew: nothing is armed, nothing fails. The count goes on.
    pub fn revive(&self) {
        let mut state = self.state();
        (state.armed, state.crashes, state.dead) = (None, false, false);
    }

    /// Points met so far.
    pub fn count(&self) -> usize {
        self.state().count
    }

    /// The names of the points met so far, in their order.
    pub fn trace(&self) -> Vec<&'static str> {
        self.state().trace.clone()
    }

    /// The last point that failed on purpose.
    pub fn fired(&self) -> Option<&'static str> {
        self.state().fired
    }

    /// Passes a point. The caller asks [`Point::before`], then does it, then asks [`Point::after`].
    pub fn point(&self, name: &'static str) -> Point {
        let mut state = self.state();
        if state.dead {
            return Point { fails: Some(When::Before) };
        }
        let index = state.count;
        state.count += 1;
        if state.trace.len() < TRACE_MAX {
            state.trace.push(name);
        }
        let fails = state.armed.filter(|(armed, _)| *armed == index).map(|(_, when)| when);
        if fails.is_some() {
            state.armed = None;
            state.dead = state.crashes;
            state.fired = Some(name);
        }
        Point { fails }
    }

    /// # Errors
    /// [`Fault`] between a crash and [`Faults::revive`]: a dead process doesn't read either.
    pub fn alive(&self) -> Result<(), Fault> {
        if self.state().dead { Err(Fault) } else { Ok(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Point {
    /// # Errors
    /// [`Fault`]: stop before the effect.
    pub fn before(&self) -> Result<(), Fault> {
        if self.fails == Some(When::Before) { Err(Fault) } else { Ok(()) }
    }

    /// # Errors
    /// [`Fault`]: it took effect, and the caller isn't told.
    pub fn after(self) -> Result<(), Fault> {
        if self.fails == Some(When::After) { Err(Fault) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(faults: &Faults, name: &'static str) -> (bool, bool) {
        let point = faults.point(name);
        (point.before().is_ok(), point.after().is_ok())
    }

    #[test]
    fn an_armed_point_fails_once_on_its_side() {
        let faults = Faults::default();
        faults.arm(1, When::After);
        assert_eq!(pass(&faults, "a"), (true, true));
        assert_eq!(pass(&faults, "b"), (true, false));
        assert_eq!(pass(&faults, "b"), (true, true));
        faults.arm(3, When::Before);
        assert!(!pass(&faults, "c").0);
        assert_eq!((faults.count(), faults.trace(), faults.fired()), (4, vec!["a", "b", "b", "c"], Some("c")));
    }

    #[test]
    fn a_crash_lasts_until_it_is_revived() {
        let faults = Faults::default();
        faults.crash_at(0, When::After);
        assert_eq!(pass(&faults, "a"), (true, false));
        assert!(!pass(&faults, "b").0);
        assert_eq!((faults.alive(), faults.count()), (Err(Fault), 1));
        faults.revive();
        assert_eq!(pass(&faults, "b"), (true, true));
        assert_eq!(faults.alive(), Ok(()));
    }
}
