//! Where a provider has one secret and ends the old one by itself: how long that lives on, and how its end is seen.

use std::time::Duration;

use jiff::Timestamp;

use super::Engine;
use super::drive::Hindrance;
use super::gather::Context;
use crate::domain::ids::{KeyId, VersionId};
use crate::domain::ledger::{Closure, Fingerprint, Ledger};
use crate::domain::material::Material;
use crate::domain::provider::{FieldClass, Provider};
use crate::domain::rotation::Rotation;
use crate::domain::succession::Succession;
use crate::issuers::IssuerError;
use crate::stores::StoreError;

/// What hinders a rotation whose old key outlives its end.
const OLD_KEY_ALIVE: &str = "old-key-alive";

impl Engine {
    /// How long the old key is to live on: the policy's overlap, or what an incident leaves of it, within the description's bounds.
    pub(super) fn overlap_given(&self, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Duration {
        let by_policy = rotation.plan.terms.overlap.as_duration();
        let by_incident = ledger.open_incident().map(|incident| incident.left(self.seams.clock.now(), false));
        context.provider.overlap_given(by_incident.map_or(by_policy, |left| left.min(by_policy)))
    }

    /// When the provider ends the old key: as it says, or as it was asked.
    pub(super) fn old_ends_at(&self, succession: Succession, told: Option<Timestamp>, overlap: Duration) -> Option<Timestamp> {
        let now = self.seams.clock.now().wall;
        match succession {
            Succession::Beside => None,
            Succession::EndsOld => told.or_else(|| now.checked_add(overlap).ok()),
            Succession::ReplacesOld => Some(now),
        }
    }

    /// How sure we are that a key is dead which nothing names at the provider. Where it can be asked, it is.
    pub(super) async fn closure_by_look(&self, context: &Context, rotation: &Rotation, old: &VersionId) -> Result<Closure, Hindrance> {
        if context.provider.succession().spares_the_old() || !context.provider.has_check() {
            return Ok(Closure::Unproved);
        }
        let doomed = match self.full_material(context, old).await {
            Ok(material) => material,
            Err(StoreError::NotFound { .. }) => return Ok(Closure::Unproved),
            Err(error) => return Err(error.into()),
        };
        match self.seams.issuer.is_dead(&self.target(context), &doomed).await {
            Ok(true) => Ok(Closure::Proved),
            // A person brought the new one: nothing was asked of the provider, and nothing ends the old one.
            Ok(false) if rotation.plan.succession.spares_the_old() => Ok(Closure::Unproved),
            Ok(false) => Err(Hindrance::new(OLD_KEY_ALIVE, "the provider still accepts the old key, which should have ended by now")),
            Err(IssuerError::Impossible(_)) => Ok(Closure::Unproved),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether this is a key of an earlier version.
pub(super) fn is_known(ledger: &Ledger, key_id: &KeyId) -> bool {
    ledger.versions.values().any(|facts| facts.key_id.as_ref() == Some(key_id))
}

/// Whether a key that stays has a secret of an earlier version still, or again: some servers take the call and renew nothing.
pub(super) fn has_an_old_secret(provider: &Provider, ledger: &Ledger, acting: &Material, minted: &Material, new: &[Fingerprint]) -> bool {
    let filled = provider.calls.create.iter().flat_map(|create| create.fields.keys());
    let mut secrets = filled.filter(|field| provider.fields.get(*field).is_some_and(|field| field.class == FieldClass::Secret));
    secrets.any(|field| {
        let unchanged = acting.get(field).zip(minted.get(field)).is_some_and(|(old, new)| old.same_as(new));
        let met = |print: &Fingerprint| print.field == *field && ledger.versions.values().any(|facts| facts.fingerprints.contains(print));
        unchanged || new.iter().any(met)
    })
}
