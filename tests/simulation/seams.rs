//! The engine's seams: each call meets its fate, is shown to the model before its effect, and told to it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keywright::delivery::{Change, Delivery};
use keywright::domain::delivery::Way;
use keywright::domain::dispatch::Dispatch;
use keywright::domain::ids::{InstallationId, KeyId, Name, VersionId};
use keywright::domain::launch::Launch;
use keywright::domain::material::Material;
use keywright::domain::provider::ListedKey;
use keywright::domain::rotation::{Event, Moment};
use keywright::engine::audit::{Action, Audit, AuditError};
use keywright::engine::clock::Clock;
use keywright::issuers::{CreateRequest, Issuer, IssuerError, Minted, ProbeOutcome, ProbeReport, ProviderHealth, Revocation, Target};
use keywright::journal::memory::MemoryJournal;
use keywright::journal::{
    Changes, Cursor, Heartbeat, History, HoldingChange, Holdings, Journal, JournalError, Pause, Position, SealedCopy,
};
use keywright::runtime::clock::Judge;
use keywright::stores::memory::MemoryStore;
use keywright::stores::{Mark, Native, SecretStore, Slot, Stages, StoreError, VersionBytes};

use super::scene::{Fate, Scene, Seam, Seat};

/// The wall clock is judged by the real judge.
pub struct SeatClock {
    pub seat: Seat,
    pub began: Duration,
    pub judge: Mutex<Judge>,
}

#[async_trait]
impl Clock for SeatClock {
    fn now(&self) -> Moment {
        let (wall, at) = {
            let inner = self.seat.scene.lock();
            (inner.wall(), inner.at)
        };
        self.judge.lock().unwrap().look(wall, at.saturating_sub(self.began))
    }

    async fn sleep(&self, by: Duration) {
        self.seat.scene.advance(by);
    }

    async fn time_out(&self, _by: Duration) {
        std::future::pending().await
    }

    fn heartbeat(&self) -> Heartbeat {
        let (wall, at) = {
            let inner = self.seat.scene.lock();
            (inner.wall(), inner.at)
        };
        self.judge.lock().unwrap().heartbeat(wall, at.saturating_sub(self.began))
    }

    fn heard(&self, provider_time: Timestamp) {
        let (wall, at) = {
            let inner = self.seat.scene.lock();
            (inner.wall(), inner.at)
        };
        self.judge.lock().unwrap().heard(provider_time, wall, at.saturating_sub(self.began));
    }
}

#[derive(Clone)]
pub struct SeatStore {
    pub seat: Seat,
    pub inner: MemoryStore,
}

const STORE_AWAY: StoreError = StoreError::Unavailable("simulated");

impl SeatStore {
    fn scene(&self) -> &Scene {
        &self.seat.scene
    }
}

