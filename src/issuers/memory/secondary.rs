//! The simulated provider where an account has a primary secret and at most a secondary one: of two that live, the older is the primary.

use jiff::Timestamp;

use super::truth::{SimKey, State};
use crate::domain::credential::Environment;
use crate::domain::ledger::Closure;
use crate::domain::material::Material;
use crate::issuers::{CreateRequest, IssuerError, Minted, Revocation};

impl State {
    /// Makes the secondary secret of the account that `acting` is the primary one of.
    pub(super) fn second(
        &mut self,
        environment: Environment,
        acting: &Material,
        request: &CreateRequest,
        now: Timestamp,
    ) -> Result<Minted, IssuerError> {
        let primary = self.find(environment, acting).ok_or(IssuerError::Refused { status: 404 })?;
        let same = |key: &SimKey| key.environment == environment && key.operation == Some(request.operation);
        let repeated = self.keys.iter().position(same).filter(|_| self.behaviour.idempotent);
        let index = match repeated {
            Some(index) => index,
            None if self.of_account(environment, acting, now).len() > 1 => return Err(IssuerError::Full),
            None => self.make(environment, &request.marker, now, Some(request.operation)),
        };
        self.keys[index].key_id = self.keys[primary].key_id.clone();
        let key_id = request.operation.to_string().parse().map_err(|_| IssuerError::BadValue)?;
        Ok(Minted { key_id, ..self.keys[index].minted() })
    }

    /// Ends the primary secret, if there is a secondary one. Whose signature it bears says nothing of which one goes.
    pub(super) fn put_in_place(
        &mut self,
        environment: Environment,
        acting: &Material,
        doomed: &Material,
        now: Timestamp,
    ) -> Result<Revocation, IssuerError> {
        if doomed.same_as(acting) {
            return Err(IssuerError::Impossible("the secret that would be promoted is the one that would end"));
        }
        if self.authenticate(environment, doomed, now).is_ok() {
            let both = self.of_account(environment, doomed, now);
            let [primary, _secondary] = both.as_slice() else { return Err(IssuerError::Refused { status: 404 }) };
            self.end_at(*primary, now);
        }
        self.told_of(environment, doomed, now)
    }

    /// Ends the secondary secret, if there is one.
    pub(super) fn take_back(
        &mut self,
        environment: Environment,
        acting: &Material,
        doomed: Option<&Material>,
        now: Timestamp,
    ) -> Result<Revocation, IssuerError> {
        if doomed.is_some_and(|doomed| doomed.same_as(acting)) {
            return Err(IssuerError::Impossible("the key that signs is the one that would be taken back"));
        }
        self.authenticate(environment, acting, now)?;
        if let [_primary, secondary] = self.of_account(environment, acting, now).as_slice() {
            self.end_at(*secondary, now);
        }
        match doomed {
            Some(doomed) => self.told_of(environment, doomed, now),
            None => Ok(Revocation { closure: Closure::Reported }),
        }
    }

    fn end_at(&mut self, index: usize, now: Timestamp) {
        let lag = self.behaviour.revocation_lag;
        self.keys[index].end(now, lag);
    }

    fn told_of(&mut self, environment: Environment, doomed: &Material, now: Timestamp) -> Result<Revocation, IssuerError> {
        if self.look(environment, doomed, now).is_some() {
            return Err(IssuerError::Unclear("the key is still accepted"));
        }
        Ok(Revocation { closure: Closure::Proved })
    }

    /// The living secrets of an account, the primary one first.
    fn of_account(&self, environment: Environment, acting: &Material, now: Timestamp) -> Vec<usize> {
        let Some(own) = self.find(environment, acting) else { return Vec::new() };
        let (account, all) = (&self.keys[own].key_id, self.keys.iter().enumerate());
        let living = all.filter(|(_, key)| key.environment == environment && key.key_id == *account && key.not_ended(now));
        living.map(|(index, _)| index).collect()
    }
}
