//! What happens in the world beside the daemon: applications, people, other people, weather and clocks.

use std::time::Duration;

use jiff::SignedDuration;
use keywright::domain::credential::Environment;
use keywright::domain::ids::{Name, VersionId};
use keywright::domain::material::Material;
use keywright::domain::policy::{Confirmation, Uptake};
use keywright::domain::replicas::Report;
use keywright::domain::span::Span;
use keywright::engine::errors::{ConfirmError, ReadError, ReportError, SubmitError};

use super::applications::field;
use super::life::{Life, operator};
use super::model::{CopyId, Version, key_of};
use super::setting::{ClockWay, lease_of, secs, time_rehearsals};

/// Something that is to happen.
#[derive(Debug, Clone)]
pub enum Deed {
    Start,
    Resume,
    /// A copy starts, or connects again.
    Connect(usize),
    Fetch(usize),
    /// It begins to use what it was served last.
    Switch(usize),
    Confirm(usize),
    /// It says that what it was served last doesn't work.
    Report(usize),
    Submit(Name),
    /// A person who was asked for a new key brings one, or removes the old one.
    Answer(Name),
    Remove(Name),
    /// A person looks at `status`.
    Round,
    /// A person, or an application, does what must be refused.
    Mischief,
    /// Copies end, and others come.
    Churn,
    Weather,
    Jump,
    /// Other people at the same provider.
    Others,
    /// An operator has a bad day.
    Hand,
    /// What was paused goes on: a credential, or all.
    Unpause(Option<Name>),
    /// The engine asks what others changed in the store; others change something; and it is put right.
    Look,
    Write,
    PutBack(Name, VersionId),
}

impl Life {
    pub fn perform(&mut self, deed: Deed) {
        match deed {
            Deed::Start => self.start(),
            Deed::Resume => self.resume(),
            Deed::Connect(index) => self.connect(index),
            Deed::Fetch(index) => self.fetch(index),
            Deed::Switch(index) => self.switch(index),
            Deed::Confirm(index) => self.confirm(index),
            Deed::Report(index) => self.report(index),
            Deed::Submit(name) => self.submit(&name),
            Deed::Answer(name) => self.answer(&name),
            Deed::Remove(name) => self.remove(&name),
            Deed::Round => self.round(),
            Deed::Mischief => self.mischief(),
            Deed::Churn => self.churn(),
            Deed::Weather => self.weather(),
            Deed::Jump => self.jump(),
            Deed::Others => self.others(),
            Deed::Hand => self.hand(),
            Deed::Unpause(name) => self.unpause(name),
            Deed::Look => self.look(),
            Deed::Write => self.write(),
            Deed::PutBack(name, version) => self.put_back(&name, &version),
        }
    }

    /// How long one waits for a daemon that is away.
    pub fn patience(&self) -> Duration {
        if self.calm { secs(10) } else { secs(10).max(self.shortest() / 200) }
    }

    pub fn part(&mut self, of: Duration) -> Duration {
        of.mul_f64(self.rng.below(1_000) as f64 / 1_000.0)
    }

    fn connect(&mut self, index: usize) {
        self.apps[index].waits = false;
        let Some(leader) = &self.leader else { return self.plan_connect(self.patience(), index) };
        let (at, app) = (self.scene.lock().at, &mut self.apps[index]);
        if app.uptake == Uptake::Stream && app.stream.is_none() {
            app.stream = Some(leader.engine.open_stream(&app.id.0, &app.instance));
            if let Some(copy) = self.scene.lock().model.copies.get_mut(&app.id) {
                // Its lease was over: what it had before doesn't count any more, though it may use it still.
                if copy.forgotten(at) {
                    app.had = None;
                    copy.held.clear();
                    copy.excused.extend(copy.uses.iter().map(|(_, key)| key.clone()));
                }
                (copy.streams, copy.sign) = (true, at);
            }
        }
        self.fetch(index);
    }

