//! What native readers have, and whose it is. Vault doesn't say who wrote a version: ours are known by their numbers, which the record
//! holds. What has another number is somebody else's, unless it is the same value again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use super::kv::Found;
use super::record::{Place, Record};
use super::session::Turn;
use super::wire::Refusal;
use super::{BUSY, Loaded, TRIES_MAX, VaultStore, material_of};
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::Material;
use crate::stores::{Mark, Native, Slot, StoreError};

/// How many places are looked at at once.
const MARKS_AT_ONCE: usize = 8;
/// How long a place that couldn't be looked at waits for another look.
const MARK_AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// Of the time at which Vault made a version, so many characters are in a foreign version's name.
const CREATED_MAX: usize = 32;

/// In the name of a value that was removed, in place of a time: who replaces it takes nothing away.
const GONE: &str = "gone";

/// Whose value native readers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// Nothing was promoted there, or it was cleared.
    Nobody,
    /// Somebody else removed what was there, in a place of ours.
    Gone(VersionId),
    /// That of the record's current version.
    Ours(VersionId),
    /// Somebody else's, by the name that we give it.
    Foreign(VersionId),
}

/// The record, and what native readers have by it.
pub(super) struct Sight {
    pub(super) loaded: Loaded,
    pub(super) whose: Whose,
    /// Where they have it.
    pub(super) place: Place,
    pub(super) data: Option<Value>,
    /// The newest version at the address as the documents say it now: what a promotion compares with.
    pub(super) newest: u64,
    /// The record says so itself: nobody wrote since.
    pub(super) is_noted: bool,
}

impl Sight {
    /// What they have, or had, by its name, whether or not the place is ours.
    pub(super) fn there(&self) -> Option<&VersionId> {
        match &self.whose {
            Whose::Nobody => None,
            Whose::Gone(version) | Whose::Ours(version) | Whose::Foreign(version) => Some(version),
        }
    }

    /// Somebody put it there who knows nothing of us.
    pub(super) fn is_theirs(&self) -> bool {
        matches!(self.whose, Whose::Foreign(_)) && !self.loaded.record.manages(&self.place.path)
    }

    pub(super) fn served(&self) -> Option<Material> {
        self.data.as_ref().and_then(material_of)
    }
}

impl VaultStore {
    /// The record without an open intent, and what native readers have.
    pub(super) async fn look(&self, slot: &Slot) -> Result<Sight, StoreError> {
        for _ in 0..TRIES_MAX {
            let loaded = self.settled(slot).await?;
            let sight = self.sight(slot, loaded).await?;
            // A promotion between the two reads isn't somebody else's write.
            if sight.is_noted || self.load(slot).await?.number == sight.loaded.number {
                return Ok(sight);
            }
        }
        Err(BUSY)
    }

    /// What native readers have, by a record without an open intent. Where that isn't noted, the record may have changed meanwhile.
    pub(super) async fn sight(&self, slot: &Slot, loaded: Loaded) -> Result<Sight, StoreError> {
        let mut path = self.paths(slot).native;
        let mut found = self.kv().read(&path).await.map_err(Refusal::into_store_error)?;
        let newest = found.number;
        let current = loaded.record.current();
        if let Some(elsewhere) = current.as_ref().and_then(|current| loaded.record.native_place(current)).filter(|place| place.path != path)
        {
            // The path was edited: until the next promotion they find the version where it was.
            let is_old = loaded.record.has_place(&Place { path: path.clone(), number: found.number });
            if found.data.is_none() || is_old {
                path.clone_from(&elsewhere.path);
                found = self.kv().read(&path).await.map_err(Refusal::into_store_error)?;
            }
        }
        let place = Place { path, number: found.number };
        let whose = self.whose(slot, &loaded.record, &place, &found).await?;
        let is_noted = match &whose {
            Whose::Nobody => true,
            Whose::Ours(version) => loaded.record.is_at(version, &place, &found.created),
            Whose::Gone(_) | Whose::Foreign(_) => false,
        };
        Ok(Sight { loaded, whose, place, data: found.data, newest, is_noted })
    }

