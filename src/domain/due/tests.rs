//! Schedules, against cases worked out by hand from the design's formulas.

use proptest::prelude::*;

use super::*;
use crate::domain::credential::Environment;
use crate::domain::fixtures::{DAY, at, credential, installation, policy, provider, submitted, window};
use crate::domain::ids::VersionId;
use crate::domain::rotation::Moment;

const ISSUED: &str = "2026-01-01T00:00:00Z";

fn plan(policy: &RotationPolicy, current: &VersionFacts) -> Schedule {
    schedule(&credential("dinie-production", Environment::Production), policy, &provider(true), 1, current)
}

fn seconds_after_issue(schedule: &Schedule) -> f64 {
    Duration::try_from(schedule.starts_at.duration_since(at(ISSUED))).unwrap().as_secs_f64()
}

/// A ledger with one current version, and what is decided about it at a time.
fn decision(policy: &RotationPolicy, provider: &Provider, now: &str, change: impl FnOnce(&mut Ledger, &mut Facts<'_>)) -> Decision {
    let credential = credential("dinie-production", Environment::Production);
    let version: VersionId = "v1-a".parse().unwrap();
    let mut ledger = Ledger { generation: 1, current: Some(version.clone()), ..Ledger::default() };
    ledger.versions.insert(version, Box::new(submitted(at(ISSUED))));
    let now = Moment { wall: at(now), running: Duration::ZERO, trusted: true };
    let empty = Ledger::default();
    let mut facts = Facts {
        now,
        term: 1,
        credential: &credential,
        policy,
        provider,
        ledger: &empty,
        blockers: &[],
        create_unsent: false,
        seen: None,
        living: None,
        installation: installation(),
        requested: false,
        all_paused: false,
        crew: &[],
        rehearsal: None,
        rehearses: false,
    };
    change(&mut ledger, &mut facts);
    decide(&Facts { ledger: &ledger, ..facts })
}

#[test]
fn ninety_days_start_before_the_overlap_the_spread_and_the_reserve() {
    let policy = policy(90 * DAY, DAY, 0);
    let schedule = plan(&policy, &submitted(at(ISSUED)));
    // Reserve: 90 d / 20 is more than a day, so one day; and 120 s of propagation.
    assert_eq!(schedule.deadline_at, at("2026-04-01T00:00:00Z"));
    assert_eq!(schedule.starts_at, at("2026-03-29T23:58:00Z"));
    assert_eq!(schedule.reason, DueReason::MaxAge);
}

#[test]
fn the_spread_moves_a_start_earlier_by_a_part_of_itself() {
    let (still, spread) = (policy(90 * DAY, DAY, 0), policy(90 * DAY, DAY, 7 * DAY));
    let factor = spread_factor(&"dinie-production".parse().unwrap(), 1);
    let (late, early) = (plan(&still, &submitted(at(ISSUED))), plan(&spread, &submitted(at(ISSUED))));
    let moved = seconds_after_issue(&late) - seconds_after_issue(&early);
    assert!((moved - factor * 7.0 * 86_400.0).abs() < 0.001);
    assert_eq!(late.deadline_at, early.deadline_at);
}

#[test]
fn forty_seconds_start_between_twenty_one_and_twenty_two() {
    let policy = policy(40, 8, 1);
    for name in 0..200 {
        let credential = credential(&format!("credential-{name}"), Environment::Sandbox);
        let schedule = schedule(&credential, &policy, &provider(true), 1, &submitted(at(ISSUED)));
        // 40 − overlap 8 − spread (0, 1] − reserve 2 − propagation min(120, 8).
        let start = seconds_after_issue(&schedule);
        assert!(start > 21.0 && start <= 22.0, "{start}");
    }
}

#[test]
fn the_reserve_has_a_floor_a_ceiling_and_what_the_description_adds() {
    let mut slow = provider(true);
    for (max_age, base) in [(10, 1), (40, 2), (3_600, 180), (90 * DAY, DAY)] {
        let policy = policy(max_age, 1, 0);
        assert_eq!(reserve(&policy, &slow), Duration::from_secs(base + 1), "{max_age}");
    }
    slow.timing.manual_lead = Some(Duration::from_secs(3 * DAY));
    slow.timing.propagation = Some(Duration::from_secs(30));
    let mut policy = policy(90 * DAY, DAY, 0);
    policy.window_wait = Duration::from_secs(4 * DAY);
    assert_eq!(reserve(&policy, &slow), Duration::from_secs(8 * DAY + 30));
}

#[test]
fn the_end_that_the_provider_sets_counts_if_it_is_sooner() {
    let policy = policy(90 * DAY, DAY, 0);
    let mut version = submitted(at(ISSUED));
    version.expires_at = Some(at("2026-02-01T00:00:00Z"));
    let schedule = plan(&policy, &version);
    assert_eq!((schedule.deadline_at, schedule.reason), (at("2026-02-01T00:00:00Z"), DueReason::Expires));
    assert_eq!(schedule.starts_at, at("2026-01-29T23:58:00Z"));
    version.expires_at = Some(at("2027-01-01T00:00:00Z"));
    assert_eq!(plan(&policy, &version).reason, DueReason::MaxAge);
}

#[test]
fn a_window_moves_the_start_later_unless_that_is_too_late() {
    let mut policy = policy(90 * DAY, DAY, 0);
    // Wanted: Sunday 2026-03-29 23:58; the latest: Monday 30th 23:58.
    for (cron, starts_at, reason) in [
        ("0 9 * * Mon-Thu", "2026-03-30T09:00:00Z", DueReason::MaxAge),
        ("0 23 * * Sun", "2026-03-29T23:58:00Z", DueReason::MaxAge),
        ("58 23 30 * *", "2026-03-30T23:58:00Z", DueReason::MaxAge),
        ("59 23 30 * *", "2026-03-29T23:58:00Z", DueReason::NoWindowBeforeDeadline),
        ("0 9 31 12 *", "2026-03-29T23:58:00Z", DueReason::NoWindowBeforeDeadline),
    ] {
        policy.windows = vec![window(cron, "UTC", "2h")];
        let schedule = plan(&policy, &submitted(at(ISSUED)));
        assert_eq!((schedule.starts_at, schedule.reason), (at(starts_at), reason), "{cron}");
    }
}

#[test]
fn a_closed_window_is_waited_for_and_then_it_is_due() {
    let mut policy = policy(90 * DAY, DAY, 0);
    policy.windows = vec![window("0 9 * * Mon-Thu", "UTC", "8h")];
    let look = |now| decision(&policy, &provider(true), now, |_, _| {});
    assert_eq!(look("2026-03-29T23:57:59Z"), Decision::Steady { wake_at: at("2026-03-29T23:58:00Z") });
    assert_eq!(look("2026-03-30T08:59:59Z"), Decision::Steady { wake_at: at("2026-03-30T09:00:00Z") });
    assert_eq!(look("2026-03-30T09:00:00Z"), Decision::Due { reason: DueReason::MaxAge });
    assert_eq!(look("2027-01-01T00:00:00Z"), Decision::Due { reason: DueReason::MaxAge }, "however late");
}

#[test]
fn each_look_answers_with_its_reason() {
    let (policy, minting) = (policy(90 * DAY, DAY, 0), provider(true));
    let mut manual = provider(true);
    manual.calls.create = None;
    let (early, late) = ("2026-02-01T00:00:00Z", "2026-03-31T00:00:00Z");
    let wake_at = at("2026-03-29T23:58:00Z");
    let steady = Decision::Steady { wake_at };
    let blocked = |reason, until| Decision::Blocked { reason, until };
    assert_eq!(decision(&policy, &minting, early, |_, _| {}), steady);
    assert_eq!(decision(&policy, &manual, early, |_, _| {}), steady, "manual, and not due yet");
    assert_eq!(decision(&policy, &manual, late, |_, _| {}), Decision::Stuck { reason: StuckReason::NoCreateCall });
    assert_eq!(decision(&policy, &minting, late, |_, _| {}), Decision::Due { reason: DueReason::MaxAge });
    assert_eq!(decision(&policy, &minting, early, |_, facts| facts.requested = true), Decision::Due { reason: DueReason::Requested });
    assert_eq!(decision(&policy, &manual, early, |_, facts| facts.requested = true), Decision::Stuck { reason: StuckReason::NoCreateCall });
    let untrusted = |_: &mut Ledger, facts: &mut Facts<'_>| facts.now.trusted = false;
    assert_eq!(decision(&policy, &minting, early, untrusted), blocked(BlockReason::ClockUntrusted, None));
    assert_eq!(decision(&policy, &minting, late, untrusted), blocked(BlockReason::ClockUntrusted, None));
    assert_eq!(decision(&policy, &minting, late, |ledger, _| ledger.paused = true), blocked(BlockReason::Paused, None));
    assert_eq!(decision(&policy, &minting, late, |ledger, _| ledger.current = None), Decision::Missing);
    let refused = |ledger: &mut Ledger, _: &mut Facts<'_>| ledger.refused_since = Some(at(early));
    assert_eq!(decision(&policy, &minting, early, refused), Decision::Stuck { reason: StuckReason::CurrentRefused });
}

#[test]
fn an_orphan_goes_first_unless_paused() {
    let (policy, provider) = (policy(90 * DAY, DAY, 0), provider(true));
    let orphan = |ledger: &mut Ledger| assert!(ledger.orphans.insert("stray".parse().unwrap()));
    let now = "2026-02-01T00:00:00Z";
    let step = Decision::Step(Step::RevokeOrphan { key_id: "stray".parse().unwrap() });
    assert_eq!(decision(&policy, &provider, now, |ledger, _| orphan(ledger)), step);
    let paused = decision(&policy, &provider, now, |ledger, _| {
        orphan(ledger);
        ledger.paused = true;
    });
    assert_eq!(paused, Decision::Blocked { reason: BlockReason::Paused, until: None });
}

#[test]
fn the_spread_is_even_over_ten_thousand_names_and_the_same_for_ever() {
    let mut buckets = [0_u32; 20];
    for name in 0..10_000 {
        let factor = spread_factor(&format!("credential-{name}").parse().unwrap(), 1);
        assert!((0.0..1.0).contains(&factor));
        let bucket = (factor * 20.0).floor();
        buckets[(0..20).find(|index| f64::from(*index) == bucket).map(|index| usize::try_from(index).unwrap()).unwrap()] += 1;
    }
    // 500 each on average; 3 standard deviations are 65.
    assert!(buckets.iter().all(|count| (420..580).contains(count)), "{buckets:?}");
    let name: Name = "dinie-production".parse().unwrap();
    // A changed hash would move every start of every installation at once.
    assert_eq!(format!("{:.6} {:.6}", spread_factor(&name, 1), spread_factor(&name, 2)), "0.435268 0.789080");
}

#[test]
fn one_credential_spreads_over_its_generations_too() {
    let name: Name = "dinie-production".parse().unwrap();
    let early = (1..1_000).filter(|generation| spread_factor(&name, *generation) < 0.5).count();
    assert!((430..570).contains(&early), "{early}");
}

proptest! {
    #[test]
    fn a_start_is_never_later_than_it_must_be(max_age in 20..400 * DAY, name in "[a-z]{1,20}", generation in 0..1_000_u64) {
        let policy = policy(max_age, (max_age / 10).max(1), max_age / 10);
        let credential = credential(&name, Environment::Sandbox);
        let provider = provider(true);
        let schedule = schedule(&credential, &policy, &provider, generation, &submitted(at(ISSUED)));
        let unspread = earlier(schedule.deadline_at, policy.terms.overlap.as_duration() + reserve(&policy, &provider));
        prop_assert!(schedule.starts_at <= unspread, "the spread only moves it earlier");
        let spread = Duration::try_from(unspread.duration_since(schedule.starts_at)).unwrap();
        prop_assert!(spread <= policy.spread);
        prop_assert_eq!(schedule.deadline_at, later(at(ISSUED), Duration::from_secs(max_age)));
    }
}

/// A hundred thousand keys that were made in one hour come due together: the hash lays them over the spread. A minute's count is
/// a sum of independent ones, so it varies by its root; ten minutes are enough for that to be small.
#[test]
fn a_fleet_made_in_one_hour_starts_evenly() {
    const FLEET: usize = 100_000;
    let policy = policy(90 * DAY, DAY, 7 * DAY);
    let start_of = |number: usize, generation: u64| {
        let credential = credential(&format!("tenant-{number}"), Environment::Production);
        let made = later(at(ISSUED), Duration::from_millis(u64::try_from(number).unwrap() * 36));
        let start = schedule(&credential, &policy, &provider(true), generation, &submitted(made)).starts_at;
        start.duration_since(at(ISSUED)).as_secs()
    };
    for generation in [1, 2, 40] {
        let starts: Vec<i64> = (0..FLEET).map(|number| start_of(number, generation)).collect();
        let (first, last) = (*starts.iter().min().unwrap(), *starts.iter().max().unwrap());
        assert!(last - first > 6 * 86_400, "over the whole spread");
        for (window, most_times_the_mean) in [(600, 2.0), (60, 3.0)] {
            let mut counts = vec![0_u32; usize::try_from((last - first) / window + 1).unwrap()];
            starts.iter().for_each(|start| counts[usize::try_from((start - first) / window).unwrap()] += 1);
            let mean = FLEET as f64 / counts.len() as f64;
            let most = f64::from(*counts.iter().max().unwrap());
            println!("generation {generation}, {window} s: {most} at most, {mean:.1} in the mean");
            assert!(most <= mean * most_times_the_mean, "{most} in {window} s, {mean} in the mean");
        }
    }
}