    fn fetch(&mut self, index: usize) {
        let Some(number) = self.leader.as_ref().map(|leader| leader.process.number) else { return };
        let app = &self.apps[index];
        let (reader, credential, id) = (app.reader(), app.credential.clone(), app.id.clone());
        let must = {
            let inner = self.scene.lock();
            let known = &inner.model.known[&credential];
            let copy = &inner.model.copies[&id];
            let same = app.had.as_ref().is_some_and(|(process, version)| *process == number && known.current.as_ref() == Some(version));
            same && !copy.forgotten(inner.at) && known.acknowledged.is_some() && copy.streams
        };
        // On record it counts as seen from here on, whether or not the answer arrives.
        if let Some(known) = self.scene.lock().model.known.get_mut(&credential) {
            known.seen.insert(id.0.clone());
        }
        let Some(read) = self.call(async |engine| engine.read(&reader, &credential).await) else { return };
        match read {
            Ok(document) => {
                let (version, material) = (document.version, document.fields.duplicate());
                let Some(key) = key_of(&material) else { return };
                self.scene.note(|| format!("{}/{} was served {version}", id.0, id.1));
                self.scene.lock().disclosed(&id, &credential, &version, key.clone());
                self.scene.lock().of_age(&credential, &version, document.issued_at);
                let app = &mut self.apps[index];
                app.had = Some((number, version.clone()));
                app.values.insert(version.clone(), (material, key));
                app.newest = Some(version);
                let slow = if self.calm { app.slow / 10 } else { app.slow };
                let first = app.uses.is_none() || app.uptake == Uptake::Start;
                let after = if first { Duration::ZERO } else { self.part(slow) };
                if !self.apps[index].stuck || self.calm || first {
                    self.plan(after, Deed::Switch(index));
                }
            }
            Err(ReadError::NoVersion | ReadError::StoreUnavailable | ReadError::AuditUnavailable) if !must => {
                let after = secs(5) + self.part(secs(60));
                self.plan(after, Deed::Fetch(index));
            }
            // What came back from a backup waits for its first look, whoever had it (I10).
            Err(ReadError::NotVerified) if self.scene.lock().model.known[&credential].unverified => {
                let after = secs(5) + self.part(secs(60));
                self.plan(after, Deed::Fetch(index));
            }
            Err(error) => self.scene.lock().broken("I19", format!("{}/{} had it and is refused: {error}", id.0, id.1)),
        }
    }

    fn switch(&mut self, index: usize) {
        let app = &mut self.apps[index];
        let Some(newest) = app.newest.clone() else { return };
        let Some(key) = app.values.get(&newest).map(|(_, key)| key.clone()) else { return };
        app.uses = Some(newest.clone());
        if let Some(copy) = self.scene.lock().model.copies.get_mut(&app.id) {
            copy.uses = Some((newest, key));
        }
        let slow = if self.calm { app.slow / 10 } else { app.slow };
        let after = self.part(slow);
        let tried = self.scene.lock().model.known[&self.apps[index].credential].rolling.is_some();
        if tried && !self.calm && self.rng.chance(12) {
            self.plan(after, Deed::Report(index));
        } else if !self.apps[index].stuck || self.calm {
            self.plan(after, Deed::Confirm(index));
        }
    }

    fn report(&mut self, index: usize) {
        let Some(version) = self.apps[index].uses.clone() else { return };
        let app = &self.apps[index];
        let (id, instance, credential) = (app.id.clone(), app.instance.clone(), app.credential.clone());
        if let Some(known) = self.scene.lock().model.known.get_mut(&credential) {
            known.reported.insert(version.clone());
        }
        let (application, failed) = (id.0.clone(), version.clone());
        let report = Report { application, instance, credential: credential.clone(), version: failed };
        let said = self.call(async |engine| engine.report_failed(&report).await);
        let mut inner = self.scene.lock();
        let record = format!("reported-failed {credential} {version} {}/{}", id.0, id.1);
        let known = &inner.model.known[&credential];
        let on = known.rolling.as_ref().is_some_and(|rolling| rolling.new == version && rolling.stopped.is_none());
        let open = on && known.back.is_none() && !known.is_hurried() && known.promoted_phase();
        inner.require(said != Some(Ok(())) || !open, "rollout", || format!("{credential}: {record} was acknowledged, and it goes on"));
        match said {
            Some(Ok(()) | Err(ReportError::NotNewest)) => drop(inner),
            Some(Err(ReportError::Unavailable | ReportError::AuditUnavailable)) => {
                drop(inner);
                self.plan(secs(15), Deed::Report(index));
            }
            Some(Err(error)) => inner.broken("liveness", format!("{}/{} can't report: {error}", id.0, id.1)),
            None => {
                drop(inner);
                self.plan(self.patience(), Deed::Report(index));
            }
        }
    }

