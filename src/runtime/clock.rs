//! The clock of the process: wall time, running time, and whether the wall is believed (I13).
//!
//! Judging is [`Judge`], pure; reading is [`SystemClock`], the one place that asks the system for the time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::domain::rotation::Moment;
use crate::engine::clock::Clock;
use crate::journal::Heartbeat;

/// How far the wall clock may be from what is expected before what destroys waits (I13).
pub const DEVIATION_MAX: Duration = Duration::from_mins(5);
/// Drift that is followed: one part in so many of the time gone by. Twice what a time daemon slews at most, so that drift never
/// adds up to a deviation, while jumps do, however small each of them is.
const DRIFT_PART: u32 = 1000;

/// Compares the wall clock with the monotonic one. Knows no clock: both are arguments.
#[derive(Debug, Clone)]
pub struct Judge {
    /// Running time of all runs before this one.
    base: Duration,
    believed: Believed,
    jumped: bool,
    /// The provider's clock and ours were apart when it was last heard.
    disagrees: bool,
    /// It was so when our clock hadn't jumped: then coming back from a jump doesn't settle it.
    disagreed_before: bool,
    /// From there on an earlier run didn't believe the wall, and nobody has confirmed it since.
    doubted: Option<Timestamp>,
}

/// The last pair of wall and monotonic time that was believed.
#[derive(Debug, Clone, Copy)]
struct Believed {
    wall: Timestamp,
    monotonic: Duration,
    /// Only known to be not earlier: from the heartbeat of a run that ended some time ago.
    at_least: bool,
}

impl Judge {
    /// `wall` is the wall clock at monotonic time zero. Earlier than the last heartbeat is not believed.
    pub fn new(heartbeat: Heartbeat, wall: Timestamp) -> Judge {
        let behind = heartbeat.wall.filter(|last| wall < *last && wall.duration_since(*last).unsigned_abs() > DEVIATION_MAX);
        let doubted = heartbeat.doubted.is_some_and(|line| wall >= line);
        let last = if doubted { heartbeat.wall } else { behind };
        let believed = Believed { wall: last.unwrap_or(wall), monotonic: Duration::ZERO, at_least: last.is_some() };
        Judge {
            base: heartbeat.running,
            believed,
            jumped: behind.is_some(),
            disagrees: false,
            disagreed_before: false,
            doubted: heartbeat.doubted,
        }
    }

    /// `monotonic` is the time since the start of this run, and never less than before.
    pub fn look(&mut self, wall: Timestamp, monotonic: Duration) -> Moment {
        let deviation = wall.duration_since(self.expected(monotonic));
        let within = deviation.unsigned_abs() <= DEVIATION_MAX;
        let doubted = self.doubted.is_some_and(|line| wall >= line);
        // Once it was seen ahead, any later time could be just another wrong one.
        let caught_up = self.believed.at_least && deviation.is_positive() && self.doubted.is_none();
        if self.jumped && within {
            // What was contradicted is the wall that it had jumped to.
            self.disagrees = self.disagreed_before;
        }
        self.jumped = !(within || caught_up);
        if caught_up {
            self.believe(wall, monotonic);
        } else if within {
            self.follow_drift(deviation, monotonic);
        }
        Moment { wall, running: self.base.saturating_add(monotonic), trusted: !(self.jumped || self.disagrees || doubted) }
    }

    /// The provider says that it is `provider_time` now.
    pub fn heard(&mut self, provider_time: Timestamp, wall: Timestamp, monotonic: Duration) {
        self.disagrees = wall.duration_since(provider_time).unsigned_abs() > DEVIATION_MAX;
        self.disagreed_before = self.disagrees && (self.disagreed_before || !self.jumped);
        if !self.disagrees {
            self.believe(wall, monotonic);
            self.jumped = false;
        }
    }

    /// What the next run should start from. A wall that isn't believed is remembered as such; expected time stands in for it.
    pub fn heartbeat(&mut self, wall: Timestamp, monotonic: Duration) -> Heartbeat {
        let moment = self.look(wall, monotonic);
        let expected = self.expected(monotonic);
        let is_ahead = self.jumped && wall > expected;
        let doubted = if is_ahead || self.disagrees { Some(wall) } else { self.doubted };
        let wall = if moment.trusted { wall } else { expected };
        Heartbeat { running: moment.running, wall: Some(wall), doubted, audit: None }
    }

    fn expected(&self, monotonic: Duration) -> Timestamp {
        let elapsed = monotonic.saturating_sub(self.believed.monotonic);
        later(self.believed.wall, SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX))
    }

    fn believe(&mut self, wall: Timestamp, monotonic: Duration) {
        self.believed = Believed { wall, monotonic, at_least: false };
        self.doubted = None;
    }

    fn follow_drift(&mut self, deviation: SignedDuration, monotonic: Duration) {
        let elapsed = monotonic.saturating_sub(self.believed.monotonic);
        let most = SignedDuration::try_from(elapsed / DRIFT_PART).unwrap_or(SignedDuration::ZERO);
        if most.is_zero() {
            return;
        }
        let wall = later(self.expected(monotonic), deviation.clamp(-most, most));
        self.believed = Believed { wall, monotonic, at_least: self.believed.at_least };
    }
}

