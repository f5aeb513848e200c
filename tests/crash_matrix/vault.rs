//! The matrix with the values at a Vault: each request that writes is a point like each append to the journal.

use std::sync::Arc;

use async_trait::async_trait;
use keywright::domain::ids::{Name, VersionId};
use keywright::domain::material::Material;
use keywright::faults::Faults;
use keywright::stores::vault::{Auth, VaultSettings, VaultStore};
use keywright::stores::{SecretStore, Slot, Stages, StoreError, VersionBytes};
use rstest::rstest;
use serde_json::Value;

use super::fake_vault::{Call, Fault, ROOT, Vault};
use super::life::Scenario;
use super::world::Backend;

const PREFIX: &str = "keywright";
/// A life has hundreds of points, and makes a thousand requests.
const STRIDE: usize = 17;

#[rstest]
#[tokio::test]
async fn points_recover_at_vault(
    #[values(
        Scenario::Whole,
        Scenario::Refused,
        Scenario::LostReply,
        Scenario::LostReplyIdempotent,
        Scenario::Stolen,
        Scenario::RolledBack,
        Scenario::ByHand,
        Scenario::Rotated,
        Scenario::Replaced,
        Scenario::Secondary,
        Scenario::SecondaryBack,
        Scenario::Disabled,
        Scenario::RolledOut,
        Scenario::CanaryFailed
    )]
    scenario: Scenario,
) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, ROOT).unwrap();
    let backend = || {
        let vault = Vault::start_at_once();
        let (mount, prefix) = ("secret".to_owned(), PREFIX.to_owned());
        let auth = Auth::Token { file: file.clone() };
        let settings = VaultSettings { address: vault.url(), mount, prefix, namespace: None, ca: None, auth };
        let store = Arc::new(VaultStore::open(settings, None).unwrap());
        let seen = Arc::new(Seen(vault.clone()));
        let pass = move |faults: &Faults| {
            let faults = faults.clone();
            vault.plan(move |call| fate(&faults, call));
        };
        Backend::elsewhere(store, seen, Box::new(pass))
    };
    super::matrix("Vault", &backend, scenario, super::stride(STRIDE)).await;
}

/// What becomes of a request: a dead process makes none.
fn fate(faults: &Faults, call: &Call) -> Option<Fault> {
    if faults.alive().is_err() {
        return Some(Fault::Fails);
    }
    if !call.writes() {
        return None;
    }
    let point = faults.point(kind(call));
    match (point.before(), point.after()) {
        (Err(_), _) => Some(Fault::Fails),
        (Ok(()), Err(_)) => Some(Fault::LosesReply),
        (Ok(()), Ok(())) => None,
    }
}

/// What a request writes.
fn kind(call: &Call) -> &'static str {
    match (call.method.as_str(), &call.path) {
        ("DELETE", _) => "vault: remove",
        (_, path) if path.contains("/destroy/") => "vault: destroy",
        (_, path) if path.ends_with("/_stages") => "vault: record",
        (_, path) if path.contains("/keywright-pending/") => "vault: part",
        _ => "vault: native",
    }
}

/// Looks at the server's own memory: a store of ours would finish what it finds half done.
struct Seen(Arc<Vault>);

impl Seen {
    fn apart(&self, slot: &Slot, what: &str) -> Option<Value> {
        self.0.native(&format!("{PREFIX}/keywright-pending/{}/{}/{what}", slot.environment, slot.credential))
    }
}

const ONLY_LOOKS: StoreError = StoreError::Unavailable("who looks does nothing");

#[async_trait]
impl SecretStore for Seen {
    /// # Panics
    /// Where native readers have another value than that of the current version.
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let native = self.0.native(&format!("{PREFIX}/{}/{}", slot.environment, slot.path));
        let Some(record) = self.apart(slot, "_stages") else {
            assert_eq!(native, None, "native readers have nothing before the first promotion");
            return Ok(Stages::default());
        };
        let version = |text: &Value| text.as_str().map(|text| text.parse::<VersionId>().unwrap());
        let label = |name: &str| version(&record["labels"][name]);
        let mut stages = Stages { pending: label("pending"), current: label("current"), previous: label("previous") };
        let promoting = version(&record["promoting"]["version"]);
        // The write at the native path is what promotes.
        if let Some(promoting) = promoting.filter(|version| native.is_some() && native == self.apart(slot, version.as_str())) {
            stages = Stages { pending: None, previous: stages.current, current: Some(promoting) };
        }
        let current = stages.current.as_ref().and_then(|current| self.apart(slot, current.as_str()));
        assert_eq!(native, current, "native readers have the current version, and nothing else");
        Ok(stages)
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let missing = || StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() };
        let material = |value: Value| Material::from_json(value.to_string().as_bytes()).unwrap();
        let served = self.apart(slot, version.as_str()).map(material).ok_or_else(missing)?;
        let management = self.apart(slot, &format!("{version}.management")).map(material).unwrap_or_default();
        Ok(VersionBytes { served, management })
    }

    async fn put_pending(&self, _: &Slot, _: &VersionId, _: &VersionBytes) -> Result<(), StoreError> {
        Err(ONLY_LOOKS)
    }

    async fn promote(&self, _: &Slot, _: &VersionId, _: Option<&VersionId>) -> Result<(), StoreError> {
        Err(ONLY_LOOKS)
    }

    async fn forget(&self, _: &Slot, _: &VersionId) -> Result<(), StoreError> {
        Err(ONLY_LOOKS)
    }

    async fn clear(&self, _: &Slot, _: &std::collections::BTreeSet<VersionId>) -> Result<(), StoreError> {
        Err(ONLY_LOOKS)
    }

    async fn list(&self, _: Option<&Name>, _: usize) -> Result<Vec<Name>, StoreError> {
        Err(ONLY_LOOKS)
    }
}
