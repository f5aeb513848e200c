//! What every store must do. An implementation's test is one call of [`contract`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failed unwrap here is a failed test of the store"
)]

use super::{Append, Promoter, Promotion, PromotionError, SecretStore, Slot, Stages, StoreError, VersionBytes};
use crate::domain::credential::Environment;
use crate::domain::ids::VersionId;
use crate::domain::material::{Material, Secret};
use crate::domain::rotation::Event;
use crate::journal::{Journal, JournalError, Position};

/// Values in the eight shapes that break stores, each with the name of its shape.
pub fn shapes() -> Vec<(&'static str, String)> {
    vec![
        ("short", "Zq7#".to_owned()),
        ("pem", "-----BEGIN PRIVATE KEY-----\nQ2FuYXJ5UEVN\nc2hhcGVkdmFsdWU=\n-----END PRIVATE KEY-----\n".to_owned()),
        ("quotes", r#"canary"quo'ted\back\\slash\n"#.to_owned()),
        ("percent", "canary%41%2f%00%%20".to_owned()),
        ("unicode", "canary-☃-é-e\u{301}-😀-\u{202e}-\u{feff}".to_owned()),
        ("nul", "canary\0with\0nul\u{1}\u{7f}".to_owned()),
        ("long", "canary64KiB-".repeat(6000)[..Secret::LENGTH_MAX].to_owned()),
        ("json", r#"{"canary":"{\"json\":\"in\\\"json\"}"}"#.to_owned()),
    ]
}

/// Runs the whole suite; each part on a store of its own.
///
/// # Panics
/// Where the store doesn't keep the contract.
pub async fn contract<S: SecretStore>(make: impl FnMut() -> S) {
    contract_within(make, usize::MAX).await;
}

/// The same for a store that takes so many bytes of a version at most, as JSON: what is longer is refused.
///
/// # Panics
/// Where the store doesn't keep the contract.
pub async fn contract_within<S: SecretStore>(mut make: impl FnMut() -> S, bytes_max: usize) {
    stages_follow_the_versions(&make()).await;
    every_call_may_be_repeated(&make()).await;
    promotion_is_compare_and_set(&make()).await;
    no_label_returns(&make()).await;
    a_version_never_changes(&make()).await;
    forgetting_spares_current_alone(&make()).await;
    clearing_leaves_nothing_and_no_label_returns(&make()).await;
    every_shape_comes_back(&make(), bytes_max).await;
    what_was_current_is_told_by_version_not_by_bytes(&make()).await;
    management_lies_apart(&make()).await;
    credentials_and_environments_are_apart(&make()).await;
    names_reach_their_limits(&make()).await;
    listing_turns_pages(&make()).await;
    concurrent_promotions_have_one_winner(&make()).await;
}

fn slot(name: &str) -> Slot {
    Slot { credential: name.parse().unwrap(), environment: Environment::Sandbox, path: name.to_owned() }
}

fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

fn material(field: &str, value: &str) -> Material {
    [(field.parse().unwrap(), Secret::from(value.to_owned()))].into_iter().collect()
}

fn bytes(value: &str) -> VersionBytes {
    VersionBytes { served: material("client_secret", value), management: Material::default() }
}

fn stages(pending: Option<&str>, current: Option<&str>, previous: Option<&str>) -> Stages {
    Stages { pending: pending.map(version), current: current.map(version), previous: previous.map(version) }
}

async fn has(store: &impl SecretStore, slot: &Slot, name: &str, value: &str) -> bool {
    store.read(slot, &version(name)).await.unwrap().same_as(&bytes(value))
}

/// Puts and promotes: `v1`, then `v2`, then … as they are named.
async fn promote_in_turn(store: &impl SecretStore, slot: &Slot, names: &[&str]) {
    for (index, name) in names.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| version(names[before]));
        store.put_pending(slot, &version(name), &bytes(name)).await.unwrap();
        store.promote(slot, &version(name), before.as_ref()).await.unwrap();
    }
}

