//! The store as a fake: versions in memory, shared by its copies, so that an engine can be rebuilt on what a crash left.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::labels::{Change, Labels};
use super::{Faulty, Mark, Native, SecretStore, Slot, Stages, StoreError, VersionBytes};
use crate::domain::credential::Environment;
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::Material;
use crate::faults::Faults;
use crate::sealing::sha256;

#[derive(Debug, Default)]
struct Kept {
    labels: Labels,
    bytes: BTreeMap<VersionId, VersionBytes>,
    /// How often somebody else wrote here.
    foreign: u64,
    /// What somebody else wrote lies in a place of ours.
    is_adopted: bool,
}

/// Loses everything with its last copy.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<(Name, Environment), Kept>>>);

impl MemoryStore {
    /// The same store, with a fault point at every write.
    pub fn faulty(&self, faults: &Faults) -> Faulty<MemoryStore> {
        Faulty::new(self.clone(), faults.clone())
    }

    /// All that it holds now, in a store of its own: a backup.
    #[must_use]
    pub fn snapshot(&self) -> MemoryStore {
        let copy = |kept: &Kept| Kept {
            labels: kept.labels.clone(),
            bytes: kept.bytes.iter().map(|(version, bytes)| (version.clone(), bytes.duplicate())).collect(),
            ..*kept
        };
        MemoryStore(Arc::new(Mutex::new(self.kept().iter().map(|(at, kept)| (at.clone(), copy(kept))).collect())))
    }

    /// Somebody else writes other bytes under a version behind our back; `None` removes them.
    pub fn tamper(&self, credential: &Name, environment: Environment, version: &VersionId, bytes: Option<VersionBytes>) {
        let mut all = self.kept();
        let kept = all.entry((credential.clone(), environment)).or_default();
        match bytes {
            Some(bytes) => drop(kept.bytes.insert(version.clone(), bytes)),
            None => drop(kept.bytes.remove(version)),
        }
    }

    /// Somebody else writes another value for native readers; `None`: no flat object of texts.
    pub fn write_natively(&self, credential: &Name, environment: Environment, value: Option<Material>) {
        let mut all = self.kept();
        let kept = all.entry((credential.clone(), environment)).or_default();
        kept.foreign += 1;
        let Ok(version) = format!("foreign-{}", kept.foreign).parse::<VersionId>() else { return };
        if let Some(served) = value {
            kept.bytes.insert(version.clone(), VersionBytes { served, management: Material::default() });
        }
        kept.is_adopted = !kept.labels.is_empty();
        kept.labels.relabel(Some(version));
    }

    /// Somebody else moves the label `current` behind our back.
    pub fn relabel(&self, credential: &Name, environment: Environment, current: Option<VersionId>) {
        self.kept().entry((credential.clone(), environment)).or_default().labels.relabel(current);
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<(Name, Environment), Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SecretStore for MemoryStore {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        Ok(self.kept().get(&key(slot)).map(|kept| kept.labels.stages()).unwrap_or_default())
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let mut all = self.kept();
        let kept = all.entry(key(slot)).or_default();
        if kept.labels.put_pending(&slot.credential, version, &digest(bytes))? == Change::Write {
            kept.bytes.insert(version.clone(), bytes.duplicate());
        }
        Ok(())
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let all = self.kept();
        let bytes = all.get(&key(slot)).and_then(|kept| kept.bytes.get(version));
        let missing = || StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() };
        bytes.map(VersionBytes::duplicate).ok_or_else(missing)
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let mut all = self.kept();
        let kept = all.entry(key(slot)).or_default();
        let before = kept.labels.stages().current;
        kept.labels.promote(&slot.credential, version, replacing)?;
        // Nobody reads what somebody else wrote once it isn't current any more.
        if let Some(foreign) = before.filter(|before| before != version && !kept.labels.holds(before)) {
            kept.bytes.remove(&foreign);
        }
        Ok(())
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let mut all = self.kept();
        let kept = all.entry(key(slot)).or_default();
        kept.labels.forget(&slot.credential, version)?;
        kept.bytes.remove(version);
        Ok(())
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        if let Some(kept) = self.kept().get_mut(&key(slot)) {
            kept.labels.clear(versions);
            kept.bytes.retain(|version, _| !versions.contains(version));
        }
        Ok(())
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        let all = self.kept();
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded((name.clone(), Environment::Production)));
        let mut names: Vec<Name> = Vec::new();
        for ((name, _), kept) in all.range((from, Bound::Unbounded)) {
            if names.len() == limit {
                break;
            }
            if !kept.labels.is_empty() && names.last() != Some(name) {
                names.push(name.clone());
            }
        }
        Ok(names)
    }

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        let all = self.kept();
        let Some(kept) = all.get(&key(slot)) else { return Ok(None) };
        let Some(version) = kept.labels.stages().current else { return Ok(None) };
        let is_ours = kept.labels.holds(&version);
        let served = kept.bytes.get(&version).map(|bytes| bytes.served.duplicate());
        Ok((served.is_some() || !is_ours).then_some(Native { version, served, is_managed: is_ours || kept.is_adopted }))
    }

    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        if let Some(kept) = self.kept().get_mut(&key(slot)) {
            kept.is_adopted = true;
        }
        Ok(())
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        let all = self.kept();
        let mark = |slot: &Slot| {
            let current = all.get(&key(slot))?.labels.stages().current?;
            Some((slot.credential.clone(), Mark(current.to_string())))
        };
        Ok(Some(slots.iter().filter_map(mark).collect()))
    }
}

/// The path is for native readers: it says where, not what.
fn key(slot: &Slot) -> (Name, Environment) {
    (slot.credential.clone(), slot.environment)
}

fn digest(bytes: &VersionBytes) -> String {
    let of = |material: &Material| hex::encode(sha256(material.to_json().expose()));
    format!("{}{}", of(&bytes.served), of(&bytes.management))
}
