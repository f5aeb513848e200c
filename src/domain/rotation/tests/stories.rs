//! Rotations that come to their end, and what holds them up on the way.

use super::*;
use crate::domain::due::{BlockReason, StuckReason};
use crate::domain::fixtures::window;
use crate::domain::span::Span;

fn waits(world: &mut World) -> WaitReason {
    for _ in 0..100 {
        match world.step() {
            Progress::Moved => {}
            Progress::Waits(reason, _) => return reason,
            Progress::Rests(decision) => panic!("rests: {decision:?}"),
        }
    }
    panic!("never waits")
}

#[test]
fn the_first_submission_becomes_current_and_revokes_nothing() {
    let mut world = World::empty(true);
    assert_eq!(world.step(), Progress::Rests(Decision::Missing));
    assert!(world.submit(&key("submitted-1")));
    world.settle();
    assert_eq!((world.current_key(), world.ledger.generation, world.revocations), (Some(key("submitted-1")), 1, 0));
    assert!(matches!(world.step(), Progress::Rests(Decision::Steady { .. })));
}

#[test]
fn a_minted_key_replaces_the_old_one_which_dies_after_the_overlap() {
    let mut world = World::enrolled(true);
    let started = world.now.wall;
    world.days(90);
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    let promoted = world.now.wall;
    assert!(world.alive.contains(&key("submitted-1")), "both work during the overlap");
    assert_eq!(waits(&mut world), WaitReason::Overlap);
    world.settle();
    assert_eq!(world.current_key(), Some(key("minted-1")));
    assert!(!world.alive.contains(&key("submitted-1")));
    assert_eq!(world.now.wall.duration_since(promoted).as_secs(), 86_400);
    assert!(world.now.wall > started);
}

#[test]
fn many_generations_follow_each_other() {
    let mut world = World::enrolled(true);
    for generation in 2..80 {
        world.days(90);
        world.step_until(|world| world.ledger.rotation.is_some());
        world.settle();
        assert_eq!(world.ledger.generation, generation);
    }
    assert!(world.ledger.versions.len() <= crate::domain::ledger::ENDED_VERSIONS_MAX + 1, "the past is bounded");
}

#[test]
fn a_submission_replaces_what_was_submitted_before() {
    let mut world = World::enrolled(true);
    assert!(world.submit(&key("submitted-2")));
    assert!(!world.submit(&key("submitted-3")), "one rotation at a time");
    world.settle();
    assert_eq!(world.current_key(), Some(key("submitted-2")));
    assert!(!world.alive.contains(&key("submitted-1")));
}

#[test]
fn the_same_key_submitted_again_revokes_nothing_then_or_by_mistake_later() {
    let mut world = World::enrolled(true);
    world.days(1);
    assert!(world.submit(&key("submitted-1")));
    world.settle();
    assert_eq!((world.revocations, world.ledger.versions.len()), (0, 2));
    let ages: BTreeSet<_> = world.ledger.versions.values().map(|facts| facts.issued_at).collect();
    assert_eq!(ages.len(), 1, "it is no younger for having been submitted again");
    world.requested = true;
    world.step_until(|world| world.ledger.rotation.is_some());
    world.settle();
    assert_eq!(world.revocations, 1);
    assert_eq!(world.ledger.versions.values().filter(|facts| facts.ended.is_some()).count(), 2, "both ended with their key");
}

#[test]
fn the_same_key_is_recognised_by_its_id_and_by_its_value() {
    let mut world = World::enrolled(true);
    let original = world.ledger.current.clone();
    let plan = world.plan(Origin::Submitted, "submitted");
    let version = plan.version.clone();
    world.journal(Event::Planned { plan });
    let by_id = world.issued(&key("submitted-1"), None);
    let Event::Issued { issued_at, fingerprints, .. } = by_id.clone() else { panic!("issued") };
    let by_value = Event::Issued { key_id: None, issued_at, expires_at: None, fingerprints, copy_of: None, old_ends_at: None };
    for event in [by_id, by_value] {
        let ledger = apply(&world.ledger, &event).unwrap();
        assert_eq!(ledger.versions[&version].copy_of, original);
    }
}

