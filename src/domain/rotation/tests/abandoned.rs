//! Rotations that are given up, and creates whose replies are lost.

use super::*;
use crate::domain::due::{BlockReason, StuckReason};
use crate::domain::rotation::{CANDIDATE_REFUSALS_MAX, CREATE_ATTEMPTS_MAX, POSSIBLE_ORPHANS_MAX};

const GIVEN_UP: Event = Event::Abandoning { reason: AbandonReason::BadValue };

#[test]
fn from_each_phase_before_promotion_the_new_key_dies_and_the_old_one_stays() {
    for phase in [Phase::Planned, Phase::Issued, Phase::Stored, Phase::Verified] {
        for crashes in [false, true] {
            let mut world = World::in_phase(phase, true);
            world.journal(GIVEN_UP);
            if crashes {
                world.crash();
            }
            world.settle();
            assert_eq!(world.current_key(), Some(key("submitted-1")), "{phase:?}");
            assert_eq!(world.alive, BTreeSet::from([key("submitted-1")]), "{phase:?}");
            let failure = world.ledger.failure.clone().unwrap();
            assert_eq!((failure.reason, failure.count), (AbandonReason::BadValue, 1));
        }
    }
}

#[test]
fn after_promotion_it_rolls_forward() {
    for phase in [Phase::Promoted, Phase::Confirmed, Phase::Retired, Phase::Revoked] {
        assert!(apply(&World::in_phase(phase, true).ledger, &GIVEN_UP).is_err(), "{phase:?}");
    }
}

#[test]
fn a_refused_submission_leaves_nothing_behind() {
    let mut world = World::enrolled(true);
    let before = world.ledger.clone();
    world.candidate_works = false;
    assert!(world.submit(&key("submitted-2")));
    world.settle();
    assert_eq!(world.ledger, Ledger { attempts: before.attempts + 1, ..before }, "fingerprints included");
    world.candidate_works = true;
    assert!(world.submit(&key("submitted-2")), "and can be submitted again once it works");
    world.settle();
    assert_eq!(world.current_key(), Some(key("submitted-2")));
}

#[test]
fn a_submission_that_was_interrupted_before_it_was_durable_is_given_up() {
    let mut world = World::enrolled(true);
    let plan = world.plan(Origin::Submitted, "submitted");
    world.journal(Event::Planned { plan });
    world.crash();
    assert!(matches!(world.step(), Progress::Moved));
    assert_eq!(world.rotation().abandoning, Some(AbandonReason::SubmissionInterrupted));
    world.settle();
}

#[test]
fn a_candidate_that_is_refused_is_given_up_after_a_bounded_number_of_tries() {
    let mut world = World::in_phase(Phase::Stored, true);
    world.candidate_works = false;
    world.journal(Event::Refused { at: world.now.instant(), counted: false });
    assert_eq!(world.rotation().refusals, 0, "within the propagation delay it doesn't count");
    world.settle();
    let refusals = world.events.iter().filter(|event| matches!(event, Event::Refused { counted: true, .. })).count();
    assert_eq!(refusals, usize::try_from(CANDIDATE_REFUSALS_MAX).unwrap());
    assert_eq!(world.ledger.failure.as_ref().unwrap().reason, AbandonReason::CandidateRefused);
}

#[test]
fn a_failed_try_is_repeated_later_and_counts_until_one_succeeds() {
    let mut world = World::enrolled(true);
    world.days(90);
    for count in 1..4 {
        world.fault = Some(Fault::Refused);
        world.step_until(|world| world.ledger.rotation.is_some());
        world.settle();
        let failure = world.ledger.failure.clone().unwrap();
        assert_eq!((failure.count, failure.reason), (count, AbandonReason::CreateRefused));
        let blocked = Decision::Blocked { reason: BlockReason::RetryLater, until: Some(failure.next_try_at) };
        assert_eq!(world.step(), Progress::Rests(blocked));
        world.advance(Duration::from_secs(60));
    }
    world.settle_after_start();
    assert_eq!((world.ledger.failure.clone(), world.ledger.attempts), (None, 0));
}

