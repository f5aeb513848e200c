//! What operators do on a bad day: stolen keys, pauses, the way back, revocations by hand, forgetting.

use std::time::Duration;

use keywright::domain::ids::{InstallationId, KeyId, Name, VersionId};
use keywright::engine::errors::{ForgetError, RevokeError};

use super::deeds::Deed;
use super::life::{Life, operator};
use super::setting::secs;
use crate::scene::truly;

/// How often a call is made again that failed for want of a store, a journal or an audit trail.
const TRIES: usize = 50;

impl Life {
    pub fn hand(&mut self) {
        let after = self.part(self.shortest());
        self.plan(secs(60) + after, Deed::Hand);
        if self.calm {
            return;
        }
        match self.rng.below(23) {
            0..=4 => self.incident(),
            5..=8 => self.pause(),
            9..=13 => self.roll_back(),
            14..=16 => self.revoke_by_hand(),
            17..=18 => self.release_one(),
            19 => self.forget(),
            20 | 21 => self.back_up(),
            _ => self.restore(),
        }
    }

    fn back_up(&mut self) {
        self.scene.note(|| "a backup is made".to_owned());
        let known = {
            let inner = self.scene.lock();
            inner.model.back_up(inner.at)
        };
        self.backup = Some((self.store.snapshot(), self.journal.snapshot(), known));
    }

    /// Store and journal are lost, and come back as they were; the provider, the applications and the audit trail go on.
    fn restore(&mut self) {
        let Some((store, journal, known)) = &self.backup else { return };
        (self.store, self.journal) = (store.snapshot(), journal.snapshot());
        let installation = InstallationId(uuid::Uuid::from_u128(u128::from(self.rng.next()) << 64 | 11));
        self.journal.come_back_as(installation);
        {
            let mut inner = self.scene.lock();
            inner.note(|| "the backup comes back".to_owned());
            inner.model.come_back(known, installation);
            // Revoked a moment ago, and not everywhere yet: whoever asks is told that it lives. The backup knows nothing of its end.
            let ending = inner.model.revoked.iter().filter(|key| self.scene.issuer.accepts(key, truly(inner.at)));
            let ending: Vec<_> = ending.cloned().collect();
            inner.model.outside.extend(ending);
            let policies = self.policies.clone();
            inner.model.set_policies(&policies);
            let at = inner.at;
            inner.disturb(at);
        }
        self.deposed.clear();
        if self.leader.is_some() {
            self.bury();
        }
        for name in self.names() {
            let after = secs(60) + self.part(secs(1_800));
            self.plan(after, Deed::Submit(name));
        }
    }

    fn names(&self) -> Vec<Name> {
        self.policies.credentials.keys().cloned().collect()
    }

    fn any(&mut self) -> Name {
        let names = self.names();
        self.rng.pick(&names).clone()
    }

    /// One whose old key lives, if there is one: there is more to break.
    fn one_in_overlap(&mut self) -> Name {
        let inner = self.scene.lock();
        let beside: Vec<Name> = inner.model.known.iter().filter(|(_, known)| known.old.is_some()).map(|(name, _)| name.clone()).collect();
        drop(inner);
        if beside.is_empty() { self.any() } else { self.rng.pick(&beside).clone() }
    }

    /// One key is stolen, or all of an account, or all of the provider; and a thief may have made some.
    fn incident(&mut self) {
        let one = if self.rng.chance(50) { self.one_in_overlap() } else { self.any() };
        let account = self.policies.credentials[&one].account.clone();
        let stolen: Vec<Name> = match self.rng.below(4) {
            0 | 1 => vec![one],
            2 => self
                .policies
                .credentials
                .values()
                .filter(|document| document.account == account)
                .map(|document| document.name.clone())
                .collect(),
            _ => self.names(),
        };
        let longest = self.shortest().min(secs(86_400));
        let within = match self.rng.below(3) {
            0 => Duration::ZERO,
            1 => secs(600).min(longest),
            _ => secs(self.part(longest).as_secs()),
        };
        for name in stolen {
            if self.rng.chance(60) {
                let environment = self.policies.credentials[&name].environment;
                self.enrol_other(environment, "made by a thief");
            }
            self.scene.note(|| format!("{name} is stolen, {within:?} are left"));
            let _asked = self.call(async |engine| engine.compromised(operator(), &name, within).await);
        }
    }

    fn pause(&mut self) {
        let name = if self.rng.chance(50) { None } else { Some(self.one_in_overlap()) };
        let paused = self.call(async |engine| engine.pause(operator(), name.as_ref()).await);
        self.scene.note(|| format!("paused {name:?}: {paused:?}"));
        if name.is_none() && !matches!(paused, Some(Ok(()))) {
            self.scene.lock().model.maybe_paused = true;
        }
        if let Some(Ok(())) = paused {
            let mut inner = self.scene.lock();
            let known = name.as_ref().map_or(inner.model.all_paused, |name| inner.model.known[name].paused);
            inner.model.deeds.pauses += u64::from(name.is_none());
            inner.require(known, "I11", || format!("{name:?} was acknowledged as paused, and it isn't durable"));
        }
        let after = secs(30) + self.part(self.shortest() / 2);
        self.plan(after, Deed::Unpause(name));
    }