    fn confirm(&mut self, index: usize) {
        let Some(version) = self.apps[index].uses.clone() else { return };
        if self.apps[index].newest.as_ref() != Some(&version) {
            return;
        }
        let Some(proof) = self.apps[index].proof(&version) else { return };
        let id = self.apps[index].id.clone();
        self.scene.lock().confirming(&id, &version);
        match self.send(index, &version, &proof) {
            Some(Ok(())) => {
                let record = format!("confirmed {} {version} {}/{}", self.apps[index].credential, id.0, id.1);
                let mut inner = self.scene.lock();
                let at = inner.at;
                let known = inner.model.records.contains(&record);
                inner.require(known, "I17", || format!("{}/{} confirmed off the record", id.0, id.1));
                if let Some(copy) = inner.model.copies.get_mut(&id) {
                    copy.sign = at;
                }
            }
            Some(Err(ConfirmError::NotNewest)) => self.plan(secs(1), Deed::Fetch(index)),
            Some(Err(ConfirmError::Unavailable | ConfirmError::AuditUnavailable)) => self.plan(secs(15), Deed::Confirm(index)),
            Some(Err(error)) => self.scene.lock().broken("liveness", format!("{}/{} can't confirm: {error}", id.0, id.1)),
            None => self.plan(self.patience(), Deed::Confirm(index)),
        }
    }

    fn send(&mut self, index: usize, version: &VersionId, proof: &str) -> Option<Result<(), ConfirmError>> {
        let app = &self.apps[index];
        let (id, instance, credential) = (app.id.clone(), app.instance.clone(), app.credential.clone());
        self.call(async |engine| engine.confirm(&id.0, &instance, &credential, version, &field("client_secret"), proof).await)
    }

    /// Brings the key that is at hand, until it is current.
    fn submit(&mut self, name: &Name) {
        let (alive, dead) = {
            let inner = self.scene.lock();
            let known = &inner.model.known[name];
            (known.current.is_some(), known.refused_told)
        };
        if alive && !dead {
            return;
        }
        // Where the provider doesn't tell a key's age, it counts from the submission, by our clock: a person waits until it is right.
        let off = self.scene.lock().off.abs() > SignedDuration::from_secs(300);
        if off && self.setting.blind {
            return self.plan(secs(300), Deed::Submit(name.clone()));
        }
        let environment = self.policies.credentials[name].environment;
        // Given up for good, whether or not the provider knows it yet: another one is needed.
        let revoked = |key| {
            let inner = self.scene.lock();
            inner.model.revoked.contains(key) || inner.model.adopted(key).is_some_and(|(_, _, version)| version.doomed)
        };
        let gone = self.in_hand.get(name).is_some_and(|(key, _)| revoked(key) || !self.scene.issuer.accepts(key, self.scene.theirs.now()));
        if gone || !self.in_hand.contains_key(name) {
            let made = self.scene.issuer.enrol(environment, "made by hand");
            self.scene.lock().model.by_hand.insert(made.0.clone(), Some(name.clone()));
            self.in_hand.insert(name.clone(), made);
        }
        let (key, material) = &self.in_hand[name];
        let (key, material) = (key.clone(), material.duplicate());
        self.scene.lock().model.brought = Some(key.clone());
        let spare = material.duplicate();
        let mut submitted = self.call(async |engine| engine.submit(operator(), name, material).await);
        if matches!(submitted, Some(Err(SubmitError::Occupied))) {
            // Somebody wrote there while it was forgotten: the person's key takes its place.
            submitted = self.call(async |engine| engine.adopt(operator(), name, spare).await);
        }
        let mut again = true;
        match submitted {
            Some(Ok(submitted)) => {
                let mut inner = self.scene.lock();
                let known = &inner.model.known[name];
                // An aged key is due at once: the next rotation may have promoted its own version already, and not journaled that.
                let newer = |was: &Version| known.current.as_ref().is_some_and(|now| known.versions[now].generation > was.generation);
                let fits = known.versions.get(&submitted.version).is_some_and(|was| {
                    was.key == key && was.promoted.is_some() && (known.current.as_ref() == Some(&submitted.version) || newer(was))
                });
                inner.require(fits, "I11", || format!("{name}: {} was acknowledged and isn't current", submitted.version));
                inner.model.known.get_mut(name).unwrap().acknowledged = Some(submitted.version);
                again = false;
            }
            Some(Err(SubmitError::EnvironmentMismatch { reasons })) => {
                self.scene.lock().broken("I18", format!("{name}: its own key is refused: {reasons}"));
            }
            _ => {}
        }
        if again {
            let after = secs(30) + self.part(secs(300));
            self.plan(after, Deed::Submit(name.clone()));
        }
    }

