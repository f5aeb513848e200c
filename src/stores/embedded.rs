//! The store in the embedded file: stages in clear and authenticated, both parts of a version sealed, each with a data key of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{ReadTransaction, WriteTransaction};
use zeroize::Zeroizing;

use super::labels::{Change, Labels};
use super::{Append, Promoter, Promotion, PromotionError, SecretStore, Slot, Stages, StoreError, VersionBytes};
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::{Material, Secret};
use crate::embedded::Embedded;
use crate::embedded::rows::{At, Broken, MANAGEMENT, Rows, SLOTS, VERSIONS, decode, encode, load};
use crate::journal::embedded::{Change as JournalChange, event_bytes, push};
use crate::journal::{JournalError, Position, SealedCopy};
use crate::sealing::{Context, Keyring, Sealed};

/// The parts of a version, and the table of each.
pub(crate) const PARTS: [(&str, Rows); 2] = [("served", VERSIONS), ("management", MANAGEMENT)];

/// Versions in the embedded file. A slot's path is for native readers, of which this store has none: the credential's name and
/// environment are the address.
#[derive(Debug, Clone)]
pub struct EmbeddedStore {
    pub(super) embedded: Embedded,
    keyring: Arc<Keyring>,
}

/// Where a slot lies.
#[derive(Debug, Clone)]
struct Place {
    credential: Name,
    environment: &'static str,
}

impl EmbeddedStore {
    pub(crate) fn new(embedded: Embedded) -> EmbeddedStore {
        let keyring = embedded.keyring();
        EmbeddedStore { embedded, keyring }
    }

    /// Changes a slot's labels, and the sealed parts of one version with them.
    async fn change(
        &self,
        slot: &Slot,
        version: &VersionId,
        work: impl FnOnce(&mut Labels) -> Result<Change, StoreError> + Send + 'static,
        parts: Parts,
    ) -> Result<(), StoreError> {
        let (place, version) = (Place::of(slot), version.clone());
        let changed = self.embedded.write(move |transaction, keyring| {
            let mut table = transaction.open_table(SLOTS)?;
            let mut labels: Labels = load(keyring, SLOTS, &table, place.row())?.unwrap_or_default();
            match work(&mut labels) {
                Err(refused) => return Ok(Err(refused)),
                Ok(Change::Nothing) => return Ok(Ok(())),
                Ok(Change::Write) => {}
            }
            let row = encode(keyring, SLOTS, place.row(), &labels)?;
            table.insert(place.row(), row.as_slice())?;
            write_parts(transaction, keyring, place.version(&version), &parts)?;
            Ok(Ok(()))
        });
        changed.await.map_err(|broken| store_error(broken, &slot.credential))?
    }
}

/// What becomes of a version's parts.
enum Parts {
    Keep,
    Put([Sealed; 2]),
    Remove,
}

fn write_parts(transaction: &WriteTransaction, keyring: &Keyring, at: At<'_>, parts: &Parts) -> Result<(), Broken> {
    for (index, (_, rows)) in PARTS.iter().enumerate() {
        match parts {
            Parts::Keep => {}
            Parts::Put(sealed) => {
                // A new key may have come since it was sealed: nothing is written under a former one.
                let anew = keyring.renew(&sealed_for(index, at), &sealed[index]);
                let anew = anew.map_err(|_| Broken::Away("the cryptographic library failed"))?;
                transaction.open_table(*rows)?.insert(at, anew.as_ref().unwrap_or(&sealed[index]).0.as_slice())?;
            }
            Parts::Remove => drop(transaction.open_table(*rows)?.remove(at)?),
        }
    }
    Ok(())
}

