//! A store that is elsewhere, with what was read of it kept sealed here: applications start while it is away (I19), for a bounded time.
//!
//! Only what is served comes from here. Steps of a rotation ask the store itself, and wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::{Availability, Mark, Native, Reading, SecretStore, Slot, Stages, StoreError, VersionBytes};
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::Material;
use crate::domain::rotation::Moment;

/// Where values are kept beside the store: sealed, and found again after a restart.
#[async_trait]
pub trait Kept: Send + Sync {
    /// What applications get of one version. The same again is a no-op.
    async fn keep(&self, slot: &Slot, version: &VersionId, served: &Material) -> Result<(), StoreError>;

    async fn recall(&self, slot: &Slot, version: &VersionId) -> Result<Material, StoreError>;

    /// These versions are kept no longer. Absent is fine.
    async fn drop_versions(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError>;

    /// When the store last answered, by the wall clock of then; `None`: it never did.
    async fn answered_at(&self) -> Result<Option<Timestamp>, StoreError>;

    async fn note_answer(&self, at: Timestamp) -> Result<(), StoreError>;
}

/// Tells the time.
pub type Now = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Wraps a store.
pub struct Cached {
    inner: Arc<dyn SecretStore>,
    kept: Arc<dyn Kept>,
    /// Seconds after the store's last answer for which kept values are served.
    max_stale: AtomicU64,
    now: Now,
    state: Mutex<State>,
    returned: Notify,
}

struct State {
    /// The running time at which the store last answered, as far as this process knows; and how long ago that was then.
    answered: Option<(Duration, Duration)>,
    is_away: bool,
    /// When the last answer was last written down.
    noted: Option<Duration>,
    /// What is kept already, so that a read costs no write.
    known: BTreeSet<(Name, VersionId)>,
}

/// How long an application waits for a store that doesn't answer, where something is kept for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// The last answer is written down as often as this at most, or a twentieth of the bound, if that is less.
const NOTE_EVERY_MAX: Duration = Duration::from_secs(60);

impl Cached {
    /// # Errors
    /// [`StoreError`] if what is kept can't be read.
    pub async fn open(inner: Arc<dyn SecretStore>, kept: Arc<dyn Kept>, max_stale: Duration, now: Now) -> Result<Cached, StoreError> {
        let answered_at = kept.answered_at().await?;
        Ok(Cached::new(inner, kept, max_stale, now, answered_at))
    }

    fn new(inner: Arc<dyn SecretStore>, kept: Arc<dyn Kept>, max_stale: Duration, now: Now, answered_at: Option<Timestamp>) -> Cached {
        // A clock that went back meanwhile says nothing of how long that was: then it is as if the store had answered just now.
        let Moment { wall, running, .. } = now();
        let ago = |at: Timestamp| Duration::try_from(wall.duration_since(at)).unwrap_or_default();
        let answered = answered_at.map(|at| (running, ago(at)));
        let state = State { answered, is_away: false, noted: None, known: BTreeSet::new() };
        Cached { inner, kept, max_stale: AtomicU64::new(max_stale.as_secs()), now, state: Mutex::new(state), returned: Notify::new() }
    }

    /// Ends when a store that was away answers again. For one who waits at a time.
    pub async fn returned(&self) {
        self.returned.notified().await;
    }

    /// Another bound, in whole seconds, because the policies changed.
    pub fn set_bound(&self, max_stale: Duration) {
        self.max_stale.store(max_stale.as_secs(), Ordering::Relaxed);
    }

