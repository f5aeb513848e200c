//! The writes that a call to the store is made of. Each can be the last one before a crash: what is left then is finished by the
//! same call, said again.

use super::calls::{Refusal, Write};
use super::secret::{
    CLEARED, CURRENT, PENDING, PREVIOUS, Pair, Part, Secret, Standing, management_label, served_label, serves, token, was_current_label,
};
use super::{AwsStore, owner};
use crate::domain::ids::VersionId;
use crate::domain::material;
use crate::stores::{Slot, StoreError};

/// What is current in the secret apart, for ever: AWS keeps something current in each, and it shall be no part of any version.
const NOTE: &str = "Keywright keeps parts of a credential here that no application reads.";

impl AwsStore {
    pub(super) async fn prepare_apart(&self, slot: &Slot, standing: Standing) -> Result<(), StoreError> {
        let apart = self.apart_name(slot);
        match standing {
            Standing::Live => Ok(()),
            Standing::Deleted => Ok(self.calls.restore(&apart).await?),
            Standing::Absent => {
                let note = material::Secret::from(NOTE.to_owned());
                match self.calls.create(&apart, owner(slot), &note_token(), &note).await {
                    Err(Refusal::Exists) | Ok(()) => Ok(()),
                    Err(refusal) => Err(refusal.into()),
                }
            }
        }
    }

    pub(super) async fn put_management(&self, slot: &Slot, version: &VersionId, bytes: &material::Secret) -> Result<(), Refusal> {
        let (token, labels) = (token(Part::Management, version), vec![management_label(version)]);
        self.calls.put(Write { secret: &self.apart_name(slot), token, bytes, labels }).await
    }

    pub(super) async fn put_served(
        &self,
        secret: &str,
        version: &VersionId,
        bytes: &material::Secret,
        has_management: bool,
        is_pending: bool,
    ) -> Result<(), Refusal> {
        let mut labels = vec![served_label(version, has_management)];
        labels.extend(is_pending.then(|| PENDING.to_owned()));
        self.calls.put(Write { secret, token: token(Part::Served, version), bytes, labels }).await
    }

