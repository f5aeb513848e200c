//! A provider in memory that knows the truth, with faults: what the engine's tests and the crash matrix rotate against.

mod secondary;
mod successor;
mod truth;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use self::truth::{State, later};
use super::{CreateRequest, Issuer, IssuerError, Minted, ProbeOutcome, ProbeReport, ProviderHealth, Revocation, Target};
use crate::domain::credential::Environment;
use crate::domain::ids::KeyId;
use crate::domain::material::Material;
use crate::domain::provider::{ListedKey, SignedCall};

pub use self::truth::{Behaviour, SecretMaker, SimKey};

/// Where a fault can strike, in the order of a rotation. The hook is asked once per call.
pub const POINTS: [&str; 7] =
    ["issuer.create", "issuer.probe", "issuer.list", "issuer.disable", "issuer.revoke", "issuer.cancel", "issuer.is_dead"];

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAction {
    Proceed,
    /// Nothing is sent.
    Unreachable,
    /// It takes effect, and the reply is lost.
    LoseReply,
    /// It takes effect twice, as if the request was repeated on the way; the second reply arrives.
    Twice,
    Throttle(Option<Duration>),
    Refuse(u16),
    /// The key that signs is refused, or what is asked about said to be dead.
    Unauthenticated,
    /// The call never ends, before or after its effect: whoever waits for it dies meanwhile.
    StopBefore,
    StopAfter,
}

/// Asked at each point, by its name.
pub type FaultHook = Arc<dyn Fn(&'static str) -> FaultAction + Send + Sync>;

/// The provider's clock: it stands until it is moved.
#[derive(Debug, Clone)]
pub struct SimClock(Arc<Mutex<Timestamp>>);

impl SimClock {
    pub fn new(start: Timestamp) -> SimClock {
        SimClock(Arc::new(Mutex::new(start)))
    }

    pub fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub fn advance(&self, by: Duration) {
        let now = self.now();
        self.set(later(now, by));
    }
}

/// The provider and the way to it in one. Fields are `client_id` and `client_secret`, in Dinie's shape; each environment is
/// one account.
pub struct MemoryIssuer {
    clock: SimClock,
    state: Mutex<State>,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    calls: BTreeMap<&'static str, u64>,
    queued: BTreeMap<&'static str, VecDeque<FaultAction>>,
    hook: Option<FaultHook>,
}

impl MemoryIssuer {
    pub fn new(clock: SimClock) -> MemoryIssuer {
        MemoryIssuer { clock, state: Mutex::default(), faults: Mutex::default() }
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state().behaviour);
    }

    /// From now on secrets are made so: of any shape that a provider may come up with.
    pub fn make_secrets(&self, maker: SecretMaker) {
        self.state().secrets = Some(maker);
    }

    /// Asked at each point where no fault is queued.
    pub fn hook(&self, hook: FaultHook) {
        self.faults().hook = Some(hook);
    }

    /// Strikes at the next call of this point that no earlier queued fault has taken.
    pub fn inject(&self, point: &'static str, action: FaultAction) {
        self.faults().queued.entry(point).or_default().push_back(action);
    }

    /// A key that a person made in the provider's dashboard: ours to submit, or somebody else's. It works at once.
    pub fn enrol(&self, environment: Environment, name: &str) -> (KeyId, Material) {
        let now = self.clock.now();
        let mut state = self.state();
        let index = state.make(environment, name, now, None);
        state.keys[index].works_from = now;
        (state.keys[index].key_id.clone(), state.keys[index].material())
    }

    /// Somebody ends a key behind our back, at once.
    pub fn kill(&self, key_id: &KeyId) {
        let now = self.clock.now();
        if let Some(key) = self.state().keys.iter_mut().find(|key| key.key_id == *key_id) {
            key.end(now, Duration::ZERO);
        }
    }

    /// The truth: whether the provider accepts this key at that time. While it propagates it doesn't count as accepted.
    pub fn accepts(&self, key_id: &KeyId, at: Timestamp) -> bool {
        self.state().keys.iter().any(|key| key.key_id == *key_id && key.accepted(at))
    }

    /// The truth about the bytes that somebody holds.
    pub fn accepts_material(&self, environment: Environment, material: &Material, at: Timestamp) -> bool {
        let state = self.state();
        state.find(environment, material).is_some_and(|index| state.keys[index].accepted(at))
    }

    /// The truth: whether nothing was made after these values for their key.
    pub fn is_newest(&self, environment: Environment, key_id: &KeyId, material: &Material) -> bool {
        let state = self.state();
        let newest = state.keys.iter().rposition(|key| key.environment == environment && key.key_id == *key_id);
        newest.is_some() && newest == state.find(environment, material)
    }

    /// Ids and names of all keys that haven't ended, oldest first; those that propagate still are among them.
    pub fn living(&self, environment: Environment) -> Vec<(KeyId, String)> {
        let now = self.clock.now();
        let state = self.state();
        let living = state.keys.iter().filter(|key| key.environment == environment && key.not_ended(now));
        living.map(|key| (key.key_id.clone(), key.name.clone())).collect()
    }

    /// Every key there ever was.
    pub fn history<T>(&self, look: impl FnOnce(&[SimKey]) -> T) -> T {
        look(&self.state().keys)
    }

    /// How often this point was passed.
    pub fn calls(&self, point: &'static str) -> u64 {
        self.faults().calls.get(point).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, point: &'static str) -> FaultAction {
        let hook = {
            let mut faults = self.faults();
            *faults.calls.entry(point).or_default() += 1;
            if let Some(action) = faults.queued.get_mut(point).and_then(VecDeque::pop_front) {
                return action;
            }
            faults.hook.clone()
        };
        // Asked without the lock: it may look at the truth.
        hook.map_or(FaultAction::Proceed, |hook| hook(point))
    }

    async fn at<T>(
        &self,
        point: &'static str,
        effect: impl Fn(&mut State, Timestamp) -> Result<T, IssuerError> + Send,
    ) -> Result<T, IssuerError> {
        let perform = || effect(&mut self.state(), self.clock.now());
        match self.next_fault(point) {
            FaultAction::Proceed => perform(),
            FaultAction::Unreachable => Err(IssuerError::Unreachable("simulated")),
            FaultAction::Throttle(retry_after) => Err(IssuerError::Throttled { retry_after }),
            FaultAction::Refuse(status) => Err(IssuerError::Refused { status }),
            FaultAction::Unauthenticated => Err(IssuerError::Unauthenticated),
            FaultAction::LoseReply => {
                let _lost = perform();
                Err(IssuerError::Unclear("simulated loss"))
            }
            FaultAction::Twice => {
                let _first = perform();
                perform()
            }
            FaultAction::StopBefore => std::future::pending().await,
            FaultAction::StopAfter => {
                let _unseen = perform();
                std::future::pending().await
            }
        }
    }
}

