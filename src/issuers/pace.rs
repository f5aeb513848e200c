//! Keeps the calls of each account within our share of its quota (I15). Knows no clock: time is an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota as Rate, RateLimiter};

use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::provider::{Limits, Quota};

use super::Target;

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    pub provider: Name,
    pub environment: Environment,
    pub account: Name,
}

impl LaneKey {
    pub fn of(target: &Target) -> LaneKey {
        LaneKey { provider: target.provider.name.clone(), environment: target.environment, account: target.account.clone() }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Calls that are made in one go: all of them, or none. At most [`Limits::OWN_CALLS_MIN`].
    pub calls: u32,
    /// They go on with what was begun. The rate binds them; what others need of the quota doesn't stop them halfway.
    pub begun: bool,
    /// A routine look, which gets half of our share at most.
    pub routine: bool,
}

/// What an answer told of the quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    pub reset: Option<Duration>,
    /// The provider asked to wait for so long.
    pub asked_to_wait: Option<Duration>,
}

/// With more lanes than this, those are forgotten that are as good as new.
const LANES_MANY: usize = 4096;
/// Nobody is held up for longer than this on the word of one answer.
const HOLD_MAX: Duration = Duration::from_secs(3_600);

/// The calls of all accounts.
#[derive(Default)]
pub struct Pacer {
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    by_key: BTreeMap<LaneKey, Lane>,
    /// With so many lanes, idle ones are looked for. Doubled where most are busy, so that looking stays rare.
    look_at: usize,
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, TimeTold, NoOpMiddleware<Duration>>;

struct Lane {
    quota: Option<(Quota, u8)>,
    limiter: Option<Limiter>,
    /// Routine looks pass this one first: however many credentials an account has, looking after them leaves room for rotations.
    routine: Option<Limiter>,
    /// Nothing is begun before.
    hold_until: Duration,
    used_at: Duration,
}

/// The limiter's clock: it stands where the last question put it.
struct TimeTold(AtomicU64);

impl Clock for TimeTold {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Pacer {
    /// Lets the calls through, and counts them. `now` never goes back.
    ///
    /// # Errors
    /// How long to wait at least before asking again; nothing was counted.
    pub fn ask(&self, key: &LaneKey, limits: &Limits, demand: Demand, now: Duration) -> Result<(), Duration> {
        let mut lanes = self.lock();
        lanes.forget_idle(now);
        let quota = limits.quota.map(|quota| (quota, limits.share));
        let lane = lanes.by_key.entry(key.clone()).or_insert_with(|| Lane::new(limits, now));
        if lane.quota != quota {
            // The description was changed. What was used of the old quota is taken for used: the bucket begins empty.
            *lane = Lane { hold_until: lane.hold_until, ..Lane::new(limits, now) };
            lane.drain();
        }
        lane.used_at = now;
        if !demand.begun && now < lane.hold_until {
            return Err(lane.hold_until - now);
        }
        if demand.routine {
            take(lane.routine.as_ref(), demand.calls, now)?;
        }
        take(lane.limiter.as_ref(), demand.calls, now)
    }

    /// Takes note of what an answer told: where the others would lack calls, nothing of ours is begun until the quota is full
    /// again.
    pub fn heard(&self, key: &LaneKey, limits: &Limits, told: Told, now: Duration) {
        let limit = told.limit.or(limits.quota.map(|quota| u64::from(quota.calls)));
        let scarce = limit.zip(told.remaining).is_some_and(|(limit, remaining)| remaining < limits.left_to_others(limit));
        let until_full = told.reset.or(limits.quota.map(|quota| quota.per)).filter(|_| scarce);
        let Some(hold) = until_full.max(told.asked_to_wait) else { return };
        let mut lanes = self.lock();
        let lane = lanes.by_key.entry(key.clone()).or_insert_with(|| Lane::new(limits, now));
        lane.hold_until = lane.hold_until.max(now + hold.min(HOLD_MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        // Numbers can't be left half-written: a panic elsewhere doesn't spoil them.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    /// An account whose quota is full again, and that nothing holds up, is as one that was never seen.
    fn forget_idle(&mut self, now: Duration) {
        if self.by_key.len() < self.look_at.max(LANES_MANY) {
            return;
        }
        self.by_key.retain(|_, lane| {
            let full_at = lane.used_at + lane.quota.map_or(Duration::ZERO, |(quota, _)| quota.per);
            now < full_at.max(lane.hold_until)
        });
        self.look_at = self.by_key.len() * 2;
    }
}

impl Lane {
    fn new(limits: &Limits, now: Duration) -> Lane {
        let limiter = |part: u32| {
            let (quota, own) = limits.quota.zip(limits.own_calls())?;
            Some(RateLimiter::direct_with_clock(rate_of(own / part, quota.per), TimeTold(AtomicU64::new(nanos(now)))))
        };
        Lane {
            quota: limits.quota.map(|quota| (quota, limits.share)),
            limiter: limiter(1),
            routine: limiter(2),
            hold_until: Duration::ZERO,
            used_at: now,
        }
    }

    fn drain(&self) {
        if let Some(limiter) = &self.limiter {
            while limiter.check().is_ok() {}
        }
    }
}

fn take(limiter: Option<&Limiter>, calls: u32, now: Duration) -> Result<(), Duration> {
    let Some(limiter) = limiter else { return Ok(()) };
    limiter.clock().0.fetch_max(nanos(now), Ordering::Relaxed);
    let calls = NonZeroU32::new(calls.clamp(1, Limits::OWN_CALLS_MIN)).unwrap_or(NonZeroU32::MIN);
    match limiter.check_n(calls) {
        Ok(Ok(())) => Ok(()),
        // Never at once again, whatever rounding says.
        Ok(Err(not_until)) => Err(not_until.wait_time_from(now).max(Duration::from_millis(1))),
        // More than ever fits at once: documents that ask for this are refused.
        Err(_) => Err(HOLD_MAX),
    }
}

/// A burst and a refill that add up to `own` calls in any time of this length, however it is laid.
///
/// A bucket of `burst` that refills one call each `every` lets `burst + ceil(per / every) - 1` through in the worst of them.
fn rate_of(own: u32, per: Duration) -> Rate {
    let own = own.max(Limits::OWN_CALLS_MIN);
    let burst = (own / 4).max(Limits::OWN_CALLS_MIN);
    let every = per / (own - burst + 1) + Duration::from_nanos(1);
    let one_each = Rate::with_period(every).unwrap_or(Rate::per_hour(NonZeroU32::MIN));
    one_each.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").field("lanes", &self.lock().by_key.len()).finish()
    }
}

#[cfg(test)]
mod tests;
