//! Where there is one secret, and the next takes its place: the old one ends by itself, or dies at once.

use super::*;
use crate::domain::due::{BlockReason, StuckReason};
use crate::domain::fixtures::window;
use crate::domain::policy::Confirmation;
use crate::domain::rotation::CREATE_ATTEMPTS_MAX;
use crate::domain::span::Span;

impl World {
    /// A submitted secret is current. `repeats`: the provider knows a repeated operation again.
    pub(super) fn with_one_secret(lifecycle: Lifecycle, repeats: bool) -> World {
        let mut world = World::enrolled(false);
        world.provider.lifecycle = lifecycle;
        world.provider.calls.revoke = None;
        if let Some(create) = world.provider.calls.create.as_mut() {
            create.key_id = None;
            create.idempotency_headers = if repeats { vec!["Idempotency-Key".to_owned()] } else { Vec::new() };
        }
        world.policy.terms.unconfirmed = Unconfirmed::Revoke;
        if lifecycle == Lifecycle::Replace {
            world.policy.terms.overlap = Span::ZERO;
        }
        world
    }

    /// The provider makes the next secret, and ends what is there.
    pub(super) fn succeed(&mut self) {
        let (operation, succession) = (self.rotation().operation, self.rotation().plan.succession);
        let fault = self.fault.take();
        self.create_unsent = fault == Some(Fault::Refused);
        match fault {
            Some(Fault::Refused) => return self.journal(Event::Abandoning { reason: AbandonReason::CreateRefused }),
            Some(Fault::NeverArrived) => return,
            None | Some(Fault::ReplyLost) => {}
        }
        let repeats = self.provider.calls.create.as_ref().is_some_and(|create| !create.idempotency_headers.is_empty());
        let known = self.made.iter().find(|(_, made)| repeats && **made == operation).map(|(value, _)| value.clone());
        let end = self.now.wall + self.rotation().plan.terms.overlap.as_duration();
        let value = known.unwrap_or_else(|| {
            for old in self.alive.clone() {
                self.ending.entry(old).and_modify(|known| *known = end.min(*known)).or_insert(end);
            }
            let value = key(&format!("minted-{}", self.made.len() + 1));
            self.made.insert(value.clone(), operation);
            self.alive.insert(value.clone());
            value
        });
        self.end_what_ends();
        if fault.is_none() {
            self.bytes.insert(self.rotation().version.clone(), value.clone());
            let old_ends_at = Some(if succession == Succession::EndsOld { end } else { self.now.wall });
            let Event::Issued { issued_at, expires_at, fingerprints, copy_of, .. } = self.issued(&value, None) else { unreachable!() };
            self.journal(Event::Issued { key_id: None, issued_at, expires_at, fingerprints, copy_of, old_ends_at });
        }
    }

    pub(super) fn end_what_ends(&mut self) {
        let now = self.now.wall;
        let ended: Vec<KeyId> = self.ending.iter().filter(|(_, end)| **end <= now).map(|(value, _)| value.clone()).collect();
        ended.iter().for_each(|value| self.kill(value));
    }

    /// The one exception to I3: the create has killed the current secret, and its successor isn't promoted yet.
    pub(super) fn is_being_replaced(&self) -> bool {
        let open = self.ledger.rotation.as_ref();
        self.provider.succession() == Succession::ReplacesOld && open.is_some_and(|open| open.promoted.is_none())
    }

    fn current_end(&self) -> Option<Timestamp> {
        self.ledger.current_facts().and_then(|facts| facts.expires_at)
    }
}

const ONE_SECRET: [Lifecycle; 2] = [Lifecycle::Rotate, Lifecycle::Replace];

#[test]
fn the_old_secret_ends_by_itself_and_the_rotation_with_it() {
    let mut world = World::with_one_secret(Lifecycle::Rotate, false);
    world.requested = true;
    world.blockers = vec![blocker(Some("one"))];
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    let (made, old) = (world.now.wall, world.rotation().old.clone().unwrap());
    assert_eq!(world.ledger.versions[&old].expires_at, Some(made + Duration::from_secs(DAY)), "its end is journaled");
    assert!(world.alive.contains(&key("submitted-1")));
    world.settle();
    assert_eq!(world.now.wall, made + Duration::from_secs(DAY), "neither sooner nor later");
    assert_eq!((world.current_key(), world.revocations), (Some(key("minted-1")), 1));
    assert_eq!(world.ledger.current_facts().unwrap().key_id, None, "the key stays: nothing of its own names the secret");
}