/// The key that signs: an administering one lives at this provider, too.
fn signing<'a>(target: &'a Target, acting: &'a Material, call: SignedCall) -> &'a Material {
    target.administrator_for(call).map_or(acting, |administrator| &administrator.material)
}

/// That a signature isn't accepted is said of the one whose it is.
fn said_of(target: &Target, call: SignedCall, error: IssuerError) -> IssuerError {
    match error {
        IssuerError::Unauthenticated if target.administrator_for(call).is_some() => IssuerError::AdministratorRefused,
        other => other,
    }
}

#[async_trait]
impl Issuer for MemoryIssuer {
    async fn probe(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError> {
        self.at("issuer.probe", |state, now| {
            let lives = state.look(target.environment, material, now).is_some();
            let outcome = if lives { ProbeOutcome::Works } else { ProbeOutcome::Dead };
            Ok(ProbeReport { outcome, proves_environment: lives, provider_time: Some(now) })
        })
        .await
    }

    async fn is_dead(&self, target: &Target, material: &Material) -> Result<bool, IssuerError> {
        self.at("issuer.is_dead", |state, now| Ok(state.look(target.environment, material, now).is_none())).await
    }

    async fn list(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        self.at("issuer.list", |state, now| {
            if state.behaviour.blind || target.provider.has_secondary() || !target.provider.succession().spares_the_old() {
                return Err(IssuerError::Impossible("the provider can't list"));
            }
            state.authenticate(target.environment, signing(target, acting, SignedCall::List), now)?;
            let keys = state.keys.iter().filter(|key| key.environment == target.environment);
            Ok(keys.map(|key| key.listed(now)).collect())
        })
        .await
        .map_err(|error| said_of(target, SignedCall::List, error))
    }

    async fn create(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        self.at("issuer.create", |state, now| {
            // Management fields are no keys: a dead secret's record can be changed with them.
            if !target.provider.is_managed_by_key(SignedCall::Create) {
                state.authenticate(target.environment, signing(target, acting, SignedCall::Create), now)?;
            }
            let succession = target.provider.succession();
            if !succession.spares_the_old() {
                return state.succeed(target.environment, acting, request, succession, now);
            }
            if target.provider.has_secondary() {
                return state.second(target.environment, acting, request, now);
            }
            let index = state.issue(target.environment, request, now)?;
            Ok(state.keys[index].minted())
        })
        .await
        .map_err(|error| said_of(target, SignedCall::Create, error))
    }

    async fn disable(&self, target: &Target, acting: &Material, key_id: &KeyId, _doomed: Option<&Material>) -> Result<(), IssuerError> {
        if target.provider.calls.disable.is_none() {
            return Err(IssuerError::Impossible("the provider can't disable keys"));
        }
        let signing = signing(target, acting, SignedCall::Disable);
        self.at("issuer.disable", |state, now| state.disable(target.environment, (acting, signing), key_id, now))
            .await
            .map_err(|error| said_of(target, SignedCall::Disable, error))
    }

    async fn revoke(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        if !target.provider.succession().spares_the_old() {
            return Err(IssuerError::Impossible("the provider ends the old secret by itself"));
        }
        if target.provider.has_secondary() {
            let doomed = doomed.ok_or(IssuerError::Impossible("the primary secret signs its own end, and isn't at hand"))?;
            return self.at("issuer.revoke", |state, now| state.put_in_place(target.environment, acting, doomed, now)).await;
        }
        let signing = signing(target, acting, SignedCall::Revoke);
        self.at("issuer.revoke", |state, now| state.revoke(target.environment, (acting, signing), key_id, doomed, now))
            .await
            .map_err(|error| said_of(target, SignedCall::Revoke, error))
    }

    async fn cancel(&self, target: &Target, acting: &Material, doomed: Option<&Material>) -> Result<Revocation, IssuerError> {
        if !target.provider.has_secondary() {
            return Err(IssuerError::Impossible("the provider has no secondary secret"));
        }
        self.at("issuer.cancel", |state, now| state.take_back(target.environment, acting, doomed, now)).await
    }

    /// No breaker stands before a provider in memory: every call reaches it.
    fn health(&self) -> Vec<ProviderHealth> {
        Vec::new()
    }
}

impl fmt::Debug for MemoryIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryIssuer")
    }
}
