//! Drift: what the store says and what the journal says, compared now and then, and as soon as the store's marks tell of a change.
//! What was changed by hand is reported, and neither overwritten nor served, unless it is proved (`foreign.rs`).

use super::Engine;
use super::audit::Actor;
use super::cell::{Cell, Work};
use super::drive::Hindrance;
use super::gather::Context;
use super::material::join;
use crate::domain::ids::VersionId;
use crate::domain::ledger::Ledger;
use crate::domain::material::Material;
use crate::domain::rotation::Phase;
use crate::stores::{Native, StoreError};

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
                    "somebody else made `{version}` current in the store: it isn't served, and nothing is rotated; put ours back there, \
                     or `keywright submit` a key"
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
    // A mark that stayed the same says as much as a look.
    let told_at = cell.told_at().filter(|_| cell.drift().is_none());
    let is_old = work.store_looked_at.is_none_or(|last| running.saturating_sub(told_at.unwrap_or_default().max(last)) >= every);
    ledger.current.is_some() && !ledger.unverified && (is_old || cell.is_suspected())
}

impl Engine {
    /// Says it once when the store differs, and once when it doesn't any more.
    pub(super) async fn note_drift(&self, cell: &Cell, work: &mut Work, ledger: &Ledger, found: Option<Drift>) -> Result<(), Hindrance> {
        if found != cell.drift() {
            self.tell_of_drift(cell, ledger, found).await?;
        }
        // What couldn't be put on record is looked at again.
        work.store_looked_at = Some(self.seams.clock.now().running);
        cell.suspect(false);
        Ok(())
    }

    async fn tell_of_drift(&self, cell: &Cell, ledger: &Ledger, found: Option<Drift>) -> Result<(), Hindrance> {
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
        let open = ledger.rotation.as_ref().filter(|open| open.promoted.is_none() && open.abandoning.is_none());
        // What a process promoted without living to journal it is ours, and what is about to be replaced was looked at.
        let promoting = open.filter(|open| open.phase == Phase::Verified).map(|open| &open.version);
        let replacing = open.and_then(|open| open.plan.replacing.as_ref());
        let is_expected = theirs.is_some() && (theirs.as_ref() == promoting || theirs.as_ref() == replacing);
        if theirs.as_ref() != Some(current) && !is_expected && self.same_value(context, current).await?.is_none() {
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

    /// Under which name native readers have the value of this version, if somebody else wrote the same again. A version of ours isn't
    /// that: a process that was deposed must not promote over the copy that its successor made.
    pub(super) async fn same_value(&self, context: &Context, version: &VersionId) -> Result<Option<VersionId>, StoreError> {
        let native = self.seams.store.native(&context.slot()).await?.filter(Native::is_foreign);
        let Some(Native { version: name, served: Some(served), .. }) = native else { return Ok(None) };
        match self.seams.store.read(&context.slot(), version).await {
            Ok(bytes) => Ok(bytes.served.same_as(&served).then_some(name)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
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
