//! Rollback: a new version with the old material, and what becomes of both keys.

use super::*;

#[test]
fn the_old_key_is_current_again_as_a_new_version_and_the_new_key_dies() {
    for phase in [Phase::Promoted, Phase::Confirmed] {
        let mut world = World::in_phase(phase, true);
        let original = world.ledger.previous().cloned().unwrap();
        let issued_at = world.ledger.versions[&original].issued_at;
        assert!(world.roll_back());
        world.settle();
        let current = world.ledger.current.clone().unwrap();
        assert_ne!(current, original, "a label never returns");
        assert_eq!(world.ledger.current_facts().unwrap().issued_at, issued_at, "age counts from the issue");
        assert_eq!(world.ledger.current_facts().unwrap().copy_of.as_ref(), Some(&original));
        assert_eq!(world.alive, BTreeSet::from([key("submitted-1")]), "the rolled-away key is revoked");
        // The original ends together with its copy, when that is replaced in its turn.
        world.requested = true;
        world.settle_after_start();
        assert!(world.ledger.versions[&original].ended.is_some() && world.ledger.versions[&current].ended.is_some());
        assert_eq!(world.current_key(), Some(key("minted-2")));
    }
}

#[test]
fn who_may_have_a_submitted_key_from_elsewhere_counts_after_a_rollback_too() {
    // Found by the simulator: the copy of a submitted key was revoked as if it had never been anywhere but here.
    let mut world = World::in_phase(Phase::Promoted, true);
    assert!(crate::domain::due::may_be_held_elsewhere(&world.ledger));
    assert!(world.roll_back());
    world.settle();
    assert!(!crate::domain::due::may_be_held_elsewhere(&world.ledger), "nothing is to be revoked");
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert!(crate::domain::due::may_be_held_elsewhere(&world.ledger));
}

#[test]
fn there_is_no_way_back_before_promotion_or_from_retirement_on() {
    for phase in [Phase::Planned, Phase::Issued, Phase::Stored, Phase::Verified, Phase::Retired, Phase::Revoked] {
        assert!(!World::in_phase(phase, true).roll_back(), "{phase:?}");
    }
    assert!(!World::enrolled(true).roll_back());
    let mut first = World::empty(true);
    first.submit(&key("submitted-1"));
    first.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert!(!first.roll_back(), "the first version has nothing to go back to");
}

#[test]
fn a_rollback_that_fails_leaves_the_rotation_where_it_was() {
    for crashes in [false, true] {
        let mut world = World::in_phase(Phase::Confirmed, true);
        let before = world.rotation().clone();
        assert!(world.roll_back());
        assert_eq!(world.ledger.previous(), before.old.as_ref(), "applications still verify with the old one");
        world.candidate_works = false;
        while world.ledger.rotation.as_ref().is_some_and(|rotation| rotation.turned.is_some()) {
            if crashes {
                world.crash();
            }
            world.step();
        }
        assert_eq!(world.rotation(), &before);
        assert!(world.alive.contains(&key("submitted-1")), "the original isn't undone with its copy");
        assert_eq!(world.ledger.failure, None);
        world.settle();
        assert_eq!(world.current_key(), Some(key("minted-1")));
    }
}

#[test]
fn a_rollback_can_be_rolled_back() {
    let mut world = World::in_phase(Phase::Promoted, true);
    assert!(world.roll_back());
    assert!(!world.roll_back(), "not while it is on its way");
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert!(world.roll_back());
    world.settle();
    assert_eq!(world.current_key(), Some(key("minted-1")));
    assert_eq!(world.alive, BTreeSet::from([key("minted-1")]));
}

#[test]
fn a_rollback_survives_a_crash_at_every_step() {
    for crash_at in 0..12 {
        let mut world = World::in_phase(Phase::Promoted, true);
        assert!(world.roll_back());
        (0..crash_at).for_each(|_| drop(world.step()));
        world.crash();
        world.settle();
        assert_eq!(world.current_key(), Some(key("submitted-1")), "{crash_at}");
    }
}

#[test]
fn a_rollback_waits_for_those_who_hold_what_it_takes_away() {
    let mut world = World::in_phase(Phase::Promoted, true);
    assert!(world.roll_back());
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    world.blockers = vec![blocker(Some("pod-1"))];
    world.days(30);
    assert!(matches!(world.step(), Progress::Waits(WaitReason::Held | WaitReason::Overdue, None)));
    assert!(world.alive.contains(&key("minted-1")));
}

#[test]
fn an_intent_to_revoke_shuts_the_way_back_for_ever() {
    let mut world = World::in_phase(Phase::Retired, true);
    world.step();
    let doomed = world.rotation().old.clone().unwrap();
    assert!(world.ledger.versions[&doomed].doomed);
    assert!(!world.roll_back());
    world.settle();
    // Not as a copy under another name either.
    let plan = world.plan(Origin::Submitted, "submitted");
    world.journal(Event::Planned { plan });
    assert!(apply(&world.ledger, &world.issued(&key("submitted-1"), Some(doomed))).is_err());
}
