//! Vault's KV engine, version 2, as a store. Native readers find the promoted version at `<prefix>/<environment>/<path>`, and nothing
//! else there; all that isn't promoted lies apart, below `<prefix>/keywright-pending/`.
//!
//! It keeps a record of stages per credential (`record.rs`, the same pure `Labels` as the other stores), the parts of each version
//! until it is forgotten, and the native value. Every write is a compare-and-set on data, because metadata has none; custom metadata isn't
//! used. Vault has no transaction over two paths. So `promotion.rs` writes the intent into
//! the record, with the number that Vault will give to the native version; then the native value, which compares with the number
//! before; then the end into the record. **The native write is what promotes.** Who finds an intent completes it first (`settled`), so an
//! answer about stages is never overtaken by a promotion that was begun. Where somebody else wrote in between, the intent is taken back:
//! what they wrote stays. An intent for a version that is to be forgotten is made impossible: what
//! native readers have is written once more, so that a late write finds its number taken. For a first version there is nothing to
//! write once more: there the intent is only taken back.
//!
//! What native readers see doesn't say whose it is, so it is known by its number, and by the time at which Vault made it (`native.rs`).
//! What others wrote is a *foreign* version: it is told, and replaced by a promotion that names it. `read` gives our own copies from
//! apart, whatever others did. `marks` asks for metadata, and reads no value. Versions of the native path are destroyed one by one and
//! their numbers stay taken, because a path that starts at
//! 1 again would take a late write. Requests are those of `vaultrs`; `wire.rs` sends them itself, because the library's client follows
//! redirects with the token, uses ambient proxies, reads without a bound and hides headers (`Retry-After`). A refusal is told by status, never by
//! text. `session.rs` holds the token: one login for many callers, renewal two thirds into the lease, a new login after a 403, once a
//! second at most; it counts each request within our share of the quota.

mod kv;
mod native;
mod promotion;
mod record;
mod session;
mod settings;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::AbortHandle;

use super::labels::Change;
use super::{Mark, Native, SecretStore, Slot, Stages, StoreError, StoreShare, VersionBytes};
use crate::domain::credential::Environment;
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::Material;
use kv::Kv;
use native::Whose;
use record::{Paths, Record, Trace, data_of, environment_folder, material_of};
use session::{Session, Turn};
use wire::{Refusal, Wire};

pub use settings::{APPROLE_MOUNT, Auth, KUBERNETES_MOUNT, PathError, SERVICE_ACCOUNT_TOKEN, VaultSettings, check_path};
pub use wire::VaultOpenError;

/// How often a compare may fail in one call before it is left to the caller's patience.
const TRIES_MAX: usize = 16;
const BUSY: StoreError = StoreError::Unavailable("its records change all the time");
/// Bytes are compared as they lie there: a digest of them beside them would only help who guesses.
const DIGEST: &str = "-";

/// A KV engine, version 2. Its copies share one login.
#[derive(Debug, Clone)]
pub struct VaultStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    session: Arc<Session>,
    mount: String,
    prefix: String,
    keeper: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// A record as it was read, and the number that the next write of it compares with.
struct Loaded {
    record: Record,
    number: u64,
}

impl VaultStore {
    /// Must be called within a runtime: the token is renewed there. Calls nobody yet, so that a daemon starts while Vault is down. Each
    /// request counts in `share`, and those that write wait for their turn.
    ///
    /// # Errors
    /// [`VaultOpenError`] for what is wrong on this machine.
    pub fn open(settings: VaultSettings, share: Option<Arc<StoreShare>>) -> Result<VaultStore, VaultOpenError> {
        let session = Arc::new(Session::new(Wire::new(&settings)?, settings.auth, share));
        let keeper = tokio::spawn(Session::keep(Arc::downgrade(&session))).abort_handle();
        Ok(VaultStore(Arc::new(Inner { session, mount: settings.mount, prefix: settings.prefix, keeper })))
    }

