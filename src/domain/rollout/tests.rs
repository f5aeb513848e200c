//! Who comes first, and how many.

use proptest::prelude::*;

use super::*;

fn crew(count: usize) -> Vec<Member> {
    let member = |number: usize| {
        let (application, instance) = ("payments".parse().unwrap(), format!("pod-{number}").parse().unwrap());
        let rank = rank(&application, &instance);
        Member { who: Blocker { application, instance: Some(instance) }, rank, state: HoldingState::Holds }
    };
    (0..count).map(member).collect()
}

fn reached(reach: Reach, crew: &[Member]) -> usize {
    crew.iter().filter(|member| reach.includes(member.rank)).count()
}

#[test]
fn the_line_is_the_same_for_ever() {
    // Replicas of two versions must agree: these numbers never change.
    let rank = |application: &str, instance: &str| rank(&application.parse().unwrap(), &instance.parse().unwrap());
    assert_eq!(rank("payments", "default"), 6_518_858_079_356_111_573);
    assert_eq!(rank("payments", "pod-1"), 2_877_627_674_995_170_316);
    assert_ne!(rank("pay", "ments-a"), rank("pay-ments", "a"));
}

#[test]
fn shares_are_rounded_up_and_reach_one_at_least() {
    let of = |share, count| reached(reach_of(share, Reach::Nobody, &crew(count)), &crew(count));
    for (share, count, expected) in [
        (Share::Instances(1), 1, 1),
        (Share::Instances(1), 50, 1),
        (Share::Instances(7), 5, 5),
        (Share::Percent(10), 1, 1),
        (Share::Percent(10), 10, 1),
        (Share::Percent(10), 11, 2),
        (Share::Percent(99), 100, 99),
        (Share::Percent(100), 7, 7),
        (Share::Percent(1), 0, 0),
    ] {
        assert_eq!(of(share, count), expected, "{share:?} of {count}");
    }
    assert_eq!(reach_of(Share::Percent(100), Reach::Nobody, &[]), Reach::Everybody);
}

#[test]
fn steps_take_less_than_an_overlap_together_and_a_second_each_at_least() {
    let overlap = Duration::from_secs(86_400);
    assert_eq!(patience(overlap, 3), Duration::from_secs(21_600));
    assert_eq!(time_of(overlap, 3), Duration::from_secs(43_200));
    assert_eq!((time_of(overlap, 0), time_of(overlap, 1)), (Duration::ZERO, Duration::ZERO));
    assert_eq!(patience(Duration::from_secs(1), 16), Duration::from_secs(1));
}

proptest! {
    /// Who has the new version keeps it, however instances come and go between the steps.
    #[test]
    fn reach_only_grows(counts in proptest::collection::vec(0..40_usize, 1..6), shares in proptest::collection::vec(1..=100_u8, 1..6)) {
        let mut reach = Reach::Nobody;
        for (count, percent) in counts.into_iter().zip(shares) {
            let next = reach_of(Share::Percent(percent), reach, &crew(count));
            prop_assert!(next >= reach);
            prop_assert!(reached(next, &crew(count)) >= (count * usize::from(percent)).div_ceil(100));
            reach = next;
        }
    }

    /// Each instance is as likely to be the first as any other.
    #[test]
    fn the_line_is_even(prefix in "[a-z]{1,8}") {
        let application = "payments".parse().unwrap();
        let first = (0..400).filter(|number| rank(&application, &format!("{prefix}-{number}").parse().unwrap()) < u64::MAX / 4).count();
        prop_assert!((60..=140).contains(&first), "{}", first);
    }
}
