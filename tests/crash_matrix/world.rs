//! A whole world for the engine: provider, store, journal, audit and clock as fakes that outlive it, so that it can die and be
//! started anew on what is left. Used by the crash matrix and by the engine's own tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keywright::delivery::{Change, Delivery};
use keywright::domain::credential::Environment;
use keywright::domain::ids::{FieldName, InstallationId, InstanceName, KeyId, Name, VersionId};
use keywright::domain::material::Material;
use keywright::domain::policy::Policies;
use keywright::domain::rotation::Moment;
use keywright::domain::workload::Workload;
use keywright::embedded::Embedded;
use keywright::engine::audit::{Action, Actor, Audit, AuditError, MemoryAudit};
use keywright::engine::clock::{Clock, ManualClock};
use keywright::engine::errors::StartError;
use keywright::engine::meter::NoMeter;
use keywright::engine::{Engine, Options, Reader, Seams};
use keywright::faults::Faults;
use keywright::issuers::Issuer;
use keywright::issuers::dispatch::Dispatch;
use keywright::issuers::generated::GeneratedIssuer;
use keywright::issuers::memory::{FaultAction, MemoryIssuer, SimClock};
use keywright::journal::kubernetes::KubernetesJournal;
use keywright::journal::memory::MemoryJournal;
use keywright::journal::{FaultyJournal, Journal};
use keywright::policies::{Source, parse};
use keywright::sealing::{Keyring, hmac_sha256_hex};
use keywright::stores::memory::MemoryStore;
use keywright::stores::{Apart, Faulty, Promoter, SecretStore, Slot, Stages};

/// The usual documents: one credential, one application.
pub const DOCUMENTS: &str = "
apiVersion: keywright.dev/v1alpha1
kind: RotationPolicy
metadata: {name: hourly}
spec: {maxAge: 1h, overlap: 60s, spread: 1s}
---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: dinie-production}
spec: {provider: dinie, environment: production, rotation: hourly}
---
apiVersion: keywright.dev/v1alpha1
kind: Application
metadata: {name: payments}
spec:
  environment: production
  credentials: [dinie-production]
  identity: {unix: {uid: 1000}}
";