#[test]
fn a_lost_reply_is_searched_for_revoked_and_never_brought_back() {
    for crashes in [false, true] {
        let mut world = World::in_phase(Phase::Planned, true);
        world.fault = Some(Fault::ReplyLost);
        world.step_until(|world| !world.made.is_empty());
        if crashes {
            world.crash();
        }
        world.step_until(|world| !world.ledger.orphans.is_empty());
        assert_eq!(world.step(), Progress::Moved);
        assert!(world.alive.iter().all(|key| !world.made.contains_key(key)), "the orphan is revoked before the next create");
        world.step_until(|world| world.made.len() == 2);
        let operations: BTreeSet<_> = world.made.values().collect();
        assert_eq!(operations.len(), 2, "the attempt has grown");
        world.settle();
        assert_eq!(world.current_key(), Some(key("minted-2")));
    }
}

#[test]
fn a_create_that_never_arrived_is_repeated_under_the_same_operation() {
    let mut world = World::in_phase(Phase::Planned, true);
    let operation = world.rotation().operation;
    world.fault = Some(Fault::NeverArrived);
    world.settle();
    assert_eq!(world.made.values().collect::<Vec<_>>(), [&operation]);
}

#[test]
fn replies_lost_again_and_again_end_the_rotation() {
    let mut world = World::in_phase(Phase::Planned, true);
    for _ in 0..200 {
        world.fault = Some(Fault::ReplyLost);
        world.step();
        if world.ledger.rotation.is_none() {
            break;
        }
    }
    assert_eq!(world.ledger.failure.as_ref().map(|failure| failure.reason), Some(AbandonReason::ReplyLost));
    assert_eq!(world.made.len(), usize::try_from(CREATE_ATTEMPTS_MAX).unwrap());
    world.check_at_rest();
}

#[test]
fn without_a_list_a_lost_reply_is_a_possible_orphan_and_ends_the_try() {
    for crashes in [false, true] {
        let mut world = World::in_phase(Phase::Planned, false);
        world.fault = Some(Fault::ReplyLost);
        world.step_until(|world| !world.made.is_empty());
        if crashes {
            world.crash();
        }
        world.settle();
        assert_eq!(world.ledger.possible_orphans.len(), 1);
        assert_eq!(world.ledger.failure.as_ref().unwrap().reason, AbandonReason::ReplyLost);
        assert_eq!(world.current_key(), Some(key("submitted-1")));
    }
}

#[test]
fn possible_orphans_are_bounded_and_left_to_a_person_who_can_go_on() {
    let mut world = World::enrolled(false);
    world.days(90);
    for _ in 0..POSSIBLE_ORPHANS_MAX {
        world.fault = Some(Fault::ReplyLost);
        world.settle_after_start();
        world.advance(Duration::from_secs(60));
    }
    assert_eq!(world.step(), Progress::Rests(Decision::Stuck { reason: StuckReason::PossibleOrphans }));
    world.requested = true;
    world.settle_after_start();
    assert_eq!(world.ledger.possible_orphans.len(), POSSIBLE_ORPHANS_MAX, "still shown");
    assert!(matches!(world.step(), Progress::Rests(Decision::Steady { .. })), "and no longer in the way");
}

#[test]
fn an_interrupted_create_is_undone_only_after_a_look_for_its_key() {
    let mut world = World::in_phase(Phase::Planned, true);
    world.fault = Some(Fault::ReplyLost);
    world.step_until(|world| !world.made.is_empty());
    world.journal(GIVEN_UP);
    world.settle();
    assert_eq!(world.alive, BTreeSet::from([key("submitted-1")]));
}

#[test]
fn orphans_wait_while_paused_and_so_does_the_next_create() {
    let mut world = World::in_phase(Phase::Planned, true);
    world.fault = Some(Fault::ReplyLost);
    world.step_until(|world| !world.ledger.orphans.is_empty());
    world.journal(Event::Paused { at: None });
    assert_eq!(world.step(), Progress::Waits(WaitReason::Paused, None));
    world.journal(Event::Resumed);
    world.settle();
}

#[test]
fn a_key_that_was_given_up_and_lives_can_be_found_again() {
    let mut world = World::in_phase(Phase::Stored, true);
    let given_up = world.rotation().key_id.clone().unwrap();
    world.journal(GIVEN_UP);
    assert!(world.ledger.knows_key(&given_up));
    world.settle();
    assert!(!world.ledger.knows_key(&given_up));
    world.alive.insert(given_up.clone());
    world.journal(Event::OrphanFound { key_id: given_up.clone(), burns_attempt: false });
    world.settle();
    assert!(!world.alive.contains(&given_up));
}
