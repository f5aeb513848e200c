//! The simulated provider where a key stays and its secret changes, and where a key is disabled before it is removed.

use jiff::Timestamp;

use super::truth::{SimKey, State, later};
use crate::domain::credential::Environment;
use crate::domain::ids::KeyId;
use crate::domain::material::Material;
use crate::domain::succession::Succession;
use crate::issuers::{CreateRequest, IssuerError, Minted};

impl State {
    /// The next secret of the key that `acting` is a secret of.
    pub(super) fn succeed(
        &mut self,
        environment: Environment,
        acting: &Material,
        request: &CreateRequest,
        succession: Succession,
        now: Timestamp,
    ) -> Result<Minted, IssuerError> {
        let same = |key: &SimKey| key.environment == environment && key.operation == Some(request.operation);
        let repeated = self.keys.iter().position(same).filter(|_| self.behaviour.idempotent);
        let index = match repeated {
            Some(index) => index,
            None => self.next_secret(environment, acting, request, succession, now)?,
        };
        let key_id = self.keys[index].key_id.clone();
        let before = self.keys[..index].iter().rev().find(|key| key.environment == environment && key.key_id == key_id);
        let previous_expires_at = before.and_then(|key| key.dead_from).filter(|_| succession == Succession::EndsOld);
        let mut minted = Minted { previous_expires_at, ..self.keys[index].minted() };
        // The key stays, and what manages it with it.
        for (field, value) in acting.iter() {
            if minted.material.get(field).is_none() {
                minted.material.insert(field.clone(), value.duplicate());
            }
        }
        Ok(minted)
    }

    pub(super) fn disable(
        &mut self,
        environment: Environment,
        (acting, signing): (&Material, &Material),
        key_id: &KeyId,
        now: Timestamp,
    ) -> Result<(), IssuerError> {
        self.authenticate(environment, signing, now)?;
        let acting = self.find(environment, acting).map(|index| self.keys[index].key_id.clone());
        if acting.as_ref() == Some(key_id) {
            return Err(IssuerError::Impossible("the key that signs is the one that would be disabled"));
        }
        if let Some(key) = self.keys.iter_mut().find(|key| key.environment == environment && key.key_id == *key_id) {
            key.disabled_from.get_or_insert(now);
        }
        Ok(())
    }

    fn next_secret(
        &mut self,
        environment: Environment,
        acting: &Material,
        request: &CreateRequest,
        succession: Succession,
        now: Timestamp,
    ) -> Result<usize, IssuerError> {
        let known = self.find(environment, acting).ok_or(IssuerError::Refused { status: 404 })?;
        let key_id = self.keys[known].key_id.clone();
        let lag = match succession {
            Succession::EndsOld => request.overlap,
            Succession::Beside | Succession::ReplacesOld => self.behaviour.revocation_lag,
        };
        for key in self.keys.iter_mut().filter(|key| key.environment == environment && key.key_id == key_id) {
            // What was ending already ends no later for it.
            let end = later(now, lag);
            key.dead_from = Some(key.dead_from.map_or(end, |earlier| earlier.min(end)));
        }
        let index = self.make(environment, &request.marker, now, Some(request.operation));
        self.keys[index].key_id = key_id;
        Ok(index)
    }
}
