//! What a store must do where somebody else writes what native readers see: tell it, keep ours, and replace exactly that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the store"
)]

use super::{Mark, SecretStore, Slot, StoreError, VersionBytes};
use crate::domain::credential::Environment;
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::{Material, Secret};

/// Walks through what others may do. `write` writes a value at the slot's native address as an unmodified client of the store would,
/// makes the place if there is none, and returns when readers have it.
///
/// # Panics
/// Where the store doesn't keep the contract.
pub async fn foreign_contract<S: SecretStore>(store: &S, mut write: impl AsyncFnMut(&Slot, Material)) {
    a_change_is_told_and_ours_stays(store, &mut write).await;
    a_change_is_replaced_by_name(store, &mut write).await;
    what_others_made_is_taken_over_when_that_is_asked(store, &mut write).await;
    marks_are_told_for_many(store).await;
}

async fn a_change_is_told_and_ours_stays<S: SecretStore>(store: &S, write: &mut impl AsyncFnMut(&Slot, Material)) {
    let slot = slot("foreign-change");
    assert!(store.native(&slot).await.unwrap().is_none(), "nothing is there");
    assert_eq!(mark(store, &slot).await, None);
    let (v1, v2) = (version("v1"), version("v2"));
    promoted(store, &slot, &v1, None).await;
    let native = store.native(&slot).await.unwrap().expect("something is there");
    assert!(native.version == v1 && !native.is_foreign() && native.is_managed && is(native.served.as_ref(), "v1"));
    let ours = mark(store, &slot).await.expect("a mark");
    store.put_pending(&slot, &v2, &bytes("v2")).await.unwrap();
    assert_eq!(mark(store, &slot).await, Some(ours.clone()), "what is pending is no change for native readers");
    write(&slot, value("theirs")).await;
    let native = store.native(&slot).await.unwrap().expect("something is there");
    assert!(native.is_foreign() && native.is_managed, "{}", native.version);
    assert!(is(native.served.as_ref(), "theirs"));
    assert_eq!(store.stages(&slot).await.unwrap().current.as_ref(), Some(&native.version), "stages say the same");
    let theirs = mark(store, &slot).await.expect("a mark");
    assert_ne!(theirs, ours, "the mark tells of the change");
    assert_eq!(mark(store, &slot).await, Some(theirs), "and of nothing else");
    let kept = store.read(&slot, &v1).await.unwrap();
    assert!(is(Some(&kept.served), "v1"), "a version keeps what it was written with");
    assert!(is(Some(&store.read(&slot, &v2).await.unwrap().served), "v2"));
    store.clear(&slot, &[v1, v2].into()).await.unwrap();
}

async fn a_change_is_replaced_by_name<S: SecretStore>(store: &S, write: &mut impl AsyncFnMut(&Slot, Material)) {
    let slot = slot("foreign-replaced");
    let (v1, v2, v3, v4) = (version("v1"), version("v2"), version("v3"), version("v4"));
    promoted(store, &slot, &v1, None).await;
    store.put_pending(&slot, &v2, &bytes("v2")).await.unwrap();
    write(&slot, value("theirs")).await;
    let first = store.native(&slot).await.unwrap().expect("something is there").version;
    let refused = store.promote(&slot, &v2, Some(&v1)).await;
    assert!(matches!(refused, Err(StoreError::CurrentChanged { .. })), "{refused:?}");
    assert!(is(store.native(&slot).await.unwrap().unwrap().served.as_ref(), "theirs"), "what was refused changed nothing");
    store.promote(&slot, &v2, Some(&first)).await.unwrap();
    store.promote(&slot, &v2, Some(&first)).await.expect("a repeated call is a no-op");
    let native = store.native(&slot).await.unwrap().expect("something is there");
    assert!(native.version == v2 && is(native.served.as_ref(), "v2"));
    assert!(is(Some(&store.read(&slot, &v1).await.unwrap().served), "v1"), "an old version is kept until it is forgotten");
    // The same again is another change, and the name of the one before no longer fits.
    write(&slot, value("theirs")).await;
    let second = store.native(&slot).await.unwrap().expect("something is there").version;
    assert_ne!(second, first);
    store.put_pending(&slot, &v3, &bytes("v3")).await.unwrap();
    for stale in [&first, &v2, &v1] {
        let refused = store.promote(&slot, &v3, Some(stale)).await;
        assert!(matches!(refused, Err(StoreError::CurrentChanged { .. })), "{stale}: {refused:?}");
    }
    store.promote(&slot, &v3, Some(&second)).await.unwrap();
    // An old value of ours, written by somebody else, isn't the version that it was.
    write(&slot, value("v1")).await;
    let third = store.native(&slot).await.unwrap().expect("something is there");
    assert!(![&v1, &v2, &v3, &first, &second].contains(&&third.version) && is(third.served.as_ref(), "v1"));
    for old in [&v1, &v2] {
        store.forget(&slot, old).await.unwrap();
    }
    promoted(store, &slot, &v4, Some(&third.version)).await;
    assert!(is(store.native(&slot).await.unwrap().unwrap().served.as_ref(), "v4"));
    store.clear(&slot, &[v1, v2, v3, v4].into()).await.unwrap();
    assert!(store.native(&slot).await.unwrap().is_none() && mark(store, &slot).await.is_none(), "the credential was forgotten");
}

