//! How long to wait before the next try. Pure; the jitter is a hash, so that a restart draws nothing anew.

use std::time::Duration;

use crate::domain::due::spread_factor;
use crate::domain::ids::Name;

/// Waits for one credential: doubled with each failure in a row, forgotten with the first success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    /// Running time before which nothing is tried.
    until: Duration,
}

/// The first wait is at most this long.
const FIRST: Duration = Duration::from_millis(400);
/// A provider that asks for more than this is asked again after this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

impl Backoff {
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    pub(super) fn is_waiting(&self, running: Duration) -> bool {
        running < self.until
    }

    pub(super) fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// Notes a failure. `longest` bounds the wait, unless the provider itself named one. A wait that was named, and is longer than
    /// ours, isn't doubled: who queues for a quota keeps its place, and the earliest deadline goes first (I14).
    pub(super) fn failed(&mut self, name: &Name, running: Duration, longest: Duration, retry_after: Option<Duration>) {
        let wait = wait_after(name, self.failures.saturating_add(1), longest);
        let named = retry_after.filter(|asked| *asked >= wait);
        if named.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        self.until = running + named.map_or(wait, |asked| asked.min(RETRY_AFTER_MAX.max(wait)));
    }
}

/// The wait after so many failures in a row: between half and all of a doubling bound.
pub(super) fn wait_after(name: &Name, failures: u32, longest: Duration) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(20)));
    doubled.min(longest).mul_f64(0.5 + spread_factor(name, u64::from(failures)) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_stay_bounded() {
        let name: Name = "dinie".parse().unwrap();
        let longest = Duration::from_secs(2);
        for failures in 1..100 {
            let wait = wait_after(&name, failures, longest);
            assert!(wait <= longest && wait >= Duration::from_millis(200));
            assert!(failures > 1 || wait <= Duration::from_millis(500));
        }
    }

    #[test]
    fn a_provider_that_names_a_wait_is_obeyed_within_bounds() {
        let name: Name = "dinie".parse().unwrap();
        let mut backoff = Backoff::default();
        backoff.failed(&name, Duration::ZERO, Duration::from_secs(2), Some(Duration::from_secs(30)));
        assert_eq!(backoff.until(), Duration::from_secs(30));
        backoff.failed(&name, Duration::ZERO, Duration::from_secs(2), Some(Duration::from_secs(1_000_000)));
        assert_eq!(backoff.until(), RETRY_AFTER_MAX);
        assert_eq!(backoff.failures, 0, "a wait that was named adds nothing to ours");
        for _ in 0..20 {
            backoff.failed(&name, Duration::ZERO, Duration::from_secs(60), Some(Duration::ZERO));
        }
        assert!(backoff.until() >= Duration::from_secs(30), "one that names none, or a short one, is left alone for longer and longer");
        backoff.succeeded();
        assert!(!backoff.is_waiting(Duration::ZERO));
    }
}
