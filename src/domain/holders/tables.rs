//! Who blocks a revocation, case by case.

use rstest::rstest;

use super::*;

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

/// An instance that was served these in turn; `v2!` is served and confirmed.
fn instance(served: &str) -> Holding {
    let mut all = served.split(' ').map(|text| (version(text.trim_end_matches('!')), text.ends_with('!')));
    let (first, confirmed) = all.next().unwrap();
    let mut holding = Holding::first("app".parse().unwrap(), "pod-1".parse().unwrap(), "key".parse().unwrap(), first.clone());
    if confirmed {
        holding.confirm(&first).unwrap();
    }
    for (version, confirmed) in all {
        holding.serve(&version);
        if confirmed {
            holding.confirm(&version).unwrap();
        }
    }
    holding
}

/// `old` carry the old key, `current` the new one.
#[rstest]
#[case::old_only("v1", "v1", "v2", true, true)]
#[case::served_both("v1 v2", "v1", "v2", true, false)]
#[case::confirmed_the_new_one("v1 v2!", "v1", "v2", false, false)]
#[case::confirmed_the_old_one_only("v1!", "v1", "v2", true, true)]
#[case::confirmed_the_old_one_then_served("v1! v2", "v1", "v2", true, false)]
#[case::new_only("v2", "v1", "v2", false, false)]
#[case::older_still("v0", "v1", "v2", false, false)]
#[case::served_three("v0 v1 v2", "v1", "v2", true, false)]
#[case::the_original_of_a_rollback("v1", "v1 v3", "v4", true, true)]
#[case::the_copy_of_a_rollback("v3!", "v1 v3", "v4", true, true)]
#[case::rolled_away("v1 v2!", "v2", "v3", true, true)]
#[case::rolled_away_and_confirmed_back("v1 v2! v3!", "v2", "v3", false, false)]
#[case::served_the_old_one_once_more("v1 v2! v1", "v1", "v2", true, true)]
fn a_holder_blocks(#[case] served: &str, #[case] old: &str, #[case] current: &str, #[case] required: bool, #[case] observed: bool) {
    let old: Vec<VersionId> = old.split(' ').map(version).collect();
    let holding = instance(served);
    for (confirmation, blocks) in [(Confirmation::Required, required), (Confirmation::Observed, observed), (Confirmation::None, false)] {
        let blockers = barrier(&old, &version(current), confirmation, [&holding], &[]);
        assert_eq!(!blockers.is_empty(), blocks, "{confirmation:?}");
        assert!(blockers.iter().all(|blocker| blocker.instance.as_ref() == Some(&holding.instance)), "by name");
    }
}

#[rstest]
#[case("v1", HoldingState::Holds)]
#[case("v1!", HoldingState::Holds)]
#[case("v1 v2", HoldingState::Served)]
#[case("v1 v2!", HoldingState::Confirmed)]
#[case("v1! v2", HoldingState::Served)]
fn an_instance_stands_to_current(#[case] served: &str, #[case] expected: HoldingState) {
    assert_eq!(instance(served).state(Some(&version("v2"))), expected);
    assert_eq!(instance(served).state(None), HoldingState::Holds);
}

#[test]
fn the_unseen_block_unless_nothing_counts() {
    let unseen = ["late".parse().unwrap(), "later".parse().unwrap()];
    for (confirmation, count) in [(Confirmation::Required, 2), (Confirmation::Observed, 2), (Confirmation::None, 0)] {
        assert_eq!(barrier(&[version("v1")], &version("v2"), confirmation, [], &unseen).len(), count, "{confirmation:?}");
    }
}