    pub(super) async fn whose(&self, slot: &Slot, record: &Record, place: &Place, found: &Found) -> Result<Whose, StoreError> {
        let unnamed = StoreError::Unavailable("it names no time of a version");
        let Some(data) = &found.data else {
            let is_nobodys = !record.manages(&place.path);
            return if is_nobodys { Ok(Whose::Nobody) } else { foreign(place.number, GONE).map(Whose::Gone).ok_or(unnamed) };
        };
        if let Some(current) = record.current() {
            let is_ours = record.is_at(&current, place, &found.created) || self.is_value_of(slot, &current, data).await?;
            if is_ours {
                return Ok(Whose::Ours(current));
            }
        }
        foreign(place.number, &found.created).map(Whose::Foreign).ok_or(unnamed)
    }

    /// Whether native readers would find just this where the version was promoted.
    pub(super) async fn is_value_of(&self, slot: &Slot, version: &VersionId, data: &Value) -> Result<bool, StoreError> {
        let kept = self.kept(slot, version, false).await?;
        Ok(kept.zip(material_of(data)).is_some_and(|(kept, there)| kept.served.same_as(&there)))
    }

    pub(super) async fn native_of(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        let sight = self.look(slot).await?;
        let Some(version) = sight.there().filter(|_| sight.data.is_some()).cloned() else { return Ok(None) };
        Ok(Some(Native { version, served: sight.served(), is_managed: !sight.is_theirs() }))
    }

    pub(super) async fn adopt_there(&self, slot: &Slot) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            let sight = self.look(slot).await?;
            if !sight.is_theirs() {
                return Ok(());
            }
            let Loaded { mut record, number } = sight.loaded;
            record.adopted = Some(sight.place.path);
            if self.save(self.kv(), slot, record, number).await.map_err(Refusal::into_store_error)?.is_some() {
                return Ok(());
            }
        }
        Err(BUSY)
    }

    pub(super) async fn marks_of(&self, slots: &[Slot]) -> Result<BTreeMap<Name, Mark>, StoreError> {
        let looks: Vec<_> = slots.iter().map(|slot| self.clone().mark(slot.credential.clone(), self.paths(slot).native)).collect();
        let marks = futures_util::stream::iter(looks).buffer_unordered(MARKS_AT_ONCE);
        marks.try_filter_map(|mark| std::future::ready(Ok(mark))).try_collect().await
    }

    async fn mark(self, credential: Name, path: String) -> Result<Option<(Name, Mark)>, StoreError> {
        let mut standing = self.kv_in(Turn::Aside).standing(&path).await;
        // Among thousands one that fails is usual: it mustn't cost what all others said.
        for wait in MARK_AGAIN {
            if !matches!(standing, Err(Refusal::Away(_))) {
                break;
            }
            tokio::time::sleep(wait).await;
            standing = self.kv_in(Turn::Aside).standing(&path).await;
        }
        let standing = standing.map_err(|refusal| match refusal {
            // It answers, so it isn't away: no reason to serve what is kept here.
            Refusal::Denied => StoreError::Refused {
                credential: credential.clone(),
                reason: "what others change there isn't seen: our policy in Vault lacks `read` on the metadata of its path",
            },
            other => other.into_store_error(),
        })?;
        Ok(standing.map(|made| (credential, Mark(format!("{}-{}", made.number, made.created)))))
    }
}

/// A name that no other value at this path has: a path that was wiped counts from 1 again, but not from the same time. `None` for an
/// answer that isn't Vault's.
fn foreign(number: u64, created: &str) -> Option<VersionId> {
    let time: String =
        created.chars().filter(char::is_ascii_alphanumeric).map(|char| char.to_ascii_lowercase()).take(CREATED_MAX).collect();
    format!("foreign-{number}-{time}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_of_others_never_have_one_name() {
        let name = |number, created| foreign(number, created).unwrap();
        let first = name(3, "2026-01-05T09:00:00.123456789Z");
        assert_eq!(first.as_str(), "foreign-3-20260105t090000123456789z");
        assert_ne!(first, name(3, "2026-01-05T09:00:00.123456780Z"));
        assert_ne!(first, name(4, "2026-01-05T09:00:00.123456789Z"));
        let longest = name(u64::MAX, &"2026-01-05T09:00:00.123456789+00:00".repeat(4));
        assert!(longest.as_str().len() <= 63);
        assert_eq!(foreign(1, ""), None);
    }
}
