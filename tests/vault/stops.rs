//! Calls that stop between two requests, and what the next one makes of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use keywright::stores::contract::contract;
use keywright::stores::{SecretStore, Stages, StoreError};
use serde_json::{Value, json};

use super::fake::{Fault, Vault};
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

async fn prepared() -> World {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    store.put_pending(&slot(), &version("v2"), &bytes("two")).await.unwrap();
    world
}

/// Till a promotion isn't stopped any more, at each write, before and after its effect. Says how many writes there are.
async fn each_stop(mut then: impl AsyncFnMut(World, Option<Value>)) -> usize {
    for number in 0.. {
        for fault in [Fault::Fails, Fault::LosesReply, Fault::Garbles] {
            let world = prepared().await;
            stop_at(&world.vault, number, fault);
            let outcome = world.store().promote(&slot(), &version("v2"), Some(&version("v1"))).await;
            world.vault.nothing_goes_wrong();
            if outcome.is_ok() {
                return number;
            }
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
            let native = world.vault.native(NATIVE);
            let whole = [Some(json!({"client_secret": "one"})), Some(json!({"client_secret": "two"}))];
            assert!(whole.contains(&native), "{native:?}");
            then(world, native).await;
        }
    }
    unreachable!("a promotion has an end")
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
    let world = prepared().await;
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
async fn somebody_elses_write_in_the_middle_of_a_promotion_comes_before_it() {
    let world = prepared().await;
    stop_at(&world.vault, 1, Fault::Fails);
    world.store().promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap_err();
    world.vault.nothing_goes_wrong();
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "by-hand"}));
    world.store().promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
    assert_eq!(world.store().stages(&slot()).await.unwrap().current, Some(version("v2")));
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
