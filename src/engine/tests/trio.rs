//! Three engines on one journal, as three processes have them: for tests.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use keywright::engine::Replica;
use keywright::engine::audit::MemoryAudit;
use keywright::engine::meter::NoMeter;
use keywright::engine::office::Mandate;
use keywright::engine::{Options, Seams};
use keywright::faults::{Faults, When};
use keywright::issuers::dispatch::Dispatch;
use keywright::issuers::generated::GeneratedIssuer;
use keywright::journal::memory::MemoryJournal;
use keywright::replicas::memory::MemoryRows;
use keywright::stores::{Apart, Faulty};

use super::world::Pushes;
use super::*;

/// An office that ends when the test says so.
#[derive(Default)]
pub(super) struct Word(pub(super) AtomicBool);

impl Mandate for Word {
    fn holds(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }
}

/// One process.
pub(super) struct Process {
    pub(super) engine: Arc<Engine>,
    pub(super) audit: Arc<MemoryAudit>,
    pub(super) pushes: Arc<Pushes>,
    /// Of its store, its journal and its rows.
    pub(super) faults: Faults,
    pub(super) word: Arc<Word>,
    pub(super) round: AtomicU32,
}

impl Process {
    pub(super) async fn take_office(&self) {
        self.engine.take_office(self.word.clone()).await.unwrap();
    }

    /// What goes on beside the loop. What can't be reached is tried again the next time.
    pub(super) async fn attend(&self) {
        let _ = self.engine.catch_up(Duration::ZERO).await;
        let _ = self.engine.attend(self.round.fetch_add(1, Ordering::Relaxed)).await;
    }

    /// From here on it reaches nothing, like a process that died or was cut off.
    pub(super) async fn cut_off(&self) {
        self.faults.crash_at(self.faults.count(), When::Before);
        while self.faults.alive().is_ok() {
            self.attend().await;
        }
    }
}

pub(super) struct Trio {
    pub(super) world: World,
    pub(super) rows: MemoryRows,
    pub(super) processes: Vec<Process>,
    pub(super) first: (KeyId, Material),
}

impl Trio {
    /// Three processes; the first one leads, and has one submitted key.
    pub(super) async fn new(documents: &str) -> Trio {
        let world = World::with(Backend::memory(), documents);
        let rows = MemoryRows::default();
        let first = world.made_by_hand();
        let mut trio = Trio { world, rows, processes: Vec::new(), first };
        for name in ["a", "b", "c"] {
            trio.join(name).await;
        }
        let leader = &trio.processes[0];
        leader.take_office().await;
        leader.engine.submit(operator(), &name(CREDENTIAL), trio.first.1.duplicate()).await.unwrap();
        trio.attend().await;
        trio
    }

    pub(super) async fn usual() -> Trio {
        Trio::new(DOCUMENTS).await
    }

    pub(super) async fn join(&mut self, name: &str) {
        let Backend::Memory { store, journal, keyring } = &self.world.backend else { panic!("in memory") };
        let (faults, audit, pushes) = (Faults::default(), Arc::new(MemoryAudit::new()), Arc::new(Pushes::default()));
        let store: Arc<dyn keywright::stores::SecretStore> = Arc::new(Faulty::new(store.clone(), faults.clone()));
        let journal: Arc<dyn keywright::journal::Journal> = Arc::new(MemoryJournal::clone(journal).faulty(&faults));
        let seams = Seams {
            store: store.clone(),
            journal: journal.clone(),
            promoter: Arc::new(Apart::new(store, journal)),
            issuer: Arc::new(Dispatch::new(self.world.issuer.clone(), Arc::new(GeneratedIssuer))),
            audit: audit.clone(),
            clock: self.world.clocks.clone(),
            delivery: pushes.clone(),
            meter: Arc::new(NoMeter),
            keyring: keyring.clone(),
        };
        let replica = Replica { name: super::name(name), rows: Arc::new(self.rows.faulty(&faults)) };
        let policies = self.world.documents.lock().unwrap().clone();
        let engine = Engine::follow(seams, replica, policies, Options::default()).await.unwrap();
        self.processes.push(Process { engine, audit, pushes, faults, word: Arc::default(), round: Default::default() });
    }

    pub(super) fn engine(&self, index: usize) -> &Arc<Engine> {
        &self.processes[index].engine
    }

    pub(super) async fn attend(&self) {
        for process in &self.processes {
            process.attend().await;
        }
    }

    /// Lets seconds go by: all attend to theirs, who leads turns its loop.
    pub(super) async fn live(&self, seconds: u64) {
        let end = self.world.clocks.ours_now() + Duration::from_secs(seconds);
        while self.world.clocks.ours_now() < end {
            self.attend().await;
            for process in self.processes.iter().filter(|process| process.engine.leads()) {
                process.engine.turn().await;
            }
            self.world.clocks.advance(Duration::from_secs(1));
        }
        self.attend().await;
    }

    /// Asks for a rotation at who leads, and lives until all know of its promotion.
    pub(super) async fn rotate(&self, leader: usize) -> VersionId {
        let before = current(self.engine(leader));
        self.engine(leader).rotate(operator(), &name(CREDENTIAL)).await.unwrap();
        self.promoted(leader, &before).await
    }

    pub(super) async fn promoted(&self, leader: usize, before: &VersionId) -> VersionId {
        for _ in 0..400 {
            self.live(1).await;
            if current(self.engine(leader)) != *before {
                return current(self.engine(leader));
            }
        }
        panic!("no promotion: {:#?}", status(self.engine(leader)));
    }

    pub(super) fn first_lives(&self) -> bool {
        self.world.alive_now(&self.first.0)
    }
}

pub(super) trait OursNow {
    fn ours_now(&self) -> Duration;
}

impl OursNow for world::Clocks {
    fn ours_now(&self) -> Duration {
        keywright::engine::clock::Clock::now(self).running
    }
}