    /// What `status` tells a person to do is done, sooner or later.
    fn round(&mut self) {
        let every = if self.calm && self.setting.manual {
            (self.shortest() / 300).max(secs(5))
        } else if self.calm {
            secs(600).min(self.shortest() / 20).max(self.shortest() / 500)
        } else {
            secs(60) + self.part(self.shortest() / 4)
        };
        self.plan(every, Deed::Round);
        let Some(leader) = &self.leader else { return };
        let Some(status) = leader.engine.status(None, None, 100) else { return };
        for problem in status.problems {
            let Some(name) = problem.credential else { continue };
            match problem.code.as_str() {
                "current-refused" => self.plan(secs(1), Deed::Submit(name)),
                "possible-orphans" => self.rotate(&name),
                "rollout-stopped" => drop(self.call(async |engine| engine.roll_back(operator(), &name).await)),
                _ => {}
            }
        }
        if self.setting.manual {
            self.do_what_is_asked();
        }
        let names: Vec<Name> = self.policies.credentials.keys().cloned().collect();
        let name = self.rng.pick(&names).clone();
        if !self.calm && self.rng.chance(10) {
            self.rotate(&name);
        }
        if !self.calm && self.rng.chance(5) {
            self.edit();
        }
        self.release_gone();
    }

    fn rotate(&mut self, name: &Name) {
        if let Some(known) = self.scene.lock().model.known.get_mut(name) {
            known.asked_for += 1;
        }
        let _asked = self.call(async |engine| engine.rotate(operator(), name).await);
    }

    /// Shorter and laxer policies are read: open rotations keep the safer terms.
    fn edit(&mut self) {
        let names: Vec<Name> = self.policies.rotations.keys().cloned().collect();
        let name = self.rng.pick(&names).clone();
        let mut policy = (*self.policies.rotations[&name]).clone();
        policy.terms.overlap = Span::from_secs((policy.terms.overlap.as_secs() * 2 / 3).max(60));
        if self.rng.chance(30) {
            policy.terms.confirmation = *self.rng.pick(&[Confirmation::Required, Confirmation::Observed]);
        }
        self.policies.rotations.insert(name, std::sync::Arc::new(policy));
        time_rehearsals(&mut self.policies);
        let policies = self.policies.clone();
        self.scene.lock().model.set_policies(&policies);
        for (id, copy) in &mut self.scene.lock().model.copies {
            copy.lease = copy.lease.min(lease_of(&policies, &id.0));
        }
        // A reload that can't be audited is asked for again: the person sees the problem.
        for _ in 0..50 {
            let (policies, records) = (policies.clone(), self.scene.lock().faults);
            self.call(async |engine| engine.set_policies(policies).await);
            if self.leader.is_none() || self.scene.lock().faults == records {
                return;
            }
        }
        self.bury();
    }

    /// Copies that ended and have no lease, and whoever keeps a key alive by mistake, are released by hand.
    fn release_gone(&mut self) {
        let Some(status) = self.leader.as_ref().and_then(|leader| leader.engine.status(None, None, 100)) else { return };
        let shown = status.credentials.into_iter().flat_map(|row| row.applications);
        let shown: Vec<_> = shown.filter_map(|row| Some((row.name, row.instance?.to_string()))).collect();
        let is_gone = |id: &CopyId| self.scene.lock().model.copies.get(id).is_some_and(|copy| copy.gone && copy.lease.is_none());
        let gone: Vec<CopyId> = shown.into_iter().filter(|id| is_gone(id)).collect();
        for id in gone {
            if !self.calm && self.rng.chance(70) {
                continue;
            }
            if let Some(copy) = self.scene.lock().model.copies.get_mut(&id) {
                copy.released = true;
            }
            let instance = id.1.parse().unwrap();
            // What isn't acknowledged is still shown, or is again, and said again.
            let _released = self.call(async |engine| engine.release(operator(), &id.0, Some(&instance)).await);
        }
    }

