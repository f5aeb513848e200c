//! The store is away: what was kept of it is served for a while, nothing is rotated, and all goes on when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use keywright::domain::ids::Name;
use keywright::engine::clock::Clock;
use keywright::engine::errors::ReadError;
use keywright::stores::memory::MemoryStore;
use keywright::stores::{Cached, Kept, Mark, SecretStore, Slot, Stages, StoreError, VersionBytes};

use super::*;

const BOUND: Duration = Duration::from_secs(50);
const AWAY: StoreError = StoreError::Unavailable("simulated");

/// A store elsewhere.
#[derive(Default)]
struct Remote {
    store: MemoryStore,
    is_away: AtomicBool,
    asked: AtomicUsize,
    read: AtomicUsize,
    keeps_marks_back: AtomicBool,
}

impl Remote {
    fn up(&self) -> Result<&MemoryStore, StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_away.load(Ordering::Relaxed) { Err(AWAY) } else { Ok(&self.store) }
    }
}

#[async_trait]
impl SecretStore for Remote {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        self.up()?.stages(slot).await
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        self.up()?.put_pending(slot, version, bytes).await
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        self.read.fetch_add(1, Ordering::Relaxed);
        // As over a wire: whoever else is ready asks meanwhile.
        tokio::task::yield_now().await;
        self.up()?.read(slot, version).await
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        self.up()?.promote(slot, version, replacing).await
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        self.up()?.forget(slot, version).await
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        self.up()?.clear(slot, versions).await
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        self.up()?.list(after, limit).await
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        if self.keeps_marks_back.load(Ordering::Relaxed) {
            return Err(StoreError::Refused { credential: name(CREDENTIAL), reason: "its policy doesn't allow it" });
        }
        self.up()?.marks(slots).await
    }
}

/// What outlives a process.
#[derive(Default)]
struct MemoryKept {
    values: Mutex<BTreeMap<VersionId, Material>>,
    answered: Mutex<Option<Timestamp>>,
}

#[async_trait]
impl Kept for MemoryKept {
    async fn keep(&self, _slot: &Slot, version: &VersionId, served: &Material) -> Result<(), StoreError> {
        self.values.lock().unwrap().insert(version.clone(), served.duplicate());
        Ok(())
    }

    async fn recall(&self, _slot: &Slot, version: &VersionId) -> Result<Material, StoreError> {
        self.values.lock().unwrap().get(version).map(Material::duplicate).ok_or(AWAY)
    }

    async fn drop_versions(&self, _slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        self.values.lock().unwrap().retain(|version, _| !versions.contains(version));
        Ok(())
    }

    async fn answered_at(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(*self.answered.lock().unwrap())
    }

    async fn note_answer(&self, at: Timestamp) -> Result<(), StoreError> {
        *self.answered.lock().unwrap() = Some(at);
        Ok(())
    }
}

struct Outage {
    world: World,
    remote: Arc<Remote>,
    kept: Arc<MemoryKept>,
}

impl Outage {
    async fn start(&self) -> (Arc<Engine>, Arc<Cached>) {
        let clocks = self.world.clocks.clone();
        let cached = Cached::open(self.remote.clone(), self.kept.clone(), BOUND, Arc::new(move || clocks.now())).await.unwrap();
        let cached = Arc::new(cached);
        (self.world.start_on(cached.clone()).await.unwrap(), cached)
    }

    fn is_away(&self, away: bool) {
        self.remote.is_away.store(away, Ordering::Relaxed);
    }

    async fn live(&self, engine: &Engine, seconds: u64) {
        self.world.live(engine, Duration::from_secs(seconds)).await;
    }
}

async fn submitted() -> (Outage, Arc<Engine>, Arc<Cached>) {
    submitted_by(DOCUMENTS).await
}

async fn submitted_by(documents: &str) -> (Outage, Arc<Engine>, Arc<Cached>) {
    let outage = Outage { world: World::with(Backend::memory(), documents), remote: Arc::default(), kept: Arc::default() };
    let (engine, cached) = outage.start().await;
    let (_, material) = outage.world.made_by_hand();
    engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
    (outage, engine, cached)
}

#[tokio::test]
async fn of_many_who_want_a_new_version_at_once_one_asks_the_store() {
    let (outage, engine, _cached) = submitted().await;
    let apps: Vec<App> = (0..200).map(|number| App::new(APPLICATION, &format!("pod-{number}"))).collect();
    let readers: Vec<_> = apps.iter().map(App::reader).collect();
    let before = outage.remote.read.load(Ordering::Relaxed);
    let read = futures_util::future::join_all(readers.iter().map(|reader| engine.read(reader, &apps[0].credential))).await;
    let wanted = current(&engine);
    assert!(read.iter().all(|read| read.as_ref().unwrap().version == wanted));
    assert_eq!(outage.remote.read.load(Ordering::Relaxed) - before, 1);
}