    fn bound(&self) -> Duration {
        Duration::from_secs(self.max_stale.load(Ordering::Relaxed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of whether the store answered: a refusal is an answer, too.
    async fn told<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let Moment { wall, running, .. } = (self.now)();
        if matches!(answer, Err(StoreError::Unavailable(_))) {
            self.state().is_away = true;
            return answer;
        }
        let (was_away, note) = {
            let mut state = self.state();
            state.answered = Some((running, Duration::ZERO));
            let every = NOTE_EVERY_MAX.min(self.bound() / 20);
            let note = state.noted.is_none_or(|last| running.saturating_sub(last) >= every);
            if note {
                state.noted = Some(running);
            }
            (std::mem::take(&mut state.is_away), note)
        };
        if note && self.kept.note_answer(wall).await.is_err() {
            tracing::warn!("when the store last answered couldn't be written down: after a restart, less is served while it is away");
        }
        if was_away {
            self.returned.notify_one();
        }
        answer
    }

    async fn keep(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) {
        let key = (slot.credential.clone(), version.clone());
        if self.state().known.contains(&key) {
            return;
        }
        match self.kept.keep(slot, version, &bytes.served).await {
            Ok(()) => {
                self.state().known.insert(key);
            }
            Err(_) => tracing::warn!(credential = %slot.credential, "a value couldn't be kept for when the store is away"),
        }
    }

    async fn drop_kept(&self, slot: &Slot, versions: &BTreeSet<VersionId>) {
        {
            let mut state = self.state();
            for version in versions {
                state.known.remove(&(slot.credential.clone(), version.clone()));
            }
        }
        if self.kept.drop_versions(slot, versions).await.is_err() {
            tracing::warn!(credential = %slot.credential, "a value that is forgotten couldn't be removed from what is kept here");
        }
    }

    /// What is kept of a version, where it may still be served.
    async fn recall(&self, slot: &Slot, version: &VersionId) -> Option<Reading> {
        if self.stale_for().is_none_or(|age| age > self.bound()) {
            return None;
        }
        let served = self.kept.recall(slot, version).await.ok()?;
        Some(Reading { bytes: VersionBytes { served, management: Material::default() }, stale: true })
    }

    fn stale_for(&self) -> Option<Duration> {
        let running = (self.now)().running;
        self.state().answered.map(|(at, before)| before.saturating_add(running.saturating_sub(at)))
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cached(..)")
    }
}

#[async_trait]
impl SecretStore for Cached {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let answer = self.inner.stages(slot).await;
        self.told(answer).await
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let answer = self.inner.put_pending(slot, version, bytes).await;
        self.told(answer).await?;
        // It may be current before anybody reads it, and the store away by then.
        self.keep(slot, version, bytes).await;
        Ok(())
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let answer = self.inner.read(slot, version).await;
        let bytes = self.told(answer).await?;
        self.keep(slot, version, &bytes).await;
        Ok(bytes)
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let answer = self.inner.promote(slot, version, replacing).await;
        self.told(answer).await
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let answer = self.inner.forget(slot, version).await;
        self.told(answer).await?;
        self.drop_kept(slot, &BTreeSet::from([version.clone()])).await;
        Ok(())
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        let answer = self.inner.clear(slot, versions).await;
        self.told(answer).await?;
        self.drop_kept(slot, versions).await;
        Ok(())
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        let answer = self.inner.list(after, limit).await;
        self.told(answer).await
    }

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        let answer = self.inner.native(slot).await;
        self.told(answer).await
    }

    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        let answer = self.inner.adopt(slot).await;
        self.told(answer).await
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        let answer = self.inner.marks(slots).await;
        self.told(answer).await
    }

    async fn read_to_serve(&self, slot: &Slot, version: &VersionId) -> Result<Reading, StoreError> {
        // While it is away, it is asked by one who has the time, and not by those who start.
        if self.state().is_away
            && let Some(kept) = self.recall(slot, version).await
        {
            return Ok(kept);
        }
        let reading = self.read(slot, version);
        tokio::pin!(reading);
        let answer = match tokio::time::timeout(PATIENCE, &mut reading).await {
            Ok(answer) => answer,
            Err(_) => match self.recall(slot, version).await {
                Some(kept) => {
                    self.state().is_away = true;
                    return Ok(kept);
                }
                None => reading.await,
            },
        };
        match answer {
            Ok(bytes) => Ok(Reading { bytes, stale: false }),
            // A store that is throttled slows rotations down, and no reader.
            // One that lost what it was given doesn't turn a value that still lives into an error, either (I19).
            Err(refused @ (StoreError::Unavailable(_) | StoreError::Throttled { .. } | StoreError::NotFound { .. })) => {
                self.recall(slot, version).await.ok_or(refused)
            }
            Err(other) => Err(other),
        }
    }

    async fn kept(&self, slot: &Slot, version: &VersionId) -> Option<Material> {
        self.kept.recall(slot, version).await.ok()
    }