#[test]
fn windows_bind_issue_promotion_and_revocation() {
    let mut world = World::enrolled(true);
    world.policy.windows = vec![window("0 9 * * Mon-Thu", "UTC", "8h")];
    world.days(79);
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Planned));
    world.now.wall = at("2026-03-20T12:00:00Z");
    assert_eq!(waits(&mut world), WaitReason::WindowClosed);
    assert_eq!(world.phase(), Some(Phase::Planned));
    world.now.wall = at("2026-03-23T16:59:59Z");
    world.step_until(|world| world.phase() == Some(Phase::Verified));
    world.now.wall = at("2026-03-23T17:00:00Z");
    assert_eq!((waits(&mut world), world.phase()), (WaitReason::WindowClosed, Some(Phase::Verified)));
    world.now.wall = at("2026-03-24T09:00:00Z");
    world.step_until(|world| world.phase() == Some(Phase::Confirmed));
    world.days(1);
    world.advance(Duration::from_secs(9 * 3_600));
    assert_eq!((waits(&mut world), world.phase()), (WaitReason::WindowClosed, Some(Phase::Confirmed)));
    world.now.wall = at("2026-03-26T09:00:00Z");
    world.settle();
}

#[test]
fn a_window_too_late_for_the_deadline_is_not_waited_for() {
    let mut world = World::enrolled(true);
    // Opens once, half a day before the deadline: the overlap of a day would end after it.
    world.policy.windows = vec![window("0 12 31 3 *", "UTC", "1h")];
    world.days(88);
    world.step_until(|world| world.ledger.rotation.is_some());
    assert_eq!(world.rotation().plan.reason, "no-window-before-deadline");
    let started = world.now.wall;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert_eq!(world.now.wall, started);
    world.settle();
    assert!(world.now.wall <= at("2026-04-01T00:00:00Z"), "dead by its deadline");
}

#[test]
fn a_holder_keeps_the_old_key_alive_past_its_age_and_frees_it() {
    let mut world = World::in_phase(Phase::Promoted, true);
    world.blockers = vec![blocker(Some("pod-1"))];
    assert_eq!(waits(&mut world), WaitReason::Held);
    world.days(1);
    assert_eq!(world.step(), Progress::Waits(WaitReason::Held, None));
    world.days(100);
    assert_eq!(waits(&mut world), WaitReason::Overdue);
    assert!(world.alive.contains(&key("submitted-1")));
    world.blockers.clear();
    world.settle();
    assert!(!world.alive.contains(&key("submitted-1")));
}

#[test]
fn an_application_never_seen_holds_too_and_says_so() {
    let mut world = World::in_phase(Phase::Promoted, true);
    world.blockers = vec![blocker(None)];
    assert_eq!(waits(&mut world), WaitReason::NoInstanceSeen);
    world.blockers.push(blocker(Some("pod-1")));
    assert_eq!(waits(&mut world), WaitReason::Held);
}

#[test]
fn who_begins_to_hold_after_the_barrier_was_empty_holds_all_the_same() {
    let mut world = World::in_phase(Phase::Confirmed, true);
    world.blockers = vec![blocker(Some("late"))];
    world.days(1);
    assert_eq!(waits(&mut world), WaitReason::Held);
    world.blockers.clear();
    world.step_until(|world| world.phase() == Some(Phase::Retired));
    world.blockers = vec![blocker(Some("later"))];
    assert_eq!(waits(&mut world), WaitReason::Held);
}

#[test]
fn stragglers_are_named_and_revoked_where_the_policy_says_so() {
    let mut world = World::enrolled(true);
    world.policy.terms.unconfirmed = Unconfirmed::Revoke;
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    world.blockers = vec![blocker(Some("pod-1"))];
    assert_eq!(waits(&mut world), WaitReason::Held);
    world.days(1);
    world.step_until(|world| world.phase() == Some(Phase::Confirmed));
    assert_eq!(world.rotation().stragglers, [blocker(Some("pod-1"))]);
    // One more, after the others were named.
    world.blockers.push(blocker(Some("pod-2")));
    world.step_until(|world| world.phase() == Some(Phase::Revoked));
    assert_eq!(world.rotation().stragglers, [blocker(Some("pod-1")), blocker(Some("pod-2"))]);
    world.settle();
}

