//! Rotations that wait for a person: asked for, reminded of, answered late, wrongly or never, and always closed.

use super::*;
use crate::domain::ledger::Closure;
use crate::domain::manual::{Asks, Urgency};
use crate::domain::provider::Lifecycle;

impl World {
    /// A submitted key is current at a provider where a person makes and removes keys; it can be asked whether one lives.
    pub(super) fn by_hand() -> World {
        let mut world = World::enrolled(false);
        world.provider.calls = Calls { probe: world.provider.calls.revoke.take(), ..Calls::default() };
        world.provider.lifecycle = Lifecycle::Manual;
        world
    }

    /// As [`World::by_hand`], with a second key submitted, and the removal of the first asked for.
    fn removing() -> World {
        let mut world = World::by_hand();
        world.submit(&key("second"));
        world.step_until(|world| world.ledger.rotation.as_ref().is_some_and(|open| open.awaits_removal()));
        world
    }

    fn closure_of_first(&self) -> Option<Closure> {
        let first = self.ledger.versions.values().find(|facts| facts.key_id.as_ref() == Some(&key("submitted-1"))).unwrap();
        first.ended.as_ref().map(|ended| ended.closure)
    }

    fn levels_told(&self, of: Asks) -> Vec<Urgency> {
        let told = self.events.iter().filter_map(|event| match event {
            Event::ManualReminded { asks, urgency, .. } if *asks == of => Some(*urgency),
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn what_is_due_is_asked_for_once_and_reminded_of_with_rising_urgency() {
    let mut world = World::by_hand();
    world.step_until_asked();
    let request = world.ledger.request.clone().unwrap();
    assert!(request.by_time && request.opened_at < request.deadline_at);
    for _ in 0..20 {
        match world.step() {
            Progress::Waits(WaitReason::ManualRequest, Some(until)) => {
                world.crash();
                world.advance(Duration::try_from(until.duration_since(world.now.wall)).unwrap());
            }
            Progress::Waits(WaitReason::ManualRequest, None) => break,
            Progress::Moved => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.levels_told(Asks::NewKey), [Urgency::Soon, Urgency::Urgent, Urgency::Overdue], "each once, restarts or not");
    assert_eq!(world.ledger.request.as_ref().unwrap().reminders, 3);
    assert!(world.now.wall >= request.deadline_at && world.ledger.rotation.is_none());
}

impl World {
    fn step_until_asked(&mut self) {
        for _ in 0..10 {
            if self.ledger.request.is_some() {
                return;
            }
            match self.step() {
                Progress::Rests(Decision::Steady { wake_at }) => {
                    self.advance(Duration::try_from(wake_at.duration_since(self.now.wall)).unwrap());
                }
                Progress::Moved => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("nothing is asked for: {:?}", self.ledger);
    }
}

#[test]
fn a_submission_answers_it_and_one_that_fails_leaves_it_open() {
    let mut world = World::by_hand();
    world.step_until_asked();
    world.candidate_works = false;
    world.submit(&key("wrong"));
    world.step_until(|world| world.ledger.rotation.is_none());
    assert!(world.ledger.request.is_some(), "still asked for");
    world.candidate_works = true;
    world.submit(&key("second"));
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert_eq!(world.ledger.request, None);
}

#[test]
fn a_policy_that_gives_more_time_withdraws_it_unless_an_operator_asked() {
    for by_operator in [false, true] {
        let mut world = World::by_hand();
        if by_operator {
            let facts = world.facts();
            let Decision::Step(Step::Journal(event)) = crate::domain::due::start(&facts, DueReason::Requested) else { panic!() };
            world.journal(event);
        } else {
            world.step_until_asked();
        }
        world.policy = policy(900 * DAY, DAY, 7 * DAY);
        world.step();
        assert_eq!(world.ledger.request.is_some(), by_operator);
    }
}

#[test]
fn the_old_keys_removal_is_asked_for_and_given_up_where_nothing_tells() {
    let mut world = World::removing();
    assert_eq!(world.closure_of_first(), None);
    let deadline = world.rotation().removal.as_ref().unwrap().request.deadline_at;
    world.step_until(|world| world.ledger.rotation.is_none());
    assert_eq!(world.closure_of_first(), Some(Closure::Unproved));
    assert!(world.now.wall >= deadline && world.levels_told(Asks::OldKeyRemoval) == [Urgency::Soon, Urgency::Urgent, Urgency::Overdue]);
    world.check_at_rest();
}

#[test]
fn a_key_that_is_seen_alive_is_never_given_up_and_is_overdue_until_it_is_gone() {
    let mut world = World::removing();
    world.journal(Event::RemovalSeen { at: world.now.instant(), alive: true });
    world.days(200);
    while matches!(world.step(), Progress::Moved) {}
    let removal = world.rotation().removal.clone().unwrap();
    assert!(removal.lives && removal.request.urgency == Urgency::Overdue);
    assert!(world.ledger.request.is_some(), "the next key is asked for beside it");
    let facts = world.ledger.facts_of(world.rotation().old.as_ref().unwrap()).unwrap().clone();
    let propagation = Duration::from_secs(120);
    assert!(!removal.is_proved(&facts, world.now.running, propagation), "never refused");
    world.journal(Event::RemovalSeen { at: world.now.instant(), alive: false });
    let removal = world.rotation().removal.clone().unwrap();
    assert!(!removal.is_proved(&facts, world.now.running, propagation), "refused once");
    assert!(removal.is_proved(&facts, world.now.running + propagation, propagation), "and again, apart");
}

#[test]
fn a_person_says_that_it_is_removed() {
    let mut world = World::removing();
    world.journal(Event::RevocationAsked { asked: RevocationAsked::IfUnheld, stragglers: Vec::new() });
    world.step_until(|world| world.ledger.rotation.is_none());
    assert!(world.closure_of_first().is_some());
    assert_eq!(world.levels_told(Asks::OldKeyRemoval), []);
}

#[test]
fn where_the_new_key_is_the_old_ones_end_nothing_is_asked() {
    let mut world = World::by_hand();
    world.provider.manual.replaces = true;
    world.submit(&key("second"));
    let began = world.now.wall;
    world.step_until(|world| world.ledger.rotation.is_none());
    assert_eq!(world.now.wall, began, "there is no overlap to wait for");
    assert!(!world.events.iter().any(|event| matches!(event, Event::RemovalAsked { .. })));
}

#[test]
fn a_stolen_key_is_asked_for_by_the_incidents_limit() {
    let mut world = World::by_hand();
    world.step_until_asked();
    let at = world.now.instant();
    world.journal(Event::Compromised { at, within: Duration::from_secs(600) });
    world.step();
    let request = world.ledger.request.clone().unwrap();
    assert_eq!(request.deadline_at, at.wall.checked_add(Duration::from_secs(600)).unwrap());
    assert!(!request.by_time);
    world.submit(&key("second"));
    world.step_until(|world| world.ledger.open_incident().is_none());
    assert!(world.closure_of_first().is_some() && world.ledger.request.is_none());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let world = World::by_hand();
    let at = world.now.wall;
    let reminded = |asks| Event::ManualReminded { at, asks, urgency: Urgency::Soon };
    let removal = Event::RemovalAsked { at, deadline: at };
    let seen = Event::RemovalSeen { at: world.now.instant(), alive: true };
    for event in [reminded(Asks::NewKey), reminded(Asks::OldKeyRemoval), Event::ManualWithdrawn, removal.clone(), seen] {
        assert!(apply(&world.ledger, &event).is_err(), "{event:?}");
    }
    let mut world = World::by_hand();
    world.submit(&key("second"));
    world.step_until(|world| world.phase() == Some(Phase::Retired));
    let doomed = world.ledger.facts_of(world.rotation().old.as_ref().unwrap()).unwrap().doomed;
    assert_eq!(apply(&world.ledger, &removal).is_ok(), doomed, "only after the intent");
}