    /// The bytes of a version that is kept apart.
    async fn kept_apart(&self, slot: &Slot, version: &VersionId) -> Result<material::Secret, StoreError> {
        let value = self.calls.get(&self.apart_name(slot), &token(Part::Served, version)).await?;
        let kept = value.filter(|value| serves(&value.labels, version).is_some());
        kept.map(|value| value.bytes).ok_or_else(|| StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() })
    }

    /// The first promotion makes the native secret, with this version as its first and current one. Whoever comes second is refused.
    pub(super) async fn make_native(&self, slot: &Slot, version: &VersionId, has_management: bool) -> Result<bool, StoreError> {
        let (secret, id, bytes) = (self.native_name(slot), token(Part::Served, version), self.kept_apart(slot, version).await?);
        if !was_done(self.calls.create(&secret, owner(slot), &id, &bytes).await)? {
            return Ok(false);
        }
        self.calls.move_label(&secret, &served_label(version, has_management), None, Some(&id)).await?;
        Ok(true)
    }

    /// The same where an empty secret with our tags was made beforehand. AWS has nothing here that could be compared.
    pub(super) async fn fill_native(&self, slot: &Slot, version: &VersionId, has_management: bool) -> Result<bool, StoreError> {
        let bytes = self.kept_apart(slot, version).await?;
        let labels = vec![CURRENT.to_owned(), served_label(version, has_management)];
        was_done(
            self.calls.put(Write { secret: &self.native_name(slot), token: token(Part::Served, version), bytes: &bytes, labels }).await,
        )
    }

    /// Moves AWSCURRENT from where it was seen.
    pub(super) async fn move_current(
        &self,
        slot: &Slot,
        version: &VersionId,
        has_management: bool,
        native: &Secret,
    ) -> Result<bool, StoreError> {
        let secret = self.native_name(slot);
        let bytes = if native.serves(version).is_none() { Some(self.kept_apart(slot, version).await?) } else { None };
        if native.standing == Standing::Deleted {
            self.calls.restore(&secret).await?;
        }
        if let Some(bytes) = bytes {
            self.put_served(&secret, version, &bytes, has_management, false).await?;
        }
        // AWSPREVIOUS is about to leave this one, and with it what says that it was current.
        if let Some(id) = native.holder(PREVIOUS)
            && let Some(previous) = native.name_of(id)
        {
            let mark = was_current_label(&previous);
            if native.holder(&mark).is_none() {
                self.calls.move_label(&secret, &mark, None, Some(id)).await?;
            }
        }
        was_done(self.calls.move_label(&secret, CURRENT, native.holder(CURRENT), Some(&token(Part::Served, version))).await)
    }

    /// What follows a promotion; `before` is what was seen before it, or after it when the call is said again.
    pub(super) async fn settle(&self, slot: &Slot, version: &VersionId, before: &Pair) -> Result<(), StoreError> {
        let (secret, id) = (self.native_name(slot), token(Part::Served, version));
        if before.native.holder(PENDING) == Some(id.as_str()) {
            self.calls.take_label(&secret, PENDING, &id).await?;
        }
        if !before.apart.is_live() || before.apart.names().is_empty() {
            return Ok(());
        }
        // Made by a process that didn't live to name it.
        if let Some(has_management) = before.apart.serves(version)
            && before.native.holder(CURRENT) == Some(id.as_str())
            && before.native.serves(version).is_none()
        {
            self.calls.move_label(&secret, &served_label(version, has_management), None, Some(&id)).await?;
        }
        // From now on pending versions lie beside the current one: others that came before it follow.
        let pending = before.apart.named_holder(PENDING);
        for other in before.apart.names().iter().filter(|other| *other != version) {
            let has_management = before.apart.serves(other).unwrap_or_default();
            let bytes = self.kept_apart(slot, other).await?;
            match self.put_served(&secret, other, &bytes, has_management, pending.as_ref() == Some(other)).await {
                Ok(()) | Err(Refusal::Exists) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        for name in before.apart.names() {
            self.strip(&self.apart_name(slot), &before.apart, &token(Part::Served, &name)).await?;
        }
        self.remove_what_is_empty(slot).await
    }

    /// Before anything of them is taken away, so that a late write finds it said.
    pub(super) async fn remember(&self, slot: &Slot, pair: &Pair, versions: impl Iterator<Item = &VersionId>) -> Result<(), StoreError> {
        let (secret, described) =
            if pair.native.is_live() { (self.native_name(slot), &pair.native) } else { (self.apart_name(slot), &pair.apart) };
        if !described.is_live() {
            return Ok(());
        }
        let Some(forgotten) = described.remembering(versions) else { return Ok(()) };
        Ok(self.calls.remember(&secret, &forgotten).await?)
    }

    /// Takes all labels from both parts of a version, wherever they lie.
    pub(super) async fn take_labels(&self, slot: &Slot, pair: &Pair, version: &VersionId) -> Result<(), StoreError> {
        if pair.native.is_live() {
            self.strip(&self.native_name(slot), &pair.native, &token(Part::Served, version)).await?;
        }
        if pair.apart.is_live() {
            for part in [Part::Served, Part::Management] {
                self.strip(&self.apart_name(slot), &pair.apart, &token(part, version)).await?;
            }
        }
        Ok(())
    }

    /// Ours first: nobody reads the version from then on. AWSCURRENT can't be taken away.
    async fn strip(&self, secret: &str, described: &Secret, id: &str) -> Result<(), StoreError> {
        let labels = described.labels_of(id).into_iter().flatten().filter(|label| !matches!(label.as_str(), CURRENT | CLEARED));
        let (of_aws, ours): (Vec<_>, Vec<_>) = labels.partition(|label| label.starts_with("AWS"));
        for label in ours.into_iter().chain(of_aws) {
            self.calls.take_label(secret, label, id).await?;
        }
        Ok(())
    }

    /// Says that what is current was cleared, since AWS lets nobody take its label away.
    pub(super) async fn mark_cleared(&self, slot: &Slot, current: &VersionId, native: &Secret) -> Result<(), StoreError> {
        let id = token(Part::Served, current);
        if native.holder(CURRENT) != Some(id.as_str()) {
            return Ok(());
        }
        Ok(self.calls.move_label(&self.native_name(slot), CLEARED, native.holder(CLEARED), Some(&id)).await?)
    }

    /// A secret in which nothing is kept any more is marked for deletion, so that no native reader goes on to find what was current
    /// there.
    pub(super) async fn remove_what_is_empty(&self, slot: &Slot) -> Result<(), StoreError> {
        let pair = self.pair(slot).await?;
        if pair.native.is_cleared() && pair.native.is_live() && !pair.native.keeps_something() {
            self.calls.delete(&self.native_name(slot)).await?;
        }
        if pair.apart.is_live() && !pair.apart.keeps_something() {
            self.calls.delete(&self.apart_name(slot)).await?;
        }
        Ok(())
    }
}

/// Whether it was done, or refused because somebody else was faster.
fn was_done(outcome: Result<(), Refusal>) -> Result<bool, StoreError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Refusal::Exists | Refusal::Conflict | Refusal::Missing) => Ok(false),
        Err(refusal) => Err(refusal.into()),
    }
}

/// No version of ours has this token: names of versions aren't empty.
fn note_token() -> String {
    uuid::Uuid::nil().hyphenated().to_string()
}
