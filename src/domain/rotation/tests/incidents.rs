//! Stolen keys, revocations by hand, and what is forgotten.

use super::*;
use crate::domain::due::{BlockReason, StuckReason};
use crate::domain::fixtures::window;
use crate::domain::policy::Confirmation;

const WITHIN: Duration = Duration::from_secs(600);

fn compromise(world: &mut World, within: Duration) {
    let at = world.now.instant();
    world.journal(Event::Compromised { at, within });
}

/// Steps until it waits, without letting time pass.
fn waits(world: &mut World) -> (WaitReason, Option<Timestamp>) {
    for _ in 0..100 {
        match world.step() {
            Progress::Moved => {}
            Progress::Waits(reason, until) => return (reason, until),
            Progress::Rests(decision) => panic!("rests: {decision:?}"),
        }
    }
    panic!("never waits")
}

/// Steps until nothing is open, without letting time pass.
fn settles_at_once(world: &mut World) {
    let before = world.now.wall;
    world.step_until(|world| world.ledger.rotation.is_none() && world.ledger.open_incident().is_none());
    assert_eq!(world.now.wall, before, "no time went by");
    world.check_at_rest();
}

fn unknown_keys(world: &World) -> BTreeSet<KeyId> {
    world.ledger.incident.clone().unwrap().closed.unwrap().unknown_keys.unwrap()
}

#[test]
fn a_stolen_key_is_replaced_and_dead_without_waiting_for_schedule_windows_or_overlap() {
    let mut world = World::enrolled(true);
    world.policy.windows = vec![window("0 9 31 12 *", "UTC", "1h")];
    compromise(&mut world, WITHIN);
    settles_at_once(&mut world);
    assert_eq!(world.current_key(), Some(key("minted-1")));
    assert_eq!(world.alive, BTreeSet::from([key("minted-1")]));
    assert_eq!(unknown_keys(&world), BTreeSet::new());
    assert!(matches!(world.step(), Progress::Rests(Decision::Steady { .. })), "and it isn't replaced again");
}

#[test]
fn holders_are_waited_for_until_the_limit_and_then_named() {
    let mut world = World::enrolled(true);
    compromise(&mut world, WITHIN);
    world.blockers = vec![blocker(Some("pod-1")), blocker(None)];
    let limit = world.now.wall.checked_add(WITHIN).unwrap();
    assert_eq!(waits(&mut world), (WaitReason::Held, Some(limit)));
    world.advance(WITHIN - Duration::from_secs(1));
    assert_eq!(waits(&mut world).0, WaitReason::Held);
    assert!(world.alive.contains(&key("submitted-1")));
    world.advance(Duration::from_secs(1));
    // One more comes at the last moment, and is named with the others.
    world.step();
    world.blockers.push(blocker(Some("late")));
    settles_at_once(&mut world);
    assert!(!world.alive.contains(&key("submitted-1")));
    let named = world.ledger.incident.clone().unwrap().stragglers;
    assert_eq!(named, [blocker(Some("pod-1")), blocker(None), blocker(Some("late"))]);
}

#[test]
fn who_confirms_early_ends_it_early_and_nobody_is_named() {
    let mut world = World::enrolled(true);
    compromise(&mut world, WITHIN);
    world.blockers = vec![blocker(Some("pod-1"))];
    waits(&mut world);
    world.blockers.clear();
    settles_at_once(&mut world);
    assert!(world.ledger.incident.unwrap().stragglers.is_empty());
}

#[test]
fn the_limit_is_measured_by_the_smaller_clock_and_never_by_one_that_is_not_believed() {
    let mut world = World::enrolled(true);
    compromise(&mut world, WITHIN);
    world.blockers = vec![blocker(Some("pod-1"))];
    waits(&mut world);
    world.now.wall = world.now.wall.checked_add(Duration::from_secs(40 * DAY)).unwrap();
    world.now.trusted = false;
    assert_eq!(waits(&mut world).0, WaitReason::Held, "the wall clock alone says nothing");
    world.now.running += WITHIN;
    assert_eq!(waits(&mut world).0, WaitReason::ClockUntrusted);
    assert!(world.alive.contains(&key("submitted-1")));
}