async fn stages_follow_the_versions(store: &impl SecretStore) {
    let slot = slot("dinie");
    assert_eq!(store.stages(&slot).await.unwrap(), Stages::default());
    store.put_pending(&slot, &version("v1"), &bytes("one")).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(Some("v1"), None, None));
    store.promote(&slot, &version("v1"), None).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v1"), None));
    store.put_pending(&slot, &version("v2"), &bytes("two")).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(Some("v2"), Some("v1"), None));
    assert!(has(store, &slot, "v1", "one").await && has(store, &slot, "v2", "two").await);
    store.promote(&slot, &version("v2"), Some(&version("v1"))).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v2"), Some("v1")));
    store.put_pending(&slot, &version("v3"), &bytes("three")).await.unwrap();
    store.put_pending(&slot, &version("v4"), &bytes("four")).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(Some("v4"), Some("v2"), Some("v1")));
    store.forget(&slot, &version("v1")).await.unwrap();
    store.forget(&slot, &version("v4")).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v2"), None));
}

async fn every_call_may_be_repeated(store: &impl SecretStore) {
    let slot = slot("dinie");
    for _ in 0..2 {
        store.put_pending(&slot, &version("v1"), &bytes("one")).await.unwrap();
    }
    for _ in 0..2 {
        store.promote(&slot, &version("v1"), None).await.unwrap();
    }
    store.put_pending(&slot, &version("v1"), &bytes("one")).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v1"), None));
    store.put_pending(&slot, &version("v2"), &bytes("two")).await.unwrap();
    for _ in 0..2 {
        store.promote(&slot, &version("v2"), Some(&version("v1"))).await.unwrap();
    }
    assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v2"), Some("v1")));
    for _ in 0..2 {
        store.forget(&slot, &version("v1")).await.unwrap();
    }
    assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v2"), None));
}

async fn promotion_is_compare_and_set(store: &impl SecretStore) {
    let slot = slot("dinie");
    let changed = |name: &str| StoreError::CurrentChanged { credential: slot.credential.clone(), version: version(name) };
    let missing = StoreError::NotFound { credential: slot.credential.clone(), version: version("v9") };
    assert_eq!(store.promote(&slot, &version("v9"), None).await, Err(missing.clone()));
    assert_eq!(store.read(&slot, &version("v9")).await.unwrap_err(), missing);
    store.put_pending(&slot, &version("v1"), &bytes("one")).await.unwrap();
    assert_eq!(store.promote(&slot, &version("v1"), Some(&version("v0"))).await, Err(changed("v1")));
    assert_eq!(store.stages(&slot).await.unwrap(), stages(Some("v1"), None, None));
    store.promote(&slot, &version("v1"), None).await.unwrap();
    store.put_pending(&slot, &version("v2"), &bytes("two")).await.unwrap();
    for wrong in [None, Some(version("v0")), Some(version("v2"))] {
        assert_eq!(store.promote(&slot, &version("v2"), wrong.as_ref()).await, Err(changed("v2")));
    }
    assert_eq!(store.stages(&slot).await.unwrap(), stages(Some("v2"), Some("v1"), None));
}

async fn no_label_returns(store: &impl SecretStore) {
    let slot = slot("dinie");
    promote_in_turn(store, &slot, &["v1", "v2", "v3"]).await;
    for old in ["v1", "v2"] {
        // The compare would succeed; the version had its time.
        let outcome = store.promote(&slot, &version(old), Some(&version("v3"))).await;
        assert_eq!(outcome, Err(StoreError::CurrentChanged { credential: slot.credential.clone(), version: version(old) }));
        store.put_pending(&slot, &version(old), &bytes(old)).await.unwrap();
        assert_eq!(store.stages(&slot).await.unwrap(), stages(None, Some("v3"), Some("v2")));
    }
    // Pending moved on to v5: a repeated write of v4 doesn't bring it back.
    store.put_pending(&slot, &version("v4"), &bytes("v4")).await.unwrap();
    store.put_pending(&slot, &version("v5"), &bytes("v5")).await.unwrap();
    store.put_pending(&slot, &version("v4"), &bytes("v4")).await.unwrap();
    assert_eq!(store.stages(&slot).await.unwrap().pending, Some(version("v5")));
    store.forget(&slot, &version("v5")).await.unwrap();
    // A late write of a forgotten version may be refused or ignored.
    drop(store.put_pending(&slot, &version("v5"), &bytes("v5")).await);
    assert_ne!(store.stages(&slot).await.unwrap().pending, Some(version("v5")));
}

