//! Calls that stop between two requests, and what the next one makes of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use keywright::domain::ids::VersionId;
use keywright::stores::contract::contract;
use keywright::stores::{SecretStore, Stages, StoreError};
use serde_json::{Value, json};

use super::fake::{Fault, Vault};
use super::foreign::{changed, is_kept, native};
use super::{NATIVE, Patient, World, bytes, each_apart, slot, version, with_current};

/// The request of that number among those that write fails, and all that follow until it is mended.
fn stop_at(vault: &Vault, number: usize, fault: Fault) {
    let count = AtomicUsize::new(0);
    vault.plan(move |call| {
        let index = if call.writes() { count.fetch_add(1, Ordering::Relaxed) } else { count.load(Ordering::Relaxed) };
        match (call.writes() && index == number, index > number) {
            (true, _) => Some(fault),
            (_, true) => Some(Fault::Fails),
            _ => None,
        }
    });
}

/// `v1` is current, `v2` is pending.
async fn prepared() -> (World, VersionId) {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    store.put_pending(&slot(), &version("v2"), &bytes("two")).await.unwrap();
    (world, version("v1"))
}

/// The same, and then somebody else wrote.
async fn overwritten() -> (World, VersionId) {
    let (world, _) = prepared().await;
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "theirs"}));
    let theirs = native(&world.store()).await.version;
    (world, theirs)
}

/// Till a promotion over what is there isn't stopped any more, at each write, before and after its effect. Says how many writes there
/// are.
async fn each_stop_of(prepare: impl AsyncFn() -> (World, VersionId), mut then: impl AsyncFnMut(World, Option<Value>)) -> usize {
    for number in 0.. {
        for fault in [Fault::Fails, Fault::LosesReply, Fault::Garbles] {
            let (world, replaced) = prepare().await;
            let before = world.vault.native(NATIVE);
            stop_at(&world.vault, number, fault);
            let outcome = world.store().promote(&slot(), &version("v2"), Some(&replaced)).await;
            world.vault.nothing_goes_wrong();
            if outcome.is_ok() {
                return number;
            }
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
            let native = world.vault.native(NATIVE);
            let whole = [before, Some(json!({"client_secret": "two"}))];
            assert!(whole.contains(&native), "{native:?}");
            then(world, native).await;
        }
    }
    unreachable!("a promotion has an end")
}

async fn each_stop(then: impl AsyncFnMut(World, Option<Value>)) -> usize {
    each_stop_of(prepared, then).await
}

#[tokio::test]
async fn a_promotion_that_stopped_anywhere_is_said_again() {
    let writes = each_stop(async |world, _| {
        let store = world.store();
        store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
        let stages = Stages { pending: None, current: Some(version("v2")), previous: Some(version("v1")) };
        assert_eq!(store.stages(&slot()).await.unwrap(), stages);
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
    });
    assert_eq!(writes.await, 3, "the intent, the value, the end");
}

#[tokio::test]
async fn what_stages_say_after_a_stop_is_what_native_readers_see() {
    each_stop(async |world, _| {
        let store = world.store();
        let current = store.stages(&slot()).await.unwrap().current.unwrap();
        let expected = if current == version("v2") { "two" } else { "one" };
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": expected})));
        assert!(store.read(&slot(), &current).await.unwrap().same_as(&bytes(expected)));
        let other = if current == version("v2") { ("v1", "one") } else { ("v2", "two") };
        assert!(store.read(&slot(), &version(other.0)).await.unwrap().same_as(&bytes(other.1)));
    })
    .await;
}

#[tokio::test]
async fn what_is_forgotten_after_a_stop_never_becomes_current() {
    each_stop(async |world, native| {
        let store = world.store();
        let outcome = store.forget(&slot(), &version("v2")).await;
        let stages = store.stages(&slot()).await.unwrap();
        if native == Some(json!({"client_secret": "two"})) {
            assert!(matches!(outcome, Err(StoreError::IsCurrent { .. })), "{outcome:?}");
            assert_eq!(stages.current, Some(version("v2")));
            return;
        }
        outcome.unwrap();
        assert_eq!(stages, Stages { current: Some(version("v1")), ..Stages::default() });
        assert!(store.read(&slot(), &version("v1")).await.unwrap().same_as(&bytes("one")));
        assert!(!world.vault.paths_with_bytes().iter().any(|path| path.contains("v2")));
        // What its write compared with is gone: one that is late changes nothing, whichever number it had.
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "one"})));
        store.put_pending(&slot(), &version("v3"), &bytes("three")).await.unwrap();
        store.promote(&slot(), &version("v3"), Some(&version("v1"))).await.unwrap();
        store.forget(&slot(), &version("v1")).await.unwrap();
        assert_eq!(world.vault.kept_versions(NATIVE), 1, "also what was written once more is gone");
    })
    .await;
}

