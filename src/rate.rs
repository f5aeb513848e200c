//! A share of a quota, kept by the generic cell rate algorithm. Knows no clock: time is an argument.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// A share of fewer calls than this lets nothing through that needs several calls in one go.
pub(crate) const CALLS_MIN: u32 = 4;
/// What is said where more is asked for in one go than ever fits.
const NEVER: Duration = Duration::from_secs(3_600);

/// So many calls within any time of a given length, however that time is laid.
pub(crate) struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, TimeTold, NoOpMiddleware<Duration>>,
}

/// The limiter's clock: it stands where the last question put it.
struct TimeTold(AtomicU64);

impl Clock for TimeTold {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Rate {
    /// `calls` within any time of the length `per`, a quarter of them in one burst. Fewer than [`CALLS_MIN`] count as so many.
    pub(crate) fn new(calls: u32, per: Duration, now: Duration) -> Rate {
        Rate { limiter: RateLimiter::direct_with_clock(quota_of(calls, per), TimeTold(AtomicU64::new(nanos(now)))) }
    }

    /// Takes all of these calls or none; at most [`CALLS_MIN`] at once. `now` that goes back counts as the latest seen.
    ///
    /// # Errors
    /// How long to wait at least before asking again, never zero; nothing was counted.
    pub(crate) fn take(&self, calls: u32, now: Duration) -> Result<(), Duration> {
        self.limiter.clock().0.fetch_max(nanos(now), Ordering::Relaxed);
        let calls = NonZeroU32::new(calls.clamp(1, CALLS_MIN)).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(calls) {
            Ok(Ok(())) => Ok(()),
            // Never at once again, whatever rounding says.
            Ok(Err(not_until)) => Err(not_until.wait_time_from(now).max(Duration::from_millis(1))),
            // More than ever fits at once: documents that ask for this are refused.
            Err(_) => Err(NEVER),
        }
    }

    /// Takes all that may be taken now.
    pub(crate) fn drain(&self) {
        while self.limiter.check().is_ok() {}
    }
}

/// A burst and a refill that add up to `calls` in any time of this length, however it is laid.
///
/// A bucket of `burst` that refills one call each `every` lets `burst + ceil(per / every) - 1` through in the worst of them.
fn quota_of(calls: u32, per: Duration) -> Quota {
    let calls = calls.max(CALLS_MIN);
    let burst = (calls / 4).max(CALLS_MIN);
    let every = per / (calls - burst + 1) + Duration::from_nanos(1);
    let one_each = Quota::with_period(every).unwrap_or(Quota::per_hour(NonZeroU32::MIN));
    one_each.allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