/// A way back writes the old bytes as a new version: who still compares with the old version's name has missed something.
async fn what_was_current_is_told_by_version_not_by_bytes(store: &impl SecretStore) {
    let slot = slot("dinie");
    promote_in_turn(store, &slot, &["v1", "v2"]).await;
    store.put_pending(&slot, &version("v3"), &bytes("v1")).await.unwrap();
    store.promote(&slot, &version("v3"), Some(&version("v2"))).await.unwrap();
    assert!(has(store, &slot, "v3", "v1").await && has(store, &slot, "v1", "v1").await);
    store.put_pending(&slot, &version("v4"), &bytes("v4")).await.unwrap();
    for stale in ["v1", "v2"] {
        let outcome = store.promote(&slot, &version("v4"), Some(&version(stale))).await;
        assert_eq!(outcome, Err(StoreError::CurrentChanged { credential: slot.credential.clone(), version: version("v4") }));
    }
    assert_eq!(store.stages(&slot).await.unwrap(), stages(Some("v4"), Some("v3"), Some("v2")));
    store.promote(&slot, &version("v4"), Some(&version("v3"))).await.unwrap();
}

async fn a_version_never_changes(store: &impl SecretStore) {
    let slot = slot("dinie");
    let mut with_management = bytes("one");
    with_management.management = material("registration_token", "more");
    store.put_pending(&slot, &version("v1"), &bytes("one")).await.unwrap();
    for promoted in [false, true] {
        for other in [bytes("ONE"), bytes(""), with_management.duplicate()] {
            let outcome = store.put_pending(&slot, &version("v1"), &other).await;
            assert_eq!(outcome, Err(StoreError::DifferentValue { credential: slot.credential.clone(), version: version("v1") }));
            assert!(has(store, &slot, "v1", "one").await);
        }
        if !promoted {
            store.promote(&slot, &version("v1"), None).await.unwrap();
        }
    }
}

async fn forgetting_spares_current_alone(store: &impl SecretStore) {
    let slot = slot("dinie");
    store.forget(&slot, &version("v0")).await.unwrap();
    promote_in_turn(store, &slot, &["v1", "v2"]).await;
    let refused = StoreError::IsCurrent { credential: slot.credential.clone(), version: version("v2") };
    assert_eq!(store.forget(&slot, &version("v2")).await, Err(refused));
    assert!(has(store, &slot, "v2", "v2").await);
    store.forget(&slot, &version("v1")).await.unwrap();
    assert!(matches!(store.read(&slot, &version("v1")).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.promote(&slot, &version("v1"), Some(&version("v2"))).await, Err(StoreError::NotFound { .. })));
}

async fn clearing_leaves_nothing_and_no_label_returns(store: &impl SecretStore) {
    let (cleared, kept) = (slot("dinie"), Slot { environment: Environment::Production, ..slot("dinie") });
    let forgotten = ["v1", "v2", "v3"].map(version).into();
    store.clear(&cleared, &forgotten).await.unwrap();
    promote_in_turn(store, &kept, &["v1"]).await;
    promote_in_turn(store, &cleared, &["v1", "v2"]).await;
    store.put_pending(&cleared, &version("v3"), &bytes("v3")).await.unwrap();
    for _ in 0..2 {
        store.clear(&cleared, &forgotten).await.unwrap();
        assert_eq!(store.stages(&cleared).await.unwrap(), Stages::default());
    }
    for gone in ["v1", "v2", "v3"] {
        assert!(matches!(store.read(&cleared, &version(gone)).await, Err(StoreError::NotFound { .. })), "{gone}");
        // A late write of what was cleared may be refused or ignored; nothing of it comes back.
        drop(store.put_pending(&cleared, &version(gone), &bytes(gone)).await);
        assert!(store.promote(&cleared, &version(gone), None).await.is_err(), "{gone}");
        assert_eq!(store.stages(&cleared).await.unwrap(), Stages::default(), "{gone}");
    }
    assert!(has(store, &kept, "v1", "v1").await, "the other environment is another slot");
    promote_in_turn(store, &cleared, &["v4"]).await;
    store.put_pending(&cleared, &version("v5"), &bytes("v5")).await.unwrap();
    store.clear(&cleared, &forgotten).await.unwrap();
    assert_eq!(store.stages(&cleared).await.unwrap(), stages(Some("v5"), Some("v4"), None), "what came later is spared");
    assert!(has(store, &cleared, "v4", "v4").await && has(store, &cleared, "v5", "v5").await);
}

/// Shortens a value so that it fits with the rest of its JSON; the long shape has one byte per character.
fn fitting(value: String, bytes_max: usize) -> String {
    let excess = bytes(&value).served.to_json().length().saturating_sub(bytes_max);
    value[..value.len() - excess].to_owned()
}

