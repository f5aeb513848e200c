//! Which issuer is asked: the description says who makes the keys.

use std::sync::Arc;

use async_trait::async_trait;

use super::{CreateRequest, Issuer, IssuerError, Minted, ProbeReport, ProviderHealth, Revocation, Target};
use crate::domain::ids::KeyId;
use crate::domain::material::Material;
use crate::domain::provider::ListedKey;

/// One issuer for the engine, made of one for providers and one for values of our own.
pub struct Dispatch {
    provider: Arc<dyn Issuer>,
    generated: Arc<dyn Issuer>,
}

impl Dispatch {
    pub fn new(provider: Arc<dyn Issuer>, generated: Arc<dyn Issuer>) -> Dispatch {
        Dispatch { provider, generated }
    }

    fn of(&self, target: &Target) -> &dyn Issuer {
        if target.provider.is_generated() { self.generated.as_ref() } else { self.provider.as_ref() }
    }
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dispatch(..)")
    }
}

#[async_trait]
impl Issuer for Dispatch {
    async fn probe(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError> {
        self.of(target).probe(target, material).await
    }

    async fn is_dead(&self, target: &Target, material: &Material) -> Result<bool, IssuerError> {
        self.of(target).is_dead(target, material).await
    }

    async fn list(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        self.of(target).list(target, acting).await
    }

    async fn create(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        self.of(target).create(target, acting, request).await
    }

    async fn disable(&self, target: &Target, acting: &Material, key_id: &KeyId, doomed: Option<&Material>) -> Result<(), IssuerError> {
        self.of(target).disable(target, acting, key_id, doomed).await
    }

    async fn revoke(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        self.of(target).revoke(target, acting, key_id, doomed).await
    }

    async fn cancel(&self, target: &Target, acting: &Material, doomed: Option<&Material>) -> Result<Revocation, IssuerError> {
        self.of(target).cancel(target, acting, doomed).await
    }

    /// Who makes values here calls nobody.
    fn health(&self) -> Vec<ProviderHealth> {
        self.provider.health()
    }
}