    fn mischief(&mut self) {
        let after = self.part(self.shortest() / 2);
        self.plan(secs(60) + after, Deed::Mischief);
        match self.rng.below(4) {
            0 | 1 => self.wrong_submission(),
            _ => self.wrong_confirmation(),
        }
    }

    fn wrong_submission(&mut self) {
        let names: Vec<Name> = self.policies.credentials.keys().cloned().collect();
        let name = self.rng.pick(&names).clone();
        let environment = self.policies.credentials[&name].environment;
        let elsewhere = names.iter().filter(|other| **other != name).find_map(|other| self.in_hand.get(other));
        let material: Material = match elsewhere.filter(|_| self.rng.below(2) == 0) {
            Some((_, material)) => material.duplicate(),
            None => self.enrol_other(environment.other(), "of the other environment"),
        };
        let Some(key) = key_of(&material) else { return };
        let home = self.scene.issuer.history(|keys| keys.iter().find(|known| known.key_id == key).map(|known| known.environment));
        // A key that another credential would take if its own submission was never acknowledged is nobody's yet.
        let taken = self.scene.lock().model.adopted(&key).is_some_and(|(_, _, version)| !version.abandoned);
        if home == Some(environment) && !taken {
            return;
        }
        let submitted = self.call(async |engine| engine.submit(operator(), &name, material).await);
        let accepted = matches!(submitted, Some(Ok(_)));
        self.scene.lock().require(!accepted, "I18", || format!("{name}: a key that belongs elsewhere is taken"));
    }

    pub fn enrol_other(&mut self, environment: Environment, called: &str) -> Material {
        let (key, material) = self.scene.issuer.enrol(environment, called);
        self.scene.lock().model.by_hand.insert(key.clone(), None);
        self.foreign.push(key);
        material
    }

    /// An older version than the newest, or a proof that is none.
    fn wrong_confirmation(&mut self) {
        if self.apps.is_empty() {
            return;
        }
        let index = self.rng.below(self.apps.len());
        let app = &self.apps[index];
        let Some(newest) = app.newest.clone() else { return };
        // Where a backup came back, what it remembers as an instance's newest is rightly confirmed.
        let restored = self.scene.lock().model.deeds.restored > 0;
        let older = app.values.keys().find(|version| **version != newest && !restored).cloned();
        let (version, proof) = match older.and_then(|older| Some((older.clone(), app.proof(&older)?))) {
            Some(older) => older,
            None => (newest.clone(), app.wrong_proof(&newest)),
        };
        let id = app.id.clone();
        let answer = self.send(index, &version, &proof);
        let accepted = matches!(answer, Some(Ok(())));
        self.scene.lock().require(!accepted, "I5", || format!("{}/{}: a false confirmation of {version} counts", id.0, id.1));
    }

    fn churn(&mut self) {
        let after = self.part(self.shortest());
        self.plan(secs(30) + after, Deed::Churn);
        if self.apps.is_empty() {
            return;
        }
        let index = self.rng.below(self.apps.len());
        let at = self.scene.lock().at;
        let app = &mut self.apps[index];
        let id = app.id.clone();
        app.stream = None;
        if let Some(copy) = self.scene.lock().model.copies.get_mut(&id)
            && copy.streams
        {
            (copy.streams, copy.sign) = (false, at);
        }
        let pause = secs(1) + self.part(secs(300));
        if self.rng.chance(50) {
            if let Some(copy) = self.scene.lock().model.copies.get_mut(&id) {
                (copy.gone, copy.uses) = (true, None);
            }
            self.apps[index].successor();
            let app = &self.apps[index];
            self.enlist(app);
        }
        self.plan_connect(pause, index);
    }

