//! Windows over the days on which clocks change, and expressions that dialects read differently.

use proptest::prelude::*;

use super::*;
use crate::domain::fixtures::{DAY, at, window};

fn openings(window: &Window, from: &str, until: &str) -> Vec<String> {
    let until = at(until);
    window.openings_after(at(from)).take_while(|opening| *opening < until).map(|opening| opening.to_string()).collect()
}

fn refused(expression: &str) -> Option<WindowError> {
    Window::new(expression, "UTC", "1h".parse().unwrap(), at("2026-01-01T00:00:00Z")).err()
}

#[test]
fn a_local_time_keeps_its_hour_when_the_clock_changes() {
    for (timezone, days) in [
        ("UTC", ["2026-03-28T09:00:00Z", "2026-03-29T09:00:00Z", "2026-03-30T09:00:00Z"]),
        ("Europe/Berlin", ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"]),
        ("America/Sao_Paulo", ["2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", "2026-03-30T12:00:00Z"]),
    ] {
        let window = window("0 9 * * *", timezone, "1h");
        assert_eq!(openings(&window, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"), days, "{timezone}");
    }
}

#[test]
fn the_hour_that_spring_skips_opens_at_its_end() {
    let window = window("30 2 * * *", "Europe/Berlin", "1h");
    let expected = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(openings(&window, "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"), expected);
    assert!(!window.is_open(at("2026-03-29T00:59:59Z")));
    assert!(window.is_open(at("2026-03-29T01:00:00Z")) && window.is_open(at("2026-03-29T01:59:59Z")));
    assert!(!window.is_open(at("2026-03-29T02:00:00Z")));
}

#[test]
fn many_times_within_the_skipped_hour_open_once_and_in_order() {
    let window = window("*/10 1-3 * * *", "Europe/Berlin", "5m");
    let found = openings(&window, "2026-03-29T00:45:00Z", "2026-03-29T01:25:00Z");
    assert_eq!(found, ["2026-03-29T00:50:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:10:00Z", "2026-03-29T01:20:00Z"]);
}

#[test]
fn the_hour_that_autumn_doubles_opens_once() {
    let window = window("30 2 * * *", "Europe/Berlin", "15m");
    let expected = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
    assert_eq!(openings(&window, "2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z"), expected);
    assert!(window.is_open(at("2026-10-25T00:30:00Z")), "02:30 for the first time");
    assert!(!window.is_open(at("2026-10-25T01:30:00Z")), "02:30 again");
    // Looked at from within the doubled hour.
    assert_eq!(window.next_open(at("2026-10-25T00:50:00Z")), Some(at("2026-10-26T01:30:00Z")));
    assert_eq!(window.next_open(at("2026-10-25T01:10:00Z")), Some(at("2026-10-26T01:30:00Z")));
}

#[test]
fn an_open_time_is_real_time_across_a_change() {
    let spring = window("0 0 * * *", "Europe/Berlin", "4h");
    assert!(spring.is_open(at("2026-03-29T02:59:59Z")) && !spring.is_open(at("2026-03-29T03:00:00Z")), "ends at 05:00 local time");
}

#[test]
fn a_zone_whose_midnight_was_skipped_opens_at_one() {
    // São Paulo, 2018-11-04: 00:00 became 01:00.
    let window = window("0 0 * * *", "America/Sao_Paulo", "30m");
    let expected = ["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"];
    assert_eq!(openings(&window, "2018-11-03T00:00:00Z", "2018-11-06T00:00:00Z"), expected);
    // 2018-02-18: midnight became 23:00 of the day before.
    let late = crate::domain::fixtures::window("30 23 * * *", "America/Sao_Paulo", "30m");
    assert_eq!(openings(&late, "2018-02-17T12:00:00Z", "2018-02-19T12:00:00Z"), ["2018-02-18T01:30:00Z", "2018-02-19T02:30:00Z"]);
}

#[test]
fn a_gap_of_half_an_hour_is_a_gap() {
    // Lord Howe, 2026-10-04: 02:00 became 02:30.
    let window = window("15 2 * * *", "Australia/Lord_Howe", "10m");
    assert_eq!(openings(&window, "2026-10-03T00:00:00Z", "2026-10-04T00:00:00Z"), ["2026-10-03T15:30:00Z"]);
}

#[test]
fn leap_days_and_month_ends_come_when_they_come() {
    let leap = window("0 0 29 2 *", "UTC", "1h");
    assert_eq!(leap.next_open(at("2026-01-01T00:00:00Z")), Some(at("2028-02-29T00:00:00Z")));
    assert_eq!(leap.next_open(at("2028-02-29T01:00:00Z")), Some(at("2032-02-29T00:00:00Z")));
    let last = window("0 12 31 * *", "UTC", "1h");
    let expected = ["2026-01-31T12:00:00Z", "2026-03-31T12:00:00Z", "2026-05-31T12:00:00Z"];
    assert_eq!(openings(&last, "2026-01-30T00:00:00Z", "2026-06-30T00:00:00Z"), expected);
    let thirtieth = window("0 12 30 * *", "UTC", "1h");
    assert_eq!(thirtieth.next_open(at("2026-01-31T12:00:00Z")), Some(at("2026-03-30T12:00:00Z")));
}

#[test]
fn what_dialects_read_differently_is_refused() {
    for (expression, error) in [
        ("0 9 * *", WindowError::FieldCount),
        ("0 0 9 * * Mon", WindowError::FieldCount),
        ("", WindowError::FieldCount),
        ("@daily", WindowError::FieldCount),
        ("0 9 * * 1", WindowError::NumericWeekday),
        ("0 9 * * 1-5", WindowError::NumericWeekday),
        ("0 9 * * Mon#1", WindowError::NumericWeekday),
        ("0 9 1 * Mon", WindowError::BothDays),
        ("0 9 */2 * Mon-Fri", WindowError::BothDays),
        ("0 9 30 2 *", WindowError::Never),
        ("0 9 31 4,6,9,11 *", WindowError::Never),
        ("61 9 * * *", WindowError::Syntax),
        ("0 24 * * *", WindowError::Syntax),
        ("0 9 * 13 *", WindowError::Syntax),
        ("0 9 32 * *", WindowError::Syntax),
        ("0 9 * * Monn", WindowError::Syntax),
        ("a b c d *", WindowError::Syntax),
    ] {
        assert_eq!(refused(expression), Some(error), "{expression}");
    }
    for good in ["0 9 * * Mon-Thu", "0 9 * * Mon,Wed,Fri", "*/15 8-17 * * *", "0 0 1 1 *", "0 0 1 Jan ?", "5  4\t* * Sun"] {
        assert_eq!(refused(good), None, "{good}");
    }
    let build = |timezone, open: &str| Window::new("0 9 * * *", timezone, open.parse().unwrap(), at("2026-01-01T00:00:00Z")).err();
    assert_eq!(build("Europe/Nowhere", "1h"), Some(WindowError::Timezone));
    assert_eq!(build("CET+1", "1h"), Some(WindowError::Timezone));
    assert_eq!(build("UTC", "32d"), Some(WindowError::OpenTooLong));
    assert_eq!(build("UTC", "31d"), None);
}

#[test]
fn the_bounds_of_a_window_are_its_first_second_and_not_its_last() {
    let window = window("0 9 * * Mon-Thu", "UTC", "8h");
    for (time, open) in [
        ("2026-03-23T08:59:59Z", false),
        ("2026-03-23T08:59:59.999Z", false),
        ("2026-03-23T09:00:00Z", true),
        ("2026-03-23T16:59:59.999Z", true),
        ("2026-03-23T17:00:00Z", false),
        ("2026-03-27T12:00:00Z", false),
    ] {
        assert_eq!(window.is_open(at(time)), open, "{time}");
    }
    assert_eq!(window.next_open(at("2026-03-26T17:00:00Z")), Some(at("2026-03-30T09:00:00Z")));
    assert!(any_open(&[], at("2026-03-27T12:00:00Z")), "no windows: always");
}

#[test]
fn the_longest_wait_is_the_widest_gap() {
    let from = at("2026-03-23T00:00:00Z");
    let wait = |windows: &[Window]| longest_wait(windows, from, Duration::from_secs(60 * DAY)).as_secs();
    let week = window("0 9 * * Mon-Thu", "UTC", "8h");
    // Thursday 17:00 to Monday 09:00.
    assert_eq!(wait(std::slice::from_ref(&week)), 88 * 3_600);
    // A Friday beside it: 17:00 to Monday 09:00.
    assert_eq!(wait(&[week, window("0 9 * * Fri", "UTC", "8h")]), 64 * 3_600);
    assert_eq!(wait(&[window("0 0 * * *", "UTC", "24h")]), 0, "one after another without a gap");
    assert_eq!(wait(&[window("0 0 * * *", "UTC", "12h"), window("0 11 * * *", "UTC", "13h")]), 0, "overlapping");
    assert_eq!(wait(&[]), 0);
    assert_eq!(wait(&[window("0 0 31 12 *", "UTC", "1h")]), 60 * DAY, "none within sight");
}

#[test]
fn a_search_is_bounded_for_the_busiest_and_the_rarest() {
    let from = at("2026-03-23T00:00:00Z");
    let began = std::time::Instant::now();
    for (expression, open) in [("* * * * *", "1s"), ("* * * * *", "31d"), ("* 9-17 * 1 *", "30s"), ("0 0 29 2 *", "1h")] {
        let window = window(expression, "Europe/Berlin", open);
        let _ = longest_wait(&[window.clone(), window.clone()], from, Duration::from_secs(3_650 * DAY));
        for day in 0..100 {
            let at = from.checked_add(Duration::from_secs(day * DAY)).unwrap();
            assert!(window.next_open(at).is_some());
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn is_open_and_next_open_agree(
        expression in prop::sample::select(vec![
            "0 9 * * Mon-Thu", "30 2 * * *", "*/20 1-3 * * *", "0 0 1 * *", "15 23 * * Sun", "0 */6 * * *",
        ]),
        timezone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        open in 1..2_000_u64,
        second in 1_700_000_000..1_900_000_000_i64,
    ) {
        let window = window(expression, timezone, &format!("{open}m"));
        let now = Timestamp::from_second(second).unwrap();
        let next = window.next_open(now).unwrap();
        prop_assert!(next >= now);
        prop_assert!(window.is_open(next));
        prop_assert_eq!(window.is_open(now), next == now);
        if next > now {
            let just_before = next.checked_sub(Duration::from_secs(1)).unwrap();
            prop_assert!(!window.is_open(just_before), "it opens at its first second");
        }
        let opens: Vec<Timestamp> = window.openings_after(now).take(20).collect();
        prop_assert!(opens.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once");
    }
}
