//! Where there is a primary and a secondary secret: what a lost reply left beside the current one is taken back before the next try.

use super::*;
use crate::domain::rotation::POSSIBLE_ORPHANS_MAX;

impl World {
    pub(super) fn with_secondary() -> World {
        let mut world = World::enrolled(false);
        world.provider.lifecycle = Lifecycle::Promote;
        world.provider.calls.revoke = None;
        if let Some(create) = world.provider.calls.create.as_mut() {
            create.key_id = None;
        }
        world.requested = true;
        world
    }

    /// The provider ends whatever stands beside the primary secret, which must be the current one.
    pub(super) fn cancel_secondary(&mut self) {
        let current = self.current_key();
        assert!(
            self.rotation().phase == Phase::Planned && !self.rotation().create_open,
            "nothing newer than the current one is ours to keep"
        );
        assert!(!self.all_paused && !self.ledger.paused, "a pause keeps what destroys");
        let beside: Vec<KeyId> = self.alive.iter().filter(|key| Some(*key) != current.as_ref()).cloned().collect();
        assert!(beside.len() <= 1, "at most one: {beside:?}");
        beside.iter().for_each(|key| self.kill(key));
        self.journal(Event::SecondaryCancelled);
    }
}

#[test]
fn what_a_lost_reply_left_is_taken_back_and_the_same_rotation_goes_on() {
    let mut world = World::with_secondary();
    world.fault = Some(Fault::ReplyLost);
    world.step_until(|world| !world.ledger.possible_orphans.is_empty());
    world.create_unsent = false;
    assert_eq!(world.alive.len(), 2, "it was made, and nobody has it");
    world.settle_after_start();
    assert_eq!((world.ledger.generation, world.ledger.possible_orphans.len()), (2, 0));
    assert_eq!(world.alive.len(), 1, "the new one alone");
    let cancelled = world.events.iter().filter(|event| matches!(event, Event::SecondaryCancelled)).count();
    assert_eq!(cancelled, 1);
}

#[test]
fn however_many_replies_are_lost_nothing_is_left_and_it_is_never_stuck() {
    let mut world = World::with_secondary();
    let mut lost = 0;
    while lost <= 2 * POSSIBLE_ORPHANS_MAX {
        world.requested = true;
        world.step_until(|world| world.ledger.rotation.is_some());
        for _ in 0..100 {
            let open = world.ledger.rotation.as_ref().is_some_and(|rotation| rotation.create_open);
            if open && world.fault.is_none() {
                world.fault = Some(Fault::ReplyLost);
                lost += 1;
            }
            if world.ledger.rotation.is_none() {
                break;
            }
            world.step();
        }
        assert_eq!((world.alive.len(), world.ledger.possible_orphans.len()), (1, 0), "given up, and nothing is left over");
        world.advance(Duration::from_secs(DAY));
    }
    world.fault = None;
    world.requested = true;
    world.settle_after_start();
    assert_eq!((world.ledger.generation, world.alive.len()), (2, 1), "{:?}", world.ledger);
}

#[test]
fn a_pause_keeps_it_from_being_taken_back() {
    let mut world = World::with_secondary();
    world.fault = Some(Fault::ReplyLost);
    world.step_until(|world| !world.ledger.possible_orphans.is_empty());
    world.create_unsent = false;
    world.all_paused = true;
    for _ in 0..20 {
        world.step();
    }
    assert_eq!((world.alive.len(), world.ledger.possible_orphans.len()), (2, 1));
    world.all_paused = false;
    world.settle_after_start();
    assert_eq!((world.alive.len(), world.ledger.possible_orphans.len()), (1, 0));
}

#[test]
fn only_what_was_lost_is_taken_back() {
    let mut world = World::with_secondary();
    world.settle_after_start();
    assert_eq!(world.ledger.generation, 2);
    assert!(!world.events.iter().any(|event| matches!(event, Event::SecondaryCancelled)), "nothing was lost");
    assert!(apply(&world.ledger, &Event::SecondaryCancelled).is_err());
}
