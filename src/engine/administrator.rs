//! The credential that signs for another one: its current version, loaded for each call that needs it.

use std::sync::Arc;

use super::Engine;
use super::drive::Hindrance;
use super::gather::Context;
use crate::domain::ids::Name;
use crate::domain::provider::SignedCall;
use crate::issuers::{Administrator, Target};

/// It has no version yet.
pub(super) const ADMINISTRATOR_MISSING: &str = "administrator-missing";
/// The provider doesn't accept it.
pub(super) const ADMINISTRATOR_REFUSED: &str = "administrator-refused";

impl Engine {
    /// Where these calls go, with the administering credential where it signs one of them.
    ///
    /// # Errors
    /// A hindrance if it has no version yet, its provider refuses it, or the store is away. Nothing was sent.
    pub(super) async fn signed_target(&self, context: &Context, calls: &[SignedCall]) -> Result<Target, Hindrance> {
        let target = self.target(context);
        let needed = calls.iter().any(|call| context.provider.administrator_signs(*call));
        let Some(name) = context.credential.administered_by.as_ref().filter(|_| needed) else { return Ok(target) };
        Ok(Target { administrator: Some(Arc::new(self.administrator(name).await?)), ..target })
    }

    /// Only what is current and not refused signs: a version on its way in or out doesn't.
    async fn administrator(&self, name: &Name) -> Result<Administrator, Hindrance> {
        let missing = || {
            let message = format!("`{name}` administers this credential and has no version yet: `keywright submit {name}`");
            Hindrance::new(ADMINISTRATOR_MISSING, message)
        };
        let (Some(cell), Some(context)) = (self.cell(name), self.context(name)) else { return Err(missing()) };
        let ledger = cell.ledger();
        let Some(current) = &ledger.current else { return Err(missing()) };
        if ledger.refused_since.is_some() {
            let message =
                format!("`{name}` administers this credential and its provider refuses it: `keywright submit {name}` a working one");
            return Err(Hindrance::new(ADMINISTRATOR_REFUSED, message));
        }
        let material = self.full_material(&context, current).await?;
        Ok(Administrator { target: self.target(&context), material })
    }
}

impl Context {
    /// Whether the list of keys tells nothing of the current version, because another credential signs it.
    pub(super) fn lists_by_administrator(&self) -> bool {
        self.credential.administered_by.is_some() && self.provider.administrator_signs(SignedCall::List)
    }
}