#[test]
fn a_rotation_waits_for_the_end_that_the_provider_told() {
    let mut world = World::with_one_secret(Lifecycle::Rotate, false);
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    let old = world.rotation().old.clone().unwrap();
    let end = world.now.wall + Duration::from_secs(3 * DAY);
    world.ledger.versions.get_mut(&old).unwrap().expires_at = Some(end);
    world.ending.insert(key("submitted-1"), end);
    world.step_until(|world| world.phase() == Some(Phase::Retired));
    assert_eq!(world.now.wall, end);
}

#[test]
fn a_lost_reply_is_healed_by_asking_again() {
    for lifecycle in ONE_SECRET {
        for repeats in [true, false] {
            for crashes in [true, false] {
                let mut world = World::with_one_secret(lifecycle, repeats);
                world.requested = true;
                world.step_until(|world| world.create_unsent);
                let (first, lost_at) = (world.rotation().operation, world.now.wall);
                world.fault = Some(Fault::ReplyLost);
                world.step();
                if crashes {
                    world.crash();
                }
                world.step_until(|world| world.phase() == Some(Phase::Issued));
                assert_eq!(world.rotation().operation == first, repeats, "the attempt grows where a repetition isn't known again");
                let old = &world.ledger.versions[world.rotation().old.as_ref().unwrap()];
                let overlap = world.policy.terms.overlap.as_duration();
                assert!(old.expires_at.is_some_and(|end| end <= lost_at + overlap), "its time is running: {:?}", old.expires_at);
                world.settle();
                assert_eq!(world.ledger.possible_orphans.len(), 0, "nothing is left over");
                assert_eq!(world.current_key(), Some(key(if repeats { "minted-1" } else { "minted-2" })));
            }
        }
    }
}

#[test]
fn replies_that_are_lost_for_ever_are_bounded_and_the_next_try_comes_before_the_end() {
    let mut world = World::with_one_secret(Lifecycle::Rotate, false);
    world.requested = true;
    world.step_until(|world| world.ledger.rotation.is_some());
    while world.ledger.rotation.is_some() {
        world.fault = Some(Fault::ReplyLost);
        world.step();
    }
    assert_eq!(world.made.len(), usize::try_from(CREATE_ATTEMPTS_MAX).unwrap());
    world.fault = None;
    let end = world.current_end().expect("its time is running");
    assert!(matches!(world.step(), Progress::Rests(Decision::Blocked { reason: BlockReason::RetryLater, .. })));
    world.advance(Duration::from_secs(61));
    world.step();
    assert_eq!(world.rotation().plan.reason, "expires", "its own end makes it due, not its age");
    world.settle();
    assert!(world.now.wall > end && world.current_key() == Some(key("minted-6")));
}

#[test]
fn the_next_secret_takes_the_place_of_one_that_is_dead() {
    let mut world = World::with_one_secret(Lifecycle::Replace, false);
    world.policy.windows = vec![window("0 0 * * Thu", "UTC", "1m")];
    world.policy.terms.confirmation = Confirmation::Required;
    world.policy.terms.unconfirmed = Unconfirmed::Hold;
    world.blockers = vec![blocker(Some("one"))];
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Issued));
    assert!(!world.alive.contains(&key("submitted-1")), "it died with the create");
    // The window closes: with each moment of waiting, applications would hold a dead secret.
    world.advance(Duration::from_secs(120));
    let created = world.now.wall;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert_eq!(world.now.wall, created, "nothing waits");
    assert!(!world.roll_back(), "there is no way back to what is dead");
    world.step_until(|world| world.phase() == Some(Phase::Confirmed));
    assert_eq!(world.rotation().stragglers, world.blockers, "who holds the dead secret is named, and not waited for");
    world.settle();
    assert_eq!(world.current_key(), Some(key("minted-1")));
}