#[test]
fn a_rotation_before_its_promotion_is_hastened() {
    for phase in [Phase::Planned, Phase::Issued, Phase::Stored, Phase::Verified] {
        let mut world = World::in_phase(phase, true);
        world.requested = false;
        compromise(&mut world, WITHIN);
        settles_at_once(&mut world);
        assert_eq!((world.current_key(), world.ledger.generation), (Some(key("minted-1")), 2), "{phase:?}");
    }
}

#[test]
fn a_rotation_after_its_promotion_is_hastened_and_another_one_follows() {
    for phase in [Phase::Promoted, Phase::Confirmed, Phase::Retired, Phase::Revoked] {
        let mut world = World::in_phase(phase, true);
        world.requested = false;
        compromise(&mut world, WITHIN);
        world.blockers = vec![blocker(Some("pod-1"))];
        if phase == Phase::Promoted {
            // Half of the time is left for those who hold the key that is stolen.
            let half = world.now.wall.checked_add(WITHIN / 2).unwrap();
            assert_eq!(waits(&mut world), (WaitReason::Held, Some(half)));
        }
        world.blockers.clear();
        settles_at_once(&mut world);
        assert_eq!((world.current_key(), world.ledger.generation), (Some(key("minted-2")), 3), "{phase:?}");
        assert_eq!(world.alive, BTreeSet::from([key("minted-2")]));
    }
}

#[test]
fn what_has_the_stolen_key_under_another_name_is_stolen_too() {
    let mut world = World::in_phase(Phase::Promoted, true);
    world.requested = false;
    assert!(world.roll_back());
    compromise(&mut world, WITHIN);
    settles_at_once(&mut world);
    assert_eq!(world.alive, BTreeSet::from([key("minted-2")]), "the rolled-back key went as well");
    let mut world = World::enrolled(true);
    assert!(world.submit(&key("submitted-1")));
    world.settle();
    compromise(&mut world, WITHIN);
    settles_at_once(&mut world);
    assert_eq!(world.alive, BTreeSet::from([key("minted-1")]));
}

#[test]
fn there_is_no_way_back_to_a_stolen_key() {
    let mut world = World::enrolled(true);
    compromise(&mut world, WITHIN);
    world.blockers = vec![blocker(Some("pod-1"))];
    waits(&mut world);
    assert_eq!(world.phase(), Some(Phase::Promoted));
    assert!(!world.roll_back());
}

/// The wait was set by a clock ten years ahead: once that is right again, the stolen key isn't kept for them.
#[test]
fn a_wait_that_a_wrong_clock_set_ends_with_it() {
    let mut world = World::enrolled(true);
    let decade = Duration::from_secs(10 * 365 * 86_400);
    world.now.wall += decade;
    compromise(&mut world, WITHIN);
    world.candidate_works = false;
    world.step_until(|world| world.ledger.failure.is_some());
    world.now.wall -= decade;
    world.candidate_works = true;
    settles_at_once(&mut world);
    assert!(!world.ledger.current.as_ref().is_some_and(|current| world.ledger.is_stolen(current)), "it was replaced");
}

#[test]
fn a_candidate_that_fails_is_followed_by_another_until_the_stolen_key_is_dead() {
    let mut world = World::enrolled(true);
    compromise(&mut world, WITHIN);
    world.candidate_works = false;
    world.step_until(|world| world.ledger.failure.is_some());
    let Progress::Rests(Decision::Blocked { reason: BlockReason::RetryLater, until: Some(until) }) = world.step() else {
        panic!("it waits a while")
    };
    world.now.trusted = false;
    assert_eq!(world.step(), Progress::Rests(Decision::Blocked { reason: BlockReason::ClockUntrusted, until: None }));
    world.now.trusted = true;
    world.candidate_works = true;
    world.advance(Duration::try_from(until.duration_since(world.now.wall)).unwrap());
    settles_at_once(&mut world);
    assert_eq!(world.alive, BTreeSet::from([key("minted-2")]));
}

