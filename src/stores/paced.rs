//! Any store, with its writes kept within our share of its quota (I15). Reads are counted, and never held up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Append, Mark, Native, Promoter, Promotion, PromotionError, SecretStore, Slot, Stages, StoreError, VersionBytes};
use crate::domain::ids::{Name, VersionId};
use crate::journal::Position;
use crate::rate::{CALLS_MIN, Rate};

/// How long a write waits for its turn here. Beyond that it fails, so that whoever asked can do something else meanwhile.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Or till the next turn, where turns are rare: the reads of the same call would take them for ever. But no longer than this.
const WAIT_LONGEST: Duration = Duration::from_secs(30);

/// Our share of a store's quota, for all who call that store.
pub struct StoreShare {
    rate: Rate,
    began: Instant,
    /// When the next call that isn't urgent may be made, and how far the next ones are apart.
    aside: Mutex<Duration>,
    aside_every: Duration,
}

impl StoreShare {
    /// So many calls within any time of the length `per`.
    pub fn new(calls: u32, per: Duration) -> StoreShare {
        let aside_every = per * 2 / calls.max(CALLS_MIN);
        StoreShare { rate: Rate::new(calls, per, Duration::ZERO), began: Instant::now(), aside: Mutex::default(), aside_every }
    }

    pub(super) fn count(&self) {
        // Applications come first: what a read finds used up, the next write waits for.
        let _ = self.rate.take(1, self.began.elapsed());
    }

    /// # Errors
    /// How long it would have to wait, where that is too long.
    pub(super) async fn wait(&self) -> Result<(), Duration> {
        self.wait_at_most(WAIT_MAX.max((self.aside_every * 2).min(WAIT_LONGEST))).await
    }

    /// # Errors
    /// As for [`StoreShare::wait`].
    pub(super) async fn wait_at_most(&self, longest: Duration) -> Result<(), Duration> {
        let until = self.began.elapsed() + longest;
        loop {
            let now = self.began.elapsed();
            let Err(wait) = self.rate.take(1, now) else { return Ok(()) };
            if now + wait > until {
                return Err(wait);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// For calls that aren't urgent: one after the other, so that half of the share is left to the others.
    pub(super) async fn wait_aside(&self) {
        let at = {
            let mut next = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
            let at = self.began.elapsed().max(*next);
            *next = at + self.aside_every;
            at
        };
        tokio::time::sleep_until(self.began + at).await;
        self.count();
    }
}

impl fmt::Debug for StoreShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreShare(..)")
    }
}

/// Wraps a store, and what promotes in it.
#[derive(Debug, Clone)]
pub struct Paced<S> {
    inner: S,
    share: Arc<StoreShare>,
}

impl<S> Paced<S> {
    pub fn new(inner: S, share: Arc<StoreShare>) -> Paced<S> {
        Paced { inner, share }
    }

    async fn turn(&self) -> Result<(), StoreError> {
        self.share.wait().await.map_err(|retry_after| StoreError::Throttled { retry_after })
    }
}

#[async_trait]
impl<S: SecretStore> SecretStore for Paced<S> {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        self.share.count();
        self.inner.stages(slot).await
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        self.turn().await?;
        self.inner.put_pending(slot, version, bytes).await
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        self.share.count();
        self.inner.read(slot, version).await
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        self.turn().await?;
        self.inner.promote(slot, version, replacing).await
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        self.turn().await?;
        self.inner.forget(slot, version).await
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        self.turn().await?;
        self.inner.clear(slot, versions).await
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        self.share.count();
        self.inner.list(after, limit).await
    }

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        self.share.count();
        self.inner.native(slot).await
    }

    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        self.turn().await?;
        self.inner.adopt(slot).await
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        self.inner.marks(slots).await
    }
}

#[async_trait]
impl<S: Promoter> Promoter for Paced<S> {
    async fn promote_with(&self, promotion: Promotion<'_>, append: Append<'_>) -> Result<Position, PromotionError> {
        self.turn().await?;
        self.inner.promote_with(promotion, append).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{contract, promoter_contract};
    use super::super::memory::MemoryStore;
    use super::*;
    use crate::domain::credential::Environment;
    use crate::domain::material::{Material, Secret};
    use crate::embedded::tests::Fresh;

    fn share(calls: u32, per: Duration) -> Arc<StoreShare> {
        Arc::new(StoreShare::new(calls, per))
    }

    fn version() -> VersionId {
        "v1".parse().unwrap()
    }

    fn bytes() -> VersionBytes {
        let served = Material::from_iter([("client_secret".parse().unwrap(), Secret::from("made-for-a-test".to_owned()))]);
        VersionBytes { served, ..VersionBytes::default() }
    }

    fn slot() -> Slot {
        Slot { credential: "dinie-sandbox".parse().unwrap(), environment: Environment::Sandbox, path: "dinie".to_owned() }
    }

    #[tokio::test]
    async fn a_paced_store_keeps_the_contract() {
        contract(|| Paced::new(MemoryStore::default(), share(1_000_000, Duration::from_secs(1)))).await;
    }

    #[tokio::test]
    async fn a_paced_file_keeps_the_promoters_contract() {
        let (file, share) = (Fresh::default().open(), share(1_000_000, Duration::from_secs(1)));
        promoter_contract(&file.store(), &file.journal(), &Paced::new(file.store(), share)).await;
    }

    #[tokio::test]
    async fn writes_wait_for_their_turn() {
        let store = Paced::new(MemoryStore::default(), share(4, Duration::from_millis(40)));
        for _ in 0..20 {
            store.forget(&slot(), &version()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_write_whose_turn_is_far_off_fails_before_it_is_sent() {
        let store = Paced::new(MemoryStore::default(), share(20, Duration::from_secs(3_600)));
        for _ in 0..5 {
            store.put_pending(&slot(), &version(), &bytes()).await.unwrap();
        }
        let Err(StoreError::Throttled { retry_after }) = store.promote(&slot(), &version(), None).await else { panic!("it was sent") };
        assert!(retry_after > WAIT_MAX);
        assert_eq!(store.stages(&slot()).await.unwrap().pending, Some(version()));
    }

    #[tokio::test]
    async fn reads_never_wait_and_writes_make_room_for_them() {
        let store = Paced::new(MemoryStore::default(), share(20, Duration::from_secs(3_600)));
        store.put_pending(&slot(), &version(), &bytes()).await.unwrap();
        for _ in 0..100 {
            assert!(store.read(&slot(), &version()).await.unwrap().same_as(&bytes()));
            assert_eq!(store.stages(&slot()).await.unwrap().pending, Some(version()));
        }
        assert!(matches!(store.forget(&slot(), &version()).await, Err(StoreError::Throttled { .. })));
    }
}
