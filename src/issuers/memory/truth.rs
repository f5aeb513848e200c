//! What the simulated provider knows: every key that there ever was, and when it was accepted.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::domain::credential::Environment;
use crate::domain::ids::{FieldName, KeyId, OperationId};
use crate::domain::ledger::Closure;
use crate::domain::material::{Material, Secret};
use crate::domain::provider::ListedKey;
use crate::issuers::{CreateRequest, IssuerError, Minted, Revocation};

/// How the provider behaves. May change while it runs.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// A new key works that much after it was made.
    pub propagation: Duration,
    /// While it propagates, every other look finds it working.
    pub flapping: bool,
    /// A revoked key works on for so long.
    pub revocation_lag: Duration,
    /// Living keys per environment at most.
    pub slots: Option<usize>,
    /// Where all slots are taken, the oldest living key dies for the new one.
    pub evicts: bool,
    /// The same operation id brings the same key again, dead or not.
    pub idempotent: bool,
    /// It can't list.
    pub blind: bool,
    /// Every new key is refused for ever.
    pub stillborn: bool,
    /// Keys end by themselves after so long.
    pub life: Option<Duration>,
}

/// One key, as the provider knows it. Ended keys are kept: the truth about the past is asked for too.
#[derive(Debug)]
pub struct SimKey {
    pub key_id: KeyId,
    pub environment: Environment,
    /// What the creator called it.
    pub name: String,
    pub created_at: Timestamp,
    pub works_from: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// When it stopped to be accepted, or will, after a revocation.
    pub dead_from: Option<Timestamp>,
    revoked: bool,
    /// Not accepted from then on, and listed as living: it takes a slot until it is revoked.
    pub(super) disabled_from: Option<Timestamp>,
    secret: Secret,
    pub(super) operation: Option<OperationId>,
}

impl SimKey {
    pub(super) fn accepted(&self, at: Timestamp) -> bool {
        self.works_from <= at && self.not_ended(at) && self.disabled_from.is_none_or(|end| at < end)
    }

    pub(super) fn not_ended(&self, at: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| at < end) && self.dead_from.is_none_or(|end| at < end)
    }

    fn listed_alive(&self, at: Timestamp) -> bool {
        !self.revoked && self.not_ended(at)
    }
}

/// Makes the secret of a key from its number, which begins at 1.
pub type SecretMaker = Arc<dyn Fn(u64) -> Secret + Send + Sync>;

#[derive(Default)]
pub(super) struct State {
    pub(super) behaviour: Behaviour,
    pub(super) keys: Vec<SimKey>,
    pub(super) secrets: Option<SecretMaker>,
    made: u64,
    looks: u64,
}

impl State {
    /// The index of the key with these bytes.
    pub(super) fn find(&self, environment: Environment, material: &Material) -> Option<usize> {
        let (id, secret) = (material.get(&client_id())?, material.get(&client_secret())?);
        self.keys.iter().position(|key| key.environment == environment && key.id_field().same_as(id) && key.secret.same_as(secret))
    }

    /// As a replica of the provider sees it: while a key propagates, some know it already.
    pub(super) fn look(&mut self, environment: Environment, material: &Material, now: Timestamp) -> Option<usize> {
        self.looks += 1;
        let index = self.find(environment, material)?;
        let key = &self.keys[index];
        let early = self.behaviour.flapping
            && key.disabled_from.is_none()
            && self.looks.is_multiple_of(2)
            && key.not_ended(now)
            && key.works_from < Timestamp::MAX;
        (key.accepted(now) || early).then_some(index)
    }

    pub(super) fn authenticate(&mut self, environment: Environment, signing: &Material, now: Timestamp) -> Result<usize, IssuerError> {
        self.look(environment, signing, now).ok_or(IssuerError::Unauthenticated)
    }

    pub(super) fn issue(&mut self, environment: Environment, request: &CreateRequest, now: Timestamp) -> Result<usize, IssuerError> {
        let same = |key: &SimKey| key.environment == environment && key.operation == Some(request.operation);
        if let Some(index) = self.keys.iter().position(same).filter(|_| self.behaviour.idempotent) {
            return Ok(index);
        }
        let living = || self.keys.iter().filter(|key| key.environment == environment && key.listed_alive(now));
        if self.behaviour.slots.is_some_and(|slots| living().count() >= slots) {
            if !self.behaviour.evicts {
                return Err(IssuerError::Full);
            }
            let oldest = self.keys.iter_mut().find(|key| key.environment == environment && key.listed_alive(now));
            oldest.into_iter().for_each(|key| key.end(now, Duration::ZERO));
        }
        Ok(self.make(environment, &request.marker, now, Some(request.operation)))
    }