#[async_trait]
impl SecretStore for EmbeddedStore {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let place = Place::of(slot);
        let labels = self.embedded.read(move |transaction, keyring| labels(transaction, keyring, &place)).await;
        Ok(labels.map_err(|broken| store_error(broken, &slot.credential))?.stages())
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let plain = [bytes.served.to_json(), bytes.management.to_json()];
        let place = Place::of(slot);
        let seal = |index: usize| {
            let sealed = self.keyring.seal(&place.context(index, version), &plain[index]);
            sealed.map_err(|_| StoreError::Unavailable("the cryptographic library failed"))
        };
        let sealed = [seal(0)?, seal(1)?];
        let (credential, wanted, digest) = (slot.credential.clone(), version.clone(), digest(&self.keyring, &plain));
        self.change(slot, version, move |labels| labels.put_pending(&credential, &wanted, &digest), Parts::Put(sealed)).await
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let (place, wanted) = (Place::of(slot), version.clone());
        let bytes = self.embedded.read(move |transaction, keyring| read_version(transaction, keyring, &place, &wanted)).await;
        let missing = || StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() };
        bytes.map_err(|broken| store_error(broken, &slot.credential))?.ok_or_else(missing)
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let (credential, wanted, replacing) = (slot.credential.clone(), version.clone(), replacing.cloned());
        self.change(slot, version, move |labels| labels.promote(&credential, &wanted, replacing.as_ref()), Parts::Keep).await
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let (credential, wanted) = (slot.credential.clone(), version.clone());
        self.change(slot, version, move |labels| labels.forget(&credential, &wanted), Parts::Remove).await
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        let (place, versions) = (Place::of(slot), versions.clone());
        let cleared = self.embedded.write(move |transaction, keyring| {
            let mut table = transaction.open_table(SLOTS)?;
            let Some(mut labels) = load::<Labels>(keyring, SLOTS, &table, place.row())? else { return Ok(()) };
            let here = labels.clear(&versions);
            let row = encode(keyring, SLOTS, place.row(), &labels)?;
            table.insert(place.row(), row.as_slice())?;
            for version in &here {
                write_parts(transaction, keyring, place.version(version), &Parts::Remove)?;
            }
            Ok(())
        });
        cleared.await.map_err(|broken| store_error(broken, &slot.credential))
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        let after = after.cloned();
        let listed = self.embedded.read(move |transaction, keyring| list(transaction, keyring, after.as_ref(), limit)).await;
        listed.map_err(|broken| match broken {
            Broken::Row(what) | Broken::File(what) | Broken::Away(what) => StoreError::Unavailable(what),
        })
    }
}

/// The journal is the one in the same file: the stage and its event are in one transaction.
#[async_trait]
impl Promoter for EmbeddedStore {
    async fn promote_with(&self, promotion: Promotion<'_>, append: Append<'_>) -> Result<Position, PromotionError> {
        let (place, credential) = (Place::of(promotion.slot), promotion.slot.credential.clone());
        let (wanted, replacing) = (promotion.version.clone(), promotion.replacing.cloned());
        let (bytes, Append { expected, term, .. }) = (event_bytes(append.event)?, append);
        let promoted = self.embedded.write(move |transaction, keyring| {
            let mut table = transaction.open_table(SLOTS)?;
            let mut labels: Labels = load(keyring, SLOTS, &table, place.row())?.unwrap_or_default();
            let change = match labels.promote(&credential, &wanted, replacing.as_ref()) {
                Ok(change) => change,
                Err(refused) => return Ok(Err(PromotionError::Store(refused))),
            };
            let row = encode(keyring, SLOTS, place.row(), &labels)?;
            // Looks before it writes, and is the first to write: refused by either, nothing is written.
            let event = JournalChange::Append(SealedCopy::Keep);
            let Some(position) = push(transaction, keyring, &place.credential, expected, term, &bytes, &event)? else {
                return Ok(Err(JournalError::Conflict { credential }.into()));
            };
            if matches!(change, Change::Write) {
                table.insert(place.row(), row.as_slice())?;
            }
            Ok(Ok(position))
        });
        promoted.await.map_err(|broken| store_error(broken, &promotion.slot.credential))?
    }
}

impl Place {
    fn of(slot: &Slot) -> Place {
        Place { credential: slot.credential.clone(), environment: slot.environment.as_str() }
    }