#[test]
fn lost_replies_where_nobody_can_look_stay_bounded_in_an_incident_too() {
    let mut world = World::enrolled(false);
    compromise(&mut world, WITHIN);
    for _ in 0..3 {
        world.fault = Some(Fault::ReplyLost);
        let lost = world.ledger.possible_orphans.len();
        world.step_until(|world| world.ledger.possible_orphans.len() > lost && world.ledger.rotation.is_none());
        world.advance(Duration::from_secs(60));
    }
    assert_eq!(world.step(), Progress::Rests(Decision::Stuck { reason: StuckReason::PossibleOrphans }));
    // A person who says it again was told to look first.
    compromise(&mut world, WITHIN);
    settles_at_once(&mut world);
}

#[test]
fn keys_of_a_thief_are_named_and_left_alone() {
    let mut world = World::enrolled(true);
    world.alive.insert(key("of-a-thief"));
    world.of_thieves.insert(key("of-a-thief"));
    compromise(&mut world, WITHIN);
    settles_at_once(&mut world);
    assert_eq!(unknown_keys(&world), BTreeSet::from([key("of-a-thief")]));
    assert!(world.alive.contains(&key("of-a-thief")));
}

#[test]
fn what_was_listed_before_the_stolen_key_was_made_is_remembered_for_the_last_look() {
    let mut world = World::enrolled(true);
    world.alive.insert(key("of-others"));
    world.requested = true;
    world.settle_after_start();
    assert_eq!(world.ledger.seen, BTreeSet::from([key("of-others"), key("submitted-1")]));
    compromise(&mut world, WITHIN);
    assert_eq!(world.ledger.incident.as_ref().unwrap().seen, world.ledger.seen);
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    // Said again, of the new key: what the first one could make still counts.
    compromise(&mut world, WITHIN);
    assert_eq!(world.ledger.incident.as_ref().unwrap().seen, BTreeSet::from([key("of-others"), key("submitted-1")]));
}

#[test]
fn a_pause_holds_an_incident_too_and_a_restart_forgets_neither() {
    let mut world = World::enrolled(true);
    compromise(&mut world, WITHIN);
    world.step_until(|world| world.phase() == Some(Phase::Retired));
    world.all_paused = true;
    assert_eq!(waits(&mut world).0, WaitReason::Paused);
    world.crash();
    assert_eq!(waits(&mut world).0, WaitReason::Paused);
    world.all_paused = false;
    settles_at_once(&mut world);
}

#[test]
fn an_incident_survives_a_crash_at_every_step() {
    for crash_at in 0..16 {
        let mut world = World::enrolled(true);
        compromise(&mut world, WITHIN);
        (0..crash_at).for_each(|_| drop(world.step()));
        world.crash();
        world.step_until(|world| world.ledger.open_incident().is_none());
        assert_eq!(world.ledger.generation, 2, "{crash_at}");
        world.check_at_rest();
    }
}

#[test]
fn a_revocation_by_hand_waits_for_neither_overlap_nor_windows_and_names_whom_it_overrules() {
    for (anyway, holders) in [(false, vec![]), (true, vec![blocker(Some("pod-1"))])] {
        let mut world = World::in_phase(Phase::Promoted, true);
        world.policy.windows = vec![window("0 9 31 12 *", "UTC", "1h")];
        world.blockers = holders.clone();
        let asked = if anyway { RevocationAsked::Anyway } else { RevocationAsked::IfUnheld };
        world.journal(Event::RevocationAsked { asked, stragglers: holders.clone() });
        assert!(!world.roll_back(), "the way back is shut");
        let before = world.now.wall;
        world.step_until(|world| world.phase() == Some(Phase::Revoked));
        assert_eq!(world.now.wall, before);
        assert_eq!(world.rotation().stragglers, holders);
    }
}

