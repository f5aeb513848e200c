//! The Vault store against a Vault of ours, and against a real one where `KEYWRIGHT_TEST_VAULT_ADDR` and `KEYWRIGHT_TEST_VAULT_TOKEN`
//! name it: the contract of all stores, what native readers see at every point, logins, outages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a failed unwrap in a test is a failed test, and the fake has a clock of its own"
)]
#![allow(missing_debug_implementations, dead_code, reason = "the fake is shared with the black-box tests")]

#[path = "support/vault/mod.rs"]
mod fake;
#[path = "vault/foreign.rs"]
mod foreign;
#[path = "vault/lives.rs"]
mod lives;
#[path = "vault/logins.rs"]
mod logins;
#[path = "vault/outages.rs"]
mod outages;
#[path = "vault/patient.rs"]
mod patient;
#[path = "vault/real.rs"]
mod real;
#[path = "vault/share.rs"]
mod share;
#[path = "vault/stops.rs"]
mod stops;
#[path = "support/tls.rs"]
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keywright::domain::credential::Environment;
use keywright::domain::ids::VersionId;
use keywright::domain::material::{Material, Secret};
use keywright::journal::memory::MemoryJournal;
use keywright::stores::contract::{contract, promoter_contract};
use keywright::stores::vault::{Auth, VaultSettings, VaultStore};
use keywright::stores::{Apart, SecretStore, Slot, VersionBytes};
use serde_json::json;

use fake::{ROOT, Vault};
use patient::Patient;

/// A fake, and a folder for the files that one logs in with.
pub(crate) struct World {
    pub(crate) vault: Arc<Vault>,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start() -> World {
        World { vault: Vault::start().await, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn settings(&self) -> VaultSettings {
        settings(&self.vault, Auth::Token { file: self.file("token", &format!("{ROOT}\n")) })
    }

    pub(crate) fn store(&self) -> VaultStore {
        VaultStore::open(self.settings(), None).unwrap()
    }
}

pub(crate) fn settings(vault: &Vault, auth: Auth) -> VaultSettings {
    let (mount, prefix) = ("secret".to_owned(), "keywright".to_owned());
    VaultSettings { address: vault.url(), mount, prefix, namespace: None, ca: None, auth }
}

pub(crate) fn slot() -> Slot {
    Slot { credential: "dinie".parse().unwrap(), environment: Environment::Sandbox, path: "payments/dinie".to_owned() }
}

pub(crate) const NATIVE: &str = "keywright/sandbox/payments/dinie";

pub(crate) fn version(name: &str) -> VersionId {
    name.parse().unwrap()
}

pub(crate) fn bytes(value: &str) -> VersionBytes {
    let one = |field: &str, value: &str| Material::from_iter([(field.parse().unwrap(), Secret::from(value.to_owned()))]);
    VersionBytes { served: one("client_secret", value), management: one("registration_access_token", &format!("manages-{value}")) }
}

/// `v1` is current.
pub(crate) async fn with_current(store: &impl SecretStore) {
    store.put_pending(&slot(), &version("v1"), &bytes("one")).await.unwrap();
    store.promote(&slot(), &version("v1"), None).await.unwrap();
}

/// Stores that share one server, each below a prefix of its own.
fn each_apart(settings: VaultSettings) -> impl FnMut() -> VaultStore {
    let count = AtomicUsize::new(0);
    move || {
        let prefix = format!("{}/{}", settings.prefix, count.fetch_add(1, Ordering::Relaxed));
        VaultStore::open(VaultSettings { prefix, ..settings.clone() }, None).unwrap()
    }
}

#[tokio::test]
async fn an_old_vault_that_keeps_one_version_keeps_the_contract_in_a_namespace() {
    let world = World::start().await;
    world.vault.mount("team-a", "kv/deep");
    {
        let mut state = world.vault.lock();
        state.is_old = true;
        state.logins.roles.insert("role".to_owned(), "made-for-a-test".to_owned());
    }
    world.vault.keep_versions(1);
    let auth = Auth::AppRole { mount: "approle".to_owned(), role_id: "role".to_owned(), secret_id: world.file("s", "made-for-a-test\n") };
    let namespace = Some("team-a".to_owned());
    contract(each_apart(VaultSettings { mount: "kv/deep".to_owned(), namespace, ..settings(&world.vault, auth) })).await;
    assert!(world.vault.paths_with_bytes().is_empty(), "nothing of it lies outside the namespace");
}

#[tokio::test]
async fn vault_and_a_journal_apart_keep_the_promoters_contract() {
    let world = World::start().await;
    let (store, journal) = (Arc::new(world.store()), Arc::new(MemoryJournal::default()));
    promoter_contract(store.as_ref(), journal.as_ref(), &Apart::new(store.clone(), journal.clone())).await;
}

#[tokio::test]
async fn native_readers_see_the_promoted_version_alone() {
    let world = World::start().await;
    let store = world.store();
    store.put_pending(&slot(), &version("v1"), &bytes("one")).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), None, "pending isn't there");
    store.promote(&slot(), &version("v1"), None).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "one"})));
    store.put_pending(&slot(), &version("v2"), &bytes("two")).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "one"})));
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "two"})));
    // Who may read an environment's values doesn't read what lies apart.
    let native = world.vault.paths_with_bytes().into_iter().filter(|path| path.starts_with("keywright/sandbox/"));
    assert_eq!(native.collect::<Vec<_>>(), [NATIVE]);
}

#[tokio::test]
async fn of_forgotten_versions_no_bytes_stay() {
    let world = World::start().await;
    let store = world.store();
    with_current(&store).await;
    store.put_pending(&slot(), &version("v2"), &bytes("two")).await.unwrap();
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    store.put_pending(&slot(), &version("v3"), &bytes("three")).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 2);
    store.forget(&slot(), &version("v1")).await.unwrap();
    store.forget(&slot(), &version("v3")).await.unwrap();
    assert_eq!(world.vault.kept_versions(NATIVE), 1);
    let folder = "keywright/keywright-pending/sandbox/dinie";
    let left = [format!("{folder}/_stages"), format!("{folder}/v2"), format!("{folder}/v2.management"), NATIVE.to_owned()];
    assert_eq!(world.vault.paths_with_bytes(), left);
    store.clear(&slot(), &["v1", "v2", "v3"].map(version).into()).await.unwrap();
    assert_eq!(world.vault.paths_with_bytes(), left[..1]);
    assert_eq!(world.vault.native(NATIVE), None);
}

#[tokio::test]
async fn a_path_that_is_edited_moves_with_the_next_version() {
    let world = World::start().await;
    let (store, moved) = (world.store(), Slot { path: "elsewhere".to_owned(), ..slot() });
    with_current(&store).await;
    assert!(store.read(&moved, &version("v1")).await.unwrap().same_as(&bytes("one")));
    store.put_pending(&moved, &version("v2"), &bytes("two")).await.unwrap();
    store.promote(&moved, &version("v2"), Some(&version("v1"))).await.unwrap();
    assert_eq!(world.vault.native("keywright/sandbox/elsewhere"), Some(json!({"client_secret": "two"})));
    // For the overlap the old one is where its readers look for it.
    assert_eq!(world.vault.native(NATIVE), Some(json!({"client_secret": "one"})));
    store.forget(&moved, &version("v1")).await.unwrap();
    assert_eq!(world.vault.native(NATIVE), None);
}
