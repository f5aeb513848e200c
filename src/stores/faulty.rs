//! Any store, with a fault point at every write.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::{Append, Mark, Native, Promoter, Promotion, PromotionError, SecretStore, Slot, Stages, StoreError, VersionBytes};
use crate::domain::ids::{Name, VersionId};
use crate::faults::{Fault, Faults};
use crate::journal::Position;

/// Wraps a store: a point that fails answers [`StoreError::Unavailable`], with or without the effect.
#[derive(Debug, Clone)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S> Faulty<S> {
    pub fn new(inner: S, faults: Faults) -> Faulty<S> {
        Faulty { inner, faults }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl From<Fault> for StoreError {
    fn from(_: Fault) -> StoreError {
        StoreError::Unavailable(Fault::REASON)
    }
}

impl From<Fault> for PromotionError {
    fn from(fault: Fault) -> PromotionError {
        StoreError::from(fault).into()
    }
}

#[async_trait]
impl<S: SecretStore> SecretStore for Faulty<S> {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        self.faults.alive()?;
        self.inner.stages(slot).await
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let point = self.faults.point("store.put_pending");
        point.before()?;
        let outcome = self.inner.put_pending(slot, version, bytes).await;
        point.after()?;
        outcome
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        self.faults.alive()?;
        self.inner.read(slot, version).await
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let point = self.faults.point("store.promote");
        point.before()?;
        let outcome = self.inner.promote(slot, version, replacing).await;
        point.after()?;
        outcome
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let point = self.faults.point("store.forget");
        point.before()?;
        let outcome = self.inner.forget(slot, version).await;
        point.after()?;
        outcome
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        let point = self.faults.point("store.clear");
        point.before()?;
        let outcome = self.inner.clear(slot, versions).await;
        point.after()?;
        outcome
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        self.faults.alive()?;
        self.inner.list(after, limit).await
    }

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        self.faults.alive()?;
        self.inner.native(slot).await
    }

    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        let point = self.faults.point("store.adopt");
        point.before()?;
        let outcome = self.inner.adopt(slot).await;
        point.after()?;
        outcome
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        self.faults.alive()?;
        self.inner.marks(slots).await
    }
}

#[async_trait]
impl<S: Promoter> Promoter for Faulty<S> {
    async fn promote_with(&self, promotion: Promotion<'_>, append: Append<'_>) -> Result<Position, PromotionError> {
        let point = self.faults.point("store.promote with its event");
        point.before()?;
        let outcome = self.inner.promote_with(promotion, append).await;
        point.after()?;
        outcome
    }
}
