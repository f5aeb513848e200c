//! Whatever is asked and whenever, no time of the quota's length sees more than our share.

use proptest::prelude::*;

use super::*;

fn limits(calls: u32, per_seconds: u64, share: u8) -> Limits {
    Limits { quota: Some(Quota { calls, per: Duration::from_secs(per_seconds) }), share, ..Limits::default() }
}

fn lane(account: &str) -> LaneKey {
    LaneKey { provider: "dinie".parse().unwrap(), environment: Environment::Sandbox, account: account.parse().unwrap() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const ONE: Demand = Demand { calls: 1, begun: false, routine: false };

/// Most calls within any time of this length.
fn most_within(times: &[Duration], per: Duration) -> usize {
    let within = |(first, start): (usize, &Duration)| times[first..].iter().take_while(|time| **time < *start + per).count();
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn a_burst_goes_through_and_the_rest_comes_at_a_steady_pace() {
    let (pacer, limits) = (Pacer::default(), limits(80, 60, 50));
    let mut times = Vec::new();
    let mut now = seconds(100);
    while times.len() < 200 {
        match pacer.ask(&lane("a"), &limits, ONE, now) {
            Ok(()) => times.push(now),
            Err(wait) => now += wait,
        }
    }
    assert_eq!(times[9], seconds(100), "a burst of a quarter of our share");
    assert_eq!(most_within(&times, seconds(60)), 40, "all of our share, and no more");
}

#[test]
fn accounts_have_quotas_of_their_own() {
    let (pacer, limits) = (Pacer::default(), limits(16, 60, 50));
    for account in ["a", "b"] {
        for _ in 0..4 {
            assert_eq!(pacer.ask(&lane(account), &limits, ONE, seconds(1)), Ok(()));
        }
        assert!(pacer.ask(&lane(account), &limits, ONE, seconds(1)).is_err());
    }
}

#[test]
fn several_calls_go_together_or_not_at_all() {
    let (pacer, limits) = (Pacer::default(), limits(16, 80, 50));
    let two = Demand { calls: 2, begun: false, routine: false };
    for calls in [two, ONE] {
        assert_eq!(pacer.ask(&lane("a"), &limits, calls, seconds(1)), Ok(()));
    }
    let wait = pacer.ask(&lane("a"), &limits, two, seconds(1)).unwrap_err();
    assert!(wait > seconds(15) && wait < seconds(17), "one more comes each 16 s: {wait:?}");
    assert_eq!(pacer.ask(&lane("a"), &limits, ONE, seconds(1)), Ok(()), "nothing was counted");
}

#[test]
fn routine_looks_leave_half_to_rotations() {
    let (pacer, limits) = (Pacer::default(), limits(128, 64, 50));
    let (mut looks, mut rotations) = (0, 0);
    for quarter in 0..4 * 640 {
        let now = Duration::from_millis(250 * quarter);
        // Many looks are due at any time; they ask first.
        while pacer.ask(&lane("a"), &limits, Demand { routine: true, ..ONE }, now).is_ok() {
            looks += 1;
        }
        rotations += u32::from(pacer.ask(&lane("a"), &limits, ONE, now).is_ok());
    }
    // Ten times the quota's time: 640 calls are ours, a quarter less because of the burst.
    assert!(rotations >= 320 && looks >= 32 && looks + rotations >= 480, "{looks} looks, {rotations} calls of rotations");
    let alone: u32 =
        (0..640).map(|second| u32::from(pacer.ask(&lane("b"), &limits, Demand { routine: true, ..ONE }, seconds(second)).is_ok())).sum();
    assert!((200..=320).contains(&alone), "no more than half where rotations need nothing: {alone}");
}

#[test]
fn what_others_need_is_left_to_them_until_the_reset() {
    let pacer = Pacer::default();
    let told = |remaining| Told { limit: Some(100), remaining: Some(remaining), reset: Some(seconds(30)), ..Told::default() };
    let limits = Limits { share: 40, ..Limits::default() };
    pacer.heard(&lane("a"), &limits, told(60), seconds(1));
    assert_eq!(pacer.ask(&lane("a"), &limits, ONE, seconds(1)), Ok(()));
    pacer.heard(&lane("a"), &limits, told(59), seconds(1));
    assert_eq!(pacer.ask(&lane("a"), &limits, ONE, seconds(2)), Err(seconds(29)));
    assert_eq!(pacer.ask(&lane("a"), &limits, Demand { begun: true, ..ONE }, seconds(2)), Ok(()), "what was begun goes on");
    assert_eq!(pacer.ask(&lane("b"), &limits, ONE, seconds(2)), Ok(()), "another account has its own");
    assert_eq!(pacer.ask(&lane("a"), &limits, ONE, seconds(31)), Ok(()));
    let throttled = Told { asked_to_wait: Some(seconds(1_000_000)), ..Told::default() };
    pacer.heard(&lane("a"), &limits, throttled, seconds(31));
    assert_eq!(pacer.ask(&lane("a"), &limits, ONE, seconds(31)), Err(HOLD_MAX), "one answer holds nobody up for days");
}

#[test]
fn without_a_limit_header_the_described_quota_counts_and_without_either_nothing_does() {
    let pacer = Pacer::default();
    let told = Told { remaining: Some(3), ..Told::default() };
    pacer.heard(&lane("a"), &Limits::default(), told, seconds(1));
    assert_eq!(pacer.ask(&lane("a"), &Limits::default(), ONE, seconds(1)), Ok(()));
    pacer.heard(&lane("b"), &limits(16, 60, 50), told, seconds(1));
    assert_eq!(pacer.ask(&lane("b"), &limits(16, 60, 50), ONE, seconds(1)), Err(seconds(60)), "and its time, where no reset is told");
}

#[test]
fn a_changed_quota_gives_nothing_away() {
    let pacer = Pacer::default();
    assert_eq!(pacer.ask(&lane("a"), &limits(16, 60, 50), ONE, seconds(1)), Ok(()));
    assert!(pacer.ask(&lane("a"), &limits(1600, 60, 50), ONE, seconds(1)).is_err());
    assert_eq!(pacer.ask(&lane("a"), &limits(1600, 60, 50), ONE, seconds(2)), Ok(()));
}

#[test]
fn many_idle_accounts_are_forgotten_and_busy_ones_are_not() {
    let (pacer, limits) = (Pacer::default(), limits(16, 60, 50));
    for _ in 0..4 {
        assert_eq!(pacer.ask(&lane("busy"), &limits, ONE, seconds(59)), Ok(()));
    }
    for idle in 0..5 * LANES_MANY {
        let at = if idle < 2 * LANES_MANY { seconds(1) } else { seconds(62) };
        assert_eq!(pacer.ask(&lane(&format!("idle-{idle}")), &limits, ONE, at), Ok(()));
    }
    let left = pacer.lock().by_key.len();
    assert!(left <= 3 * LANES_MANY + 1, "none of the first {} is left: {left}", 2 * LANES_MANY);
    assert!(pacer.ask(&lane("busy"), &limits, ONE, seconds(62)).is_err());
}

proptest! {
    #[test]
    fn no_window_sees_more_than_our_share(
        calls in 8_u32..2_000,
        share in 1_u8..=100,
        per in 1_u64..4_000,
        asks in prop::collection::vec((0_u64..5_000, 1_u32..=4), 1..400),
    ) {
        let limits = limits(calls, per, share);
        let own = limits.own_calls().unwrap();
        prop_assume!(own >= Limits::OWN_CALLS_MIN);
        let pacer = Pacer::default();
        let (mut now, mut times) = (Duration::ZERO, Vec::new());
        for (pause_ms, count) in asks {
            now += Duration::from_millis(pause_ms);
            let demand = Demand { calls: count, begun: count == 1, routine: false };
            match pacer.ask(&lane("a"), &limits, demand, now) {
                Ok(()) => times.extend(std::iter::repeat_n(now, count as usize)),
                Err(wait) => {
                    now += wait;
                    prop_assert_eq!(pacer.ask(&lane("a"), &limits, demand, now), Ok(()), "the wait that was named is enough");
                    times.extend(std::iter::repeat_n(now, count as usize));
                }
            }
        }
        let most = most_within(&times, seconds(per));
        prop_assert!(most <= own as usize, "{} of {}", most, own);
    }
}
