//! The values themselves, as those who sign and those who store need them.

use super::Engine;
use super::cell::Work;
use super::drive::Hindrance;
use super::gather::Context;
use crate::domain::ids::VersionId;
use crate::domain::ledger::Ledger;
use crate::domain::material::Material;
use crate::domain::provider::FieldClass;
use crate::stores::{StoreError, VersionBytes};

impl Engine {
    /// All fields of a version, as the issuer needs them.
    pub(super) async fn full_material(&self, context: &Context, version: &VersionId) -> Result<Material, StoreError> {
        let bytes = self.seams.store.read(&context.slot(), version).await?;
        Ok(join(bytes))
    }

    /// The same for a look that is made again and again: a version never changes, so what is kept of it here is as good, and costs no
    /// call to the store.
    pub(super) async fn routine_material(&self, context: &Context, version: &VersionId) -> Result<Material, StoreError> {
        let is_managed = context.provider.fields.values().any(|field| field.class == FieldClass::Management);
        match self.seams.store.kept(&context.slot(), version).await.filter(|_| !is_managed) {
            Some(kept) => Ok(kept),
            None => self.full_material(context, version).await,
        }
    }

    /// The current version's material: it signs what an application's own key signs. Where the provider refuses it, a submitted
    /// key that was proved just now stands in, to clear away what the refused one left.
    pub(super) async fn acting(&self, work: &Work, context: &Context, ledger: &Ledger) -> Result<Material, Hindrance> {
        if let Some(stand_in) = &work.stand_in {
            return Ok(stand_in.duplicate());
        }
        let Some(current) = &ledger.current else { return Err(Hindrance::new("internal", "there is no current version")) };
        let material =
            if work.routine { self.routine_material(context, current).await? } else { self.full_material(context, current).await? };
        if !self.is_as_recorded(context, ledger, current, &material) {
            return Err(Hindrance::new("store-changed", "the current value in the store isn't the one that was stored: it signs nothing"));
        }
        Ok(material)
    }
}

/// The two parts of a version's bytes as one.
pub(super) fn join(bytes: VersionBytes) -> Material {
    let mut all = bytes.served;
    let names: Vec<_> = bytes.management.iter().map(|(name, value)| (name.clone(), value.duplicate())).collect();
    names.into_iter().for_each(|(name, value)| all.insert(name, value));
    all
}

/// Splits off the fields that only manage the credential.
pub(super) fn split(context: &Context, material: Material) -> VersionBytes {
    let (management, served) = material.partition(|field| context.provider.is_management(field));
    VersionBytes { served, management }
}