#[test]
fn what_destroys_waits_before_the_create() {
    for lifecycle in ONE_SECRET {
        let mut world = World::with_one_secret(lifecycle, false);
        world.requested = true;
        world.step_until(|world| world.phase() == Some(Phase::Planned));
        world.all_paused = true;
        assert_eq!(world.step(), Progress::Waits(WaitReason::Paused, None));
        world.all_paused = false;
        world.now.trusted = false;
        assert_eq!(world.step(), Progress::Waits(WaitReason::ClockUntrusted, None));
        world.now.trusted = true;
        world.step_until(|world| world.create_unsent);
        world.all_paused = true;
        assert_eq!(world.step(), Progress::Waits(WaitReason::Paused, None), "also between the intent and the call");
        assert!(world.alive.contains(&key("submitted-1")));
        world.all_paused = false;
        world.settle();
    }
}

#[test]
fn there_is_no_way_back_to_a_secret_that_is_ending() {
    let mut world = World::with_one_secret(Lifecycle::Rotate, false);
    world.requested = true;
    world.step_until(|world| world.phase() == Some(Phase::Promoted));
    assert!(!world.roll_back(), "it would be current, and die");
    world.settle();
}

#[test]
fn a_stolen_secret_is_dead_when_the_incident_closes() {
    let mut world = World::with_one_secret(Lifecycle::Rotate, false);
    let at = world.now.instant();
    world.journal(Event::Compromised { at, within: Duration::from_secs(600) });
    world.step_until(|world| world.ledger.open_incident().is_none());
    assert!(!world.alive.contains(&key("submitted-1")), "no shorter way than its end at the provider");
}

#[test]
fn a_secret_that_nobody_knows_needs_a_person() {
    let mut world = World::with_one_secret(Lifecycle::Replace, false);
    world.requested = true;
    world.fault = Some(Fault::ReplyLost);
    world.step_until(|world| !world.alive.contains(&key("submitted-1")));
    world.journal(Event::CurrentRefused { at: world.now.wall });
    world.journal(Event::Abandoning { reason: AbandonReason::CurrentRefused });
    world.killed_outside.insert(key("submitted-1"));
    while world.ledger.rotation.is_some() {
        world.step();
    }
    assert_eq!(world.step(), Progress::Rests(Decision::Stuck { reason: StuckReason::CurrentRefused }));
    assert_eq!(world.ledger.possible_orphans.len(), 0);
}

#[test]
fn what_the_journal_takes_of_a_successor() {
    for lifecycle in ONE_SECRET {
        let mut world = World::with_one_secret(lifecycle, false);
        world.requested = true;
        world.step_until(|world| world.create_unsent);
        let operation = world.rotation().operation;
        let end = Some(world.now.wall);
        let issued = |value: &str, key_id: Option<KeyId>, old_ends_at| match world.issued(&key(value), None) {
            Event::Issued { issued_at, fingerprints, .. } => {
                Event::Issued { key_id, issued_at, expires_at: None, fingerprints, copy_of: None, old_ends_at }
            }
            _ => unreachable!(),
        };
        assert!(apply(&world.ledger, &issued("fresh", None, end)).is_ok());
        assert!(apply(&world.ledger, &issued("fresh", Some(key("fresh")), end)).is_err(), "no id of its own");
        assert!(apply(&world.ledger, &issued("fresh", None, None)).is_err(), "the old one ends");
        assert!(apply(&world.ledger, &issued("submitted-1", None, end)).is_err(), "the same secret again is no successor");
        let lost = |operation| Event::ReplyLost { operation, burns_attempt: true, old_ends_at: world.now.wall };
        assert!(apply(&world.ledger, &lost(operation)).is_ok());
        let other = OperationId::new(installation(), &"other".parse().unwrap(), 9, 9);
        assert!(apply(&world.ledger, &lost(other)).is_err(), "another operation's create");
        let after = apply(&world.ledger, &lost(operation)).unwrap();
        assert!(apply(&after, &issued("fresh", None, end)).is_err(), "what is lost isn't issued");
    }
}