/// The same where a person makes and removes the keys.
pub const DOCUMENTS_BY_HAND: &str = "
apiVersion: keywright.dev/v1alpha1
kind: RotationPolicy
metadata: {name: hourly}
spec: {maxAge: 1h, overlap: 60s, spread: 1s}
---
apiVersion: keywright.dev/v1alpha1
kind: Provider
metadata: {name: by-hand}
spec:
  title: By Hand
  lifecycle: manual
  environments: {production: {base: \"https://by-hand.invalid\"}}
  fields: {client_id: {class: public, bound: true}, client_secret: {class: secret}}
  calls: {probe: {harmless: true, method: GET, path: /me, authentication: {bearer: client_secret}, provesEnvironment: true, rules: [{status: [401], means: dead}]}}
---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: dinie-production}
spec: {provider: by-hand, environment: production, rotation: hourly}
---
apiVersion: keywright.dev/v1alpha1
kind: Application
metadata: {name: payments}
spec:
  environment: production
  credentials: [dinie-production]
  identity: {unix: {uid: 1000}}
";

/// The overlap of [`DOCUMENTS`].
pub const OVERLAP: Duration = Duration::from_secs(60);

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn instance(text: &str) -> InstanceName {
    text.parse().unwrap()
}

pub fn secret_field() -> FieldName {
    "client_secret".parse().unwrap()
}

/// As whoever acts, or as an order without a reason.
pub fn operator<By: From<Actor>>() -> By {
    Actor::Operator { who: "uid 0".to_owned() }.into()
}

pub fn policies(documents: &str) -> Policies {
    // Hundreds of lives have the same ones, and the built-in descriptions with them are slow to read.
    static PARSED: Mutex<BTreeMap<String, Policies>> = Mutex::new(BTreeMap::new());
    let mut known = PARSED.lock().unwrap();
    known.entry(documents.to_owned()).or_insert_with(|| parsed(documents)).clone()
}

fn parsed(documents: &str) -> Policies {
    let source = Source { file: "world.yaml".to_owned(), text: documents.to_owned() };
    parse(&[source], start_of_time()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub fn start_of_time() -> Timestamp {
    "2026-01-05T09:00:00Z".parse().unwrap()
}

/// Our clock and the provider's, which go together when somebody sleeps.
pub struct Clocks {
    pub ours: ManualClock,
    pub theirs: SimClock,
}

impl Clocks {
    pub fn advance(&self, by: Duration) {
        self.ours.advance(by);
        self.theirs.advance(by);
    }
}

#[async_trait]
impl Clock for Clocks {
    fn now(&self) -> Moment {
        self.ours.now()
    }

    fn heard(&self, provider_time: Timestamp) {
        self.ours.heard(provider_time);
    }

    async fn sleep(&self, by: Duration) {
        self.advance(by);
        tokio::task::yield_now().await;
    }
}

/// The trail, with a fault point at each record.
struct FaultyAudit {
    inner: Arc<MemoryAudit>,
    faults: Faults,
}

#[async_trait]
impl Audit for FaultyAudit {
    async fn record(&self, at: Timestamp, action: Action) -> Result<(), AuditError> {
        let point = self.faults.point("audit.record");
        point.before().map_err(|_| AuditError)?;
        let outcome = self.inner.record(at, action).await;
        point.after().map_err(|_| AuditError)?;
        outcome
    }

    fn repeated(&self, action: Action) {
        self.inner.repeated(action);
    }
}

/// Counts what applications were told.
#[derive(Debug, Default)]
pub struct Pushes(Mutex<Vec<Change>>);

impl Pushes {
    pub fn taken(&self) -> Vec<Change> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Delivery for Pushes {
    fn announce(&self, change: Change) {
        self.0.lock().unwrap().push(change);
    }
}

/// Where versions and events are kept.
pub enum Backend {
    Memory {
        store: MemoryStore,
        journal: MemoryJournal,
        keyring: Arc<Keyring>,
    },
    Embedded {
        folder: tempfile::TempDir,
        open: Mutex<Option<Embedded>>,
    },
    Elsewhere(Elsewhere),
    /// The journal in a cluster, the values in memory.
    Cluster {
        store: MemoryStore,
        journal: Box<dyn Fn() -> KubernetesJournal + Send + Sync>,
        keyring: Arc<Keyring>,
    },
}

/// Values on a server, whose own calls are the points; the journal is in memory.
pub struct Elsewhere {
    /// As the engine uses it, through what fails on purpose.
    pub store: Arc<dyn SecretStore>,
    /// The same, past that: for those who look.
    pub plain: Arc<dyn SecretStore>,
    pub journal: MemoryJournal,
    pub keyring: Arc<Keyring>,
    /// Makes the calls of `store` points of these.
    pub pass: Box<dyn Fn(&Faults) + Send + Sync>,
}

/// The seams to a backend, with fault points.
struct Kept {
    store: Arc<dyn SecretStore>,
    journal: Arc<dyn Journal>,
    promoter: Arc<dyn Promoter>,
    keyring: Arc<Keyring>,
}

impl Backend {
    pub fn memory() -> Backend {
        Backend::Memory { store: MemoryStore::default(), journal: memory_journal(), keyring: Arc::new(Keyring::ephemeral().unwrap()) }
    }

    /// The same store twice: as the engine uses it, and as it can always be looked at.
    pub fn elsewhere(store: Arc<dyn SecretStore>, plain: Arc<dyn SecretStore>, pass: Box<dyn Fn(&Faults) + Send + Sync>) -> Backend {
        let keyring = Arc::new(Keyring::ephemeral().unwrap());
        Backend::Elsewhere(Elsewhere { store, plain, journal: memory_journal(), keyring, pass })
    }

    pub fn embedded() -> Backend {
        Backend::Embedded { folder: tempfile::tempdir().unwrap(), open: Mutex::new(None) }
    }

    fn file(&self) -> Option<Embedded> {
        let Backend::Embedded { folder, open } = self else { return None };
        let mut open = open.lock().unwrap();
        let opened = open.take().unwrap_or_else(|| Embedded::open(folder.path(), &folder.path().join("keywright.key")).unwrap());
        *open = Some(opened.clone());
        Some(opened)
    }

    /// The data folder.
    pub fn directory(&self) -> std::path::PathBuf {
        match self {
            Backend::Memory { .. } | Backend::Elsewhere(_) | Backend::Cluster { .. } => panic!("memory has no folder"),
            Backend::Embedded { folder, .. } => folder.path().to_owned(),
        }
    }

    pub fn embedded_file(&self) -> Embedded {
        self.file().unwrap()
    }

    /// The file is closed with its last handle: the next use opens it anew.
    pub fn close(&self) {
        if let Backend::Embedded { open, .. } = self {
            drop(open.lock().unwrap().take());
        }
    }

    pub fn store(&self) -> Arc<dyn SecretStore> {
        match self {
            Backend::Memory { store, .. } => Arc::new(store.clone()),
            Backend::Embedded { .. } => Arc::new(self.file().unwrap().store()),
            Backend::Elsewhere(elsewhere) => elsewhere.plain.clone(),
            Backend::Cluster { store, .. } => Arc::new(store.clone()),
        }
    }

    pub fn journal(&self) -> Arc<dyn Journal> {
        match self {
            Backend::Memory { journal, .. } => Arc::new(journal.clone()),
            Backend::Embedded { .. } => Arc::new(self.file().unwrap().journal()),
            Backend::Elsewhere(elsewhere) => Arc::new(elsewhere.journal.clone()),
            Backend::Cluster { journal, .. } => Arc::new(journal()),
        }
    }

    /// Where store and journal share a file.
    pub fn promoter(&self) -> Option<Arc<dyn Promoter>> {
        self.file().map(|file| Arc::new(file.store()) as Arc<dyn Promoter>)
    }

    pub fn keyring(&self) -> Arc<Keyring> {
        match self {
            Backend::Memory { keyring, .. } => keyring.clone(),
            Backend::Embedded { .. } => self.file().unwrap().keyring(),
            Backend::Elsewhere(elsewhere) => elsewhere.keyring.clone(),
            Backend::Cluster { keyring, .. } => keyring.clone(),
        }
    }

    fn kept(&self, faults: &Faults) -> Kept {
        match self {
            Backend::Memory { store, journal, keyring } => {
                let store: Arc<dyn SecretStore> = Arc::new(store.faulty(faults));
                let journal: Arc<dyn Journal> = Arc::new(journal.faulty(faults));
                let promoter = Arc::new(Apart::new(store.clone(), journal.clone()));
                Kept { store, journal, promoter, keyring: keyring.clone() }
            }
            Backend::Embedded { .. } => {
                let file = self.file().unwrap();
                let store = Arc::new(Faulty::new(file.store(), faults.clone()));
                let journal = Arc::new(FaultyJournal::new(file.journal(), faults.clone()));
                Kept { store: store.clone(), journal, promoter: store, keyring: file.keyring() }
            }
            // Each start is another process.
            Backend::Cluster { store, journal, keyring } => {
                let store: Arc<dyn SecretStore> = Arc::new(store.faulty(faults));
                let journal: Arc<dyn Journal> = Arc::new(FaultyJournal::new(journal(), faults.clone()));
                let promoter = Arc::new(Apart::new(store.clone(), journal.clone()));
                Kept { store, journal, promoter, keyring: keyring.clone() }
            }
            Backend::Elsewhere(Elsewhere { store, journal, keyring, pass, .. }) => {
                pass(faults);
                let (store, journal): (_, Arc<dyn Journal>) = (store.clone(), Arc::new(journal.faulty(faults)));
                let promoter = Arc::new(Apart::new(store.clone(), journal.clone()));
                Kept { store, journal, promoter, keyring: keyring.clone() }
            }
        }
    }
}

fn memory_journal() -> MemoryJournal {
    MemoryJournal::of_installation(InstallationId(uuid::Uuid::from_u128(7 << 64)))
}

/// Everything but the engine.
pub struct World {
    pub clocks: Arc<Clocks>,
    pub issuer: Arc<MemoryIssuer>,
    pub audit: Arc<MemoryAudit>,
    pub pushes: Arc<Pushes>,
    pub faults: Faults,
    pub backend: Backend,
    pub documents: Mutex<Policies>,
    /// Keys of other people in the same account.
    pub foreign: Vec<KeyId>,
}

impl World {
    pub fn new(backend: Backend) -> World {
        World::with(backend, DOCUMENTS)
    }

    pub fn with(backend: Backend, documents: &str) -> World {
        let theirs = SimClock::new(start_of_time());
        let issuer = Arc::new(MemoryIssuer::new(theirs.clone()));
        let of_others = ["somebody else's", "kw-ffffffff-dinie-production-2-1"];
        let foreign = of_others.map(|name| issuer.enrol(Environment::Production, name).0).to_vec();
        World {
            clocks: Arc::new(Clocks { ours: ManualClock::new(start_of_time()), theirs }),
            issuer,
            audit: Arc::new(MemoryAudit::new()),
            pushes: Arc::default(),
            faults: Faults::default(),
            backend,
            documents: Mutex::new(policies(documents)),
            foreign,
        }
    }

    /// Makes the provider's calls points of the same numbering.
    pub fn hook_issuer(&self) {
        let (faults, foreign) = (self.faults.clone(), self.foreign.clone());
        let issuer = Arc::downgrade(&self.issuer);
        self.issuer.hook(Arc::new(move |point| {
            let living = issuer.upgrade().map(|issuer| issuer.living(Environment::Production)).unwrap_or_default();
            // A key may have several secrets that live.
            let ours = living.iter().map(|(key_id, _)| key_id).filter(|key_id| !foreign.contains(key_id)).collect::<BTreeSet<_>>().len();
            assert!(ours <= 2, "never more than two keys of ours, at {point} there are {ours}");
            let passed = faults.point(point);
            match (passed.before(), passed.after()) {
                (Err(_), _) => FaultAction::Unreachable,
                (Ok(()), Err(_)) => FaultAction::LoseReply,
                (Ok(()), Ok(())) => FaultAction::Proceed,
            }
        }));
    }

    /// A new engine on what is there.
    pub async fn start(&self) -> Result<Arc<Engine>, StartError> {
        self.start_with(self.issuer.clone(), self.clocks.clone()).await
    }

    /// The same with another way to the provider, and another clock.
    pub async fn start_with(&self, issuer: Arc<dyn Issuer>, clock: Arc<dyn Clock>) -> Result<Arc<Engine>, StartError> {
        let Kept { store, journal, promoter, keyring } = self.backend.kept(&self.faults);
        let seams = Seams {
            store,
            journal,
            promoter,
            issuer: Arc::new(Dispatch::new(issuer, Arc::new(GeneratedIssuer))),
            audit: Arc::new(FaultyAudit { inner: self.audit.clone(), faults: self.faults.clone() }),
            clock,
            delivery: self.pushes.clone(),
            meter: Arc::new(NoMeter),
            keyring,
        };
        let policies = self.documents.lock().unwrap().clone();
        Engine::start(seams, policies, Options::default()).await
    }

    /// The same with its values in another store, and the journal beside it.
    pub async fn start_on(&self, store: Arc<dyn SecretStore>) -> Result<Arc<Engine>, StartError> {
        let Kept { journal, keyring, .. } = self.backend.kept(&self.faults);
        let seams = Seams {
            store: store.clone(),
            journal: journal.clone(),
            promoter: Arc::new(Apart::new(store, journal)),
            issuer: Arc::new(Dispatch::new(self.issuer.clone(), Arc::new(GeneratedIssuer))),
            audit: Arc::new(FaultyAudit { inner: self.audit.clone(), faults: self.faults.clone() }),
            clock: self.clocks.clone(),
            delivery: self.pushes.clone(),
            meter: Arc::new(NoMeter),
            keyring,
        };
        let policies = self.documents.lock().unwrap().clone();
        Engine::start(seams, policies, Options::default()).await
    }

    /// The process has died with this engine. What is durable is opened anew.
    pub fn bury(&self, engine: Arc<Engine>) {
        assert_eq!(Arc::strong_count(&engine), 1, "nobody else holds the dead engine");
        drop(engine);
        self.backend.close();
        self.faults.revive();
    }

    pub fn now(&self) -> Timestamp {
        self.clocks.now().wall
    }

    /// A key that a person made in the dashboard.
    pub fn made_by_hand(&self) -> (KeyId, Material) {
        self.issuer.enrol(Environment::Production, "made by hand")
    }

    /// Lets so much time go by, with a turn of the loop wherever something is due.
    pub async fn live(&self, engine: &Engine, by: Duration) {
        let end = self.clocks.now().running + by;
        loop {
            let rest = engine.turn().await;
            let left = end.saturating_sub(self.clocks.now().running);
            if left.is_zero() {
                return;
            }
            self.clocks.advance(rest.clamp(Duration::from_millis(10), Duration::from_secs(60)).min(left));
        }
    }

    pub fn slot(&self, credential: &str) -> Slot {
        Slot { credential: name(credential), environment: Environment::Production, path: credential.to_owned() }
    }

    /// What a native reader of the store sees.
    pub async fn stages(&self, credential: &str) -> Stages {
        self.backend.store().stages(&self.slot(credential)).await.unwrap()
    }

    pub async fn stored(&self, credential: &str, version: &VersionId) -> Material {
        self.backend.store().read(&self.slot(credential), version).await.unwrap().served
    }

    /// Whether the provider accepts this now.
    pub fn accepts(&self, material: &Material) -> bool {
        self.issuer.accepts_material(Environment::Production, material, self.clocks.theirs.now())
    }

    /// Living keys that aren't other people's.
    pub fn ours_living(&self) -> BTreeSet<KeyId> {
        let living = self.issuer.living(Environment::Production).into_iter().map(|(key_id, _)| key_id);
        living.filter(|key_id| !self.foreign.contains(key_id)).collect()
    }

    /// How many secrets of those live: a key may have several.
    pub fn secrets_living(&self) -> usize {
        let living = self.issuer.living(Environment::Production);
        living.iter().filter(|(key_id, _)| !self.foreign.contains(key_id)).count()
    }

    pub fn alive_now(&self, key_id: &KeyId) -> bool {
        self.issuer.accepts(key_id, self.clocks.theirs.now())
    }

    /// Whether these are the newest values that the provider made for this key.
    pub fn is_newest(&self, key_id: &KeyId, material: &Material) -> bool {
        self.issuer.is_newest(Environment::Production, key_id, material)
    }

    pub fn foreign_live(&self) -> bool {
        self.foreign.iter().all(|key_id| self.issuer.accepts(key_id, self.clocks.theirs.now()))
    }
}

/// One instance of an application: keeps what it was given, and confirms it.
pub struct App {
    pub application: Name,
    pub instance: InstanceName,
    pub credential: Name,
    pub held: Option<(VersionId, Material)>,
    pub confirmed: Option<VersionId>,
    /// The pod that it is, where it is one.
    pub pod: Option<Workload>,
}

impl App {
    pub fn new(application: &str, called: &str) -> App {
        App {
            application: name(application),
            instance: instance(called),
            credential: name("dinie-production"),
            held: None,
            confirmed: None,
            pod: None,
        }
    }

    pub fn reader(&self) -> Reader {
        Reader::Application { application: self.application.clone(), instance: self.instance.clone(), pod: self.pod.clone() }
    }

    /// Fetches what is current. False if it can't be had now.
    pub async fn fetch(&mut self, engine: &Engine) -> bool {
        let Ok(document) = engine.read(&self.reader(), &self.credential).await else { return false };
        self.held = Some((document.version, document.fields.duplicate()));
        true
    }

    pub fn proof(&self) -> Option<(VersionId, String)> {
        let (version, material) = self.held.as_ref()?;
        let message = format!("keywright-confirm\n{}\n{version}\n{}", self.credential, self.instance);
        Some((version.clone(), hmac_sha256_hex(material.get(&secret_field())?, message.as_bytes())))
    }

    /// Confirms what it holds. False if that isn't acknowledged.
    pub async fn confirm(&mut self, engine: &Engine) -> bool {
        let Some((version, proof)) = self.proof() else { return false };
        let (application, instance, field) = (&self.application, &self.instance, secret_field());
        let done = engine.confirm(application, instance, &self.credential, &version, &field, &proof).await.is_ok();
        if done {
            self.confirmed = Some(version);
        }
        done
    }
}