async fn what_others_made_is_taken_over_when_that_is_asked<S: SecretStore>(store: &S, write: &mut impl AsyncFnMut(&Slot, Material)) {
    let slot = slot("foreign-made");
    let (v1, v2) = (version("v1"), version("v2"));
    store.adopt(&slot).await.expect("nothing is there to be taken over");
    write(&slot, value("theirs")).await;
    let native = store.native(&slot).await.unwrap().expect("something is there");
    assert!(!native.is_managed && is(native.served.as_ref(), "theirs"));
    let refused = match store.put_pending(&slot, &v1, &bytes("v1")).await {
        Ok(()) => store.promote(&slot, &v1, None).await,
        refused => refused,
    };
    assert!(matches!(refused, Err(StoreError::CurrentChanged { .. } | StoreError::Refused { .. })), "{refused:?}");
    let still = store.native(&slot).await.unwrap().expect("something is there");
    assert!(still.version == native.version && is(still.served.as_ref(), "theirs"), "it isn't touched");
    for _ in 0..2 {
        store.adopt(&slot).await.unwrap();
        let taken = store.native(&slot).await.unwrap().expect("something is there");
        assert!(taken.is_managed && taken.version == native.version && is(taken.served.as_ref(), "theirs"), "the value stays");
    }
    assert_eq!(store.stages(&slot).await.unwrap().current.as_ref(), Some(&native.version));
    promoted(store, &slot, &v2, Some(&native.version)).await;
    assert!(is(store.native(&slot).await.unwrap().unwrap().served.as_ref(), "v2"));
    store.clear(&slot, &[v1, v2].into()).await.unwrap();
}

/// More than AWS lists on a page.
const MANY: usize = 120;

async fn marks_are_told_for_many<S: SecretStore>(store: &S) {
    let (v1, v2) = (version("v1"), version("v2"));
    let slots: Vec<Slot> = (0..MANY).map(|number| slot(&format!("marked-{number:03}"))).collect();
    for slot in &slots[1..] {
        promoted(store, slot, &v1, None).await;
    }
    let before = store.marks(&slots).await.unwrap().expect("marks");
    assert_eq!(before.len(), MANY - 1, "one for each that has something");
    let changed = &slots[MANY / 2];
    promoted(store, changed, &v2, Some(&v1)).await;
    let after = store.marks(&slots).await.unwrap().expect("marks");
    let differ: Vec<&Name> = after.iter().filter(|(name, mark)| before.get(*name) != Some(mark)).map(|(name, _)| name).collect();
    assert_eq!(differ, [&changed.credential]);
    for slot in &slots {
        store.clear(slot, &[v1.clone(), v2.clone()].into()).await.unwrap();
    }
    assert!(store.marks(&slots).await.unwrap().expect("marks").is_empty());
}

async fn promoted<S: SecretStore>(store: &S, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) {
    store.put_pending(slot, version, &bytes(version.as_str())).await.unwrap();
    store.promote(slot, version, replacing).await.unwrap();
}

async fn mark<S: SecretStore>(store: &S, slot: &Slot) -> Option<Mark> {
    store.marks(std::slice::from_ref(slot)).await.unwrap().expect("others can write here").remove(&slot.credential)
}

fn is(found: Option<&Material>, expected: &str) -> bool {
    found.is_some_and(|found| found.same_as(&value(expected)))
}

fn slot(name: &str) -> Slot {
    Slot { credential: name.parse().unwrap(), environment: Environment::Production, path: format!("team/{name}") }
}

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

fn value(text: &str) -> Material {
    [("client_secret".parse().unwrap(), Secret::from(format!("value-{text}")))].into_iter().collect()
}

fn bytes(text: &str) -> VersionBytes {
    VersionBytes { served: value(text), management: Material::default() }
}
