//! Where an account has a primary secret and at most a secondary one beside it: neither has an id at the provider, so what a call
//! ends follows from which of the two came first.

use super::Engine;
use super::audit::Actor;
use super::cell::{Cell, Work};
use super::gather::Context;
use super::perform::{Outcome, Performed};
use crate::domain::ids::{KeyId, VersionId};
use crate::domain::ledger::Ledger;
use crate::domain::material::Material;
use crate::domain::rotation::Event;
use crate::issuers::{IssuerError, Revocation, Target};

/// A key of ours that is to go, as the journal and the store know it.
pub(super) struct Doomed<'a> {
    pub key_id: &'a KeyId,
    pub material: Option<&'a Material>,
    /// It was made after the one that signs: it never came into the primary one's place.
    pub is_newer: bool,
}

impl Engine {
    /// Ends a key. `acting` stays.
    pub(super) async fn end_key(&self, target: &Target, acting: &Material, doomed: Doomed<'_>) -> Result<Revocation, IssuerError> {
        let Doomed { key_id, material, is_newer } = doomed;
        if target.provider.has_secondary() && is_newer {
            return self.seams.issuer.cancel(target, acting, material).await;
        }
        self.seams.issuer.revoke(target, acting, key_id, material).await
    }

    /// Replies to creates were lost. What they made, if anything, stands beside the current secret: no other was made since that one
    /// was promoted.
    pub(super) async fn cancel_secondary(&self, cell: &Cell, work: &mut Work, context: &Context, ledger: &Ledger) -> Outcome {
        if work.stand_in.is_some() {
            return self.leave_alone(cell, None, Event::SecondaryCancelled).await;
        }
        let acting = self.acting(work, context, ledger).await?;
        self.audit(Actor::Daemon, "cancelling-secondary", &cell.name, None, None).await?;
        if let Err(error) = self.seams.issuer.cancel(&self.target(context), &acting, None).await {
            return self.signing_failed(work, context, ledger, error);
        }
        Ok(vec![Performed::plain(Event::SecondaryCancelled)])
    }

    /// A person's secret stands in for the current one: which of the account's two it is, nobody knows, and a call that it signs could
    /// end itself. What the given-up rotation made is left to that person.
    pub(super) async fn leave_candidate(&self, cell: &Cell, version: &VersionId) -> Outcome {
        self.leave_alone(cell, Some(version.to_string()), Event::Undone).await
    }

    async fn leave_alone(&self, cell: &Cell, version: Option<String>, event: Event) -> Outcome {
        let detail = "nothing tells which secret is the secondary one now: see in the provider's dashboard";
        self.audit(Actor::Daemon, "candidate-left", &cell.name, version, Some(detail.to_owned())).await?;
        tracing::warn!(credential = %cell.name, "the secret of a rotation that was given up may live on at the provider");
        Ok(vec![Performed::plain(event)])
    }
}

/// What names a key in our own books where the provider gives it no id: the operation that brought it.
pub(super) fn own_name(context: &Context, ledger: &Ledger, version: &VersionId) -> Option<KeyId> {
    let facts = ledger.versions.get(version).filter(|_| context.provider.has_secondary())?;
    facts.operation.to_string().parse().ok()
}

/// Whether the key of `version` was made after the current one's. A copy has the key of what it copies.
pub(super) fn is_newer_than_current(ledger: &Ledger, version: &VersionId) -> bool {
    let made = |version: &VersionId| {
        let related = ledger.same_key(version);
        related.iter().filter_map(|version| ledger.versions.get(version)).map(|facts| facts.generation).min()
    };
    ledger.current.as_ref().is_some_and(|current| made(version) > made(current))
}
