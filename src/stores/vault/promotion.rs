//! Promoting over two paths: the intent in the record, the native value, the record again. Each step compares, so any number of
//! processes may do each of them, in any order and late. What somebody else writes in between stays: then the intent is taken back.

use super::super::labels::Change;
use super::kv::Found;
use super::native::{Sight, Whose};
use super::record::{Place, Promoting, Record};
use super::{BUSY, Loaded, TRIES_MAX, VaultStore, data_of, material_of};
use crate::domain::ids::VersionId;
use crate::domain::material::Material;
use crate::stores::vault::wire::Refusal;
use crate::stores::{Slot, StoreError};

impl VaultStore {
    pub(super) async fn promote_by_record(
        &self,
        slot: &Slot,
        version: &VersionId,
        replacing: Option<&VersionId>,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            let sight = self.look(slot).await?;
            let mut there = sight.loaded.record.labels.clone();
            // Who wants to be the first finds nothing where something was removed.
            let is_first = replacing.is_none() && matches!(sight.whose, Whose::Gone(_));
            there.relabel(sight.there().filter(|_| !is_first).cloned());
            match there.promote(&slot.credential, version, replacing)? {
                Change::Nothing => return Ok(()),
                Change::Write if sight.is_theirs() => {
                    return Err(StoreError::CurrentChanged { credential: slot.credential.clone(), version: version.clone() });
                }
                Change::Write => {}
            }
            let (record, number) = self.intend(slot, sight, version).await?;
            // A lost reply is a promotion that was begun: the next look completes it.
            if let Some(begun) = self.save(self.kv(), slot, record, number).await.map_err(Refusal::into_store_error)?
                && !self.complete(slot, begun).await?
            {
                return Err(StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() });
            }
        }
        Err(BUSY)
    }

    /// The record with the intent to replace just what was seen.
    async fn intend(&self, slot: &Slot, sight: Sight, version: &VersionId) -> Result<(Record, u64), StoreError> {
        let path = self.paths(slot).native;
        let repeats = match (&sight.whose, &sight.data) {
            (Whose::Foreign(_), Some(data)) if sight.place.path == path => self.is_value_of(slot, version, data).await?,
            _ => false,
        };
        let Loaded { mut record, number } = sight.loaded;
        if let Whose::Ours(current) = &sight.whose
            && !sight.is_noted
        {
            // Somebody wrote our value again: those bytes are to go with the version.
            record.note(current, sight.place, String::new());
        }
        let place = Place { path, number: sight.newest + 1 };
        record.promoting = Some(Promoting { version: version.clone(), replacing: record.current(), place, repeats });
        Ok((record, number))
    }

    /// The record, without an open intent.
    pub(super) async fn settled(&self, slot: &Slot) -> Result<Loaded, StoreError> {
        for _ in 0..TRIES_MAX {
            let loaded = self.load(slot).await?;
            if loaded.record.promoting.is_none() {
                return Ok(loaded);
            }
            self.complete(slot, loaded).await?;
        }
        Err(BUSY)
    }

    /// One attempt to bring an open intent to its end: done, or taken back where somebody else wrote there meanwhile. Who asks looks at
    /// the record again. False where the bytes are gone, so that it can't be promoted any more.
    async fn complete(&self, slot: &Slot, loaded: Loaded) -> Result<bool, StoreError> {
        let unavailable = Refusal::into_unavailable;
        let Some(Promoting { version, replacing, place, repeats }) = loaded.record.promoting.clone() else { return Ok(true) };
        let Some(kept) = self.kept(slot, &version, false).await.map_err(begun)? else {
            self.take_back(slot, loaded, &Found::default()).await?;
            return Ok(false);
        };
        let data = data_of(&kept.served).ok_or(StoreError::Unavailable("a value isn't text"))?;
        let created = match self.kv_further().write(&place.path, data, place.number.saturating_sub(1)).await {
            Ok(made) => made.created,
            Err(Refusal::Rejected) => {
                let there = self.kv().read_number(&place.path, place.number).await.map_err(unavailable)?;
                if !is_there(&there, &kept.served) {
                    self.take_back(slot, loaded, &there).await?;
                    return Ok(true);
                }
                there.created
            }
            Err(refusal) => return Err(unavailable(refusal)),
        };
        let Loaded { mut record, number } = loaded;
        record.promoting = None;
        if record.labels.promote(&slot.credential, &version, replacing.as_ref()).is_ok() {
            if repeats {
                let before = Place { number: place.number.saturating_sub(1), ..place.clone() };
                record.note(&version, before, String::new());
            }
            record.note(&version, place, created);
        }
        self.save(self.kv_further(), slot, record, number).await.map(|_| true).map_err(unavailable)
    }

    /// The record without an open intent: one that is to be forgotten is made impossible, any other is completed. `None`: look again.
    pub(super) async fn without_promoting(
        &self,
        slot: &Slot,
        is_unwanted: impl Fn(&VersionId) -> bool,
    ) -> Result<Option<Loaded>, StoreError> {
        let loaded = self.load(slot).await?;
        match &loaded.record.promoting {
            None => return Ok(Some(loaded)),
            Some(open) if is_unwanted(&open.version) => self.withdraw(slot, loaded).await?,
            Some(_) => drop(self.complete(slot, loaded).await?),
        }
        Ok(None)
    }

    /// Takes an intent back, unless it was done. The write that may still be under way compares with the number that native readers have
    /// now, so what they have is written once more: then it comes too late.
    async fn withdraw(&self, slot: &Slot, loaded: Loaded) -> Result<(), StoreError> {
        let unavailable = Refusal::into_unavailable;
        let Some(open) = loaded.record.promoting.clone() else { return Ok(()) };
        let there = self.kv().read(&open.place.path).await.map_err(unavailable)?;
        let wanted = self.kept(slot, &open.version, false).await.map_err(begun)?;
        let is_wanted = |found: &Found| wanted.as_ref().is_some_and(|wanted| is_there(found, &wanted.served));
        if there.number >= open.place.number {
            let at_its_place = self.kv().read_number(&open.place.path, open.place.number).await.map_err(unavailable)?;
            if is_wanted(&at_its_place) {
                return self.complete(slot, loaded).await.map(drop);
            }
            return self.take_back(slot, loaded, &at_its_place).await;
        }
        // Nothing that could be written once more, or what would be written late is there already.
        if there.data.is_none() || there.number + 1 != open.place.number || is_wanted(&there) {
            return self.take_back(slot, loaded, &Found::default()).await;
        }
        self.write_once_more(slot, loaded, open.place, there).await
    }

    async fn write_once_more(&self, slot: &Slot, loaded: Loaded, place: Place, there: Found) -> Result<(), StoreError> {
        let unavailable = Refusal::into_unavailable;
        let before = Place { number: there.number, ..place.clone() };
        let whose = self.whose(slot, &loaded.record, &before, &there).await.map_err(begun)?;
        let Loaded { mut record, number } = loaded;
        let said = if let Whose::Ours(current) = whose {
            // Said before it is done, so that the bytes are found again when they are to be destroyed.
            record.note(&current, place.clone(), String::new());
            let Some(said) = self.save(self.kv_further(), slot, record, number).await.map_err(unavailable)? else { return Ok(()) };
            said
        } else {
            Loaded { record, number }
        };
        let Some(data) = there.data else { return Ok(()) };
        let made = match self.kv_further().write(&place.path, data.clone(), there.number).await {
            Ok(made) => made,
            // Who was faster is seen at the next look.
            Err(Refusal::Rejected) => return Ok(()),
            Err(refusal) => return Err(unavailable(refusal)),
        };
        // A foreign value has another name now: whoever took the one before up looks again.
        self.take_back(slot, said, &Found { number: made.number, created: made.created, data: Some(data) }).await
    }

    /// The intent goes. `at_its_place`: what lies where it was to be written.
    async fn take_back(&self, slot: &Slot, loaded: Loaded, at_its_place: &Found) -> Result<(), StoreError> {
        let Loaded { mut record, number } = loaded;
        let Some(Promoting { place, .. }) = record.promoting.take() else { return Ok(()) };
        // It was said that what is current would be written there once more: it was, or somebody else wrote there.
        if let Some(current) = record.current().filter(|current| record.native_place(current) == Some(&place)) {
            let is_ours = match &at_its_place.data {
                Some(data) => self.is_value_of(slot, &current, data).await.map_err(begun)?,
                None => false,
            };
            record.unnote(&place);
            if is_ours {
                record.note(&current, place, at_its_place.created.clone());
            }
        }
        self.save(self.kv_further(), slot, record, number).await.map(drop).map_err(Refusal::into_unavailable)
    }
}

fn is_there(found: &Found, served: &Material) -> bool {
    found.data.as_ref().and_then(material_of).is_some_and(|there| there.same_as(served))
}

/// After the intent nothing is "not sent" any more.
fn begun(error: StoreError) -> StoreError {
    match error {
        StoreError::Throttled { .. } => Refusal::Throttled(std::time::Duration::ZERO).into_unavailable(),
        other => other,
    }
}
