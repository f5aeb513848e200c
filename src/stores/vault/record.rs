//! What we keep of one credential beside its native value, and where all of it lies.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::Slot;
use super::super::labels::Labels;
use crate::domain::credential::Environment;
use crate::domain::ids::VersionId;
use crate::domain::material::Material;

/// Beside the environments: who may read those of an environment doesn't read this.
const APART: &str = "keywright-pending";
/// No version is called so.
const STAGES: &str = "_stages";
const MANAGEMENT: &str = ".management";

/// Where a slot's records lie, below the mount.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// What native readers see, as the documents say now.
    pub(super) native: String,
    /// All else of the credential. By its name, because its path may be edited.
    pub(super) folder: String,
}

impl Paths {
    pub(super) fn of(prefix: &str, slot: &Slot) -> Paths {
        let native = format!("{prefix}/{}/{}", slot.environment.as_str(), slot.path);
        Paths { native, folder: format!("{}/{}", environment_folder(prefix, slot.environment), slot.credential) }
    }

    pub(super) fn stages(&self) -> String {
        format!("{}/{STAGES}", self.folder)
    }

    pub(super) fn version(&self, version: &VersionId) -> String {
        format!("{}/{version}", self.folder)
    }

    pub(super) fn management(&self, version: &VersionId) -> String {
        format!("{}/{version}{MANAGEMENT}", self.folder)
    }
}

/// The records of all credentials of an environment.
pub(super) fn environment_folder(prefix: &str, environment: Environment) -> String {
    format!("{prefix}/{APART}/{}", environment.as_str())
}

/// The record of stages. Written by compare-and-set alone; nothing of a value is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) labels: Labels,
    /// Where bytes of a version lie, until they were removed.
    pub(super) traces: BTreeMap<VersionId, Trace>,
    /// A promotion that may not have reached the native path yet.
    pub(super) promoting: Option<Promoting>,
    /// What somebody else wrote at this native path is ours to replace, though no version of ours is current there.
    #[serde(default)]
    pub(super) adopted: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    /// Whether it has a record for its management part.
    pub(super) managed: bool,
    /// Where its bytes lie for native readers; the last one is the newest.
    pub(super) native: Vec<Place>,
    /// When that last one was made, as Vault says; empty where that isn't known.
    #[serde(default)]
    pub(super) created: String,
}

/// One version of Vault's at a native path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) path: String,
    pub(super) number: u64,
}

/// The intent to promote. Whoever finds it completes it, or makes it impossible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Promoting {
    pub(super) version: VersionId,
    pub(super) replacing: Option<VersionId>,
    /// Where it will be written: the compare there is with the number before.
    pub(super) place: Place,
    /// What lies there before it has the same bytes, and goes with them.
    #[serde(default)]
    pub(super) repeats: bool,
}

impl Record {
    pub(super) fn from_data(data: Value) -> Option<Record> {
        serde_json::from_value(data).ok()
    }

    pub(super) fn to_data(&self) -> Option<Value> {
        serde_json::to_value(self).ok()
    }

    /// The version of ours that was promoted last.
    pub(super) fn current(&self) -> Option<VersionId> {
        self.labels.stages().current
    }

    /// Whether what native readers have at this path is ours to replace, whoever wrote it.
    pub(super) fn manages(&self, path: &str) -> bool {
        let is_at = |current| self.native_place(&current).is_none_or(|place| place.path == path);
        self.adopted.as_deref() == Some(path) || self.current().is_some_and(is_at)
    }

    /// Where a version was last written for native readers.
    pub(super) fn native_place(&self, version: &VersionId) -> Option<&Place> {
        self.traces.get(version)?.native.last()
    }

    /// Whether bytes of ours lie there.
    pub(super) fn has_place(&self, place: &Place) -> bool {
        self.traces.values().any(|trace| trace.native.contains(place))
    }

    /// Whether that is where native readers had this version last. `created`: when what lies there was made.
    pub(super) fn is_at(&self, version: &VersionId, place: &Place, created: &str) -> bool {
        let trace = self.traces.get(version).filter(|trace| trace.native.last() == Some(place));
        trace.is_some_and(|trace| trace.created.is_empty() || trace.created == created)
    }

    /// Native readers have this version there: whatever was to be written there, this was.
    pub(super) fn note(&mut self, version: &VersionId, place: Place, created: String) {
        self.unnote(&place);
        let trace = self.traces.entry(version.clone()).or_default();
        trace.native.push(place);
        trace.created = created;
    }

    /// None of our versions lies there.
    pub(super) fn unnote(&mut self, place: &Place) {
        for trace in self.traces.values_mut() {
            if trace.native.last() == Some(place) {
                trace.created.clear();
            }
            trace.native.retain(|other| other != place);
        }
    }

    /// What holds bytes of this version at native paths and of no other that is kept: what may be destroyed, by path.
    pub(super) fn only_of(&self, version: &VersionId) -> BTreeMap<String, Vec<u64>> {
        let others = self.traces.iter().filter(|(other, _)| *other != version).flat_map(|(_, trace)| &trace.native);
        let others: BTreeSet<&Place> = others.chain(self.promoting.as_ref().map(|open| &open.place)).collect();
        let mut own: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for place in self.traces.get(version).into_iter().flat_map(|trace| &trace.native).filter(|place| !others.contains(place)) {
            own.entry(place.path.clone()).or_default().push(place.number);
        }
        own
    }
}

pub(super) fn data_of(material: &Material) -> Option<Value> {
    serde_json::from_slice(material.to_json().expose()).ok()
}

/// `None` for what isn't a flat object of texts.
pub(super) fn material_of(data: &Value) -> Option<Material> {
    let bytes = Zeroizing::new(serde_json::to_vec(data).ok()?);
    Material::from_json(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, number: u64) -> Place {
        Place { path: path.to_owned(), number }
    }

    #[test]
    fn paths_of_two_slots_never_meet() {
        let slot = |credential: &str, path: &str| Slot {
            credential: credential.parse().unwrap(),
            environment: Environment::Sandbox,
            path: path.to_owned(),
        };
        let version: VersionId = "v1".parse().unwrap();
        let mut seen = BTreeSet::new();
        for (credential, path) in [("a", "a"), ("v1", "a/v1"), ("a-v1", "keywright-pending/a/v1")] {
            let paths = Paths::of("keywright", &slot(credential, path));
            for path in [paths.native.clone(), paths.stages(), paths.version(&version), paths.management(&version)] {
                assert!(path.starts_with("keywright/"), "{path}");
                assert!(seen.insert(path.clone()), "{path}");
            }
        }
    }

    #[test]
    fn what_another_version_holds_is_not_destroyed() {
        let (old, new): (VersionId, VersionId) = ("v1".parse().unwrap(), "v2".parse().unwrap());
        let mut record = Record::default();
        record.traces.insert(old.clone(), Trace { native: vec![place("a", 1), place("a", 2), place("b", 1)], ..Trace::default() });
        record.traces.insert(new.clone(), Trace { native: vec![place("a", 2)], ..Trace::default() });
        record.promoting = Some(Promoting { version: new, replacing: None, place: place("b", 1), repeats: false });
        assert_eq!(record.only_of(&old), BTreeMap::from([("a".to_owned(), vec![1])]));
        assert_eq!(Record::from_data(record.to_data().unwrap()), Some(record));
    }
}