    pub fn unpause(&mut self, name: Option<Name>) {
        let resumed = self.call(async |engine| engine.resume(operator(), name.as_ref()).await);
        if name.is_none() && matches!(resumed, Some(Ok(()))) {
            self.scene.lock().model.maybe_paused = false;
        }
        if !matches!(resumed, Some(Ok(()))) {
            let after = secs(30) + self.part(secs(60));
            self.plan(after, Deed::Unpause(name));
        }
    }

    /// Whatever was paused by whomever goes on.
    pub fn unpause_all(&mut self) {
        for name in self.names().into_iter().map(Some).chain([None]) {
            self.unpause(name);
        }
    }

    fn roll_back(&mut self) {
        let drawn = self.one_in_overlap();
        // Whoever is just too late is the one to refuse: that is rare by chance alone.
        let name = self.one_that_is_going().unwrap_or(drawn);
        let old = self.old_of(&name);
        let Some(back) = self.call(async |engine| engine.roll_back(operator(), &name).await) else { return };
        self.scene.note(|| format!("{name}: rolled back: {back:?}"));
        let Ok(back) = back else { return };
        let mut inner = self.scene.lock();
        let known = &inner.model.known[&name];
        let fits = known.current.as_ref() == Some(&back.version) && known.current_key() == old.as_ref().map(|(_, key)| key);
        inner.require(fits, "I10", || format!("{name}: {} was said to be the way back to {old:?}", back.version));
    }

    /// A credential whose old key's end has begun, and isn't done.
    fn one_that_is_going(&self) -> Option<Name> {
        let inner = self.scene.lock();
        let going = |name: &Name| {
            let known = &inner.model.known[name];
            let old = known.old.as_ref().and_then(|old| known.versions.get(old));
            old.is_some_and(|old| old.doomed && !old.ended)
        };
        inner.model.known.keys().find(|name| going(name)).cloned()
    }

    pub fn old_of(&self, name: &Name) -> Option<(VersionId, KeyId)> {
        let inner = self.scene.lock();
        let known = &inner.model.known[name];
        let old = known.old.clone()?;
        let key = known.versions.get(&old)?.key.clone();
        Some((old, key))
    }

    fn revoke_by_hand(&mut self) {
        let name = self.one_in_overlap();
        let force = self.rng.chance(40);
        let (current, others) = {
            let inner = self.scene.lock();
            let known = &inner.model.known[&name];
            (known.current.clone(), [known.old.clone(), known.candidate.clone()])
        };
        let named: Vec<VersionId> = others.into_iter().chain([current.clone()]).flatten().collect();
        if named.is_empty() {
            return;
        }
        let version = if self.rng.chance(60) { named[0].clone() } else { self.rng.pick(&named).clone() };
        let Some(revoked) = self.call(async |engine| engine.revoke_version(operator(), &name, &version, force).await) else { return };
        self.scene.note(|| format!("{name}: {version} is revoked by hand: {revoked:?}"));
        let mut inner = self.scene.lock();
        let known = &inner.model.known[&name];
        let is_current = known.current.as_ref() == Some(&version);
        let going = known.versions.get(&version).is_none_or(|known| known.doomed || known.ended || known.abandoned) || known.abandoning;
        match revoked {
            Ok(()) => inner.require(going && !is_current, "I5", || format!("{name}: {version} was said to go")),
            Err(RevokeError::Current) => {
                inner.require(is_current || current.is_some(), "I5", || format!("{name}: {version} isn't current"))
            }
            Err(_) => {}
        }
    }

    /// By mistake: it lives. It takes up what is current as soon as it comes back.
    fn release_one(&mut self) {
        if self.apps.is_empty() {
            return;
        }
        let index = self.rng.below(self.apps.len());
        let (application, copy) = self.apps[index].id.clone();
        let instance = self.apps[index].instance.clone();
        if let Some(state) = self.scene.lock().model.copies.get_mut(&(application.clone(), copy)) {
            state.released = true;
        }
        let _released = self.call(async |engine| engine.release(operator(), &application, Some(&instance)).await);
    }

    /// What is kept here is removed; a person submits anew. Without force, nothing that a document names is forgotten.
    fn forget(&mut self) {
        let name = self.any();
        let in_use = {
            let known = &self.scene.lock().model.known[&name];
            // One that was forced is only finished by this.
            known.current.is_some() && !known.clearing
        };
        let Some(refused) = self.call(async |engine| engine.forget(operator(), &name, false).await) else { return };
        let kept = !in_use || refused.is_err();
        self.scene.lock().require(kept, "I11", || format!("{name}: what is in use was forgotten unforced"));
        for _ in 0..TRIES {
            let Some(forgotten) = self.call(async |engine| engine.forget(operator(), &name, true).await) else { break };
            self.scene.note(|| format!("{name}: forgotten: {forgotten:?}"));
            match forgotten {
                Ok(()) => {
                    let mut inner = self.scene.lock();
                    let gone = inner.model.known[&name].current.is_none();
                    inner.require(gone, "I4", || format!("{name}: what was forgotten is still in the store"));
                    break;
                }
                Err(ForgetError::AuditUnavailable | ForgetError::StoreUnavailable) => {}
                Err(_) => break,
            }
        }
        let after = secs(60) + self.part(secs(1_800));
        self.plan(after, Deed::Submit(name));
    }
}
