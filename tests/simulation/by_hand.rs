//! A provider where a person makes and removes the keys: the person answers late, wrongly, never, and rightly at last.

use keywright::domain::ids::Name;
use keywright::domain::manual::Asks;
use keywright::engine::errors::SubmitError;

use super::deeds::Deed;
use super::life::{Life, operator};
use super::setting::secs;

impl Life {
    /// What `status` asks for is done, sooner or later.
    pub fn do_what_is_asked(&mut self) {
        let Some(status) = self.leader.as_ref().and_then(|leader| leader.engine.status(None, None, 100)) else { return };
        for row in status.credentials {
            match row.request.map(|request| request.asks) {
                Some(Asks::NewKey) => self.plan(secs(1), Deed::Answer(row.name)),
                Some(Asks::OldKeyRemoval) => self.plan(secs(1), Deed::Remove(row.name)),
                None => {}
            }
        }
    }

    pub fn answer(&mut self, name: &Name) {
        // Where the provider doesn't tell a key's age, a person waits until the clock is right.
        let off = self.scene.lock().off.abs() > jiff::SignedDuration::from_secs(300);
        if off || (!self.calm && self.rng.chance(30)) {
            return;
        }
        if !self.calm && self.rng.chance(30) {
            return self.answer_with_a_dead_key(name);
        }
        let environment = self.policies.credentials[name].environment;
        let known = |key| self.scene.lock().model.adopted(key).is_some_and(|(_, _, version)| !version.abandoned);
        let spent = self.in_hand.get(name).is_none_or(|(key, _)| known(key) || !self.scene.issuer.accepts(key, self.scene.theirs.now()));
        if spent {
            let made = self.scene.issuer.enrol(environment, "made by hand");
            self.scene.lock().model.by_hand.insert(made.0.clone(), Some(name.clone()));
            self.in_hand.insert(name.clone(), made);
        }
        let (key, material) = (self.in_hand[name].0.clone(), self.in_hand[name].1.duplicate());
        {
            let model = &mut self.scene.lock().model;
            (model.answering, model.brought) = (Some(name.clone()), Some(key.clone()));
        }
        let submitted = self.call(async |engine| engine.submit(operator(), name, material).await);
        self.scene.note(|| format!("{name}: answered with {key}: {submitted:?}"));
        let mut inner = self.scene.lock();
        inner.model.answering = None;
        match submitted {
            Some(Ok(submitted)) => {
                let known = &inner.model.known[name];
                let fits = known.current_key() == Some(&key) && known.current.as_ref() == Some(&submitted.version);
                inner.require(fits, "I11", || format!("{name}: {} was acknowledged and isn't current", submitted.version));
                inner.model.known.get_mut(name).unwrap().acknowledged = Some(submitted.version);
            }
            Some(Err(SubmitError::EnvironmentMismatch { reasons })) => {
                inner.broken("I18", format!("{name}: its own key is refused: {reasons}"));
            }
            // A removal that is asked for keeps nobody out.
            Some(Err(SubmitError::RotationOpen)) => {
                let waits = inner.model.known[name].old.as_ref().is_some_and(|old| inner.model.known[name].versions[old].doomed);
                inner.require(!waits, "liveness", || format!("{name}: kept out by a removal"));
            }
            _ => {}
        }
    }

    /// Nothing of it is taken, and it is asked for as before.
    fn answer_with_a_dead_key(&mut self, name: &Name) {
        let environment = self.policies.credentials[name].environment;
        let (key, material) = self.scene.issuer.enrol(environment, "dead when it is brought");
        self.scene.lock().model.by_hand.insert(key.clone(), Some(name.clone()));
        self.scene.issuer.kill(&key);
        let events = self.scene.lock().model.known[name].events.len();
        let submitted = self.call(async |engine| engine.submit(operator(), name, material).await);
        let mut inner = self.scene.lock();
        inner.require(!matches!(submitted, Some(Ok(_))), "I4", || format!("{name}: the dead key {key} is taken"));
        let untouched = inner.model.known[name].events.len() == events;
        inner.require(untouched || submitted.is_none(), "I18", || format!("{name}: something of {key} is kept"));
    }

    pub fn remove(&mut self, name: &Name) {
        let Some((version, key)) = self.old_of(name) else { return };
        let doomed = self.scene.lock().model.known[name].versions[&version].doomed;
        if doomed && !self.calm && self.rng.chance(20) {
            // Too late: whoever was asked to remove a key may have done so.
            let back = self.call(async |engine| engine.roll_back(operator(), name).await);
            let refused = !matches!(back, Some(Ok(_)));
            self.scene.lock().require(refused, "I10", || format!("{name}: there is a way back to {version}, whose removal was asked for"));
        }
        if !doomed || (!self.calm && self.rng.chance(40)) {
            return;
        }
        if !self.calm && self.rng.chance(20) {
            // It isn't, and the person says so all the same.
            let said = self.call(async |engine| engine.revoke_version(operator(), name, &version, true).await);
            return self.scene.note(|| format!("{name}: {version} is said to be removed: {said:?}"));
        }
        self.scene.note(|| format!("{name}: {key} is removed by hand"));
        self.scene.lock().model.revoked.insert(key.clone());
        self.scene.issuer.kill(&key);
    }
}
