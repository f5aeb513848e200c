//! Vault, as a fake of ours that counts requests.

use std::sync::Arc;
use std::time::Instant;

use keywright::domain::ids::Name;
use keywright::domain::material::Material;
use keywright::stores::vault::{Auth, VaultSettings, VaultStore};
use keywright::stores::{SecretStore as _, Slot};
use serde_json::json;

use super::engine;
use super::vault_server::{ROOT, Vault};
use super::{KNOWN_AIM, PASSES_PER_HOUR, fill, mark, print, scaled, seconds, version};

const PREFIX: &str = "bench";
const ENGINE: &str = "engine";
/// Vault has no list that tells of changes: each place is asked for by itself.
const CALLS_AIM: &str = "one each and pass";

/// How many requests the server met since the last question.
fn requests(vault: &Vault) -> usize {
    std::mem::take(&mut vault.lock().calls).len()
}

/// Somebody else, who knows nothing of us.
fn change(vault: &Vault, slot: &Slot, number: usize) {
    vault.put_by_hand(&format!("{PREFIX}/{}/{}", slot.environment, slot.path), json!({"client_secret": format!("changed-{number}")}));
}

pub(super) async fn measure(slots: &[Slot]) {
    let (vault, folder) = (Vault::start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("token");
    std::fs::write(&file, ROOT).unwrap();
    let below = |prefix: &str| {
        let (mount, auth) = ("secret".to_owned(), Auth::Token { file: file.clone() });
        let settings = VaultSettings { address: vault.url(), mount, prefix: prefix.to_owned(), namespace: None, ca: None, auth };
        VaultStore::open(settings, None).unwrap()
    };
    let store = below(PREFIX);
    let start = Instant::now();
    fill(&store, slots).await;
    print("Vault: promoted for the first time, each", &seconds(start.elapsed() / u32::try_from(slots.len()).unwrap()), "");

    requests(&vault);
    let start = Instant::now();
    let mut marks = 0;
    for number in 0..PASSES_PER_HOUR {
        change(&vault, &slots[number * 7919 % slots.len()], number);
        assert_eq!(store.marks(slots).await.unwrap().unwrap().len(), slots.len());
        marks += requests(&vault);
    }
    let pass = start.elapsed() / u32::try_from(PASSES_PER_HOUR).unwrap();
    let whole = scaled(marks, slots.len());
    print("Vault: requests in an hour for marks, per 10,000", &whole.to_string(), CALLS_AIM);
    print("Vault: a pass, without a share of the quota to keep to", &seconds(pass), "");

    let change_to = async |name: &Name, value: &Material| {
        let value = serde_json::from_slice(value.to_json().expose()).unwrap();
        vault.put_by_hand(&format!("{ENGINE}/production/{name}"), value);
    };
    engine::day("Vault", CALLS_AIM, Arc::new(below(ENGINE)), slots.len(), || requests(&vault), change_to).await;

    let before = mark(&store, slots, &slots[1]).await;
    change(&vault, &slots[1], PASSES_PER_HOUR);
    let start = Instant::now();
    while mark(&store, slots, &slots[1]).await == before {}
    print("Vault: from a change to its mark, beside the wait for the next pass (60 s)", &seconds(start.elapsed()), KNOWN_AIM);
    let theirs = store.native(&slots[1]).await.unwrap().unwrap();
    assert!(theirs.is_managed && theirs.version != version(), "it is told as somebody else's");
}