async fn is_stale(engine: &Engine) -> Result<bool, ReadError> {
    let app = App::new(APPLICATION, "one");
    engine.read(&app.reader(), &app.credential).await.map(|document| document.stale)
}

#[tokio::test]
async fn applications_go_on_marked_stale_within_the_bound_also_those_that_start_meanwhile() {
    let (outage, engine, cached) = submitted().await;
    assert_eq!(is_stale(&engine).await, Ok(false));
    outage.is_away(true);
    // Whoever asks first finds out; a daemon looks now and then.
    assert!(cached.stages(&outage.world.slot(CREDENTIAL)).await.is_err());
    assert_eq!(is_stale(&engine).await, Ok(true), "from memory");
    assert!(codes(&engine).contains(&"store-away".to_owned()), "{:?}", codes(&engine));
    drop(cached);
    outage.world.bury(engine);
    let (engine, _) = outage.start().await;
    assert_eq!(is_stale(&engine).await, Ok(true), "from what was kept, by a process that never met the store");
    outage.world.clocks.advance(BOUND + Duration::from_secs(1));
    assert_eq!(is_stale(&engine).await, Err(ReadError::StoreUnavailable));
    let problem = status(&engine).problems.into_iter().find(|problem| problem.code == "store-away").unwrap();
    assert!(problem.message.contains("cache.maxStale"), "{problem:?}");
    outage.is_away(false);
    assert_eq!(is_stale(&engine).await, Ok(false));
    assert!(!codes(&engine).contains(&"store-away".to_owned()));
}

#[tokio::test]
async fn nothing_is_rotated_meanwhile_and_all_is_taken_up_at_once_afterwards() {
    let (outage, engine, cached) = submitted().await;
    outage.is_away(true);
    engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    outage.live(&engine, 40).await;
    let generation = |engine: &Engine| row(engine).generation;
    assert_eq!((generation(&engine), outage.world.ours_living().len()), (1, 1), "nothing was made that couldn't be stored");
    assert!(codes(&engine).contains(&"store-unavailable".to_owned()), "{:?}", codes(&engine));
    outage.is_away(false);
    assert_eq!(is_stale(&engine).await, Ok(true), "those who start don't ask a store that was away");
    // The daemon does, every five seconds.
    cached.list(None, 1).await.unwrap();
    assert_eq!(is_stale(&engine).await, Ok(false));
    cached.returned().await;
    engine.store_returned().await;
    engine.turn().await;
    assert_eq!(generation(&engine), 2, "without the rest of its patience: {:#?}", status(&engine));
}

#[tokio::test]
async fn routine_looks_cost_no_call_to_a_store_whose_marks_stay() {
    let (outage, engine, _cached) = submitted_by(&documents(&[("maxAge: 1h", "maxAge: 20d, verifyEvery: 6h")])).await;
    engine.look_for_changes().await;
    outage.live(&engine, 60).await;
    let asked = || outage.remote.asked.swap(0, Ordering::Relaxed);
    let probes = || outage.world.issuer.calls("issuer.probe") + outage.world.issuer.calls("issuer.list");
    let (_, before) = (asked(), probes());
    for _ in 0..48 {
        engine.look_for_changes().await;
        outage.live(&engine, 1_800).await;
    }
    assert_eq!(asked(), 48, "the passes themselves");
    assert!(probes() - before >= 90, "the provider was asked all the same: {}", probes() - before);
    // Where nobody tells of changes, the store is looked at as the policy says.
    outage.live(&engine, 86_400).await;
    assert!(asked() >= 4);
}

#[tokio::test]
async fn a_store_that_keeps_its_marks_back_is_told_of_and_looked_at_as_the_policy_says() {
    let (outage, engine, _cached) = submitted_by(&documents(&[("maxAge: 1h", "maxAge: 20d, verifyEvery: 6h")])).await;
    outage.remote.keeps_marks_back.store(true, Ordering::Relaxed);
    assert!(engine.look_for_changes().await.is_some());
    assert!(codes(&engine).contains(&"store-changes-unseen".to_owned()), "{:?}", codes(&engine));
    outage.remote.asked.store(0, Ordering::Relaxed);
    outage.live(&engine, 86_400).await;
    assert!(outage.remote.asked.load(Ordering::Relaxed) >= 4, "looks of the policy");
    outage.remote.keeps_marks_back.store(false, Ordering::Relaxed);
    engine.look_for_changes().await;
    assert!(!codes(&engine).contains(&"store-changes-unseen".to_owned()));
}
