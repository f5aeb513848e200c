//! Who makes, verifies and revokes keys at a provider: the seam to the providers.
//!
//! Errors are closed and hold nothing of a reply: a provider may echo our secret (I20).

pub mod breaker;
pub mod contract;
pub mod declarative;
pub mod dispatch;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod generated;
pub mod memory;
pub mod pace;
pub mod secondary_contract;
pub mod succession_contract;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

pub use self::breaker::BreakerState;
use crate::domain::credential::Environment;
use crate::domain::environment::BaseUrl;
use crate::domain::ids::{KeyId, Name, OperationId};
use crate::domain::ledger::Closure;
use crate::domain::material::Material;
use crate::domain::provider::{ListedKey, Provider, SignedCall};

/// Where a call goes.
#[derive(Debug, Clone)]
pub struct Target {
    pub credential: Name,
    /// Whose quota a call counts against.
    pub account: Name,
    /// A routine look: it leaves half of our share of the quota to rotations.
    pub routine: bool,
    pub provider: Arc<Provider>,
    pub environment: Environment,
    pub base_url: BaseUrl,
    pub variables: BTreeMap<String, Name>,
    /// Signs what the description leaves to it; present where a call needs it.
    pub administrator: Option<Arc<Administrator>>,
}

/// A credential that signs calls for another one: where it is at home, and its current version.
pub struct Administrator {
    /// Its own provider and address, where it fetches its tokens.
    pub target: Target,
    pub material: Material,
}

impl fmt::Debug for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Administrator(..)")
    }
}

impl Target {
    /// Where tokens are fetched: the description's own address for that, unless the configuration names where all is.
    pub fn for_tokens(&self) -> Target {
        let site = self.provider.environments.get(&self.environment).filter(|_| !self.base_url.overridden);
        let url = site.and_then(|site| site.token.as_ref()).map(|base| self.provider.render(base, &self.variables));
        let base_url = url.map_or_else(|| self.base_url.clone(), |url| BaseUrl { url, overridden: false });
        Target { base_url, ..self.clone() }
    }

    /// The administering credential, if it is the one that signs this call.
    pub fn administrator_for(&self, call: SignedCall) -> Option<&Administrator> {
        self.administrator.as_deref().filter(|_| self.provider.administrator_signs(call))
    }
}

/// What is to be created.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub operation: OperationId,
    pub marker: String,
    /// How long the old key is to live on, where the provider ends it by itself.
    pub overlap: Duration,
}

/// A key that the provider made.
#[derive(Debug)]
pub struct Minted {
    /// The operation's name where the provider's id stays the same.
    pub key_id: KeyId,
    /// All fields, the management ones included.
    pub material: Material,
    pub issued_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// When the provider ends the secret before this one, where it says so.
    pub previous_expires_at: Option<Timestamp>,
}

/// What a look at a key found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    pub outcome: ProbeOutcome,
    /// Success proves the environment, not only that the key lives.
    pub proves_environment: bool,
    /// The provider's clock, where it sent one.
    pub provider_time: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The strongest check described has passed.
    Works,
    /// It lives, and may not do what the probe asks.
    Narrow,
    /// The provider says that it doesn't accept it.
    Dead,
    WrongEnvironment,
}

/// What became of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    pub closure: Closure,
}

/// Closed: the engine branches on the kind, never on text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// The key that signs isn't accepted. The call had no effect.
    #[error("the provider doesn't accept the key that signs the call")]
    Unauthenticated,
    /// The administering credential that signs isn't accepted. No effect; and it says nothing of the credential itself.
    #[error("the provider doesn't accept the administering credential that signs the call")]
    AdministratorRefused,
    /// The request is refused as it is; repeating it changes nothing. No effect.
    #[error("the provider refuses the request (status {status})")]
    Refused { status: u16 },
    #[error("the provider has no free slot for another key")]
    Full,
    /// No effect; wait.
    #[error("the provider asks to wait")]
    Throttled { retry_after: Option<Duration> },
    /// It certainly wasn't sent.
    #[error("the provider can't be reached: {0}")]
    Unreachable(&'static str),
    /// It was sent; whether it took effect isn't known.
    #[error("the provider's answer tells nothing: {0}")]
    Unclear(&'static str),
    /// The description, the address or the value doesn't allow the call. Not sent.
    #[error("the call isn't possible: {0}")]
    Impossible(&'static str),
    /// It took effect, and what came back can't be a value (empty, a placeholder, too long).
    #[error("the provider sent a value that can't be one")]
    BadValue,
}

impl IssuerError {
    /// Whether the call certainly changed nothing at the provider.
    pub fn had_no_effect(&self) -> bool {
        !matches!(self, IssuerError::Unclear(_) | IssuerError::BadValue)
    }
}

/// Whether calls to an environment of a provider are made at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderHealth {
    pub provider: Name,
    pub environment: Environment,
    pub breaker: BreakerState,
    /// How long until the next call is let through, while none is.
    pub retry_in: Option<Duration>,
}

/// Makes, verifies and revokes keys. Calls are made once: retries are the engine's.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// The strongest harmless check that the description has, with the key itself.
    async fn probe(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError>;

    /// Whether the provider still accepts this key, asked at the token endpoint or by the probe, never with a cached token.
    async fn is_dead(&self, target: &Target, material: &Material) -> Result<bool, IssuerError>;

    /// All keys of the account. `acting` signs, or the target's administrator where the description says so. An incomplete list is an error, never a shorter list.
    ///
    /// # Errors
    /// [`IssuerError::Impossible`] where the provider can't list.
    async fn list(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError>;

    /// Makes one key. `acting` is the current version, which lends the fields that a new key keeps, and signs unless the target's
    /// administrator does.
    async fn create(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError>;

    /// Ends one key in a way that a person can undo at the provider, and leaves it there. Done twice, it does no harm.
    ///
    /// # Errors
    /// [`IssuerError::Impossible`] where the provider can't.
    async fn disable(&self, _target: &Target, _acting: &Material, _key_id: &KeyId, _doomed: Option<&Material>) -> Result<(), IssuerError> {
        Err(IssuerError::Impossible("the provider can't disable keys"))
    }

    /// Revokes one key. `acting` (or the administrator) signs and is never the key that is revoked; `doomed` is the revoked version's own material
    /// where it is at hand (management fields, and the proof of death at the token endpoint).
    async fn revoke(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError>;

    /// Takes the secondary secret back, where the provider has a primary and a secondary one ([`Lifecycle::Promote`]). `acting` is the
    /// primary one, signs and stays; `doomed` is the secondary one where it is at hand. Where there is none, nothing happens.
    /// There, `revoke` ends the primary one by promoting the secondary one, and is signed by `doomed`: a call that arrives twice, or
    /// late, is a dead key's.
    ///
    /// # Errors
    /// [`IssuerError::Impossible`] where the provider has no secondary secret.
    ///
    /// [`Lifecycle::Promote`]: crate::domain::provider::Lifecycle::Promote
    async fn cancel(&self, _target: &Target, _acting: &Material, _doomed: Option<&Material>) -> Result<Revocation, IssuerError> {
        Err(IssuerError::Impossible("the provider has no secondary secret"))
    }

    /// How the environments stand that were called so far. One that isn't named is well.
    fn health(&self) -> Vec<ProviderHealth>;
}
