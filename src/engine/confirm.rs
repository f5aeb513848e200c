//! Confirmations: an application's proof that it uses a version and no older one. Durable before it is answered.

use super::audit::Actor;
use super::errors::ConfirmError;
use super::{Engine, audit::Action};
use crate::domain::access::may_read;
use crate::domain::holders::Holding;
use crate::domain::ids::{FieldName, InstanceName, Name, VersionId};
use crate::domain::material::Secret;
use crate::domain::mutants::{Mutant, is_on};
use crate::domain::provider::FieldClass;
use crate::journal::HoldingChange;
use crate::sealing::hmac_sha256_matches;

impl Engine {
    /// Counts a confirmation. Repeating it is fine.
    ///
    /// # Errors
    /// [`ConfirmError`]; nothing has changed then.
    pub async fn confirm(
        &self,
        application: &Name,
        instance: &InstanceName,
        credential: &Name,
        version: &VersionId,
        field: &FieldName,
        proof: &str,
    ) -> Result<(), ConfirmError> {
        self.may_confirm(application, credential)?;
        if self.book.is_ambiguous(application, instance) {
            return Err(ConfirmError::AmbiguousInstance);
        }
        let Some(holding) = self.holding_to_confirm(application, instance, credential, version).await? else {
            return Err(ConfirmError::NotNewest);
        };
        if holding.newest != *version && !is_on(Mutant::StaleConfirmationCounts) {
            return Err(ConfirmError::NotNewest);
        }
        let value = self.secret_of(credential, version, field).await?;
        let message = format!("keywright-confirm\n{credential}\n{version}\n{instance}");
        if !hmac_sha256_matches(&value, message.as_bytes(), proof) && !is_on(Mutant::WrongProofCounts) {
            return Err(ConfirmError::WrongProof);
        }
        self.book.touch(application, instance, self.lease(application), self.seams.clock.now().running);
        if holding.confirmed.as_ref() == Some(version) && holding.held.len() == 1 {
            // Where there are several replicas, that may stand in our book alone: a write of our row that failed is made up for.
            return self.keep_unwritten(application, instance).await.map_err(|_| ConfirmError::Unavailable);
        }
        let actor = Actor::Application { name: application.to_string(), instance: instance.to_string() };
        self.count(actor, holding, version, None).await
    }

    /// The instance of this holding uses this version and no older one: recorded, durable, and then so.
    pub(super) async fn count(
        &self,
        actor: Actor,
        mut holding: Holding,
        version: &VersionId,
        detail: Option<String>,
    ) -> Result<(), ConfirmError> {
        let action = Action {
            actor,
            action: "confirmed".to_owned(),
            credential: Some(holding.credential.to_string()),
            version: Some(version.to_string()),
            detail,
        };
        self.seams.audit.record(self.seams.clock.now().wall, action).await.map_err(|_| ConfirmError::AuditUnavailable)?;
        holding.confirm(version).map_err(|_| ConfirmError::NotNewest)?;
        if self.roll.is_some() {
            return self.confirm_in_row(holding, version).await;
        }
        let durable = self.keep_holdings(&[HoldingChange::Put(holding.clone())]).await;
        durable.map_err(|_| ConfirmError::Unavailable)?;
        let confirmed = self.book.confirm(&holding, version);
        if confirmed.is_err() {
            // It was served a newer version meanwhile: what is durable must say so.
            if let Some(now) = self.book.holding(&holding.application, &holding.instance, &holding.credential) {
                self.write_holdings(vec![HoldingChange::Put(now)]).await.map_err(|_| ConfirmError::Unavailable)?;
            }
            return Err(ConfirmError::NotNewest);
        }
        self.look_at(&holding.credential);
        Ok(())
    }

    /// What this instance holds, wherever it was served: where our own row doesn't know the version, the others' are read first.
    pub(super) async fn holding_to_confirm(
        &self,
        application: &Name,
        instance: &InstanceName,
        credential: &Name,
        version: &VersionId,
    ) -> Result<Option<Holding>, ConfirmError> {
        if self.roll.is_none() {
            return Ok(self.book.holding(application, instance, credential));
        }
        let known = self.holding_anywhere(application, instance, credential).map(|known| self.as_shown_by(known, version));
        if known.as_ref().is_some_and(|known| known.newest == *version) {
            return Ok(known);
        }
        self.look_at_rows().await.map_err(|_| ConfirmError::Unavailable)?;
        // Which of two versions is newer is the journal's to say.
        let Some(cell) = self.cell(credential) else { return Ok(None) };
        self.afresh(&cell).await.map_err(|_| ConfirmError::Unavailable)?;
        Ok(self.holding_anywhere(application, instance, credential).map(|known| self.as_shown_by(known, version)))
    }

    /// A row says that a version is held before it goes out, and that it was served a little later. Whoever proves that he has it was
    /// served it, and it is his newest unless something later went to him.
    pub(super) fn as_shown_by(&self, mut holding: Holding, version: &VersionId) -> Holding {
        let order = |version: &VersionId| self.order_of(&holding.credential, version);
        if holding.held.contains(version) && holding.held.iter().all(|held| order(held) <= order(version)) {
            holding.newest = version.clone();
        }
        holding
    }

    /// It is in our book first: another write of the same page must not bring back what was before. A true word that couldn't be made
    /// durable yet does no harm, and isn't answered for.
    async fn confirm_in_row(&self, confirmed: Holding, version: &VersionId) -> Result<(), ConfirmError> {
        let Holding { application, instance, credential, .. } = &confirmed;
        let newest = self.book.holding(application, instance, credential).map(|own| own.newest);
        if newest.is_some_and(|newest| self.order_of(credential, &newest) > self.order_of(credential, version)) {
            return Err(ConfirmError::NotNewest);
        }
        self.book.confirm_here(&confirmed, version);
        self.keep_holdings(&[HoldingChange::Put(confirmed.clone())]).await.map_err(|_| ConfirmError::Unavailable)?;
        self.look_at(credential);
        Ok(())
    }

    fn may_confirm(&self, application: &Name, credential: &Name) -> Result<(), ConfirmError> {
        let policies = self.policies();
        let known = policies.applications.get(application);
        match known {
            Some(application) if may_read(&policies, application, credential) => Ok(()),
            _ => Err(ConfirmError::Forbidden),
        }
    }

    /// The value of a served secret field: what the proof is keyed with.
    async fn secret_of(&self, credential: &Name, version: &VersionId, field: &FieldName) -> Result<Secret, ConfirmError> {
        let Some(context) = self.context(credential) else { return Err(ConfirmError::Forbidden) };
        let described = context.provider.fields.get(field);
        if !described.is_some_and(|field| field.class == FieldClass::Secret && field.served) {
            return Err(ConfirmError::WrongProof);
        }
        if let Some(served) = self.cell(credential).and_then(|cell| cell.served_as(version)) {
            return served.fields.get(field).map(Secret::duplicate).ok_or(ConfirmError::WrongProof);
        }
        let mut bytes = self.seams.store.read(&context.slot(), version).await.map_err(|_| ConfirmError::Unavailable)?;
        context.provider.link(&mut bytes.served);
        bytes.served.get(field).map(Secret::duplicate).ok_or(ConfirmError::WrongProof)
    }
}