async fn every_shape_comes_back(store: &impl SecretStore, bytes_max: usize) {
    let slot = slot("dinie");
    for (shape, value) in shapes() {
        let value = fitting(value, bytes_max);
        let name = format!("v-{shape}");
        store.put_pending(&slot, &version(&name), &bytes(&value)).await.unwrap();
        assert!(has(store, &slot, &name, &value).await, "{shape}");
        let errors = [
            store.put_pending(&slot, &version(&name), &bytes("canary-else")).await.unwrap_err(),
            store.promote(&slot, &version(&name), Some(&version("v0"))).await.unwrap_err(),
            store.read(&slot, &version("v0")).await.unwrap_err(),
        ];
        for error in errors {
            let text = format!("{error} {error:?}");
            assert!(!text.contains(&value) && !text.contains("canary-else"), "{shape} in an error");
        }
    }
    let mut many = VersionBytes::default();
    for (shape, value) in shapes() {
        many.served.insert(shape.parse().unwrap(), Secret::from(value.clone()));
        many.management.insert(shape.parse().unwrap(), Secret::from(value));
    }
    if many.served.to_json().length() > bytes_max {
        let before = store.stages(&slot).await.unwrap();
        let outcome = store.put_pending(&slot, &version("many"), &many).await;
        assert!(matches!(outcome, Err(StoreError::Refused { .. })), "{outcome:?}");
        assert_eq!(store.stages(&slot).await.unwrap(), before, "what is refused changes nothing");
        for part in [&mut many.served, &mut many.management] {
            part.insert("long".parse().unwrap(), Secret::from("canary-short".to_owned()));
        }
    }
    store.put_pending(&slot, &version("many"), &many).await.unwrap();
    assert!(store.read(&slot, &version("many")).await.unwrap().same_as(&many));
}

async fn management_lies_apart(store: &impl SecretStore) {
    let slot = slot("dinie");
    let whole = VersionBytes { served: material("client_id", "public"), management: material("registration_token", "hidden") };
    store.put_pending(&slot, &version("v1"), &whole).await.unwrap();
    store.promote(&slot, &version("v1"), None).await.unwrap();
    let read = store.read(&slot, &version("v1")).await.unwrap();
    assert!(read.same_as(&whole));
    assert!(read.served.get(&"registration_token".parse().unwrap()).is_none());
    promote_after(store, &slot, "v1", "v2").await;
    assert!(store.read(&slot, &version("v2")).await.unwrap().management.is_empty());
}

async fn promote_after(store: &impl SecretStore, slot: &Slot, old: &str, new: &str) {
    store.put_pending(slot, &version(new), &bytes(new)).await.unwrap();
    store.promote(slot, &version(new), Some(&version(old))).await.unwrap();
}

async fn credentials_and_environments_are_apart(store: &impl SecretStore) {
    let sandbox = slot("dinie");
    let production = Slot { environment: Environment::Production, ..sandbox.clone() };
    let neighbour = slot("dinie-2");
    store.put_pending(&sandbox, &version("v1"), &bytes("one")).await.unwrap();
    for other in [&production, &neighbour] {
        assert_eq!(store.stages(other).await.unwrap(), Stages::default());
        assert!(matches!(store.read(other, &version("v1")).await, Err(StoreError::NotFound { .. })));
    }
    store.put_pending(&production, &version("v1"), &bytes("other")).await.unwrap();
    assert!(has(store, &sandbox, "v1", "one").await && has(store, &production, "v1", "other").await);
}

async fn names_reach_their_limits(store: &impl SecretStore) {
    let (long, short) = ("n".repeat(63), "0");
    for name in [long.as_str(), short] {
        for label in [long.as_str(), short] {
            store.put_pending(&slot(name), &version(label), &bytes(label)).await.unwrap();
            assert!(has(store, &slot(name), label, label).await);
        }
    }
    let mut wide = VersionBytes::default();
    wide.served.insert("f".repeat(63).parse().unwrap(), Secret::from("x".to_owned()));
    store.put_pending(&slot("wide"), &version("v1"), &wide).await.unwrap();
    assert!(store.read(&slot("wide"), &version("v1")).await.unwrap().same_as(&wide));
}