    fn row(&self) -> At<'_> {
        (self.credential.as_str(), self.environment, "")
    }

    fn version<'a>(&'a self, version: &'a VersionId) -> At<'a> {
        (self.credential.as_str(), self.environment, version.as_str())
    }

    fn context<'a>(&'a self, part: usize, version: &'a VersionId) -> Context<'a> {
        sealed_for(part, self.version(version))
    }
}

/// What a row of [`PARTS`] is sealed for, from where it lies. The environment is bound by the place where the name stands
/// otherwise alone: names don't hold a slash.
pub(crate) fn sealed_for(part: usize, (credential, environment, version): At<'_>) -> Context<'_> {
    let table = match environment {
        "production" => ["versions/production", "management/production"][part],
        _ => ["versions/sandbox", "management/sandbox"][part],
    };
    Context { table, name: credential, version, part: PARTS[part].0 }
}

fn labels(transaction: &ReadTransaction, keyring: &Keyring, place: &Place) -> Result<Labels, Broken> {
    let table = transaction.open_table(SLOTS)?;
    Ok(load(keyring, SLOTS, &table, place.row())?.unwrap_or_default())
}

fn read_version(
    transaction: &ReadTransaction,
    keyring: &Keyring,
    place: &Place,
    version: &VersionId,
) -> Result<Option<VersionBytes>, Broken> {
    let labels = labels(transaction, keyring, place)?;
    if !labels.holds(version) {
        return Ok(None);
    }
    let part = |index: usize| {
        let row = transaction.open_table(PARTS[index].1)?.get(place.version(version))?;
        let sealed = Sealed(row.ok_or(Broken::Row("a value is missing"))?.value().to_vec());
        keyring.unseal(&place.context(index, version), &sealed).map_err(|_| Broken::Row("a value was altered"))
    };
    let plain = [part(0)?, part(1)?];
    // The digest stands with the labels: an older row of the same version, put back, opens and isn't what was acknowledged.
    if labels.digest(version) != Some(digest(keyring, &plain).as_str()) {
        return Err(Broken::Row("a value isn't the one that was written"));
    }
    let material = |index: usize| Material::from_json(plain[index].expose()).map_err(|_| Broken::Row("a value is of another format"));
    Ok(Some(VersionBytes { served: material(0)?, management: material(1)? }))
}

/// At most `limit` names; a slot without versions is passed over. Reads on from `after`, not from the start.
fn list(transaction: &ReadTransaction, keyring: &Keyring, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, Broken> {
    let table = transaction.open_table(SLOTS)?;
    // Greater than any environment, so that the credential itself isn't met again.
    let from = after.map_or(("", "", ""), |name| (name.as_str(), "~", ""));
    let mut names: Vec<Name> = Vec::new();
    for row in table.range(from..)? {
        if names.len() == limit {
            break;
        }
        let (at, row) = row?;
        let name: Name = at.value().0.parse().map_err(|_| Broken::Row("a name was altered"))?;
        // A slot whose row is damaged is listed: reading it says so.
        let gone = decode::<Labels>(keyring, SLOTS, at.value(), row.value()).is_ok_and(|labels| labels.is_empty());
        if !gone && names.last() != Some(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Tells the bytes of a version from others, keyed: comparing needs no unsealing, and tells nothing to who has the file.
fn digest(keyring: &Keyring, plain: &[Secret; 2]) -> String {
    let (first, second) = (plain[0].expose(), plain[1].expose());
    let mut both = Zeroizing::new(Vec::with_capacity(8 + first.len() + second.len()));
    both.extend_from_slice(&(first.len() as u64).to_be_bytes());
    both.extend_from_slice(first);
    both.extend_from_slice(second);
    keyring.fingerprint("version", &Secret::new(both.as_slice()))
}

fn store_error(broken: Broken, credential: &Name) -> StoreError {
    match broken {
        Broken::Row(_) | Broken::File(_) => StoreError::Damaged { credential: credential.clone() },
        Broken::Away(what) => StoreError::Unavailable(what),
    }
}