    fn weather(&mut self) {
        let after = self.part(self.shortest() / 6);
        self.plan(secs(20) + after, Deed::Weather);
        if self.calm {
            return;
        }
        let rough = self.setting.rates[2] > 0;
        let propagation = secs(self.rng.below(self.setting.propagation_max as usize + 1) as u64);
        let (flapping, stillborn, full) = (self.rng.chance(20), rough && self.rng.chance(8), rough && self.rng.chance(8));
        let (evicts, lag) = (self.rng.chance(15), secs(self.rng.below(30) as u64));
        self.scene.issuer.behave(|behaviour| {
            (behaviour.propagation, behaviour.flapping, behaviour.stillborn) = (propagation, flapping, stillborn);
            behaviour.slots = full.then_some(2);
            (behaviour.evicts, behaviour.revocation_lag) = (evicts, lag);
        });
        if rough && self.rng.chance(25) {
            let (seam, lasts) = (self.rng.below(4), self.part(secs(1_800).min(self.shortest() / 4)));
            let mut inner = self.scene.lock();
            let until = inner.at + lasts;
            inner.away[seam] = until;
            inner.disturb(until);
            inner.note(|| format!("seam {seam} is away for {lasts:?}"));
        }
    }

    fn jump(&mut self) {
        let way = self.setting.clock;
        let after = if way == ClockWay::Storms { self.part(self.shortest() / 20) } else { self.part(self.shortest() / 3) };
        if way == ClockWay::Right || self.calm {
            return;
        }
        self.plan(secs(1) + after, Deed::Jump);
        let years = SignedDuration::from_hours(24 * 365 * 10);
        let off = match way {
            ClockWay::Storms => SignedDuration::from_secs(self.rng.below(3) as i64 - 1),
            _ if self.rng.chance(60) => SignedDuration::ZERO,
            _ => *self.rng.pick(&[
                years,
                -years,
                SignedDuration::from_hours(1),
                -SignedDuration::from_hours(1),
                SignedDuration::from_secs(200),
            ]),
        };
        let mut inner = self.scene.lock();
        inner.off = off;
        inner.note(|| format!("the wall clock is off by {off:?}"));
    }

    fn others(&mut self) {
        let after = self.part(self.shortest() / 4);
        self.plan(secs(60) + after, Deed::Others);
        let environment = *self.rng.pick(&Environment::ALL);
        match self.rng.below(10) {
            0..=4 => {
                let first = self.policies.credentials.keys().next().unwrap();
                let called = [format!("kw-ffffffff-{first}-2-1"), "batch job".to_owned(), format!("kw-{first}")];
                let called = self.rng.pick(&called).clone();
                self.enrol_other(environment, &called);
            }
            5..=8 => {
                if let Some(key) = self.foreign.pop() {
                    self.scene.lock().model.outside.insert(key.clone());
                    self.scene.issuer.kill(&key);
                }
            }
            _ if self.rng.chance(30) && !self.calm => self.kill_current(),
            _ => {}
        }
    }

    /// Somebody revokes our current key in the dashboard.
    fn kill_current(&mut self) {
        let names: Vec<Name> = self.policies.credentials.keys().cloned().collect();
        let name = self.rng.pick(&names).clone();
        let Some(key) = self.scene.lock().model.known[&name].current_key().cloned() else { return };
        self.scene.lock().model.outside.insert(key.clone());
        self.scene.note(|| format!("{key} is revoked outside"));
        self.scene.issuer.kill(&key);
    }

    /// The rough part is over: nothing fails any more, and whoever was stuck goes on.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.put_all_back();
        {
            let mut inner = self.scene.lock();
            inner.rates = [0; 4];
            inner.away = [Duration::ZERO; 4];
            inner.off = SignedDuration::ZERO;
            inner.note(|| "calm".to_owned());
        }
        self.scene.issuer.behave(|behaviour| {
            (behaviour.stillborn, behaviour.slots, behaviour.flapping) = (false, None, false);
            (behaviour.propagation, behaviour.revocation_lag) = (secs(5), Duration::ZERO);
        });
        self.plan(secs(60), Deed::Round);
        self.start();
        self.unpause_all();
        while !self.deposed.is_empty() && self.leader.is_some() {
            self.resume();
        }
        for index in 0..self.apps.len() {
            self.apps[index].waits = false;
            self.plan_connect(secs(5), index);
            self.plan(secs(20), Deed::Confirm(index));
        }
    }
}
