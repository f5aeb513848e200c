//! What a restore from a backup makes true: the installation is another one, and knows what it knew then. The world goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keywright::domain::ids::{InstallationId, KeyId, Name, VersionId};
use keywright::domain::rotation::Event;

use super::{CopyId, Known, Model};

/// What the model knew when the backup was made.
#[derive(Debug, Clone)]
pub struct Backup {
    known: BTreeMap<Name, Known>,
    held: BTreeMap<CopyId, BTreeSet<VersionId>>,
    all_paused: bool,
}

impl Model {
    pub fn back_up(&self, at: Duration) -> Backup {
        // Who was released, or away for its lease, is nobody that a backup remembers.
        let present = self.copies.iter().filter(|(_, copy)| !copy.forgotten(at));
        let held = present.map(|(id, copy)| (id.clone(), copy.held.clone())).collect();
        Backup { known: self.known.clone(), held, all_paused: self.all_paused }
    }

    /// What was revoked stays so, who was served something since has it, and nobody here knows of that.
    pub fn come_back(&mut self, backup: &Backup, installation: InstallationId) {
        self.former.push(self.installation);
        self.installation = installation;
        self.deeds.restored += 1;
        self.all_paused = backup.all_paused;
        self.known = backup.known.clone();
        for known in self.known.values_mut().filter(|known| !known.events.is_empty()) {
            known.events.push(Event::Restored);
            known.unverified = known.current.is_some();
            known.refused_told = false;
            known.verified_long_ago = true;
            known.hasten();
        }
        for (id, copy) in &mut self.copies {
            copy.newest = None;
            copy.held = backup.held.get(id).cloned().unwrap_or_default();
            // The record of what it holds is lost: nothing can know that a key dies under it.
            copy.excused.extend(copy.uses.iter().filter(|(version, _)| !copy.held.contains(version)).map(|(_, key)| key.clone()));
        }
    }

    /// A key that bears the marker of what this installation was, and that the backup knows: it is ours still. One that the backup
    /// doesn't know may be in use, and isn't ours to revoke.
    pub fn was_ours(&self, text: &str, key: &KeyId, name: &Name) -> bool {
        let known = &self.known[name];
        let in_backup = known.orphans.contains(key) || known.versions.values().any(|version| version.key == *key);
        in_backup && self.former.iter().any(|former| self.marked_by(*former, text) == Some(name))
    }
}
