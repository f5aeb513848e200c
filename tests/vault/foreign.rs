//! What somebody else does at a native path: it is told, it stays until it is replaced by its name, and ours is kept.

use keywright::stores::foreign_contract::foreign_contract;
use keywright::stores::native_contract::native_contract;
use keywright::stores::vault::VaultStore;
use keywright::stores::{Native, SecretStore, Slot, Stages, StoreError};
use serde_json::json;

use super::fake::{Fault, ROOT};
use super::real::Server;
use super::{NATIVE, World, bytes, slot, version, with_current};

pub(crate) async fn native(store: &VaultStore) -> Native {
    store.native(&slot()).await.unwrap().expect("native readers have something")
}

pub(crate) fn changed(name: &str) -> StoreError {
    StoreError::CurrentChanged { credential: slot().credential, version: version(name) }
}

pub(crate) async fn is_kept(store: &VaultStore, name: &str, value: &str) -> bool {
    store.read(&slot(), &version(name)).await.unwrap().same_as(&bytes(value))
}

/// `v1` is current, `v2` is pending.
async fn prepared() -> (World, VaultStore) {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    store.put_pending(&slot(), &version("v2"), &bytes("two")).await.unwrap();
    (world, store)
}

async fn keeps_the_contracts(world: &World) {
    let (store, server) = (world.store(), Server::new(&world.vault.url(), ROOT, "secret"));
    let path = |slot: &Slot| format!("keywright/{}/{}", slot.environment, slot.path);
    native_contract(&store, async |slot: &Slot| server.read(&path(slot)).await).await;
    foreign_contract(&store, async |slot: &Slot, value| server.write(&path(slot), &value).await).await;
}

#[tokio::test]
async fn what_native_readers_see_and_what_others_write_is_by_contract() {
    keeps_the_contracts(&World::start().await).await;
}

#[tokio::test]
async fn an_old_vault_that_keeps_one_version_tells_it_as_well() {
    let world = World::start().await;
    world.vault.lock().is_old = true;
    world.vault.keep_versions(1);
    keeps_the_contracts(&world).await;
}

#[tokio::test]
async fn the_same_value_written_again_is_ours_still() {
    let (world, store) = prepared().await;
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "one"}));
    let seen = native(&store).await;
    assert!(seen.version == version("v1") && seen.is_managed);
    assert_eq!(store.stages(&slot()).await.unwrap().current, Some(version("v1")));
    store.promote(&slot(), &version("v1"), None).await.expect("it is current: a repeated call is a no-op");
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 3);
    store.forget(&slot(), &version("v1")).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 1, "what others wrote of it is gone with it");
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "two"}));
    store.clear(&slot(), &["v1", "v2"].map(version).into()).await.unwrap();
    assert_eq!((world.vault.native(NATIVE), world.vault.kept_versions(NATIVE)), (None, 0));
}

#[tokio::test]
async fn what_is_taken_over_goes_with_the_version_that_it_became() {
    let (world, store) = prepared().await;
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "two"}));
    let theirs = native(&store).await.version;
    assert_ne!(theirs, version("v2"), "who wrote it isn't us, though the value is known");
    store.promote(&slot(), &version("v2"), Some(&theirs)).await.unwrap();
    store.put_pending(&slot(), &version("v3"), &bytes("three")).await.unwrap();
    store.promote(&slot(), &version("v3"), Some(&version("v2"))).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 4);
    store.forget(&slot(), &version("v2")).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 2, "of v1 and v3");
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "three"})));
}

#[tokio::test]
async fn a_value_that_was_removed_is_nothing_and_is_replaced_as_such() {
    let removals: [fn(&World); 2] = [|world| world.vault.delete_by_hand(NATIVE), |world| world.vault.wipe_by_hand(NATIVE)];
    for (number, remove) in [1, 0].into_iter().zip(removals) {
        for is_named in [true, false] {
            let (world, store) = prepared().await;
            remove(&world);
            assert!(store.native(&slot()).await.unwrap().is_none());
            assert!(store.marks(&[slot()]).await.unwrap().unwrap().is_empty());
            // A change that somebody made, and no value.
            let gone = version(&format!("foreign-{number}-gone"));
            let stages = Stages { pending: Some(version("v2")), current: Some(gone.clone()), previous: None };
            assert_eq!(store.stages(&slot()).await.unwrap(), stages);
            assert!(is_kept(&store, "v1", "one").await, "applications go on with the last good one");
            assert_eq!(store.promote(&slot(), &version("v2"), Some(&version("v1"))).await, Err(changed("v2")));
            assert_eq!(world.vault.native(NATIVE), None);
            store.promote(&slot(), &version("v2"), is_named.then_some(&gone)).await.unwrap();
            let stages = Stages { pending: None, current: Some(version("v2")), previous: Some(version("v1")) };
            assert_eq!(store.stages(&slot()).await.unwrap(), stages);
            assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
        }
    }
}