#[async_trait]
impl SecretStore for SeatStore {
    async fn stages(&self, slot: &Slot) -> Result<Stages, StoreError> {
        let act = self.inner.stages(slot);
        self.scene().pass(&self.seat.process, Seam::Store, "store.stages", false, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn put_pending(&self, slot: &Slot, version: &VersionId, bytes: &VersionBytes) -> Result<(), StoreError> {
        let act = async {
            self.scene().lock().putting(&self.seat.process, &self.scene().issuer, slot, version, &bytes.served);
            self.inner.put_pending(slot, version, bytes).await
        };
        self.scene().pass(&self.seat.process, Seam::Store, "store.put", true, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn read(&self, slot: &Slot, version: &VersionId) -> Result<VersionBytes, StoreError> {
        let act = async {
            let read = self.inner.read(slot, version).await;
            if read.is_ok() {
                self.scene().lock().model.read_back(self.seat.process.number, version);
            }
            read
        };
        self.scene().pass(&self.seat.process, Seam::Store, "store.read", false, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn promote(&self, slot: &Slot, version: &VersionId, replacing: Option<&VersionId>) -> Result<(), StoreError> {
        let act = async {
            let before = self.inner.stages(slot).await?.current;
            if before.as_ref() != Some(version) && before.as_ref() == replacing {
                self.scene().lock().promoting(&self.seat.process, slot, version);
            }
            let promoted = self.inner.promote(slot, version, replacing).await;
            if promoted.is_ok() && before.as_ref() != Some(version) {
                self.scene().lock().promoted(slot, version);
            }
            promoted
        };
        let word = "store.promote";
        self.scene().pass(&self.seat.process, Seam::Store, word, true, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn forget(&self, slot: &Slot, version: &VersionId) -> Result<(), StoreError> {
        let act = async {
            self.scene().lock().forgetting(&self.scene().issuer, slot, version);
            self.inner.forget(slot, version).await
        };
        self.scene().pass(&self.seat.process, Seam::Store, "store.forget", true, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn clear(&self, slot: &Slot, versions: &BTreeSet<VersionId>) -> Result<(), StoreError> {
        let act = async {
            self.scene().lock().cleared(&slot.credential, versions);
            self.inner.clear(slot, versions).await
        };
        self.scene().pass(&self.seat.process, Seam::Store, "store.clear", true, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, StoreError> {
        self.inner.list(after, limit).await
    }

    async fn native(&self, slot: &Slot) -> Result<Option<Native>, StoreError> {
        let act = self.inner.native(slot);
        self.scene().pass(&self.seat.process, Seam::Store, "store.native", false, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn adopt(&self, slot: &Slot) -> Result<(), StoreError> {
        let act = self.inner.adopt(slot);
        self.scene().pass(&self.seat.process, Seam::Store, "store.adopt", true, act).await.unwrap_or(Err(STORE_AWAY))
    }

    async fn marks(&self, slots: &[Slot]) -> Result<Option<BTreeMap<Name, Mark>>, StoreError> {
        let act = self.inner.marks(slots);
        self.scene().pass(&self.seat.process, Seam::Store, "store.marks", false, act).await.unwrap_or(Err(STORE_AWAY))
    }
}

pub struct SeatJournal {
    pub seat: Seat,
    pub inner: MemoryJournal,
}

const JOURNAL_AWAY: JournalError = JournalError::Unavailable("simulated");

impl SeatJournal {
    async fn pass<T>(&self, word: &str, writes: bool, act: impl Future<Output = Result<T, JournalError>>) -> Result<T, JournalError> {
        let passed = self.seat.scene.pass(&self.seat.process, Seam::Journal, word, writes, act).await;
        passed.unwrap_or(Err(JOURNAL_AWAY))
    }

    async fn keep(
        &self,
        credential: &Name,
        term: u64,
        event: &Event,
        act: impl Future<Output = Result<Position, JournalError>>,
    ) -> Result<Position, JournalError> {
        let word = match &self.seat.scene.lock().trace {
            Some(_) => format!("journal {credential} {}", told(event)),
            None => String::new(),
        };
        let kept = async {
            let kept = act.await;
            if kept.is_ok() {
                self.seat.scene.lock().model.appending(credential);
                self.seat.scene.lock().journaled(&self.seat.scene.issuer, &self.seat.process, credential, term, event);
            }
            kept
        };
        let answer = self.pass(&word, true, kept).await;
        if answer.is_ok() {
            self.seat.scene.lock().model.knows(credential);
        }
        answer
    }
}

#[async_trait]
impl Journal for SeatJournal {
    async fn installation(&self) -> Result<InstallationId, JournalError> {
        self.inner.installation().await
    }

    async fn former_installations(&self) -> Result<Vec<InstallationId>, JournalError> {
        self.inner.former_installations().await
    }

    async fn begin_term(&self) -> Result<u64, JournalError> {
        let act = async {
            let term = self.inner.begin_term().await?;
            self.seat.process.term.store(term, Ordering::Relaxed);
            let model = &mut self.seat.scene.lock().model;
            model.term = term;
            model.known.values_mut().for_each(|known| known.lost = None);
            Ok(term)
        };
        self.pass("journal.begin_term", true, act).await
    }

    async fn credentials(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Name>, JournalError> {
        self.pass("journal.credentials", false, self.inner.credentials(after, limit)).await
    }

    async fn load(&self, credential: &Name) -> Result<History, JournalError> {
        let history = self.pass("journal.load", false, self.inner.load(credential)).await;
        if history.is_ok() {
            self.seat.scene.lock().model.knows(credential);
        }
        history
    }

    async fn append(
        &self,
        credential: &Name,
        expected: Position,
        term: u64,
        event: &Event,
        sealed: SealedCopy,
    ) -> Result<Position, JournalError> {
        let holds = match &sealed {
            SealedCopy::Keep => None,
            SealedCopy::Put(_) => Some(true),
            SealedCopy::Erase => Some(false),
        };
        let act = async {
            let position = self.inner.append(credential, expected, term, event, sealed).await?;
            self.seat.scene.lock().model.sealed(credential, holds);
            Ok(position)
        };
        self.keep(credential, term, event, act).await
    }

    async fn compact(&self, credential: &Name, expected: Position, term: u64, snapshot: &Event) -> Result<Position, JournalError> {
        self.keep(credential, term, snapshot, self.inner.compact(credential, expected, term, snapshot)).await
    }

    async fn holdings(&self) -> Result<Holdings, JournalError> {
        self.pass("journal.holdings", false, self.inner.holdings()).await
    }

    async fn write_holdings(&self, term: u64, changes: &[HoldingChange]) -> Result<(), JournalError> {
        self.pass("journal.write_holdings", true, self.inner.write_holdings(term, changes)).await
    }

    async fn heartbeat(&self) -> Result<Heartbeat, JournalError> {
        self.inner.heartbeat().await
    }

    async fn write_heartbeat(&self, term: u64, heartbeat: Heartbeat) -> Result<(), JournalError> {
        let word = format!("journal.heartbeat {:.3}", heartbeat.running.as_secs_f64());
        self.pass(&word, true, self.inner.write_heartbeat(term, heartbeat)).await
    }

    async fn pause(&self) -> Result<Option<Pause>, JournalError> {
        self.inner.pause().await
    }

    async fn write_pause(&self, term: u64, pause: Option<Pause>) -> Result<(), JournalError> {
        let act = async {
            self.inner.write_pause(term, pause).await?;
            self.seat.scene.lock().model.all_paused = pause.is_some();
            Ok(())
        };
        self.pass("journal.pause", true, act).await
    }

    async fn launches(&self) -> Result<Vec<(Name, Launch)>, JournalError> {
        self.inner.launches().await
    }

    async fn write_launch(&self, term: u64, application: &Name, launch: &Launch) -> Result<(), JournalError> {
        self.pass("journal.launch", true, self.inner.write_launch(term, application, launch)).await
    }

    async fn dispatches(&self) -> Result<Vec<((Name, Way), Dispatch)>, JournalError> {
        self.inner.dispatches().await
    }

    async fn write_dispatch(&self, term: u64, application: &Name, way: Way, dispatch: &Dispatch) -> Result<(), JournalError> {
        self.pass("journal.dispatch", true, self.inner.write_dispatch(term, application, way, dispatch)).await
    }

    async fn changes(&self, since: &Cursor, wait: Duration) -> Result<Changes, JournalError> {
        self.inner.changes(since, wait).await
    }
}

pub struct SeatAudit {
    pub seat: Seat,
}

#[async_trait]
impl Audit for SeatAudit {
    async fn record(&self, _at: Timestamp, action: Action) -> Result<(), AuditError> {
        let scene = &self.seat.scene;
        let word = if scene.lock().trace.is_some() { format!("audit {} {:?}", action.action, action.detail) } else { String::new() };
        let act = async { scene.lock().model.audited(action) };
        scene.pass(&self.seat.process, Seam::Audit, &word, true, act).await.ok_or(AuditError)
    }

    fn repeated(&self, _action: Action) {}
}

pub struct SeatIssuer {
    pub seat: Seat,
}

impl SeatIssuer {
    /// `act` runs twice where the request is repeated on the way.
    async fn call<T, F>(&self, word: &str, writes: bool, act: impl Fn() -> F) -> Result<T, IssuerError>
    where
        F: Future<Output = Result<T, IssuerError>>,
    {
        let scene = &self.seat.scene;
        let fate = scene.lock().fate(&self.seat.process, Seam::Issuer, writes);
        scene.note(|| format!("p{} {word} {fate:?}", self.seat.process.number));
        if fate == Fate::Twice {
            let _first = act().await;
            scene.lock().model.repeated_calls = true;
        }
        match (scene.meet(&self.seat.process, fate, act()).await, fate) {
            (Some(answer), _) => answer,
            (None, Fate::Throttle(retry_after)) => Err(IssuerError::Throttled { retry_after }),
            (None, Fate::FailAfter) => Err(IssuerError::Unclear("simulated")),
            (None, _) => Err(IssuerError::Unreachable("simulated")),
        }
    }

    fn sent(&self, target: &Target, material: &Material) {
        let scene = &self.seat.scene;
        scene.lock().sent(&scene.issuer, target, material);
    }
}

#[async_trait]
impl Issuer for SeatIssuer {
    async fn probe(&self, target: &Target, material: &Material) -> Result<ProbeReport, IssuerError> {
        let scene = &self.seat.scene;
        self.call("issuer.probe", false, || async {
            self.sent(target, material);
            let report = scene.issuer.probe(target, material).await?;
            scene.lock().probed(self.seat.process.number, material, report.outcome == ProbeOutcome::Works);
            Ok(report)
        })
        .await
    }

    async fn is_dead(&self, target: &Target, material: &Material) -> Result<bool, IssuerError> {
        self.call("issuer.is_dead", false, || self.seat.scene.issuer.is_dead(target, material)).await
    }

    async fn list(&self, target: &Target, acting: &Material) -> Result<Vec<ListedKey>, IssuerError> {
        self.call("issuer.list", false, || async {
            self.sent(target, acting);
            self.seat.scene.issuer.list(target, acting).await
        })
        .await
    }

    async fn create(&self, target: &Target, acting: &Material, request: &CreateRequest) -> Result<Minted, IssuerError> {
        let scene = &self.seat.scene;
        self.call("issuer.create", true, || async {
            self.sent(target, acting);
            scene.lock().creating(&scene.issuer, &self.seat.process, target, request);
            let minted = scene.issuer.create(target, acting, request).await;
            scene.lock().created(&scene.issuer, target);
            minted
        })
        .await
    }

    async fn revoke(
        &self,
        target: &Target,
        acting: &Material,
        key_id: &KeyId,
        doomed: Option<&Material>,
    ) -> Result<Revocation, IssuerError> {
        let scene = &self.seat.scene;
        let word = if scene.lock().trace.is_some() { format!("issuer.revoke {key_id}") } else { String::new() };
        self.call(&word, true, || async {
            self.sent(target, acting);
            scene.lock().revoking(&scene.issuer, &self.seat.process, target, key_id);
            let revoked = scene.issuer.revoke(target, acting, key_id, doomed).await;
            scene.lock().revoked(&scene.issuer, key_id);
            revoked
        })
        .await
    }

    fn health(&self) -> Vec<ProviderHealth> {
        self.seat.scene.issuer.health()
    }
}

/// Applications that stream are told; the life looks here after each turn.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Change>>);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

impl Delivery for Told {
    fn announce(&self, change: Change) {
        self.0.lock().unwrap().push(change);
    }
}

/// An event for the trace: without digests, whose key is made anew each time.
fn told(event: &Event) -> String {
    match event {
        Event::Issued { key_id, issued_at, .. } => format!("issued {key_id:?} {issued_at}"),
        Event::Snapshot { .. } => "snapshot".to_owned(),
        event => serde_json::to_string(event).unwrap().chars().take(300).collect(),
    }
}
