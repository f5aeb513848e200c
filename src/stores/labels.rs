//! Which version has which stage, and which moves are legal: pure, shared by the stores that keep stages themselves.
//!
//! A stage never returns to a version that it left (I7): a deposed leader's late call must not undo what came after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Stages, StoreError};
use crate::domain::ids::{Name, VersionId};

/// How many forgotten versions are remembered, so that a late repetition of their first write doesn't bring them back.
const FORGOTTEN_MAX: usize = 64;

/// The stages of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Labels {
    pending: Option<VersionId>,
    current: Option<VersionId>,
    previous: Option<VersionId>,
    versions: BTreeMap<VersionId, Kept>,
    forgotten: VecDeque<VersionId>,
}

/// One version that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Tells its bytes from others without holding them.
    digest: String,
    was_current: bool,
}

/// What is to be done with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// The labels changed, or the bytes are to be written or removed with them.
    Write,
}

impl Labels {
    pub(super) fn stages(&self) -> Stages {
        Stages { pending: self.pending.clone(), current: self.current.clone(), previous: self.previous.clone() }
    }

    /// What a hand that isn't ours does: no rule holds.
    pub(super) fn relabel(&mut self, current: Option<VersionId>) {
        self.current = current;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    pub(super) fn holds(&self, version: &VersionId) -> bool {
        self.versions.contains_key(version)
    }

    /// The digest that a version was put with.
    pub(super) fn digest(&self, version: &VersionId) -> Option<&str> {
        self.versions.get(version).map(|kept| kept.digest.as_str())
    }

    pub(super) fn put_pending(&mut self, credential: &Name, version: &VersionId, digest: &str) -> Result<Change, StoreError> {
        let different = || StoreError::DifferentValue { credential: credential.clone(), version: version.clone() };
        if let Some(kept) = self.versions.get(version) {
            return if kept.digest == digest { Ok(Change::Nothing) } else { Err(different()) };
        }
        if self.forgotten.contains(version) {
            return Err(different());
        }
        self.versions.insert(version.clone(), Kept { digest: digest.to_owned(), was_current: false });
        self.pending = Some(version.clone());
        Ok(Change::Write)
    }

    pub(super) fn promote(&mut self, credential: &Name, version: &VersionId, replacing: Option<&VersionId>) -> Result<Change, StoreError> {
        let Some(kept) = self.versions.get_mut(version) else {
            return Err(StoreError::NotFound { credential: credential.clone(), version: version.clone() });
        };
        if self.current.as_ref() == Some(version) {
            return Ok(Change::Nothing);
        }
        if kept.was_current || self.current.as_ref() != replacing {
            return Err(StoreError::CurrentChanged { credential: credential.clone(), version: version.clone() });
        }
        kept.was_current = true;
        // What somebody else made current is no version that is kept.
        self.previous = self.current.replace(version.clone()).filter(|replaced| self.versions.contains_key(replaced));
        self.pending.take_if(|pending| pending == version);
        Ok(Change::Write)
    }

    pub(super) fn forget(&mut self, credential: &Name, version: &VersionId) -> Result<Change, StoreError> {
        if self.current.as_ref() == Some(version) {
            return Err(StoreError::IsCurrent { credential: credential.clone(), version: version.clone() });
        }
        if self.forgotten.contains(version) {
            return Ok(Change::Nothing);
        }
        self.versions.remove(version);
        self.pending.take_if(|pending| pending == version);
        self.previous.take_if(|previous| previous == version);
        // Also when it was never here: the write that is still under way must not arrive after all.
        self.remember_forgotten(version.clone());
        Ok(Change::Write)
    }

    /// Forgets these versions, also the current one. Says which of them were here.
    pub(super) fn clear(&mut self, versions: &BTreeSet<VersionId>) -> Vec<VersionId> {
        for stage in [&mut self.pending, &mut self.current, &mut self.previous] {
            stage.take_if(|version| versions.contains(version));
        }
        let here: Vec<VersionId> = versions.iter().filter(|version| self.versions.remove(version).is_some()).cloned().collect();
        // Also what was never here, as above.
        for version in versions {
            if !self.forgotten.contains(version) {
                self.remember_forgotten(version.clone());
            }
        }
        here
    }

    fn remember_forgotten(&mut self, version: VersionId) {
        self.forgotten.push_back(version);
        if self.forgotten.len() > FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
    }
}