#[tokio::test]
async fn a_write_that_is_late_finds_its_number_taken() {
    let (world, _) = prepared().await;
    // The intent, and no more.
    stop_at(&world.vault, 1, Fault::Fails);
    world.store().promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap_err();
    world.vault.nothing_goes_wrong();
    world.store().forget(&slot(), &version("v2")).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 2, "what was current was written once more");
    assert!(!world.vault.put_if(NATIVE, json!({"client_secret": "two"}), 1), "the late write compares with 1");
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "one"})));
}

#[tokio::test]
async fn clearing_after_a_stop_leaves_nothing() {
    each_stop(async |world, _| {
        let store = world.store();
        store.clear(&slot(), &["v1", "v2"].map(version).into()).await.unwrap();
        assert_eq!(store.stages(&slot()).await.unwrap(), Stages::default());
        assert_eq!(world.vault.paths_with_bytes(), ["keywright/keywright-pending/sandbox/dinie/_stages"]);
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_write_after_a_stop_stays() {
    each_stop(async |world, _| {
        world.vault.put_by_hand(NATIVE, json!({"client_secret": "theirs"}));
        let store = world.store();
        assert_eq!(store.promote(&slot(), &version("v2"), Some(&version("v1"))).await, Err(changed("v2")));
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "theirs"})));
        let theirs = native(&store).await.version;
        assert_eq!(store.stages(&slot()).await.unwrap().current.as_ref(), Some(&theirs));
        assert!(is_kept(&store, "v1", "one").await && is_kept(&store, "v2", "two").await, "applications go on with what they have");
        assert!(!world.vault.put_if(NATIVE, json!({"client_secret": "two"}), 1), "a write that is still under way comes too late");
        store.forget(&slot(), &version("v2")).await.unwrap();
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "theirs"})));
        store.put_pending(&slot(), &version("v3"), &bytes("three")).await.unwrap();
        store.promote(&slot(), &version("v3"), Some(&theirs)).await.unwrap();
        assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v3")));
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "three"})));
    })
    .await;
}

#[tokio::test]
async fn replacing_what_others_wrote_stops_anywhere_and_is_said_again() {
    let writes = each_stop_of(overwritten, async |world, _| {
        let store = world.store();
        // Who starts anew asks first.
        let there = store.stages(&slot()).await.unwrap().current.unwrap();
        store.promote(&slot(), &version("v2"), Some(&there)).await.unwrap();
        let stages = Stages { pending: None, current: Some(version("v2")), previous: Some(version("v1")) };
        assert_eq!(store.stages(&slot()).await.unwrap(), stages);
        assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
    });
    assert_eq!(writes.await, 3, "the intent, the value, the end");
    each_stop_of(overwritten, async |world, there| {
        let store = world.store();
        let forgotten = store.forget(&slot(), &version("v2")).await;
        let is_theirs = there == Some(json!({"client_secret": "theirs"}));
        assert_eq!(forgotten.is_ok(), is_theirs, "{forgotten:?}");
        assert_eq!(world.vault.native(NATIVE), there);
        let seen = native(&store).await;
        assert!(seen.is_managed && (seen.version == version("v2")) != is_theirs);
    })
    .await;
}

#[tokio::test]
async fn taking_a_place_over_stops_anywhere_and_is_said_again() {
    for number in 0.. {
        for fault in [Fault::Fails, Fault::LosesReply, Fault::Garbles] {
            let world = World::start().await;
            world.vault.put_by_hand(NATIVE, json!({"client_secret": "theirs"}));
            stop_at(&world.vault, number, fault);
            let outcome = world.store().adopt(&slot()).await;
            world.vault.nothing_goes_wrong();
            if outcome.is_ok() {
                assert_eq!(number, 1, "one write");
                return;
            }
            let store = world.store();
            store.adopt(&slot()).await.unwrap();
            let seen = native(&store).await;
            assert!(seen.is_managed);
            store.put_pending(&slot(), &version("v1"), &bytes("one")).await.unwrap();
            store.promote(&slot(), &version("v1"), Some(&seen.version)).await.unwrap();
            assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "one"})));
        }
    }
}

#[tokio::test]
async fn with_lost_replies_and_faults_the_contract_is_kept() {
    for (seed, fault) in [(1, Fault::LosesReply), (2, Fault::Fails), (3, Fault::Garbles)] {
        let world = World::start().await;
        // Every fourth request or so, drawn: in step with our calls it would be the same one for ever.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        world.vault.plan(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.is_multiple_of(4).then_some(fault)
        });
        let mut make = each_apart(world.settings());
        contract(|| Patient(make())).await;
    }
}
