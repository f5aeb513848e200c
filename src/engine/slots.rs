//! Where an account has few slots: keys of ours that should be gone give theirs back, and the old key is disabled before it is removed.

use super::Engine;
use super::audit::Actor;
use super::cell::{Cell, Work};
use super::drive::Hindrance;
use super::gather::Context;
use super::perform::{Outcome, Performed, REVOKING};
use crate::domain::ids::KeyId;
use crate::domain::ledger::Ledger;
use crate::domain::rotation::{Event, Rotation};
use crate::stores::StoreError;

impl Engine {
    /// The intent is journaled: from here on the old key only goes.
    pub(super) async fn disable(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger, rotation: &Rotation) -> Outcome {
        let Some(old) = &rotation.old else { return Err(Hindrance::new("internal", "there is no old version")) };
        let Some(key_id) = ledger.versions.get(old).and_then(|facts| facts.key_id.clone()) else {
            return Err(Hindrance::new("internal", "nothing names the old key at the provider"));
        };
        let acting = self.acting(work, context, ledger).await?;
        let doomed = match self.full_material(context, old).await {
            Ok(material) => Some(material),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let target = self.signed_target(context, &REVOKING).await?;
        self.audit(Actor::Daemon, "disabling", &cell.name, Some(old.to_string()), Some(format!("key {key_id}"))).await?;
        if let Err(error) = self.seams.issuer.disable(&target, &acting, &key_id, doomed.as_ref()).await {
            return self.signing_failed(work, context, ledger, error);
        }
        Ok(vec![Performed::plain(Event::Disabled { at: self.seams.clock.now().instant() })])
    }
}

/// A key that the journal says is gone: ours, not current, and nobody's any more. Listed all the same, it takes a slot.
pub(super) fn is_superseded(ledger: &Ledger, key_id: &KeyId) -> bool {
    let ended = ledger.versions.values().any(|facts| facts.ended.is_some() && facts.key_id.as_ref() == Some(key_id));
    ended && !ledger.knows_key(key_id)
}
