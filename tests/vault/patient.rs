//! A store whose caller tries again, as the engine does.

use std::collections::BTreeSet;

use async_trait::async_trait;
use keywright::domain::ids::{Name, VersionId};
use keywright::stores::{SecretStore, Slot, Stages, StoreError, VersionBytes};

const TRIES: usize = 200;

pub(crate) struct Patient<S>(pub(crate) S);

macro_rules! again {
    ($call:expr) => {{
        let mut outcome = $call.await;
        for _ in 0..TRIES {
            match outcome {
                Err(StoreError::Unavailable(_)) => outcome = $call.await,
                other => return other,
            }
        }
        outcome
    }};
}

#[async_trait]
impl<S: SecretStore> SecretStore for Patient<S> {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        again!(self.0.stages(slot))
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        again!(self.0.put_pending(slot, version, bytes))
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        again!(self.0.read(slot, version))
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        again!(self.0.promote(slot, version, replacing))
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        again!(self.0.forget(slot, version))
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        again!(self.0.clear(slot, versions))
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        again!(self.0.list(after, limit))
    }
}
