//! Promoting over two paths: the intent in the record, the native value, the record again. Each step compares, so any number of
//! processes may do each of them, in any order and late.

use super::super::labels::Change;
use super::record::{Place, Promoting};
use super::{BUSY, Loaded, TRIES_MAX, VaultStore, data_of, material_of};
use crate::domain::ids::VersionId;
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
            let Loaded { mut record, number } = self.settled(slot).await?;
            match record.labels.clone().promote(&slot.credential, version, replacing)? {
                Change::Nothing => return Ok(()),
                Change::Write => {}
            }
            let path = self.paths(slot).native;
            let before = self.kv().read(&path).await.map_err(Refusal::into_store_error)?.number;
            let place = Place { path, number: before + 1 };
            record.promoting = Some(Promoting { version: version.clone(), replacing: replacing.cloned(), place });
            // A lost reply is a promotion that was begun: the next look completes it.
            if let Some(begun) = self.save(slot, record, number).await.map_err(Refusal::into_unavailable)?
                && !self.complete(slot, begun).await?
            {
                return Err(StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() });
            }
        }
        Err(BUSY)
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

    /// One attempt to bring an open intent to its end. Who asks looks at the record again. False where the bytes are gone, so that it
    /// can't be promoted any more.
    async fn complete(&self, slot: &Slot, loaded: Loaded) -> Result<bool, StoreError> {
        let unavailable = Refusal::into_unavailable;
        let Loaded { mut record, number } = loaded;
        let Some(Promoting { version, replacing, place }) = record.promoting.take() else { return Ok(true) };
        let Some(kept) = self.kept(slot, &version, false).await.map_err(begun)? else {
            self.save(slot, record, number).await.map_err(unavailable)?;
            return Ok(false);
        };
        let data = data_of(&kept.served).ok_or(StoreError::Unavailable("a value isn't text"))?;
        let landed = match self.kv().write(&place.path, data, place.number.saturating_sub(1)).await {
            Ok(_) => true,
            Err(Refusal::Rejected) => {
                let there = self.kv().read_number(&place.path, place.number).await.map_err(unavailable)?;
                there.data.and_then(|data| material_of(&data)).is_some_and(|there| there.same_as(&kept.served))
            }
            Err(refusal) => return Err(unavailable(refusal)),
        };
        if landed {
            if record.labels.promote(&slot.credential, &version, replacing.as_ref()).is_ok() {
                // Whatever was to be written there: this version was.
                record.traces.values_mut().for_each(|trace| trace.native.retain(|other| *other != place));
                record.traces.entry(version).or_default().native.push(place);
            }
        } else {
            // Somebody else wrote there meanwhile: behind that, then.
            let newest = self.kv().read(&place.path).await.map_err(unavailable)?.number;
            record.promoting = Some(Promoting { version, replacing, place: Place { number: newest + 1, ..place } });
        }
        self.save(slot, record, number).await.map(|_| true).map_err(unavailable)
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

    /// Takes an intent back. The write that may still be under way compares with the number that native readers have now, so what
    /// they have is written once more: then it comes too late.
    async fn withdraw(&self, slot: &Slot, loaded: Loaded) -> Result<(), StoreError> {
        let unavailable = Refusal::into_unavailable;
        let Some(open) = loaded.record.promoting.clone() else { return Ok(()) };
        let there = self.kv().read(&open.place.path).await.map_err(unavailable)?;
        if there.number >= open.place.number {
            let ours = self.kept(slot, &open.version, false).await.map_err(begun)?;
            let at_its_place = self.kv().read_number(&open.place.path, open.place.number).await.map_err(unavailable)?.data;
            let landed =
                at_its_place.and_then(|data| material_of(&data)).zip(ours).is_some_and(|(there, ours)| there.same_as(&ours.served));
            if landed {
                return self.complete(slot, loaded).await.map(drop);
            }
        }
        let Loaded { mut record, number } = loaded;
        let current = record.labels.stages().current;
        let again = there.data.filter(|_| there.number + 1 == open.place.number);
        if let Some((data, current)) = again.zip(current) {
            // Said before it is done, so that the bytes are found again when they are to be destroyed.
            record.traces.entry(current).or_default().native.push(open.place.clone());
            let Some(said) = self.save(slot, record, number).await.map_err(unavailable)? else { return Ok(()) };
            return match self.kv().write(&open.place.path, data, there.number).await {
                Ok(_) => self.drop_intent(slot, said).await,
                Err(Refusal::Rejected) => Ok(()),
                Err(refusal) => Err(unavailable(refusal)),
            };
        }
        // Native readers have nothing here that could be written once more.
        self.drop_intent(slot, Loaded { record, number }).await
    }

    async fn drop_intent(&self, slot: &Slot, Loaded { mut record, number }: Loaded) -> Result<(), StoreError> {
        record.promoting = None;
        self.save(slot, record, number).await.map(drop).map_err(Refusal::into_unavailable)
    }
}

/// After the intent nothing is "not sent" any more.
fn begun(error: StoreError) -> StoreError {
    match error {
        StoreError::Throttled { .. } => Refusal::Throttled(std::time::Duration::ZERO).into_unavailable(),
        other => other,
    }
}