    /// For reads, and for a call's first write.
    fn kv(&self) -> Kv<'_> {
        self.kv_in(Turn::First)
    }

    /// For writes of a call that has had effects.
    fn kv_further(&self) -> Kv<'_> {
        self.kv_in(Turn::Further)
    }

    fn kv_in(&self, turn: Turn) -> Kv<'_> {
        Kv { session: &self.0.session, mount: &self.0.mount, turn }
    }

    fn paths(&self, slot: &Slot) -> Paths {
        Paths::of(&self.0.prefix, slot)
    }

    async fn load(&self, slot: &Slot) -> Result<Loaded, StoreError> {
        self.load_at(&self.paths(slot).stages(), &slot.credential).await
    }

    async fn load_at(&self, path: &str, credential: &Name) -> Result<Loaded, StoreError> {
        let found = self.kv().read(path).await.map_err(Refusal::into_store_error)?;
        let record = match found.data {
            Some(data) => Record::from_data(data).ok_or_else(|| damaged(credential))?,
            None => Record::default(),
        };
        Ok(Loaded { record, number: found.number })
    }

    /// `None` if somebody else was faster.
    async fn save(&self, kv: Kv<'_>, slot: &Slot, record: Record, number: u64) -> Result<Option<Loaded>, Refusal> {
        let data = record.to_data().ok_or(Refusal::Away("the record of stages can't be written"))?;
        match kv.write(&self.paths(slot).stages(), data, number).await {
            Ok(made) => Ok(Some(Loaded { record, number: made.number })),
            Err(Refusal::Rejected) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The parts of a version as they lie apart; `None` where its bytes are gone.
    async fn kept(&self, slot: &Slot, version: &VersionId, managed: bool) -> Result<Option<VersionBytes>, StoreError> {
        let paths = self.paths(slot);
        let Some(served) = self.part(slot, &paths.version(version)).await? else { return Ok(None) };
        let management = if managed { self.part(slot, &paths.management(version)).await? } else { Some(Material::default()) };
        Ok(management.map(|management| VersionBytes { served, management }))
    }

    async fn part(&self, slot: &Slot, path: &str) -> Result<Option<Material>, StoreError> {
        let found = self.kv().read(path).await.map_err(Refusal::into_store_error)?;
        found.data.map(|data| material_of(&data).ok_or_else(|| damaged(&slot.credential))).transpose()
    }

    /// Writes a part where nothing lies. False where something else does.
    async fn write_part(&self, kv: Kv<'_>, path: &str, material: &Material) -> Result<bool, StoreError> {
        let data = data_of(material).ok_or(StoreError::Unavailable("a value isn't text"))?;
        let mut number = 0;
        for _ in 0..TRIES_MAX {
            match kv.write(path, data.clone(), number).await {
                Ok(_) => return Ok(true),
                Err(Refusal::Rejected) => {}
                Err(refusal) => return Err(refusal.into_store_error()),
            }
            let found = kv.read(path).await.map_err(Refusal::into_store_error)?;
            if let Some(there) = found.data {
                return Ok(material_of(&there).is_some_and(|there| there.same_as(material)));
            }
            number = found.number;
        }
        Err(BUSY)
    }

    async fn write_parts(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<bool, StoreError> {
        let (paths, management) = (self.paths(slot), &bytes.management);
        let mut kv = self.kv();
        if !management.is_empty() {
            if !self.write_part(kv, &paths.management(version), management).await? {
                return Ok(false);
            }
            kv = self.kv_further();
        }
        self.write_part(kv, &paths.version(version), &bytes.served).await
    }

    /// Removes what lies apart of a version, and its native bytes; says so in the record, where it stands.
    async fn remove(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let unavailable = Refusal::into_unavailable;
        let paths = self.paths(slot);
        self.kv_further().remove(&paths.version(version)).await.map_err(unavailable)?;
        self.kv_further().remove(&paths.management(version)).await.map_err(unavailable)?;
        for _ in 0..TRIES_MAX {
            let Loaded { mut record, number } = self.load(slot).await?;
            if !record.traces.contains_key(version) {
                return Ok(());
            }
            for (path, numbers) in record.only_of(version) {
                self.kv_further().destroy(&path, numbers).await.map_err(unavailable)?;
            }
            record.traces.remove(version);
            if self.save(self.kv_further(), slot, record, number).await.map_err(unavailable)?.is_some() {
                return Ok(());
            }
        }
        Err(BUSY)
    }
}

#[async_trait]
impl SecretStore for VaultStore {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let sight = self.look(slot).await?;
        let stages = sight.loaded.record.labels.stages();
        if sight.is_theirs() { Ok(stages) } else { Ok(Stages { current: sight.there().cloned(), ..stages }) }
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let different = || StoreError::DifferentValue { credential: slot.credential.clone(), version: version.clone() };
        let mut wrote = false;
        for _ in 0..TRIES_MAX {
            let Loaded { mut record, number } = self.load(slot).await?;
            match record.labels.put_pending(&slot.credential, version, DIGEST) {
                Ok(Change::Nothing) => {
                    let managed = record.traces.get(version).is_some_and(|trace| trace.managed);
                    let kept = self.kept(slot, version, managed).await?;
                    return if kept.is_some_and(|kept| kept.same_as(bytes)) { Ok(()) } else { Err(different()) };
                }
                Ok(Change::Write) => {}
                Err(forgotten) => {
                    // Forgotten while we wrote: nothing of it may stay.
                    if wrote {
                        self.remove(slot, version).await?;
                    }
                    return Err(forgotten);
                }
            }
            if !wrote && !self.write_parts(slot, version, bytes).await? {
                return Err(different());
            }
            wrote = true;
            record.traces.insert(version.clone(), Trace { managed: !bytes.management.is_empty(), ..Trace::default() });
            if self.save(self.kv_further(), slot, record, number).await.map_err(Refusal::into_unavailable)?.is_some() {
                return Ok(());
            }
        }
        Err(BUSY)
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let missing = || StoreError::NotFound { credential: slot.credential.clone(), version: version.clone() };
        let record = self.load(slot).await?.record;
        if !record.labels.holds(version) {
            return Err(missing());
        }
        let managed = record.traces.get(version).is_some_and(|trace| trace.managed);
        self.kept(slot, version, managed).await?.ok_or_else(missing)
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        self.promote_by_record(slot, version, replacing).await
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            let Some(mut loaded) = self.without_promoting(slot, |open| open == version).await? else { continue };
            if loaded.record.current().as_ref() == Some(version) {
                let sight = self.sight(slot, loaded).await?;
                loaded = sight.loaded;
                if sight.whose != Whose::Ours(version.clone()) {
                    // Native readers have it no more. The place stays ours.
                    loaded.record.labels.relabel(None);
                    loaded.record.adopted = Some(sight.place.path);
                }
            }
            let Loaded { mut record, number } = loaded;
            match record.labels.forget(&slot.credential, version)? {
                Change::Nothing => return self.remove(slot, version).await,
                Change::Write => {}
            }
            // The label goes first: whoever would promote it finds none, and bytes that are gone can't be promoted.
            if self.save(self.kv(), slot, record, number).await.map_err(Refusal::into_store_error)?.is_some() {
                return self.remove(slot, version).await;
            }
        }
        Err(BUSY)
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        for _ in 0..TRIES_MAX {
            let Some(loaded) = self.without_promoting(slot, |open| versions.contains(open)).await? else { continue };
            if loaded.number == 0 {
                return Ok(());
            }
            let before = loaded.record.clone();
            let Loaded { mut record, number } = self.without_current(slot, loaded, versions).await?;
            record.labels.clear(versions);
            let traces = record.traces.clone();
            if record != before && self.save(self.kv(), slot, record, number).await.map_err(Refusal::into_store_error)?.is_none() {
                continue;
            }
            // Also what an earlier call left, and what was written and never labelled.
            let there = self.kv().list(&self.paths(slot).folder).await.map_err(Refusal::into_unavailable)?;
            let left = |version: &&VersionId| {
                let is_there = there.iter().any(|key| key.split('.').next() == Some(version.as_str()));
                is_there || traces.contains_key(*version)
            };
            for version in versions.iter().filter(left) {
                self.remove(slot, version).await?;
            }
            return Ok(());
        }
        Err(BUSY)
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        let mut names = BTreeSet::new();
        for environment in Environment::ALL {
            let keys = self.kv().list(&environment_folder(&self.0.prefix, environment)).await.map_err(Refusal::into_store_error)?;
            names.extend(keys.iter().filter_map(|key| key.strip_suffix('/')?.parse::<Name>().ok()));
        }
        let mut listed = Vec::new();
        for name in names.into_iter().filter(|name| after.is_none_or(|after| name > after)) {
            if listed.len() == limit {
                break;
            }
            if self.has_versions(&name).await? {
                listed.push(name);
            }
        }
        Ok(listed)
    }

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        self.native_of(slot).await
    }

    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        self.adopt_there(slot).await
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        self.marks_of(slots).await.map(Some)
    }
}

impl VaultStore {
    /// The record, where the current version is to be cleared: what native readers have of it is to be found, and what somebody else
    /// wrote over it is no longer ours.
    async fn without_current(&self, slot: &Slot, loaded: Loaded, versions: &BTreeSet<VersionId>) -> Result<Loaded, StoreError> {
        if !loaded.record.current().is_some_and(|current| versions.contains(&current)) {
            return Ok(loaded);
        }
        let sight = self.sight(slot, loaded).await?;
        let mut loaded = sight.loaded;
        loaded.record.adopted = None;
        if let Whose::Ours(current) = &sight.whose
            && !sight.is_noted
        {
            loaded.record.note(current, sight.place, String::new());
        }
        Ok(loaded)
    }

    async fn has_versions(&self, name: &Name) -> Result<bool, StoreError> {
        for environment in Environment::ALL {
            let slot = Slot { credential: name.clone(), environment, path: name.to_string() };
            if !self.load(&slot).await?.record.labels.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn damaged(credential: &Name) -> StoreError {
    StoreError::Damaged { credential: credential.clone() }
}
