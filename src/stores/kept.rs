//! Values that are kept beside a store elsewhere, in the embedded file: sealed as the embedded store seals its own.

use std::collections::BTreeSet;

use async_trait::async_trait;
use jiff::Timestamp;

use super::cached::Kept;
use super::embedded::EmbeddedStore;
use super::{SecretStore, Slot, StoreError, VersionBytes};
use crate::domain::ids::VersionId;
use crate::domain::material::Material;
use crate::embedded::rows::{At, Broken, META, encode, load};

/// When the store elsewhere last answered.
const ANSWERED: At<'static> = ("store-answered", "", "");

#[async_trait]
impl Kept for EmbeddedStore {
    async fn keep(&self, slot: &Slot, version: &VersionId, served: &Material) -> Result<(), StoreError> {
        let bytes = VersionBytes { served: served.duplicate(), management: Material::default() };
        self.put_pending(slot, version, &bytes).await
    }

    async fn recall(&self, slot: &Slot, version: &VersionId) -> Result<Material, StoreError> {
        Ok(self.read(slot, version).await?.served)
    }

    async fn drop_versions(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        self.clear(slot, versions).await
    }

    async fn answered_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let read = self.embedded.read(|transaction, keyring| load(keyring, META, &transaction.open_table(META)?, ANSWERED));
        read.await.map_err(unavailable)
    }

    async fn note_answer(&self, at: Timestamp) -> Result<(), StoreError> {
        let written = self.embedded.write(move |transaction, keyring| {
            let row = encode(keyring, META, ANSWERED, &at)?;
            transaction.open_table(META)?.insert(ANSWERED, row.as_slice())?;
            Ok(())
        });
        written.await.map_err(unavailable)
    }
}

fn unavailable(broken: Broken) -> StoreError {
    match broken {
        Broken::Row(what) | Broken::File(what) | Broken::Away(what) => StoreError::Unavailable(what),
    }
}
