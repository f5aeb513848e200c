//! Where versions are kept: the seam to a secrets manager.
//!
//! The truth about stages is the store's. What native readers of a store see as current is always the promoted version.

pub mod aws;
mod cached;
pub mod contract;
pub mod embedded;
mod faulty;
pub mod foreign_contract;
mod kept;
mod labels;
pub mod memory;
pub mod native_contract;
mod paced;
mod promotion;
#[cfg(test)]
mod tests;
pub mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::credential::Environment;
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::Material;

pub use cached::{Cached, Kept, Now};
pub use faulty::Faulty;
pub use paced::{Paced, StoreShare};
pub use promotion::{Apart, Append, Promoter, Promotion, PromotionError};

/// Where one credential lies in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    pub credential: Name,
    pub environment: Environment,
    /// Below the environment; not repeated in errors.
    pub path: String,
}

/// Which version has which role, as the store says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stages {
    pub pending: Option<VersionId>,
    pub current: Option<VersionId>,
    pub previous: Option<VersionId>,
}

/// The two parts of a version's bytes. `management` lies in a record of its own, never in what a native reader sees.
#[derive(Debug, Default)]
pub struct VersionBytes {
    pub served: Material,
    pub management: Material,
}

impl VersionBytes {
    pub fn duplicate(&self) -> VersionBytes {
        VersionBytes { served: self.served.duplicate(), management: self.management.duplicate() }
    }

    pub fn same_as(&self, other: &VersionBytes) -> bool {
        self.served.same_as(&other.served) && self.management.same_as(&other.management)
    }
}

/// What a read for an application brings.
#[derive(Debug)]
pub struct Reading {
    pub bytes: VersionBytes,
    /// The store is away, and this was kept of it.
    pub stale: bool,
}

/// What native readers have at a slot, whoever put it there.
#[derive(Debug)]
pub struct Native {
    /// Names it for [`SecretStore::promote`], which then replaces exactly this. Where it isn't a version of ours, its name begins with
    /// [`FOREIGN`], and no two values have one name.
    pub version: VersionId,
    /// `None`: it isn't a flat object of texts.
    pub served: Option<Material>,
    /// The place is ours. Else somebody made it who knows nothing of us, and only [`SecretStore::adopt`] makes it ours.
    pub is_managed: bool,
}

/// What the names of versions begin with that somebody else wrote. None of ours does.
pub const FOREIGN: &str = "foreign-";

impl Native {
    /// Whether somebody else wrote it, and not another process of ours.
    pub fn is_foreign(&self) -> bool {
        self.version.as_str().starts_with(FOREIGN)
    }
}

/// Which value native readers have, told without the value: as long as nobody changes that, it is the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub String);

/// Whether a store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// As far as is known.
    Here,
    Away {
        /// Since its last answer; `None`: it never gave one.
        stale_for: Option<Duration>,
        /// That is within the bound for what applications get.
        is_servable: bool,
    },
}

/// What a store may answer instead of success. Closed, and free of material: the engine branches on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("version `{version}` of `{credential}` isn't in the store")]
    NotFound { credential: Name, version: VersionId },
    /// The version exists with other bytes, or was forgotten.
    #[error("version `{version}` of `{credential}` is in the store with another value")]
    DifferentValue { credential: Name, version: VersionId },
    #[error("could not promote version `{version}` of `{credential}`: current changed since read")]
    CurrentChanged { credential: Name, version: VersionId },
    /// The version is current, and what was asked would take it away.
    #[error("version `{version}` of `{credential}` is current")]
    IsCurrent { credential: Name, version: VersionId },
    #[error("what the store holds of `{credential}` is damaged: restore it from a backup, or submit the credential again")]
    Damaged { credential: Name },
    /// Our share of its quota is used up, or it says so itself. Nothing was done.
    #[error("our share of the store's quota is used up")]
    Throttled { retry_after: Duration },
    /// The store can't do it for a reason of its own, however often it is asked. Nothing was done.
    #[error("the store can't keep `{credential}`: {reason}")]
    Refused { credential: Name, reason: &'static str },
    /// Nothing can be said about whether it took effect.
    #[error("the store can't be reached: {0}")]
    Unavailable(&'static str),
}

/// Keeps versions. Every call is safe to repeat; a call that failed with [`StoreError::Unavailable`] may have taken effect.
/// Implementations decide nothing: no rotation logic lives here.
#[async_trait]
pub trait SecretStore: Send + Sync {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError>;

    /// Writes a version and makes it pending; moves the stage away from another pending version. The same bytes again
    /// are a no-op, also when the version has been promoted since, or another one has become pending.
    ///
    /// # Errors
    /// [`StoreError::DifferentValue`] if the version exists with other bytes; also where the store remembers that it was forgotten.
    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError>;

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError>;

    /// Makes a version current and `replacing` previous, if `replacing` is current now (`None`: if nothing is). A repeated call,
    /// when `version` is current already, is a no-op. The stage `pending` leaves the version.
    ///
    /// # Errors
    /// [`StoreError::CurrentChanged`] if another version than `replacing` is current, or if `version` was current before and is no
    /// more: a stage never returns to a version that it left. Nothing has changed then.
    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError>;

    /// Removes the bytes of a version, both parts, and every stage it has. Absent is fine.
    ///
    /// # Errors
    /// [`StoreError::IsCurrent`] for the current version.
    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError>;

    /// Removes these versions of a slot, the current one included, and the stages that they have: the credential is forgotten. They
    /// stay known as forgotten; a new version can be put and promoted as the first. Absent is fine. What isn't named stays: a call
    /// that arrives late must not take what came after it (I7).
    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError>;

    /// Credentials that have at least one version here, by name, at most `limit` after `after`.
    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError>;

    /// What native readers have now; `None`: nothing. [`SecretStore::stages`] calls the same version current, where the place is ours,
    /// and [`SecretStore::read`] goes on to give what a version of ours was written with.
    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        let Some(version) = self.stages(slot).await?.current else { return Ok(None) };
        match self.read(slot, &version).await {
            Ok(bytes) => Ok(Some(Native { version, served: Some(bytes.served), is_managed: true })),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a place ours in which somebody else's value lies: the value stays, and can be replaced from then on. A repeated call is
    /// a no-op, and so is one where the place is ours or empty.
    async fn adopt(&self, _slot: &Slot) -> Result<(), StoreError> {
        Ok(())
    }

    /// A mark for each of these slots in which native readers find something, in as few calls as the store knows. `None`: nobody
    /// else can write here.
    async fn marks(&self, _slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        Ok(None)
    }

    /// As [`SecretStore::read`], for applications: where the store is away, what was kept of it, within a bound. A store that keeps
    /// nothing has nothing else to say.
    async fn read_to_serve(&self, slot: &Slot, version: &VersionId) -> Result<Reading, StoreError> {
        Ok(Reading { bytes: self.read(slot, version).await?, stale: false })
    }

    /// What is kept here of a version, without a call to anyone; nothing of its management part is. `None`: the store is to be asked.
    async fn kept(&self, _slot: &Slot, _version: &VersionId) -> Option<Material> {
        None
    }

    /// Whether it answered last.
    fn availability(&self) -> Availability {
        Availability::Here
    }
}
