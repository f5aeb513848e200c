//! The starts of generations to come, so that herds are seen before they come (I15).

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;

use super::credential::Credential;
use super::due::schedule;
use super::ids::Name;
use super::ledger::VersionFacts;
use super::policy::RotationPolicy;
use super::provider::Provider;

/// A credential that starts more often than this within what anybody looks ahead isn't planned by days.
pub const STARTS_MAX: usize = 1_000;

/// When one credential starts, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    pub starts: Vec<Timestamp>,
    /// Whether these are all up to the horizon; else they end with the bound.
    pub whole: bool,
}

/// All starts from `now` to `until`, the first `max` of them: each rotation is taken to succeed when it starts, and each
/// new key to live as long as the current one.
pub fn forecast(
    credential: &Credential,
    policy: &RotationPolicy,
    provider: &Provider,
    generation: u64,
    current: &VersionFacts,
    (now, until): (Timestamp, Timestamp),
    max: usize,
) -> Forecast {
    let mut starts = Vec::new();
    let mut version = current.clone();
    let mut from = now;
    for generation in generation.. {
        // What is overdue starts now.
        let start = schedule(credential, policy, provider, generation, &version).starts_at.max(from);
        if start > until {
            break;
        }
        if starts.len() >= max.min(STARTS_MAX) {
            return Forecast { starts, whole: false };
        }
        starts.push(start);
        let lifetime = version.expires_at.map(|expires| expires.duration_since(version.issued_at));
        version.expires_at = lifetime.map(|lifetime| start.checked_add(lifetime).unwrap_or(Timestamp::MAX));
        version.issued_at = start;
        from = start;
    }
    Forecast { starts, whole: true }
}

/// Counts starts by account and day (UTC).
#[derive(Debug, Default)]
pub struct Herds(BTreeMap<(Name, Date), u32>);

impl Herds {
    pub fn count(&mut self, account: &Name, starts: &[Timestamp]) {
        for start in starts {
            *self.0.entry((account.clone(), Offset::UTC.to_datetime(*start).date())).or_default() += 1;
        }
    }

    /// By account, then by day; no day without a start.
    pub fn into_days(self) -> impl Iterator<Item = (Name, Date, u32)> {
        self.0.into_iter().map(|((account, day), starts)| (account, day, starts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::credential::Environment;
    use crate::domain::fixtures::{DAY, at, credential, policy, provider, submitted, window};

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn days(count: u64) -> (Timestamp, Timestamp) {
        (at(NOW), at(NOW).checked_add(std::time::Duration::from_secs(count * DAY)).unwrap())
    }

    fn starts(policy: &RotationPolicy, current: &VersionFacts, count: u64) -> Forecast {
        let credential = credential("dinie-production", Environment::Production);
        forecast(&credential, policy, &provider(true), 1, current, days(count), STARTS_MAX)
    }

    #[test]
    fn a_ninety_day_key_starts_four_times_a_year() {
        let plan = starts(&policy(90 * DAY, DAY, 0), &submitted(at(NOW)), 365);
        // Overlap one day, reserve one day and two minutes: every 87 d 23 h 58 min.
        let expected = ["2026-03-29T23:58:00Z", "2026-06-25T23:56:00Z", "2026-09-21T23:54:00Z", "2026-12-18T23:52:00Z"];
        assert_eq!(plan, Forecast { starts: expected.map(at).to_vec(), whole: true });
    }

    #[test]
    fn what_is_overdue_starts_now_and_then_in_its_rhythm() {
        let plan = starts(&policy(90 * DAY, DAY, 0), &submitted(at("2025-01-01T00:00:00Z")), 100);
        assert_eq!(plan.starts, [at(NOW), at("2026-03-29T23:58:00Z")]);
    }

    #[test]
    fn a_key_that_its_provider_ends_sooner_is_followed_by_such_keys() {
        let mut current = submitted(at(NOW));
        current.expires_at = Some(at("2026-01-31T00:00:00Z"));
        assert_eq!(starts(&policy(90 * DAY, DAY, 0), &current, 365).starts.len(), 13);
    }

    #[test]
    fn windows_hold_for_later_generations_too() {
        let mut policy = policy(90 * DAY, DAY, 0);
        policy.windows = vec![window("0 9 * * Mon-Thu", "UTC", "8h")];
        policy.window_wait = std::time::Duration::from_secs(88 * 3_600);
        let plan = starts(&policy, &submitted(at(NOW)), 365);
        assert_eq!(plan.starts.len(), 4);
        assert!(plan.starts.iter().all(|start| policy.windows[0].is_open(*start)), "{plan:?}");
    }

    #[test]
    fn an_age_of_seconds_ends_at_the_bound() {
        let plan = starts(&policy(40, 8, 1), &submitted(at(NOW)), 365);
        assert_eq!((plan.starts.len(), plan.whole), (STARTS_MAX, false));
    }

    #[test]
    fn herds_are_counted_by_account_and_day() {
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut herds = Herds::default();
        herds.count(&a, &[at("2026-01-01T00:00:00Z"), at("2026-01-01T23:59:59Z"), at("2026-01-02T00:00:00Z")]);
        herds.count(&b, &[at("2026-01-01T12:00:00Z")]);
        let rows: Vec<String> = herds.into_days().map(|(account, day, starts)| format!("{account} {day} {starts}")).collect();
        assert_eq!(rows, ["a 2026-01-01 2", "a 2026-01-02 1", "b 2026-01-01 1"]);
    }

    proptest! {
        /// The next start is the schedule's own, and each generation keeps its deadline.
        #[test]
        fn every_start_comes_before_the_deadline_of_its_key(age in 1u64..400, spread in 0u64..8, name in "[a-z]{1,8}") {
            let policy = policy(age * DAY, DAY / 20, (spread * DAY).min(age * DAY / 10));
            let credential = credential(&name, Environment::Sandbox);
            let current = submitted(at(NOW));
            let plan = forecast(&credential, &policy, &provider(true), 1, &current, days(1_000), STARTS_MAX);
            prop_assert!(plan.starts.is_sorted());
            let first = schedule(&credential, &policy, &provider(true), 1, &current).starts_at;
            prop_assert_eq!(plan.starts.first().copied(), (first <= days(1_000).1).then_some(first));
            let mut issued = at(NOW);
            for start in plan.starts {
                prop_assert!(start > issued && start.duration_since(issued).as_secs() < i64::try_from(age * DAY).unwrap());
                issued = start;
            }
        }
    }
}
