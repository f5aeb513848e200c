//! Others who write into the store: a good key, the same value again, and one that belongs elsewhere, which somebody puts right later.

use keywright::domain::credential::Environment;
use keywright::domain::ids::{Name, VersionId};
use keywright::stores::{FOREIGN, SecretStore as _, Slot};

use super::deeds::Deed;
use super::life::{Life, now};
use super::setting::secs;

impl Life {
    /// The engine asks the store for its marks, as the daemon has it do.
    pub fn look(&mut self) {
        let wait = self.call(async |engine| engine.look_for_changes().await).flatten();
        let after = wait.unwrap_or_else(|| self.patience());
        self.plan(after, Deed::Look);
    }

    pub fn write(&mut self) {
        let after = secs(60) + self.part(self.shortest() / 2);
        self.plan(after, Deed::Write);
        let names: Vec<Name> = self.policies.credentials.keys().cloned().collect();
        let name = self.rng.pick(&names).clone();
        let slot = self.slot(&name);
        let Some(current) = now(self.store.stages(&slot)).unwrap().current else { return };
        if current.as_str().starts_with(FOREIGN) {
            // What came back with a backup, or was written when nobody was there to put it right.
            return self.put_back(&name, &current);
        }
        // A promotion that nobody lived to journal is finished first: written over, it is given up, and nobody was told of it.
        let is_ours = {
            let inner = self.scene.lock();
            let known = &inner.model.known[&name];
            known.current.as_ref() == Some(&current) && known.told == known.current
        };
        if self.calm || !is_ours {
            return;
        }
        let material = match self.rng.below(4) {
            0 => now(self.store.read(&slot, &current)).unwrap().served,
            1 => {
                let elsewhere = Environment::ALL.into_iter().find(|other| *other != slot.environment).unwrap();
                self.enrol_other(elsewhere, "written in the wrong place")
            }
            _ => {
                let (key, material) = self.scene.issuer.enrol(slot.environment, "written by hand");
                self.scene.lock().model.by_hand.insert(key, Some(name.clone()));
                material
            }
        };
        self.store.write_natively(&name, slot.environment, Some(material));
        self.scene.lock().model.written += 1;
        let written = now(self.store.stages(&slot)).unwrap().current;
        self.scene.note(|| format!("{name}: somebody makes {written:?} current"));
        // Whoever did it finds out that it was wrong, or that nobody took it up.
        if let Some(written) = written {
            let after = secs(120) + self.part(self.shortest() / 2);
            self.plan(after, Deed::PutBack(name, written));
        }
    }

    /// Whoever wrote something wrong has put it right by the time that it is to be quiet.
    pub fn put_all_back(&mut self) {
        for name in self.policies.credentials.keys().cloned().collect::<Vec<_>>() {
            let current = now(self.store.stages(&self.slot(&name))).unwrap().current;
            if let Some(current) = current.filter(|current| current.as_str().starts_with(FOREIGN)) {
                self.put_back(&name, &current);
            }
        }
    }

    /// The label goes back to where the journal has it, unless what was written was taken up.
    pub fn put_back(&mut self, name: &Name, written: &VersionId) {
        let slot = self.slot(name);
        if now(self.store.stages(&slot)).unwrap().current.as_ref() != Some(written) {
            return;
        }
        let ours = self.scene.lock().model.known[name].current.clone();
        self.scene.note(|| format!("{name}: somebody puts {ours:?} back"));
        self.store.relabel(name, slot.environment, ours);
    }

    pub fn slot(&self, name: &Name) -> Slot {
        Slot { credential: name.clone(), environment: self.policies.credentials[name].environment, path: name.to_string() }
    }
}
