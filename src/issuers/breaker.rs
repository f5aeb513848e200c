//! Stops calling a provider that fails again and again, and tries it with one call at a time. Pure: time is an argument.

use std::time::Duration;

use serde::Serialize;

/// So many failing answers in a row are no chance any more.
pub const FAILURES_MAX: u32 = 10;

/// How a breaker stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    /// Calls are made.
    #[default]
    Closed,
    /// No call is made.
    Open,
    /// One call is made, to see whether the provider is well again.
    HalfOpen,
}

impl BreakerState {
    pub const fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// What a call told of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered, if only to refuse.
    Well,
    /// It can't be reached, takes too long, fails, or answers with what no client understands.
    Failing,
    /// The call wasn't made, or nobody waited for its answer.
    Unknown,
}

/// May call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    Usual,
    /// Its answer decides.
    Trial,
}

/// The breaker of one environment of one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    cool_down: Duration,
    inner: Inner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    Closed { failures: u32 },
    Open { until: Duration },
    HalfOpen,
}

impl Breaker {
    /// Open for `cool_down` at a time.
    pub fn new(cool_down: Duration) -> Breaker {
        Breaker { cool_down, inner: Inner::Closed { failures: 0 } }
    }

    /// Whether a call may be made. Who gets a pass gives it back with [`Breaker::told`].
    pub fn ask(&mut self, now: Duration) -> Option<Pass> {
        match self.inner {
            Inner::Closed { .. } => Some(Pass::Usual),
            Inner::Open { until } if now >= until => {
                self.inner = Inner::HalfOpen;
                Some(Pass::Trial)
            }
            Inner::Open { .. } | Inner::HalfOpen => None,
        }
    }

    /// What a call that had a pass told.
    pub fn told(&mut self, pass: Pass, health: Health, now: Duration) {
        let opened = Inner::Open { until: now.saturating_add(self.cool_down) };
        self.inner = match (self.inner, pass, health) {
            (Inner::Closed { failures }, _, Health::Failing) if failures + 1 < FAILURES_MAX => Inner::Closed { failures: failures + 1 },
            (Inner::Closed { .. }, _, Health::Failing) => opened,
            (_, _, Health::Well) => Inner::Closed { failures: 0 },
            (Inner::HalfOpen, Pass::Trial, Health::Failing) => opened,
            // Nobody knows: the next one tries.
            (Inner::HalfOpen, Pass::Trial, Health::Unknown) => Inner::Open { until: now },
            // Calls from before it opened tell nothing new.
            (same, _, Health::Failing | Health::Unknown) => same,
        };
    }

    pub fn state(&self) -> BreakerState {
        match self.inner {
            Inner::Closed { .. } => BreakerState::Closed,
            Inner::Open { .. } => BreakerState::Open,
            Inner::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// How long until a call is let through, while it is open.
    pub fn retry_in(&self, now: Duration) -> Option<Duration> {
        match self.inner {
            Inner::Open { until } => Some(until.saturating_sub(now)),
            Inner::Closed { .. } | Inner::HalfOpen => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COOL_DOWN: Duration = Duration::from_secs(4);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::new(COOL_DOWN);
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.ask(at(0)), Some(Pass::Usual));
            breaker.told(Pass::Usual, Health::Failing, at(0));
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker
    }

    #[test]
    fn it_opens_after_ten_failures_in_a_row_and_not_before() {
        let mut breaker = Breaker::new(COOL_DOWN);
        for round in 0..100 {
            let health = if round % 10 == 9 { Health::Well } else { Health::Failing };
            breaker.told(Pass::Usual, health, at(round));
            breaker.told(Pass::Usual, Health::Unknown, at(round));
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
        assert_eq!(open().retry_in(at(1)), Some(at(3)));
    }

    #[test]
    fn one_call_tries_after_the_cool_down_and_decides() {
        for (health, after) in [(Health::Well, BreakerState::Closed), (Health::Failing, BreakerState::Open)] {
            let mut breaker = open();
            assert_eq!(breaker.ask(at(3)), None);
            assert_eq!(breaker.ask(at(4)), Some(Pass::Trial));
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert_eq!(breaker.ask(at(4)), None, "one at a time");
            breaker.told(Pass::Trial, health, at(5));
            assert_eq!(breaker.state(), after);
            assert_eq!(breaker.retry_in(at(5)).is_some(), after == BreakerState::Open);
        }
    }

    #[test]
    fn a_trial_that_nobody_waited_for_leaves_the_next_one_to_try() {
        let mut breaker = open();
        assert_eq!(breaker.ask(at(4)), Some(Pass::Trial));
        breaker.told(Pass::Trial, Health::Unknown, at(4));
        assert_eq!(breaker.ask(at(4)), Some(Pass::Trial));
    }

    #[test]
    fn an_answer_from_before_it_opened_closes_it_if_it_is_a_good_one() {
        let mut breaker = open();
        breaker.told(Pass::Usual, Health::Failing, at(3));
        assert_eq!(breaker.retry_in(at(3)), Some(at(1)), "and a bad one doesn't keep it open for longer");
        breaker.told(Pass::Usual, Health::Well, at(3));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    proptest! {
        /// However calls end, somebody is let through again within a cool-down of the last answer.
        #[test]
        fn it_never_stays_open_for_good(ends in prop::collection::vec((0_u64..3, 0_u8..3), 1..200)) {
            let mut breaker = Breaker::new(COOL_DOWN);
            let mut now = at(0);
            for (pause, end) in ends {
                now += at(pause);
                let Some(pass) = breaker.ask(now) else {
                    prop_assert!(breaker.retry_in(now).is_some_and(|left| left <= COOL_DOWN));
                    continue;
                };
                breaker.told(pass, [Health::Well, Health::Failing, Health::Unknown][usize::from(end)], now);
            }
            prop_assert!(breaker.ask(now + COOL_DOWN).is_some());
        }
    }
}