    pub(super) fn make(&mut self, environment: Environment, name: &str, now: Timestamp, operation: Option<OperationId>) -> usize {
        self.made += 1;
        let number =
            |what: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{what}/{environment}/{}", self.made).as_bytes()).simple().to_string();
        let kind = if environment == Environment::Production { "live" } else { "test" };
        let usual = || Secret::from(format!("dinie_cs_live_{}", number("secret")));
        let secret = self.secrets.as_ref().map_or_else(usual, |make| make(self.made));
        let works_from = if self.behaviour.stillborn { Timestamp::MAX } else { later(now, self.behaviour.propagation) };
        self.keys.push(SimKey {
            key_id: made_id(&format!("dinie_ci_{kind}_{}", &number("id")[..24])),
            environment,
            name: name.to_owned(),
            created_at: now,
            works_from,
            expires_at: self.behaviour.life.map(|life| later(now, life)),
            dead_from: None,
            revoked: false,
            disabled_from: None,
            secret,
            operation,
        });
        self.keys.len() - 1
    }

    pub(super) fn revoke(
        &mut self,
        environment: Environment,
        (acting, signing): (&Material, &Material),
        key_id: &KeyId,
        doomed: Option<&Material>,
        now: Timestamp,
    ) -> Result<Revocation, IssuerError> {
        let signs_itself = acting.get(&client_id()).is_some_and(|id| id.same_as(&Secret::from(key_id.as_str().to_owned())));
        if signs_itself || doomed.is_some_and(|doomed| doomed.same_as(acting)) {
            return Err(IssuerError::Impossible("the key that signs is the one that would be revoked"));
        }
        self.authenticate(environment, signing, now)?;
        let lag = self.behaviour.revocation_lag;
        let key = self.keys.iter_mut().find(|key| key.environment == environment && key.key_id == *key_id);
        let acknowledged = key.is_some();
        key.into_iter().for_each(|key| key.end(now, lag));
        let still_works = doomed.map(|doomed| self.look(environment, doomed, now).is_some());
        let closure = match still_works {
            Some(false) => Closure::Proved,
            _ if !self.behaviour.blind => Closure::Reported,
            Some(true) => return Err(IssuerError::Unclear("the key is still accepted")),
            None if acknowledged => Closure::Unproved,
            None => return Err(IssuerError::Unclear("the key isn't there, and nothing tells what became of it")),
        };
        Ok(Revocation { closure })
    }
}

impl SimKey {
    /// The first end counts: a repeated revocation doesn't lengthen a life.
    pub(super) fn end(&mut self, now: Timestamp, lag: Duration) {
        self.revoked = true;
        let end = later(now, lag);
        self.dead_from = Some(self.dead_from.map_or(end, |earlier| earlier.min(end)));
    }

    pub(super) fn material(&self) -> Material {
        [(client_id(), self.id_field()), (client_secret(), self.secret.duplicate())].into_iter().collect()
    }

    fn id_field(&self) -> Secret {
        Secret::from(self.key_id.as_str().to_owned())
    }

    pub(super) fn minted(&self) -> Minted {
        let (issued_at, expires_at) = (Some(self.created_at), self.expires_at);
        Minted { key_id: self.key_id.clone(), material: self.material(), issued_at, expires_at, previous_expires_at: None }
    }

    pub(super) fn listed(&self, now: Timestamp) -> ListedKey {
        ListedKey {
            key_id: self.key_id.clone(),
            name: Some(self.name.clone()),
            alive: self.listed_alive(now),
            issued_at: Some(self.created_at),
            expires_at: self.expires_at,
        }
    }
}

pub(super) fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[allow(clippy::expect_used, reason = "constants of the simulation: one that doesn't parse fails every test")]
fn client_id() -> FieldName {
    "client_id".parse().expect("a field name")
}

#[allow(clippy::expect_used, reason = "constants of the simulation: one that doesn't parse fails every test")]
fn client_secret() -> FieldName {
    "client_secret".parse().expect("a field name")
}

#[allow(clippy::expect_used, reason = "made of letters and digits just above")]
fn made_id(text: &str) -> KeyId {
    text.parse().expect("the id of a key")
}