#[tokio::test]
async fn a_path_that_was_wiped_repeats_no_name() {
    let (world, store) = prepared().await;
    let mut names = vec![version("v1"), version("v2")];
    // Each has the number that v1 had.
    for value in ["theirs", "other", "theirs"] {
        world.vault.wipe_by_hand(NATIVE);
        world.vault.put_by_hand(NATIVE, json!({"client_secret": value}));
        let seen = native(&store).await;
        assert!(!names.contains(&seen.version) && seen.is_managed, "{}", seen.version);
        names.push(seen.version);
    }
    let now = names.pop().unwrap();
    for stale in &names {
        assert_eq!(store.promote(&slot(), &version("v2"), Some(stale)).await, Err(changed("v2")), "{stale}");
    }
    store.promote(&slot(), &version("v2"), Some(&now)).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
}

#[tokio::test]
async fn what_isnt_a_flat_object_is_told_and_replaced() {
    let (world, store) = prepared().await;
    world.vault.put_by_hand(NATIVE, json!({"client_secret": 7}));
    let seen = native(&store).await;
    assert!(seen.served.is_none() && seen.is_managed);
    assert!(is_kept(&store, "v1", "one").await);
    store.promote(&slot(), &version("v2"), Some(&seen.version)).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
}

#[tokio::test]
async fn what_others_wrote_over_is_no_longer_current_and_may_be_forgotten() {
    let (world, store) = prepared().await;
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "theirs"}));
    assert_eq!(store.promote(&slot(), &version("v2"), Some(&version("v1"))).await, Err(changed("v2")), "it was current, and is no more");
    let theirs = native(&store).await.version;
    store.forget(&slot(), &version("v2")).await.unwrap();
    let seen = native(&store).await;
    assert!(seen.version == theirs && seen.is_managed, "the place stays ours");
    let stages = Stages { pending: None, current: Some(theirs.clone()), previous: Some(version("v1")) };
    assert_eq!(store.stages(&slot()).await.unwrap(), stages);
    store.put_pending(&slot(), &version("v3"), &bytes("three")).await.unwrap();
    store.promote(&slot(), &version("v3"), Some(&theirs)).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "three"})));
}

#[tokio::test]
async fn an_edited_path_that_somebody_filled_isnt_ours() {
    let (world, store) = prepared().await;
    let moved = Slot { path: "elsewhere".to_owned(), ..slot() };
    world.vault.put_by_hand("keywright/sandbox/elsewhere", json!({"client_secret": "theirs"}));
    let seen = store.native(&moved).await.unwrap().unwrap();
    assert!(!seen.is_managed);
    assert_eq!(store.stages(&moved).await.unwrap().current, Some(version("v1")));
    for replacing in [version("v1"), seen.version.clone()] {
        assert_eq!(store.promote(&moved, &version("v2"), Some(&replacing)).await, Err(changed("v2")));
    }
    store.adopt(&moved).await.unwrap();
    store.promote(&moved, &version("v2"), Some(&seen.version)).await.unwrap();
    assert_eq!(world.vault.native("keywright/sandbox/elsewhere"), Some(json!({"client_secret": "two"})));
    // And back again, over what is left of ours there.
    store.put_pending(&slot(), &version("v3"), &bytes("three")).await.unwrap();
    store.promote(&slot(), &version("v3"), Some(&version("v2"))).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "three"})));
}

#[tokio::test]
async fn marks_tell_a_value_and_never_read_one() {
    let (world, store) = prepared().await;
    let other = Slot { path: "nothing".to_owned(), credential: "nothing".parse().unwrap(), ..slot() };
    world.vault.lock().calls.clear();
    let marks = store.marks(&[slot(), other]).await.unwrap().unwrap();
    assert_eq!(marks.keys().map(ToString::to_string).collect::<Vec<_>>(), ["dinie"]);
    let calls: Vec<(String, u16)> = world.vault.lock().calls.iter().map(|(call, status)| (call.path.clone(), *status)).collect();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls.iter().all(|(path, _)| path.starts_with("secret/metadata/keywright/sandbox/")), "{calls:?}");
    world.vault.wipe_by_hand(NATIVE);
    world.vault.put_by_hand(NATIVE, json!({"client_secret": "one"}));
    assert_ne!(store.marks(&[slot()]).await.unwrap().unwrap(), marks, "the same number, and another time");
}

#[tokio::test]
async fn a_policy_without_metadata_is_told_and_keeps_nothing_else_away() {
    let (world, store) = prepared().await;
    world.vault.lock().denied = Some("secret/metadata/keywright/sandbox/payments".to_owned());
    let outcome = store.marks(&[slot()]).await;
    assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}");
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
}

#[tokio::test]
async fn a_look_that_fails_now_and_then_costs_no_mark() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    let before = store.marks(&[slot()]).await.unwrap().unwrap();
    let mut looks = 0;
    world.vault.plan(move |call| {
        looks += usize::from(call.path.contains("/metadata/"));
        (call.path.contains("/metadata/") && !looks.is_multiple_of(3)).then_some(Fault::Fails)
    });
    assert_eq!(store.marks(&[slot()]).await.unwrap().unwrap(), before);
    // Where it goes on, nothing is said of any place.
    world.vault.plan(|_| Some(Fault::Fails));
    assert!(matches!(store.marks(&[slot()]).await, Err(StoreError::Unavailable(_))));
}
