//! A primary and a secondary secret: promoting the one ends the other, and cancelling takes the secondary one back.

use super::request::{Extras, Signer};
use super::revoke::shares_a_secret;
use super::{DeclarativeIssuer, refusal};
use crate::domain::ledger::Closure;
use crate::domain::material::Material;
use crate::domain::provider::Meaning;
use crate::issuers::{IssuerError, Revocation, Target};

impl DeclarativeIssuer {
    /// Promotes the secondary secret (`acting`), which ends the primary one. That one signs: whoever comes late with it finds that it
    /// is dead, and can't promote what was made since.
    pub(super) async fn put_in_place(
        &self,
        target: &Target,
        acting: &Material,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        let provider = &target.provider;
        let call = provider.calls.promote.as_ref().ok_or(IssuerError::Impossible("the description has no promote call"))?;
        let doomed = doomed.ok_or(IssuerError::Impossible("the primary secret signs its own end, and isn't at hand"))?;
        if shares_a_secret(provider, acting, doomed) {
            return Err(IssuerError::Impossible("the secret that would be promoted is the one that would end"));
        }
        match self.token_for(target, call, doomed, None).await {
            // A dead key gets no token either: it ended before.
            Err(IssuerError::Unauthenticated) => {}
            token => {
                let token = token?;
                let signer = Signer { acting: doomed, subject: None, token: token.as_ref(), administrator: None };
                let reply = self.call(target, "promote", call, signer, Extras::default()).await?;
                match reply.meaning(&call.rules) {
                    Meaning::Works | Meaning::Dead => {}
                    other => return Err(refusal(&reply, other, target, signer.signed_by(call))),
                }
            }
        }
        Ok(Revocation { closure: self.closure_by_asking(target, doomed).await? })
    }

    /// Takes the secondary secret back; the primary one signs.
    pub(super) async fn take_back(&self, target: &Target, acting: &Material, doomed: Option<&Material>) -> Result<Revocation, IssuerError> {
        let provider = &target.provider;
        let call = provider.calls.cancel.as_ref().ok_or(IssuerError::Impossible("the description has no cancel call"))?;
        if doomed.is_some_and(|doomed| shares_a_secret(provider, acting, doomed)) {
            return Err(IssuerError::Impossible("the key that signs is the one that would be taken back"));
        }
        let token = self.token_for(target, call, acting, None).await?;
        let signer = Signer { acting, subject: doomed, token: token.as_ref(), administrator: None };
        let reply = self.call(target, "cancel", call, signer, Extras::default()).await?;
        match reply.meaning(&call.rules) {
            Meaning::Works | Meaning::Gone => {}
            other => return Err(refusal(&reply, other, target, signer.signed_by(call))),
        }
        let closure = match doomed {
            Some(doomed) => self.closure_by_asking(target, doomed).await?,
            // Nobody can be asked, and none is there: both answers say so.
            None => Closure::Reported,
        };
        Ok(Revocation { closure })
    }
}
