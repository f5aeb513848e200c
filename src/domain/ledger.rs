//! The ledger of one credential: what its journal adds up to. Holds facts, never material.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment::Proof;
use super::ids::{FieldName, KeyId, OperationId, VersionId};
use super::incident::Incident;
use super::manual::Request;
use super::rotation::{AbandonReason, Rotation};

/// How many ended versions are remembered. Their fingerprints keep a revoked value from coming back (I10).
pub const ENDED_VERSIONS_MAX: usize = 64;

/// Everything that the journal of one credential says. Changed by [`super::rotation::apply`] alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Grows with each change that an application can see.
    pub revision: u64,
    /// Generation of the current version; 0 before the first.
    pub generation: u64,
    /// Attempts begun for the next generation.
    pub attempts: u32,
    pub current: Option<VersionId>,
    /// In boxes, as the open rotation: most credentials have one version and nothing open, and a map makes room for eleven.
    pub versions: BTreeMap<VersionId, Box<VersionFacts>>,
    pub rotation: Option<Box<Rotation>>,
    pub paused: bool,
    /// Since when, if it is paused.
    #[serde(default)]
    pub paused_since: Option<Timestamp>,
    pub failure: Option<Failure>,
    /// Creates whose reply was lost where the provider can't tell us what became of them.
    pub possible_orphans: Vec<PossibleOrphan>,
    /// How many of them a person was shown before they had a rotation started: these no longer stand in the way.
    #[serde(default)]
    pub possible_orphans_seen: usize,
    /// Keys with our marker that the journal doesn't know: being revoked.
    pub orphans: BTreeSet<KeyId>,
    /// Since when the provider refuses the current version, if it does.
    pub refused_since: Option<Timestamp>,
    /// Restored from a backup, and not looked at since: whatever became of it meanwhile isn't known, so it isn't served (I10).
    #[serde(default)]
    pub unverified: bool,
    /// The provider's keys as listed before the current one was made.
    #[serde(default)]
    pub seen: BTreeSet<KeyId>,
    /// The incident that is open, or the last one.
    #[serde(default)]
    pub incident: Option<Incident>,
    /// A person is asked for a new key. It stands beside the rotation: a key that can't be taken leaves it open.
    #[serde(default)]
    pub request: Option<Box<Request>>,
    /// Rotations that have come to their end: a new version in use, the old key dead.
    #[serde(default)]
    pub rotations: u64,
    /// How many the twin had when the current version was made.
    #[serde(default)]
    pub rehearsed: u64,
    /// It is forgotten, and what the store keeps of it is still to be removed.
    #[serde(default)]
    pub clearing: bool,
}

/// What is known of one version, beside its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFacts {
    pub operation: OperationId,
    pub generation: u64,
    pub origin: Origin,
    pub key_id: Option<KeyId>,
    /// When the provider made the key; the time of submission where it doesn't tell.
    pub issued_at: Timestamp,
    /// When the provider itself ends it.
    pub expires_at: Option<Timestamp>,
    pub fingerprints: Vec<Fingerprint>,
    pub proof: Option<Proof>,
    /// The version whose key this one carries too, after a rollback.
    pub copy_of: Option<VersionId>,
    /// Once true, true for ever: this key is on its way out and can't become current again (I10).
    pub doomed: bool,
    pub ended: Option<Ended>,
}

/// Where a version comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    Submitted,
    Minted,
    /// We made the value ourselves.
    Chosen,
    /// A new version with older material.
    RolledBack,
}

impl Origin {
    /// It came to be by policy, without a person: windows bind it, and a failure waits before the next try.
    pub const fn is_by_policy(self) -> bool {
        matches!(self, Origin::Minted | Origin::Chosen)
    }
}

/// A keyed hash of one field's value, lower-case hex: tells that a value was met before, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    pub field: FieldName,
    pub digest: String,
}

/// How a version ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub at: Timestamp,
    pub closure: Closure,
}

/// How sure we are that a key is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Closure {
    /// The provider refused it afterwards.
    Proved,
    /// The provider, or a person, says so.
    Reported,
    /// Nothing can tell.
    Unproved,
}

/// Why the last rotation didn't come to its end, and when the next one may try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: AbandonReason,
    /// How many in a row.
    pub count: u32,
    pub next_try_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossibleOrphan {
    pub operation: OperationId,
    pub at: Timestamp,
}

