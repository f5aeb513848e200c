//! Rehearsals: production waits for its twin, by counts and not by clocks.

use super::*;
use crate::domain::due::BlockReason;

/// Due, and its policy rehearses; the twin has never rotated.
fn due() -> World {
    let mut world = World::enrolled(true);
    world.twin_rotations = Some(0);
    world.days(89);
    world
}

#[test]
fn what_is_due_waits_until_its_twin_has_rotated_and_says_why() {
    let mut world = due();
    let blocked = |reason| Progress::Rests(Decision::Blocked { reason, until: None });
    assert_eq!(world.step(), blocked(BlockReason::Rehearsal));
    world.twin_failing = true;
    assert_eq!(world.step(), blocked(BlockReason::RehearsalFailed));
    world.days(400);
    assert_eq!(world.step(), blocked(BlockReason::RehearsalFailed), "the old key lives on");
    world.twin_rotations = Some(1);
    world.twin_failing = false;
    assert_eq!(world.step(), Progress::Moved);
    world.settle();
    assert_eq!((world.ledger.generation, world.ledger.rehearsed), (2, 1));
    world.days(89);
    assert_eq!(world.step(), blocked(BlockReason::Rehearsal), "each version is rehearsed anew");
}

#[test]
fn no_jump_of_the_clock_makes_a_rehearsal_count() {
    let mut world = due();
    for days in [3_650, -3_650] {
        let mut world = world.clone();
        world.now.wall = Timestamp::from_second(world.now.wall.as_second() + days * 86_400).unwrap();
        assert!(matches!(world.step(), Progress::Rests(_)), "{days}");
    }
    assert!(matches!(world.step(), Progress::Rests(Decision::Blocked { reason: BlockReason::Rehearsal, .. })));
}

#[test]
fn a_persons_rotation_waits_for_the_rehearsal_too_and_it_counts_once() {
    let mut world = World::enrolled(true);
    world.twin_rotations = Some(3);
    world.ledger.rehearsed = 3;
    world.events.clear();
    world.requested = true;
    assert_eq!(world.step(), Progress::Moved);
    assert_eq!(world.step(), Progress::Waits(WaitReason::Rehearsal, None));
    world.twin_failing = true;
    assert_eq!(world.step(), Progress::Waits(WaitReason::RehearsalFailed, None));
    world.twin_rotations = Some(4);
    world.settle();
    assert_eq!(world.ledger.rehearsed, 4, "the next one needs another rehearsal");
}

#[test]
fn a_stolen_key_waits_for_nothing() {
    let mut world = due();
    world.requested = true;
    assert_eq!(world.step(), Progress::Moved);
    assert_eq!(world.step(), Progress::Waits(WaitReason::Rehearsal, None));
    world.journal(Event::Compromised { at: world.now.instant(), within: Duration::from_secs(600) });
    world.settle();
    assert_eq!(world.ledger.generation, 2);
}

#[test]
fn the_twin_rotates_because_somebody_waits_and_again_later_when_it_fails() {
    let mut twin = World::enrolled(true);
    assert!(matches!(twin.step(), Progress::Rests(Decision::Steady { .. })));
    twin.rehearses = true;
    twin.fault = Some(Fault::Refused);
    twin.step_until(|world| world.ledger.failure.is_some() && world.ledger.rotation.is_none());
    let Progress::Rests(Decision::Blocked { reason: BlockReason::RetryLater, until: Some(until) }) = twin.step() else { panic!() };
    assert!(until > twin.now.wall);
    twin.advance(Duration::from_secs(61));
    assert_eq!(decide(&twin.facts()), Decision::Due { reason: DueReason::Rehearsal });
    twin.settle_after_start();
    assert_eq!(twin.ledger.rotations, 1);
}