async fn listing_turns_pages(store: &impl SecretStore) {
    assert!(store.list(None, 10).await.unwrap().is_empty());
    // A hyphen sorts before the digits, and a name before what continues it.
    let mut names = vec!["a", "a-1", "a1", "b", "b-b", "c", "z"];
    for name in &names {
        store.put_pending(&slot(name), &version("v1"), &bytes(name)).await.unwrap();
    }
    let both = Slot { environment: Environment::Production, ..slot("a") };
    store.put_pending(&both, &version("v1"), &bytes("twice")).await.unwrap();
    store.put_pending(&slot("gone"), &version("v1"), &bytes("gone")).await.unwrap();
    store.forget(&slot("gone"), &version("v1")).await.unwrap();
    names.sort_unstable();
    for limit in [1, 2, 3, 100] {
        let mut listed = Vec::new();
        loop {
            let page = store.list(listed.last(), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert_eq!(listed.iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
    }
    assert_eq!(store.list(Some(&"bb".parse().unwrap()), 1).await.unwrap(), ["c".parse().unwrap()]);
}

async fn concurrent_promotions_have_one_winner(store: &impl SecretStore) {
    let slot = slot("dinie");
    promote_in_turn(store, &slot, &["v1"]).await;
    let rivals: Vec<VersionId> = (2..6).map(|number| version(&format!("v{number}"))).collect();
    for rival in &rivals {
        store.put_pending(&slot, rival, &bytes(rival.as_str())).await.unwrap();
    }
    let before = version("v1");
    let outcomes = futures_util::future::join_all(rivals.iter().map(|rival| store.promote(&slot, rival, Some(&before)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let current = store.stages(&slot).await.unwrap().current.unwrap();
    let winner = outcomes.iter().position(Result::is_ok).unwrap();
    assert_eq!(current, rivals[winner]);
}

/// What every promoter must do with the store and the journal that it is of.
///
/// # Panics
/// Where the promoter doesn't keep the contract.
pub async fn promoter_contract(store: &dyn SecretStore, journal: &dyn Journal, promoter: &dyn Promoter) {
    let slot = slot("dinie");
    let term = journal.begin_term().await.unwrap();
    let start = Position::default();
    for name in ["v1", "v2"] {
        store.put_pending(&slot, &version(name), &bytes(name)).await.unwrap();
    }
    let (v1, v2, v3) = (version("v1"), version("v2"), version("v3"));
    let promote = async |version: &VersionId, replacing: Option<&VersionId>, expected: Position, term: u64| {
        let append = Append { expected, term, event: &Event::Paused { at: None } };
        promoter.promote_with(Promotion { slot: &slot, version, replacing }, append).await
    };
    let events = async || journal.load(&slot.credential).await.unwrap().events.len();

    // What the store refuses changes nothing in either.
    let missing = StoreError::NotFound { credential: slot.credential.clone(), version: v3.clone() };
    assert_eq!(promote(&v3, None, start, term).await, Err(PromotionError::Store(missing)));
    let changed = StoreError::CurrentChanged { credential: slot.credential.clone(), version: v1.clone() };
    assert_eq!(promote(&v1, Some(&v2), start, term).await, Err(PromotionError::Store(changed)));
    assert_eq!((store.stages(&slot).await.unwrap(), events().await), (stages(Some("v2"), None, None), 0));

    // What the journal refuses isn't journaled; said again from where the journal stands, both have it.
    let conflict = JournalError::Conflict { credential: slot.credential.clone() };
    let ahead = Position { term, revision: 7 };
    assert_eq!(promote(&v1, None, ahead, term).await, Err(PromotionError::Journal(conflict.clone())));
    assert_eq!(promote(&v1, None, start, term - 1).await, Err(PromotionError::Journal(conflict)));
    assert_eq!(events().await, 0);
    let first = promote(&v1, None, start, term).await.unwrap();
    assert_eq!((store.stages(&slot).await.unwrap().current, events().await), (Some(v1.clone()), 1));
    assert_eq!(journal.load(&slot.credential).await.unwrap().position, first);

    // The stage has moved and the event is missing, as a crash leaves it where they lie apart: the event follows.
    store.promote(&slot, &v2, Some(&v1)).await.unwrap();
    let second = promote(&v2, Some(&v1), first, term).await.unwrap();
    assert_eq!((store.stages(&slot).await.unwrap(), events().await), (stages(None, Some("v2"), Some("v1")), 2));
    assert_eq!(second, Position { term, revision: first.revision + 1 });
}
