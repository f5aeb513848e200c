//! Keeps the calls of each account within our share of its quota (I15). Knows no clock: time is an argument.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::credential::Environment;
use crate::domain::ids::Name;
use crate::domain::provider::{Limits, Quota};
use crate::rate::Rate;

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

const _: () = assert!(Limits::OWN_CALLS_MIN == crate::rate::CALLS_MIN);

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

struct Lane {
    quota: Option<(Quota, u8)>,
    limiter: Option<Rate>,
    /// Routine looks pass this one first: however many credentials an account has, looking after them leaves room for rotations.
    routine: Option<Rate>,
    /// Nothing is begun before.
    hold_until: Duration,
    used_at: Duration,
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
            Some(Rate::new(own / part, quota.per, now))
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
            limiter.drain();
        }
    }
}

fn take(rate: Option<&Rate>, calls: u32, now: Duration) -> Result<(), Duration> {
    rate.map_or(Ok(()), |rate| rate.take(calls, now))
}

impl fmt::Debug for Pacer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pacer").field("lanes", &self.lock().by_key.len()).finish()
    }
}

#[cfg(test)]
mod tests;
