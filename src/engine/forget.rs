//! Forget: what is kept here of a credential is removed. Nothing is revoked: its keys live on at the provider.

use std::collections::BTreeSet;

use super::Engine;
use super::audit::Order;
use super::cell::Cell;
use super::errors::ForgetError;
use super::gather::Context;
use crate::domain::credential::Environment;
use crate::domain::ids::{Name, VersionId};
use crate::domain::ledger::Ledger;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::rotation::Event;
use crate::journal::SealedCopy;
use crate::stores::{Slot, StoreError};

impl Engine {
    /// Removes all versions of a credential from the store, and its current version from the ledger. What is known of revoked keys
    /// stays: their values are never taken again (I10, I18). Again is fine.
    ///
    /// # Errors
    /// [`ForgetError`]. Without `force` what is in use isn't forgotten.
    pub async fn forget(&self, order: Order, name: &Name, force: bool) -> Result<(), ForgetError> {
        let Some(cell) = self.cell(name) else { return Err(ForgetError::Unknown) };
        let context = self.context(name);
        let mut work = cell.work.lock().await;
        let ledger = cell.ledger();
        if ledger.paused || self.all_paused().is_some() {
            return Err(ForgetError::Paused);
        }
        let unavailable = |hindrance: super::drive::Hindrance| match hindrance.trouble.code {
            "audit-unavailable" => ForgetError::AuditUnavailable,
            _ => ForgetError::StoreUnavailable,
        };
        if ledger.current.is_some() || ledger.rotation.is_some() {
            if !force {
                self.look_at_rows().await.map_err(|_| ForgetError::StoreUnavailable)?;
                self.may_forget(&cell, context.as_ref())?;
            }
            self.record(order, "forget-requested", Some(name), None, None).await.map_err(|_| ForgetError::AuditUnavailable)?;
            self.append(&cell, &mut work, &Event::Forgotten, SealedCopy::Erase).await.map_err(unavailable)?;
            cell.drop_served();
        }
        if cell.ledger().clearing {
            for slot in slots(name, context.as_ref()) {
                if is_on(Mutant::ForgottenLeftInStore) {
                    continue;
                }
                self.seams.store.clear(&slot, &known_versions(&cell.ledger())).await.map_err(|_| ForgetError::StoreUnavailable)?;
            }
            self.append(&cell, &mut work, &Event::Cleared, SealedCopy::Keep).await.map_err(unavailable)?;
        }
        Ok(())
    }

    fn may_forget(&self, cell: &Cell, context: Option<&Context>) -> Result<(), ForgetError> {
        let ledger = cell.ledger();
        if ledger.rotation.is_some() || !ledger.orphans.is_empty() {
            return Err(ForgetError::RotationOpen);
        }
        if context.is_some() {
            return Err(ForgetError::Documented);
        }
        let living = |version: &VersionId| ledger.versions.get(version).is_some_and(|facts| facts.ended.is_none());
        let holders = self.holdings_of(&cell.name, &cell.ledger()).into_iter().filter(|holding| holding.held.iter().any(living));
        let who: Vec<String> = holders.map(|holding| format!("{}/{}", holding.application, holding.instance)).collect();
        if who.is_empty() { Ok(()) } else { Err(ForgetError::Held { who: who.join(", ") }) }
    }

    /// Takes up a clearing that a crash interrupted.
    pub(super) async fn clear_store(&self, context: &Context, ledger: &Ledger) -> Result<Event, StoreError> {
        self.seams.store.clear(&context.slot(), &known_versions(ledger)).await?;
        Ok(Event::Cleared)
    }
}

/// All that may lie in the store: what is put there was journaled before.
fn known_versions(ledger: &Ledger) -> BTreeSet<VersionId> {
    ledger.versions.keys().cloned().collect()
}

/// Where the credential may lie. Without its document the environment isn't known: then in both.
fn slots(name: &Name, context: Option<&Context>) -> Vec<Slot> {
    let anywhere = |environment| Slot { credential: name.clone(), environment, path: name.to_string() };
    context.map_or_else(|| Environment::ALL.map(anywhere).to_vec(), |context| vec![context.slot()])
}