    fn availability(&self) -> Availability {
        if !self.state().is_away {
            return Availability::Here;
        }
        let stale_for = self.stale_for();
        Availability::Away { stale_for, is_servable: stale_for.is_some_and(|age| age <= self.bound()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::contract;
    use super::super::memory::MemoryStore;
    use super::*;
    use crate::domain::credential::Environment;
    use crate::domain::material::Secret;
    use crate::embedded::Embedded;
    use crate::embedded::tests::Fresh;

    const BOUND: Duration = Duration::from_secs(3_600);

    /// A store that can be taken away, and how often it was asked.
    #[derive(Default)]
    struct Remote {
        store: MemoryStore,
        error: Mutex<Option<StoreError>>,
        hangs: Mutex<Duration>,
        reads: AtomicU64,
    }

    impl Remote {
        fn answers(&self, error: Option<StoreError>) {
            *self.error.lock().unwrap() = error;
        }

        fn up(&self) -> Result<(), StoreError> {
            self.error.lock().unwrap().clone().map_or(Ok(()), Err)
        }
    }

    #[async_trait]
    impl SecretStore for Remote {
        async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
            self.up()?;
            self.store.stages(slot).await
        }
        async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
            self.up()?;
            self.store.put_pending(slot, version, bytes).await
        }
        async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let hangs = *self.hangs.lock().unwrap();
            tokio::time::sleep(hangs).await;
            self.up()?;
            self.store.read(slot, version).await
        }
        async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
            self.up()?;
            self.store.promote(slot, version, replacing).await
        }
        async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
            self.up()?;
            self.store.forget(slot, version).await
        }
        async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
            self.up()?;
            self.store.clear(slot, versions).await
        }
        async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
            self.up()?;
            self.store.list(after, limit).await
        }
    }

    const AWAY: StoreError = StoreError::Unavailable("simulated");

    fn slot() -> Slot {
        Slot { credential: "pay".parse().unwrap(), environment: Environment::Production, path: "pay".to_owned() }
    }

    fn version(number: u32) -> VersionId {
        format!("v{number}-0123456789ab").parse().unwrap()
    }

    fn bytes(text: &str) -> VersionBytes {
        let fields = |name: &str| [(name.parse().unwrap(), Secret::from(text.to_owned()))].into_iter().collect();
        VersionBytes { served: fields("client_secret"), management: fields("manager") }
    }

    struct Scene {
        remote: Arc<Remote>,
        embedded: Embedded,
        _folder: Fresh,
        now: Arc<Mutex<Moment>>,
    }

    impl Scene {
        fn new() -> Scene {
            let wall = Timestamp::from_second(1_800_000_000).unwrap();
            let now = Arc::new(Mutex::new(Moment { wall, running: Duration::from_secs(7), trusted: true }));
            let folder = Fresh::default();
            Scene { remote: Arc::default(), embedded: folder.open(), _folder: folder, now }
        }

        async fn start(&self) -> Cached {
            let (kept, now) = (Arc::new(self.embedded.store()), Arc::clone(&self.now));
            Cached::open(Arc::clone(&self.remote) as _, kept, BOUND, Arc::new(move || *now.lock().unwrap())).await.unwrap()
        }

        /// The process lives on, or only the wall clock goes on.
        fn later(&self, by: Duration, lives: bool) {
            let mut now = self.now.lock().unwrap();
            now.wall = now.wall.checked_add(by).unwrap();
            now.running += if lives { by } else { Duration::ZERO };
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_what_it_wraps() {
        let folder = Fresh::default();
        let now = Moment { wall: Timestamp::UNIX_EPOCH, running: Duration::ZERO, trusted: true };
        contract(|| Cached::new(Arc::new(MemoryStore::default()), Arc::new(folder.open().store()), BOUND, Arc::new(move || now), None))
            .await;
    }

    #[tokio::test]
    async fn while_the_store_is_away_what_was_kept_is_served_until_the_bound() {
        let scene = Scene::new();
        let cached = scene.start().await;
        cached.put_pending(&slot(), &version(1), &bytes("first")).await.unwrap();
        cached.promote(&slot(), &version(1), None).await.unwrap();
        assert!(!cached.read_to_serve(&slot(), &version(1)).await.unwrap().stale);
        scene.remote.answers(Some(AWAY));
        let reading = cached.read_to_serve(&slot(), &version(1)).await.unwrap();
        assert!(reading.stale && reading.bytes.served.same_as(&bytes("first").served));
        assert!(reading.bytes.management.is_empty(), "what manages a key is never kept here");
        assert_eq!(cached.read(&slot(), &version(1)).await.err(), Some(AWAY), "a rotation asks the store itself");
        assert!(matches!(cached.availability(), Availability::Away { is_servable: true, .. }));
        scene.later(BOUND + Duration::from_secs(1), true);
        assert_eq!(cached.read_to_serve(&slot(), &version(1)).await.err(), Some(AWAY));
        assert!(matches!(cached.availability(), Availability::Away { is_servable: false, .. }));
        scene.remote.answers(None);
        assert!(!cached.read_to_serve(&slot(), &version(1)).await.unwrap().stale, "too old: the store itself is asked");
        assert_eq!(cached.availability(), Availability::Here);
        // It was told that the store is back; asked again, it waits for the next time.
        cached.returned().await;
        assert!(tokio::time::timeout(Duration::from_millis(20), cached.returned()).await.is_err());
    }

    #[tokio::test]
    async fn a_store_that_hangs_keeps_nobody_waiting_who_has_something_kept() {
        let scene = Scene::new();
        let cached = scene.start().await;
        cached.put_pending(&slot(), &version(1), &bytes("first")).await.unwrap();
        *scene.remote.hangs.lock().unwrap() = PATIENCE + Duration::from_millis(500);
        assert!(cached.read_to_serve(&slot(), &version(1)).await.unwrap().stale);
        assert_ne!(cached.availability(), Availability::Here);
        for _ in 0..20 {
            assert!(cached.read_to_serve(&slot(), &version(1)).await.unwrap().stale);
        }
        assert_eq!(scene.remote.reads.load(Ordering::Relaxed), 1, "from then on nobody asks who has something kept");
        // Who has nothing kept waits for the answer, and with that the store is back.
        scene.remote.store.put_pending(&slot(), &version(2), &bytes("second")).await.unwrap();
        assert!(!cached.read_to_serve(&slot(), &version(2)).await.unwrap().stale);
        assert_eq!((scene.remote.reads.load(Ordering::Relaxed), cached.availability()), (2, Availability::Here));
    }

    #[tokio::test]
    async fn a_process_that_starts_while_the_store_is_away_counts_from_its_last_answer() {
        let scene = Scene::new();
        let before = scene.start().await;
        // Pending when the store went away, and never read: current by the time that somebody asks.
        before.put_pending(&slot(), &version(1), &bytes("first")).await.unwrap();
        drop(before);
        scene.remote.answers(Some(AWAY));
        scene.later(BOUND / 2, false);
        let again = scene.start().await;
        assert!(again.read_to_serve(&slot(), &version(1)).await.unwrap().stale);
        scene.later(BOUND / 2 + Duration::from_secs(120), true);
        assert_eq!(again.read_to_serve(&slot(), &version(1)).await.err(), Some(AWAY), "half before, half since");
    }

    #[tokio::test]
    async fn nothing_is_served_of_a_store_that_never_answered_or_of_what_it_forgot_or_doesnt_have() {
        let scene = Scene::new();
        scene.remote.answers(Some(AWAY));
        let cached = scene.start().await;
        assert_eq!(cached.read_to_serve(&slot(), &version(1)).await.err(), Some(AWAY));
        scene.remote.answers(None);
        let missing = StoreError::NotFound { credential: slot().credential, version: version(1) };
        assert_eq!(cached.read_to_serve(&slot(), &version(1)).await.err(), Some(missing));
        cached.put_pending(&slot(), &version(1), &bytes("first")).await.unwrap();
        cached.forget(&slot(), &version(1)).await.unwrap();
        scene.remote.answers(Some(AWAY));
        assert_eq!(cached.read_to_serve(&slot(), &version(1)).await.err(), Some(AWAY));
    }

    #[tokio::test]
    async fn a_store_that_lost_a_value_takes_it_from_no_reader() {
        let scene = Scene::new();
        let cached = scene.start().await;
        cached.put_pending(&slot(), &version(1), &bytes("first")).await.unwrap();
        scene.remote.store.forget(&slot(), &version(1)).await.unwrap();
        let reading = cached.read_to_serve(&slot(), &version(1)).await.unwrap();
        assert!(reading.stale && reading.bytes.served.same_as(&bytes("first").served));
        assert!(matches!(cached.read(&slot(), &version(1)).await, Err(StoreError::NotFound { .. })), "a rotation is told");
        // What we forget ourselves is gone.
        cached.forget(&slot(), &version(1)).await.unwrap();
        assert!(matches!(cached.read_to_serve(&slot(), &version(1)).await, Err(StoreError::NotFound { .. })));
    }

    #[tokio::test]
    async fn a_store_that_throttles_keeps_no_reader_waiting_and_isnt_away() {
        let scene = Scene::new();
        let cached = scene.start().await;
        cached.put_pending(&slot(), &version(1), &bytes("first")).await.unwrap();
        scene.remote.answers(Some(StoreError::Throttled { retry_after: Duration::from_secs(9) }));
        assert!(cached.read_to_serve(&slot(), &version(1)).await.unwrap().stale);
        assert_eq!(cached.availability(), Availability::Here);
    }
}
