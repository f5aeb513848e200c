//! Drift: what the store says and what the journal says, compared now and then. What was changed by hand is reported, and neither
//! overwritten nor served.

use super::Engine;
use super::audit::Actor;
use super::cell::{Cell, Work};
use super::drive::Hindrance;
use super::gather::Context;
use super::perform::join;
use crate::domain::ids::VersionId;
use crate::domain::ledger::Ledger;
use crate::domain::material::Material;
use crate::domain::rotation::Phase;
use crate::stores::StoreError;

/// How the store differs from the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Drift {
    /// Another version is current there, or none.
    OtherCurrent(Option<VersionId>),
    /// The current version has other bytes than it was stored with.
    OtherBytes,
    BytesGone,
}

impl Drift {
    /// Whether it may still be that the current version is asked for, and signs.
    pub(super) fn leaves_bytes(&self) -> bool {
        matches!(self, Drift::OtherCurrent(_))
    }

    pub(super) fn text(&self) -> String {
        match self {
            Drift::OtherCurrent(Some(version)) => {
                format!(
                    "somebody else made `{version}` current in the store: it isn't served, and nothing is rotated; put the label back there"
                )
            }
            Drift::OtherCurrent(None) => {
                "somebody else took the label `current` away in the store: nothing is rotated; put it back there".to_owned()
            }
            Drift::OtherBytes => {
                "somebody else changed the current value in the store: it isn't served; put it back there, or `keywright submit` a key"
                    .to_owned()
            }
            Drift::BytesGone => {
                "somebody else removed the current value from the store; put it back there, or `keywright submit` a key".to_owned()
            }
        }
    }
}

/// Whether the store is to be looked at again: by policy, and sooner while it differs, or once a read found that it does.
pub(super) fn store_look_due(cell: &Cell, work: &Work, context: &Context, ledger: &Ledger, running: std::time::Duration) -> bool {
    let by_policy = context.policy.verify_every.as_duration();
    let every = if cell.drift().is_some() { by_policy.min(context.policy.sweep_every()) } else { by_policy };
    let is_old = work.store_looked_at.is_none_or(|last| running.saturating_sub(last) >= every);
    ledger.current.is_some() && !ledger.unverified && (is_old || cell.is_suspected())
}

impl Engine {
    /// Says it once when the store differs, and once when it doesn't any more.
    pub(super) async fn note_drift(&self, cell: &Cell, work: &mut Work, ledger: &Ledger, found: Option<Drift>) -> Result<(), Hindrance> {
        work.store_looked_at = Some(self.seams.clock.now().running);
        cell.suspect(false);
        if found == cell.drift() {
            return Ok(());
        }
        let version = ledger.current.as_ref().map(ToString::to_string);
        let (action, detail) = match &found {
            Some(drift) => ("store-changed", Some(drift.text())),
            None => ("store-as-before", None),
        };
        self.audit(Actor::Daemon, action, &cell.name, version, detail).await?;
        match &found {
            Some(_) => tracing::error!(credential = %cell.name, "the store was changed by somebody else"),
            None => tracing::info!(credential = %cell.name, "the store is again as it was"),
        }
        cell.set_drift(found);
        Ok(())
    }

    pub(super) async fn drift_of(&self, context: &Context, ledger: &Ledger) -> Result<Option<Drift>, Hindrance> {
        let Some(current) = &ledger.current else { return Ok(None) };
        let theirs = self.seams.store.stages(&context.slot()).await?.current;
        // What a process promoted without living to journal it is ours.
        let promoting = ledger.rotation.as_ref().filter(|open| open.phase == Phase::Verified && open.abandoning.is_none());
        let expected = theirs.as_ref() == Some(current) || promoting.is_some_and(|open| theirs.as_ref() == Some(&open.version));
        if !expected {
            return Ok(Some(Drift::OtherCurrent(theirs)));
        }
        match self.seams.store.read(&context.slot(), current).await {
            Ok(bytes) => {
                let as_recorded = self.is_as_recorded(context, ledger, current, &join(bytes));
                Ok((!as_recorded).then_some(Drift::OtherBytes))
            }
            Err(StoreError::NotFound { .. }) => Ok(Some(Drift::BytesGone)),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether these are the values that the journal knows this version by. A description that was edited since may keep
    /// fingerprints of other fields: what both know is compared.
    pub(super) fn is_as_recorded(&self, context: &Context, ledger: &Ledger, version: &VersionId, material: &Material) -> bool {
        let Some(facts) = ledger.facts_of(version) else { return true };
        let found = self.fingerprints(&context.provider, material);
        facts.fingerprints.iter().all(|known| {
            let described = context.provider.fields.get(&known.field).is_some_and(|field| field.bound);
            !described || found.iter().any(|print| print == known)
        })
    }
}