/// `wall` and so much more, within what a timestamp can say.
fn later(wall: Timestamp, by: SignedDuration) -> Timestamp {
    wall.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// The clock of this machine.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    judge: Mutex<Judge>,
}

impl SystemClock {
    /// Starts the running time from what the journal remembers.
    pub fn new(heartbeat: Heartbeat) -> SystemClock {
        SystemClock { start: Instant::now(), judge: Mutex::new(Judge::new(heartbeat, wall_now())) }
    }

    /// Both clocks are read under this lock, so that looks are judged in the order in which they were made.
    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let mut judge = self.judge();
        judge.look(wall_now(), self.start.elapsed())
    }

    fn heartbeat(&self) -> Heartbeat {
        let mut judge = self.judge();
        judge.heartbeat(wall_now(), self.start.elapsed())
    }

    fn heard(&self, provider_time: Timestamp) {
        let mut judge = self.judge();
        judge.heard(provider_time, wall_now(), self.start.elapsed());
    }
}

/// The wall clock, unjudged: for the time of a log line, and for commands that run without a daemon.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock; everything else gets the time from here")]
pub fn wall_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR_S: i64 = 365 * 86_400;

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fresh() -> Judge {
        Judge::new(Heartbeat::default(), wall(0))
    }

    #[test]
    fn running_time_goes_on_from_the_heartbeat() {
        let mut judge = Judge::new(Heartbeat { running: after(1000), wall: Some(wall(-60)), ..Heartbeat::default() }, wall(0));
        let moment = judge.look(wall(5), after(5));
        assert_eq!((moment.running, moment.trusted), (after(1005), true));
    }

    #[test]
    fn a_jump_freezes_until_the_wall_comes_back() {
        for jump in [301, -301, 10 * YEAR_S, -10 * YEAR_S] {
            let mut judge = fresh();
            assert!(judge.look(wall(10), after(10)).trusted);
            assert!(!judge.look(wall(11 + jump), after(11)).trusted, "{jump}");
            assert!(!judge.look(wall(86_400 + jump), after(86_400)).trusted, "{jump}: staying there doesn't make it true");
            assert!(judge.look(wall(86_401), after(86_401)).trusted, "{jump}");
        }
    }

    #[test]
    fn the_providers_word_is_believed_from_then_on() {
        let mut judge = fresh();
        assert!(!judge.look(wall(YEAR_S), after(1)).trusted);
        judge.heard(wall(301), wall(YEAR_S), after(1));
        assert!(!judge.look(wall(YEAR_S), after(1)).trusted);
        judge.heard(wall(YEAR_S + 300), wall(YEAR_S), after(1));
        assert!(judge.look(wall(YEAR_S + 10), after(11)).trusted);
        assert!(!judge.look(wall(12), after(12)).trusted, "what was true before is a jump now");
    }

    #[test]
    fn a_provider_that_disagrees_freezes_until_it_agrees() {
        let mut judge = fresh();
        judge.heard(wall(400), wall(1), after(1));
        assert!(!judge.look(wall(2), after(2)).trusted);
        judge.heard(wall(200), wall(3), after(3));
        assert!(judge.look(wall(4), after(4)).trusted);
    }

    #[test]
    fn a_start_before_the_last_heartbeat_is_not_believed() {
        let heartbeat = Heartbeat { running: after(1000), wall: Some(wall(0)), ..Heartbeat::default() };
        assert!(Judge::new(heartbeat.clone(), wall(-299)).look(wall(-298), after(1)).trusted);
        let mut judge = Judge::new(heartbeat.clone(), wall(-301));
        assert!(!judge.look(wall(-300), after(1)).trusted);
        assert!(!judge.look(wall(-30 * YEAR_S), after(2)).trusted);
        // Set right at last: any later time can be true, because nobody knows how long we were away.
        assert!(judge.look(wall(40 * 86_400), after(3)).trusted);
        assert!(!judge.look(wall(80 * 86_400), after(4)).trusted, "but from here on it is watched");
    }

    #[test]
    fn many_small_jumps_add_up_to_one() {
        let mut judge = fresh();
        let trusted =
            (1..=60).map(|look| judge.look(wall(look * 61), after(look.unsigned_abs())).trusted).filter(|trusted| *trusted).count();
        assert!(trusted <= 6, "{trusted}");
    }

    #[test]
    fn a_wall_that_is_not_believed_is_not_remembered() {
        let mut judge = fresh();
        assert_eq!(judge.heartbeat(wall(10), after(10)).wall, Some(wall(10)));
        assert_eq!(judge.heartbeat(wall(10 * YEAR_S), after(20)).wall, Some(wall(20)));
    }

    #[test]
    fn a_jump_is_not_forgotten_by_a_restart() {
        for jump in [10 * YEAR_S, 3_600, -3_600, -10 * YEAR_S] {
            let mut judge = fresh();
            assert!(!judge.look(wall(10 + jump), after(10)).trusted);
            let beat = judge.heartbeat(wall(20 + jump), after(20));
            let mut judge = Judge::new(beat.clone(), wall(30 + jump));
            assert!(!judge.look(wall(31 + jump), after(1)).trusted, "{jump}: a restart doesn't make it true");
            let beat = judge.heartbeat(wall(32 + jump), after(2));
            let mut judge = Judge::new(beat.clone(), wall(33 + jump));
            assert!(!judge.look(wall(34 + jump), after(1)).trusted, "{jump}: nor do two");
            judge.heard(wall(34 + jump), wall(34 + jump), after(1));
            assert!(judge.look(wall(35 + jump), after(2)).trusted, "{jump}: a provider does");
            assert_eq!(judge.heartbeat(wall(36 + jump), after(3)).doubted, None);
            assert!(Judge::new(beat, wall(40)).look(wall(41), after(1)).trusted, "{jump}: set right while it was down");
        }
    }

    #[test]
    fn a_contradiction_of_a_jump_ends_with_it_and_an_older_one_does_not() {
        for (before, after_jump) in [(false, true), (true, false)] {
            let mut judge = fresh();
            if before {
                judge.heard(wall(-400), wall(1), after(1));
            }
            assert!(!judge.look(wall(YEAR_S), after(2)).trusted);
            judge.heard(wall(3), wall(YEAR_S), after(3));
            assert_eq!(judge.look(wall(4), after(4)).trusted, after_jump);
        }
    }

    #[test]
    fn a_contradiction_is_not_forgotten_by_a_restart() {
        let mut judge = fresh();
        judge.heard(wall(4_000), wall(1), after(1));
        let mut judge = Judge::new(judge.heartbeat(wall(2), after(2)), wall(5));
        assert!(!judge.look(wall(6), after(1)).trusted);
        judge.heard(wall(8), wall(7), after(2));
        assert!(judge.look(wall(8), after(3)).trusted);
    }

    #[test]
    fn the_system_clock_runs() {
        let clock = SystemClock::new(Heartbeat { running: after(7), ..Heartbeat::default() });
        let first = clock.now();
        let second = clock.now();
        assert!(first.trusted && first.running >= after(7) && second.running >= first.running);
        clock.heard(first.wall);
        assert!(clock.now().trusted);
        assert!(clock.heartbeat().running >= second.running);
    }

    proptest! {
        #[test]
        fn storms_of_a_second_are_fine(storm in prop::collection::vec((1_u64..100, -1_i64..=1), 1..300)) {
            let mut judge = fresh();
            let mut elapsed = 0;
            for (step, off) in storm {
                elapsed += step;
                prop_assert!(judge.look(wall(elapsed.cast_signed() + off), after(elapsed)).trusted);
            }
        }

        #[test]
        fn slow_drift_is_fine(steps in prop::collection::vec(1_u64..100_000, 1..300), millionths in -500_i64..=500) {
            let mut judge = fresh();
            let mut elapsed = 0;
            for step in steps {
                elapsed += step;
                let drifted = elapsed.cast_signed() + elapsed.cast_signed() * millionths / 1_000_000;
                prop_assert!(judge.look(wall(drifted), after(elapsed)).trusted);
            }
        }

        #[test]
        fn running_time_never_goes_back_and_is_never_the_walls(
            looks in prop::collection::vec((0_u64..1000, -10 * YEAR_S..10 * YEAR_S), 1..100),
        ) {
            let mut judge = fresh();
            let mut elapsed = 0;
            for (step, off) in looks {
                elapsed += step;
                prop_assert_eq!(judge.look(wall(off), after(elapsed)).running, after(elapsed));
            }
        }

        #[test]
        fn no_far_jump_is_believed_without_the_provider(
            looks in prop::collection::vec((0_u64..1000, -10 * YEAR_S..10 * YEAR_S), 1..100),
        ) {
            let mut judge = fresh();
            let mut elapsed = 0;
            for (step, off) in looks {
                elapsed += step;
                let trusted = judge.look(wall(elapsed.cast_signed() + off), after(elapsed)).trusted;
                // Drift that was followed moves the line by a thousandth of the time gone by.
                let followed = elapsed.cast_signed() / 1000 + 1;
                prop_assert!(!trusted || off.abs() <= 300 + followed);
                prop_assert!(trusted || off.abs() > 300 - followed);
            }
        }
    }
}
