//! Who holds what: told by what was disclosed to each copy of an application, and by what it said.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use keywright::domain::ids::{KeyId, Name, VersionId};
use keywright::domain::policy::Confirmation;

use super::Model;
use crate::scene::Inner;

/// Application, and the name of the copy.
pub type CopyId = (Name, String);

/// What the world knows of one running copy.
#[derive(Debug, Clone)]
pub struct Copy {
    pub credential: Name,
    /// Disclosed, and not yet given up by its own word.
    pub held: BTreeSet<VersionId>,
    pub newest: Option<VersionId>,
    /// What it makes its calls with.
    pub uses: Option<(VersionId, KeyId)>,
    pub streams: bool,
    /// True time of the last sign of life that the newest process got.
    pub sign: Duration,
    pub lease: Option<Duration>,
    /// It has ended: it uses nothing, though nobody may know.
    pub gone: bool,
    /// A person said so.
    pub released: bool,
    /// Keys that may die under it by the policy's leave.
    pub excused: BTreeSet<KeyId>,
}

impl Copy {
    pub fn forgotten(&self, at: Duration) -> bool {
        self.released || (!self.streams && self.lease.is_some_and(|lease| at >= self.sign + lease))
    }
}

impl Inner {
    /// Who keeps this version's key alive, by all that was ever said: unknown use is use (I5).
    pub fn holders(&self, name: &Name, old: &VersionId, observed: bool) -> Vec<(Name, Option<String>)> {
        let known = &self.model.known[name];
        let current = known.current.as_ref();
        let key = known.versions.get(old).map(|version| version.key.clone());
        let carries = |version: &VersionId| known.versions.get(version).map(|version| &version.key) == key.as_ref();
        let mut holders: Vec<(Name, Option<String>)> = Vec::new();
        for ((application, copy), state) in &self.model.copies {
            let blocks = state.credential == *name && state.held.iter().any(carries) && !state.forgotten(self.at);
            // On record it counts as served, whether or not the answer arrived.
            let served =
                current.is_some_and(|current| self.model.records.contains(&format!("disclosed {name} {current} {application}/{copy}")));
            if blocks && !(observed && served) {
                holders.push((application.clone(), Some(copy.clone())));
            }
        }
        if known.versions.get(old).is_some_and(|version| version.submitted) {
            let listed: BTreeSet<&Name> = self.model.listed.get(name).into_iter().flatten().collect();
            holders.extend(
                listed.into_iter().filter(|application| !known.seen.contains(*application)).map(|application| (application.clone(), None)),
            );
        }
        holders
    }

    /// Whose key may die under it, by the policy's leave: nobody counts, it was served the new one and that is enough, or it is named.
    pub fn excuse(&mut self, name: &Name, key: &KeyId, confirmation: Confirmation) {
        let at = self.at;
        let Model { copies, known, records, .. } = &mut self.model;
        let known = &known[name];
        for ((application, copy), state) in copies.iter_mut().filter(|(_, copy)| copy.credential == *name) {
            let served =
                known.current.as_ref().is_some_and(|current| records.contains(&format!("disclosed {name} {current} {application}/{copy}")));
            let leave = match confirmation {
                Confirmation::None => true,
                Confirmation::Observed => served,
                Confirmation::Required => false,
            };
            // Whose lease is over, or was and was struck from the book, loses it, also if it is heard of again before the key is dead.
            let leave = leave || state.forgotten(at) || state.held.is_empty();
            if leave || known.stragglers.contains(&(application.clone(), Some(copy.clone()))) {
                state.excused.insert(key.clone());
            }
        }
    }

    /// A read was answered.
    pub fn disclosed(&mut self, id: &CopyId, name: &Name, version: &VersionId, key: KeyId) {
        let record = format!("disclosed {name} {version} {}/{}", id.0, id.1);
        self.require(self.model.records.contains(&record), "I17", || format!("{name}: {version} is disclosed off the record"));
        let known = &self.model.known[name];
        let (current, own) = (known.current.clone(), known.versions.get(version).map(|version| version.key.clone()));
        let (told, gone, unverified) = (known.told.as_ref() == Some(version), known.clearing, known.unverified);
        let waits = known.due_to(id) == Some(version) || known.was_due(id, version);
        self.require(!unverified, "I10", || format!("{name}: {version} came back from a backup and is served unverified"));
        self.require(!gone, "I4", || format!("{name}: {version} is served and was forgotten"));
        self.served_in_turn(id, name, version);
        self.require(current.as_ref() == Some(version) || told || waits, "I4", || {
            format!("{name}: {version} is served and {current:?} is current")
        });
        self.require(own.as_ref() == Some(&key), "I12", || format!("{name}: {version} is served with another key's bytes"));
        if let Some(known) = self.model.known.get_mut(name) {
            known.seen.insert(id.0.clone());
        }
        let at = self.at;
        let Some(copy) = self.model.copies.get_mut(id) else { return };
        // Released, or away for its lease: what it used until now doesn't count any more, though it may use it still.
        if copy.forgotten(at) {
            copy.held.clear();
            copy.excused.extend(copy.uses.iter().map(|(_, key)| key.clone()));
        }
        copy.held.insert(version.clone());
        copy.newest = Some(version.clone());
        (copy.sign, copy.released) = (at, false);
    }

    /// A key never counts as younger than it is, by whatever way it became current (I12). Where the provider can't list, a
    /// submitted one counts from its submission.
    pub fn of_age(&mut self, name: &Name, version: &VersionId, issued_at: Timestamp) {
        let Some(made) = self.model.known[name].versions.get(version).map(|version| version.made) else { return };
        let fits = issued_at <= made || self.model.blind;
        self.require(fits, "I12", || format!("{name}: {version} counts from {issued_at} and was made at {made}"));
    }

    /// The copy says that it uses this version and nothing older: from here on that counts, acknowledged or not.
    pub fn confirming(&mut self, id: &CopyId, version: &VersionId) {
        if let Some(copy) = self.model.copies.get_mut(id) {
            copy.held.retain(|held| held == version);
        }
    }
}