#[test]
fn an_open_rotation_takes_over_only_what_is_safer() {
    let mut world = World::enrolled(true);
    world.policy.terms.unconfirmed = Unconfirmed::Revoke;
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    world.policy.terms.overlap = Span::from_secs(60);
    world.step();
    assert_eq!(world.rotation().plan.terms.overlap.as_secs(), DAY, "shorter is not safer");
    world.policy.terms.overlap = Span::from_secs(2 * DAY);
    world.policy.terms.unconfirmed = Unconfirmed::Hold;
    world.step();
    assert_eq!(world.rotation().plan.terms, world.policy.terms);
}

#[test]
fn pause_stops_what_destroys_and_nothing_else() {
    let mut world = World::in_phase(Phase::Planned, true);
    world.journal(Event::Paused { at: None });
    assert_eq!(waits(&mut world), WaitReason::Overlap);
    world.days(1);
    assert_eq!((waits(&mut world), world.phase()), (WaitReason::Paused, Some(Phase::Confirmed)));
    world.journal(Event::Resumed);
    world.step_until(|world| world.phase() == Some(Phase::Retired));
    world.step();
    world.journal(Event::Paused { at: None });
    assert_eq!(world.step(), Progress::Waits(WaitReason::Paused, None), "also after the intent");
    world.journal(Event::Resumed);
    world.settle();
    world.journal(Event::Paused { at: None });
    assert_eq!(world.step(), Progress::Rests(Decision::Blocked { reason: BlockReason::Paused, until: None }));
}

#[test]
fn a_new_term_verifies_again_before_it_promotes_and_before_it_revokes() {
    let mut world = World::in_phase(Phase::Verified, true);
    world.crash();
    world.step();
    assert_eq!((world.phase(), world.rotation().verified_term), (Some(Phase::Verified), Some(2)));
    world.step_until(|world| world.phase() == Some(Phase::Retired));
    world.crash();
    world.step();
    assert_eq!(world.rotation().retired_term, Some(3));
    world.step();
    world.crash();
    world.step();
    assert_eq!(world.rotation().retired_term, Some(4), "also to finish what was intended");
    world.settle();
}

#[test]
fn a_current_key_that_is_refused_after_the_promotion_stops_the_revocation() {
    let mut world = World::in_phase(Phase::Retired, true);
    let current = world.current_key().unwrap();
    world.killed_outside.insert(current.clone());
    world.kill(&current);
    world.journal(Event::CurrentRefused { at: world.now.wall });
    assert!(apply(&world.ledger, &Event::RevokeIntended).is_err());
    for _ in 0..5 {
        assert_eq!(decide(&world.facts()), Decision::Step(Step::Retire));
        world.step();
    }
    assert!(world.alive.contains(&key("submitted-1")), "the last living key stays");
    world.alive.insert(current);
    world.settle();
    assert_eq!(world.ledger.refused_since, None);
}

#[test]
fn a_dead_current_key_needs_a_person_who_submits_another() {
    let mut world = World::enrolled(true);
    let current = world.current_key().unwrap();
    world.killed_outside.insert(current.clone());
    world.kill(&current);
    world.journal(Event::CurrentRefused { at: world.now.wall });
    world.days(90);
    assert_eq!(world.step(), Progress::Rests(Decision::Stuck { reason: StuckReason::CurrentRefused }));
    assert!(world.submit(&key("submitted-2")));
    world.settle();
    assert_eq!(world.ledger.refused_since, None);
}

#[test]
fn every_prefix_replays_to_the_ledger_that_it_made() {
    let mut world = World::enrolled(true);
    world.requested = true;
    world.settle_after_start();
    let mut ledger = Ledger::default();
    for (count, event) in world.events.iter().enumerate() {
        assert_eq!(replay(&world.events[..count]), ledger);
        ledger = apply(&ledger, event).unwrap();
    }
    assert_eq!(ledger, world.ledger);
}

/// The store had promoted it when the backup was made, and the journal didn't know: the key may have been revoked since (I10).
#[test]
fn what_was_verified_before_a_restore_becomes_current_unverified() {
    for looked_at_again in [false, true] {
        let mut world = World::in_phase(Phase::Verified, true);
        world.journal(Event::Restored);
        world.crash();
        if looked_at_again {
            world.step_until(|world| world.ledger.rotation.as_ref().is_some_and(|open| !open.verified_before_restore));
        }
        world.journal(Event::Promoted { at: world.now.instant() });
        assert_eq!(world.ledger.unverified, !looked_at_again);
    }
}