impl VersionFacts {
    /// Revoked, or about to be: never current again (I10).
    pub fn is_going(&self) -> bool {
        self.doomed || self.ended.is_some()
    }
}

impl Ledger {
    pub fn current_facts(&self) -> Option<&VersionFacts> {
        self.facts_of(self.current.as_ref()?)
    }

    pub fn facts_of(&self, version: &VersionId) -> Option<&VersionFacts> {
        self.versions.get(version).map(Box::as_ref)
    }

    /// The incident that isn't over.
    pub fn open_incident(&self) -> Option<&Incident> {
        self.incident.as_ref().filter(|incident| incident.closed.is_none())
    }

    /// The generation in which this version's key was new: a copy is as old as what it copies.
    pub fn key_generation(&self, version: &VersionId) -> Option<u64> {
        let root = self.versions.get(self.root_of(version)).or_else(|| self.versions.get(version));
        root.map(|facts| facts.generation)
    }

    /// Whether an open incident is about this version's key.
    pub fn is_stolen(&self, version: &VersionId) -> bool {
        let generation = self.key_generation(version);
        self.open_incident().is_some_and(|incident| generation.is_none_or(|generation| generation <= incident.generation))
    }

    /// The version that still lives beside the current one, while a rotation is open.
    pub fn previous(&self) -> Option<&VersionId> {
        let open = self.rotation.as_ref()?;
        // A rollback that isn't promoted yet changes nothing: what it turned round still holds.
        let rotation = open.turned.as_deref().unwrap_or(open);
        let old = rotation.old.as_ref()?;
        let beside = self.current.as_ref() == Some(&rotation.version) && self.versions.get(old)?.ended.is_none();
        beside.then_some(old)
    }

    /// Where the key of a version comes from: a rollback's copy is what its original was.
    pub fn origin_of(&self, version: &VersionId) -> Option<Origin> {
        self.versions.get(self.root_of(version)).map(|facts| facts.origin)
    }

    /// All versions that carry the same key as this one.
    pub fn same_key(&self, version: &VersionId) -> Vec<VersionId> {
        let root = self.root_of(version);
        let related = self.versions.keys().filter(|other| self.root_of(other) == root);
        let mut all: Vec<VersionId> = related.cloned().collect();
        if !all.contains(version) {
            all.push(version.clone());
        }
        all
    }

    fn root_of<'a>(&'a self, version: &'a VersionId) -> &'a VersionId {
        let mut root = version;
        // A copy is always younger than what it copies; bounded all the same, because a damaged journal may say otherwise.
        for _ in 0..self.versions.len() {
            let Some(older) = self.versions.get(root).and_then(|facts| facts.copy_of.as_ref()) else { break };
            root = older;
        }
        root
    }

    /// Whether this rotation leaves an old key to be revoked: not the first, and not one that enrols the same key again.
    pub fn replaces_a_key(&self, rotation: &Rotation) -> bool {
        rotation.old.as_ref().is_some_and(|old| self.root_of(old) != self.root_of(&rotation.version))
    }

    /// Creates of unknown outcome that no person has been shown yet.
    pub fn unseen_possible_orphans(&self) -> usize {
        self.possible_orphans.len().saturating_sub(self.possible_orphans_seen)
    }

    /// Whether a key at the provider is one that the journal knows as ours, and hasn't given up. A key that should be dead and
    /// is met alive is not known: it is revoked again.
    pub fn knows_key(&self, key_id: &KeyId) -> bool {
        let living = |facts: &VersionFacts| facts.ended.is_none() && facts.key_id.as_ref() == Some(key_id);
        let of_version = self.versions.values().any(|facts| living(facts));
        let of_rotation = self.rotation.as_ref().is_some_and(|rotation| rotation.key_id.as_ref() == Some(key_id));
        of_version || of_rotation
    }

    /// Forgets the oldest ended versions beyond [`ENDED_VERSIONS_MAX`].
    pub(super) fn trim(&mut self) {
        let mut ended: Vec<(Timestamp, VersionId)> = self
            .versions
            .iter()
            .filter(|(name, _)| self.current.as_ref() != Some(name))
            .filter_map(|(name, facts)| Some((facts.ended.as_ref()?.at, name.clone())))
            .collect();
        ended.sort();
        let surplus = ended.len().saturating_sub(ENDED_VERSIONS_MAX);
        for (_, name) in ended.into_iter().take(surplus) {
            self.versions.remove(&name);
        }
    }
}
