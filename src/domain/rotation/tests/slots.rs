//! Few slots: no key is made where it would take a living one's place, and the old one is disabled before it is removed.

use super::*;
use crate::domain::due::BlockReason;

#[test]
fn without_a_free_slot_nothing_is_made_and_the_old_key_lives() {
    let mut world = World::enrolled(true);
    world.provider.slots = Some(2);
    let stranger = key("somebody-elses");
    world.alive.insert(stranger.clone());
    world.of_thieves.insert(stranger.clone());
    world.requested = true;
    world.step_until(|world| world.ledger.failure.is_some());
    assert_eq!(world.ledger.failure.as_ref().unwrap().reason, AbandonReason::NoFreeSlot);
    assert!(world.made.is_empty() && world.alive.contains(&stranger) && world.alive.contains(&key("submitted-1")));
    assert!(matches!(world.step(), Progress::Rests(Decision::Steady { .. } | Decision::Blocked { reason: BlockReason::RetryLater, .. })));
    world.kill(&stranger);
    world.requested = true;
    world.settle_after_start();
    assert_eq!(world.current_key(), Some(key("minted-1")), "a slot is free again");
}

#[test]
fn what_was_disabled_soaks_before_it_is_removed() {
    let mut world = World::enrolled(true);
    world.provider.calls.disable = world.provider.calls.revoke.clone();
    world.requested = true;
    world.step_until(|world| world.ledger.rotation.as_ref().is_some_and(|rotation| rotation.disabled.is_some()));
    let (disabled, soak) = (world.now.wall, world.policy.soak(&world.provider));
    assert_eq!(soak, Duration::from_secs(3_600), "an hour at most");
    assert!(!world.alive.contains(&key("submitted-1")) && world.revocations == 0, "nobody can use it, and it is still there");
    assert!(!world.roll_back(), "the intent to revoke is final");
    assert_eq!(world.step(), Progress::Waits(WaitReason::Soak, Some(disabled + soak)));
    world.crash();
    world.settle();
    assert_eq!((world.revocations, world.now.wall), (1, disabled + soak));
}

#[test]
fn a_stolen_key_is_removed_at_once() {
    let mut world = World::enrolled(true);
    world.provider.calls.disable = world.provider.calls.revoke.clone();
    let at = world.now.instant();
    world.journal(Event::Compromised { at, within: Duration::from_secs(600) });
    world.step_until(|world| world.ledger.open_incident().is_none());
    assert!(world.now.running - at.running < Duration::from_secs(600), "no soak: {:?}", world.now.running - at.running);
}
