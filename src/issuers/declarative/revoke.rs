//! Ends a key, and looks whether it is dead. Never signed by the key that ends.

use super::request::{Extras, Signer};
use super::{DeclarativeIssuer, refusal};
use crate::domain::ids::KeyId;
use crate::domain::ledger::Closure;
use crate::domain::material::{Material, Secret};
use crate::domain::provider::{Create, FieldClass, Meaning, Provider, SignedCall};
use crate::issuers::{IssuerError, Revocation, Target};

/// How often a key that was just revoked is asked for: replicas of a provider may lag a little.
const LOOKS_MAX: u32 = 3;

/// What asking the doomed key itself told.
enum Death {
    Proved,
    /// It was accepted at each look.
    StillAlive,
    /// It can be asked, but not now.
    NotNow,
    /// The answers tell nothing, or there is nothing to ask with.
    Unknown,
}

/// It could be told, but not now.
struct NotNow;

/// The revocation may well have taken effect: said again, the provider answers that it is gone, and is asked anew.
const ASK_LATER: IssuerError = IssuerError::Unclear("whether the key is dead can't be asked now");

impl DeclarativeIssuer {
    pub(super) async fn switch_off(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<(), IssuerError> {
        let provider = &target.provider;
        let call = provider.calls.disable.as_ref().ok_or(IssuerError::Impossible("the description has no disable call"))?;
        if signs_itself(provider, acting, key_id, doomed) {
            return Err(IssuerError::Impossible("the key that signs is the one that would be disabled"));
        }
        let administrator = target.administrator_for(SignedCall::Disable);
        let token = self.token_for(target, call, acting, administrator).await?;
        let signer = Signer { acting, subject: doomed, token: token.as_ref(), administrator };
        let extras = Extras { variables: vec![("key_id", key_id.as_str().to_owned())], ..Extras::default() };
        let reply = self.call(target, "disable", call, signer, extras).await?;
        match reply.meaning(&call.rules) {
            // What is disabled or gone already is refused by some; whether it is, the removal's own answer tells.
            Meaning::Works | Meaning::Gone | Meaning::Refused => Ok(()),
            other => Err(refusal(&reply, other, target, signer.signed_by(call))),
        }
    }

    pub(super) async fn end(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        let provider = &target.provider;
        if provider.has_secondary() {
            return self.put_in_place(target, acting, doomed).await;
        }
        let call = provider.calls.revoke.as_ref().ok_or(IssuerError::Impossible("the description has no revoke call"))?;
        if signs_itself(provider, acting, key_id, doomed) {
            return Err(IssuerError::Impossible("the key that signs is the one that would be revoked"));
        }
        if provider.calls.disable.is_some() {
            self.switch_off(target, acting, key_id, doomed).await?;
        }
        let administrator = target.administrator_for(SignedCall::Revoke);
        let token = self.token_for(target, call, acting, administrator).await?;
        let signer = Signer { acting, subject: doomed, token: token.as_ref(), administrator };
        let extras = Extras { variables: vec![("key_id", key_id.as_str().to_owned())], ..Extras::default() };
        let reply = self.call(target, "revoke", call, signer, extras).await?;
        let acknowledged = match reply.meaning(&call.rules) {
            Meaning::Works => true,
            Meaning::Gone => false,
            other => return Err(refusal(&reply, other, target, signer.signed_by(call))),
        };
        let closure = self.closure(target, acting, key_id, doomed, acknowledged).await?;
        Ok(Revocation { closure })
    }

    /// `acknowledged`: the provider's answer was the one that the description names for a revocation. That something isn't
    /// there is no such answer: it may never have been, or be hidden from us.
    async fn closure(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
        acknowledged: bool,
    ) -> Result<Closure, IssuerError> {
        let death = match doomed {
            Some(doomed) => self.death_of(target, doomed).await,
            None => Death::Unknown,
        };
        if matches!(death, Death::Proved) {
            return Ok(Closure::Proved);
        }
        match self.is_listed(target, acting, key_id).await {
            Ok(Some(true)) => return Err(IssuerError::Unclear("the key is still listed as living")),
            Ok(Some(false)) => return Ok(Closure::Reported),
            Ok(None) => {}
            Err(NotNow) => return Err(ASK_LATER),
        }
        match death {
            Death::StillAlive => Err(IssuerError::Unclear("the key is still accepted")),
            Death::NotNow => Err(ASK_LATER),
            _ if acknowledged => Ok(Closure::Unproved),
            _ => Err(IssuerError::Unclear("the key isn't there, and nothing tells what became of it")),
        }
    }

    /// Where nothing lists the keys of an account: the key itself is asked.
    pub(super) async fn closure_by_asking(&self, target: &Target, doomed: &Material) -> Result<Closure, IssuerError> {
        match self.death_of(target, doomed).await {
            Death::Proved => Ok(Closure::Proved),
            Death::StillAlive => Err(IssuerError::Unclear("the key is still accepted")),
            Death::NotNow => Err(ASK_LATER),
            Death::Unknown => Ok(Closure::Unproved),
        }
    }

    async fn death_of(&self, target: &Target, doomed: &Material) -> Death {
        let mut death = Death::Unknown;
        for look in 0..LOOKS_MAX {
            if look > 0 {
                tokio::time::sleep(self.death_wait * look).await;
            }
            death = match self.check_death(target, doomed).await {
                Ok(true) => return Death::Proved,
                Ok(false) => Death::StillAlive,
                Err(IssuerError::Impossible(_)) => return Death::Unknown,
                // Asking on would make it worse.
                Err(IssuerError::Throttled { .. }) => return Death::NotNow,
                Err(IssuerError::Unreachable(_)) => Death::NotNow,
                Err(_) => Death::Unknown,
            };
        }
        death
    }

    /// `None` where there is no list, or one that tells nothing.
    async fn is_listed(&self, target: &Target, acting: &Material, key_id: &KeyId) -> Result<Option<bool>, NotNow> {
        match self.list_all(target, acting).await {
            Ok(keys) => Ok(Some(keys.iter().any(|key| key.key_id == *key_id && key.alive))),
            Err(IssuerError::Throttled { .. } | IssuerError::Unreachable(_)) => Err(NotNow),
            Err(_) => Ok(None),
        }
    }
}

/// Whether the acting version is the one to be revoked: by its secrets, or by the id that its fields hold.
fn signs_itself(provider: &Provider, acting: &Material, key_id: &KeyId, doomed: Option<&Material>) -> bool {
    let same = doomed.is_some_and(|doomed| shares_a_secret(provider, acting, doomed));
    same || provider.calls.create.as_ref().is_some_and(|create| has_id(create, acting, key_id))
}

pub(super) fn shares_a_secret(provider: &Provider, acting: &Material, doomed: &Material) -> bool {
    // A secret that isn't bound may be shared by all keys of an account.
    let bound = provider.fields.iter().filter(|(_, field)| field.class == FieldClass::Secret && field.bound);
    let mut pairs = bound.filter_map(|(name, _)| Some((acting.get(name)?, doomed.get(name)?)));
    pairs.any(|(ours, theirs)| ours.same_as(theirs)) || acting.same_as(doomed)
}

fn has_id(create: &Create, acting: &Material, key_id: &KeyId) -> bool {
    let mut fields = create.fields.iter().filter(|(_, pointer)| Some(*pointer) == create.key_id.as_ref());
    let id = Secret::from(key_id.as_str().to_owned());
    fields.any(|(field, _)| acting.get(field).is_some_and(|value| value.same_as(&id)))
}