#[test]
fn who_comes_after_a_revocation_that_nobody_stood_against_holds_it_all_the_same() {
    let mut world = World::in_phase(Phase::Promoted, true);
    world.journal(Event::RevocationAsked { asked: RevocationAsked::IfUnheld, stragglers: Vec::new() });
    world.blockers = vec![blocker(Some("pod-1"))];
    assert_eq!(waits(&mut world), (WaitReason::Held, None));
    world.journal(Event::RevocationAsked { asked: RevocationAsked::Anyway, stragglers: world.blockers.clone() });
    world.journal(Event::RevocationAsked { asked: RevocationAsked::IfUnheld, stragglers: Vec::new() });
    world.step_until(|world| world.phase() == Some(Phase::Revoked));
}

#[test]
fn holders_count_in_a_hurry_even_where_the_policy_leaves_them_to_the_overlap() {
    for (confirmation, unconfirmed) in [(Confirmation::None, Unconfirmed::Hold), (Confirmation::Required, Unconfirmed::Revoke)] {
        let mut world = World::enrolled(true);
        (world.policy.terms.confirmation, world.policy.terms.unconfirmed) = (confirmation, unconfirmed);
        compromise(&mut world, WITHIN);
        world.step_until(|world| world.phase() == Some(Phase::Confirmed) || world.phase() == Some(Phase::Promoted));
        world.blockers = vec![blocker(Some("pod-1"))];
        assert_eq!(waits(&mut world).0, WaitReason::Held, "{confirmation:?} {unconfirmed:?}");
        world.advance(WITHIN);
        settles_at_once(&mut world);
        assert_eq!(world.ledger.incident.unwrap().stragglers, [blocker(Some("pod-1"))]);
    }
}

#[test]
fn what_is_forgotten_lives_on_at_the_provider_and_dead_values_stay_known() {
    let mut world = World::enrolled(true);
    world.requested = true;
    world.settle_after_start();
    let dead = world.ledger.versions.iter().find(|(_, facts)| facts.ended.is_some()).map(|(version, _)| version.clone()).unwrap();
    let revision = world.ledger.revision;
    world.journal(Event::Forgotten);
    world.crash();
    world.step_until(|world| !world.ledger.clearing);
    assert_eq!((world.ledger.current.clone(), world.store_current.clone(), world.ledger.revision), (None, None, revision + 1));
    assert_eq!(world.alive, BTreeSet::from([key("minted-1")]));
    assert!(world.ledger.versions[&dead].doomed && !world.ledger.versions[&dead].fingerprints.is_empty());
    assert_eq!(world.step(), Progress::Rests(Decision::Missing));
    assert!(!world.submit(&key("submitted-1")), "a revoked key isn't taken again");
    assert!(world.submit(&key("submitted-2")));
    world.settle();
    assert_eq!(world.current_key(), Some(key("submitted-2")));
}

#[test]
fn a_journal_of_before_incidents_is_read() {
    let world = World::in_phase(Phase::Promoted, true);
    let mut json = serde_json::to_value(&world.ledger).unwrap();
    let ledger = json.as_object_mut().unwrap();
    for new in ["paused_since", "seen", "incident", "clearing"] {
        assert!(ledger.remove(new).is_some(), "{new}");
    }
    let rotation = ledger["rotation"].as_object_mut().unwrap();
    assert!(rotation.remove("seen").is_some() && rotation.remove("revocation").is_some());
    let read: Ledger = serde_json::from_value(json).unwrap();
    assert_eq!((read.incident, read.clearing, read.versions), (None, false, world.ledger.versions));
    assert_eq!(serde_json::from_str::<Event>(r#"{"event":"paused"}"#).unwrap(), Event::Paused { at: None });
}
