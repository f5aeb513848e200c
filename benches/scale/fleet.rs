//! The installation: documents, store and journal as the real code writes them, and one instance that holds each credential.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keywright::domain::credential::Environment;
use keywright::domain::holders::Holding;
use keywright::domain::ids::{InstallationId, Name, OperationId, VersionId};
use keywright::domain::material::{Material, Secret};
use keywright::domain::rotation::Event;
use keywright::embedded::{Embedded, FILE_NAME};
use keywright::engine::audit::{Actor, MemoryAudit};
use keywright::engine::meter::NoMeter;
use keywright::engine::{Engine, Options, Seams};
use keywright::issuers::memory::{MemoryIssuer, SimClock};
use keywright::journal::{Heartbeat, HoldingChange, Journal, Position, SealedCopy};
use keywright::policies::{Source, parse};
use keywright::runtime::clock::{SystemClock, wall_now};
use keywright::sealing::sha256;
use keywright::stores::{SecretStore, Slot, VersionBytes};
use tokio::task::JoinSet;

use super::{print, seconds};

/// Credentials of one account, and of one application.
const EACH: usize = 100;
const DOCUMENTS_IN_A_FILE: usize = 4_000;
/// Credentials that are written side by side: they share the durable commits.
const SIDE_BY_SIDE: usize = 1_000;
const HEAD: &str = "apiVersion: keywright.dev/v1alpha1\n";

pub(super) struct Fleet {
    pub(super) folder: PathBuf,
    pub(super) credentials: usize,
}

pub(super) fn name(number: usize) -> Name {
    format!("credential-{number:06}").parse().unwrap()
}

impl Fleet {
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.join("data/keywright.key")
    }

    pub(super) fn policies(&self) -> PathBuf {
        self.folder.join("policies")
    }

    pub(super) fn store_size(&self) -> u64 {
        fs::metadata(self.data().join(FILE_NAME)).unwrap().len()
    }

    /// Makes all of it, unless it is there.
    pub(super) async fn make(&self) {
        fs::create_dir_all(self.policies()).unwrap();
        if self.data().exists() {
            return;
        }
        let began = Instant::now();
        self.write_documents();
        let embedded = Embedded::open(&self.data(), &self.key()).unwrap();
        let journal = embedded.journal();
        let template = Template::enrolled(&embedded).await;
        let installation = journal.installation().await.unwrap();
        let term = journal.begin_term().await.unwrap();
        let mut writing = JoinSet::new();
        for number in 1..self.credentials {
            if writing.len() >= SIDE_BY_SIDE {
                writing.join_next().await.unwrap().unwrap();
            }
            let (embedded, template) = (embedded.clone(), template.clone());
            writing.spawn(async move { write_one(&embedded, &template, installation, term, number).await });
        }
        while let Some(written) = writing.join_next().await {
            written.unwrap();
        }
        self.write_holdings(&journal, installation, term).await;
        print("made in (not judged)", &seconds(began.elapsed()), "");
    }

    fn write_documents(&self) {
        let rotation = format!("{HEAD}kind: RotationPolicy\nmetadata: {{name: quarter}}\nspec: {{maxAge: 90d, overlap: 24h}}\n");
        fs::write(self.policies().join("rotation.yaml"), rotation).unwrap();
        let documents: Vec<String> = (0..self.credentials).map(|number| credential(&name(number), number / EACH)).collect();
        for (index, some) in documents.chunks(DOCUMENTS_IN_A_FILE).enumerate() {
            fs::write(self.policies().join(format!("credentials-{index:03}.yaml")), some.join("---\n")).unwrap();
        }
        let numbers: Vec<usize> = (0..self.credentials).collect();
        let applications: Vec<String> = numbers.chunks(EACH).map(application).collect();
        for (index, some) in applications.chunks(DOCUMENTS_IN_A_FILE / 20).enumerate() {
            fs::write(self.policies().join(format!("applications-{index:03}.yaml")), some.join("---\n")).unwrap();
        }
    }

    async fn write_holdings(&self, journal: &impl Journal, installation: InstallationId, term: u64) {
        for number in 0..self.credentials {
            // In groups of one application: each is one instance that was served all that it may read.
            if number % EACH != 0 {
                continue;
            }
            let holder: Name = application_name(number);
            let mut changes = Vec::new();
            for credential in (number..(number + EACH).min(self.credentials)).map(name) {
                let version = OperationId::new(installation, &credential, 1, 1).version(1);
                changes.push(HoldingChange::Put(Holding::first(holder.clone(), "one".parse().unwrap(), credential.clone(), version)));
                changes.push(HoldingChange::Seen { application: holder.clone(), credential });
            }
            journal.write_holdings(term, &changes).await.unwrap();
        }
    }
}

fn credential(name: &Name, account: usize) -> String {
    format!(
        "{HEAD}kind: Credential\nmetadata: {{name: {name}}}\n\
         spec: {{provider: dinie, environment: sandbox, rotation: quarter, account: account-{account}}}\n"
    )
}

fn application_name(first: usize) -> Name {
    format!("application-{:04}", first / EACH).parse().unwrap()
}

fn application(numbers: &[usize]) -> String {
    let (name, mut listed) = (application_name(numbers[0]), String::new());
    for number in numbers {
        write!(listed, "{}, ", self::name(*number)).unwrap();
    }
    let token = hex::encode(sha256(name.as_str().as_bytes()));
    format!(
        "{HEAD}kind: Application\nmetadata: {{name: {name}}}\n\
         spec: {{environment: sandbox, credentials: [{listed}], identity: {{token: {{sha256: \"{token}\"}}}}}}\n"
    )
}

/// What the engine journaled of the first credential, and by what its parts are to be told.
struct Template {
    events: Vec<String>,
    operation: OperationId,
    version: VersionId,
}

impl Template {
    /// Enrols the first credential through the engine, and lets it come to rest.
    async fn enrolled(embedded: &Embedded) -> Arc<Template> {
        let first = name(0);
        let rotation = format!("{HEAD}kind: RotationPolicy\nmetadata: {{name: quarter}}\nspec: {{maxAge: 90d, overlap: 24h}}\n---\n");
        let text = rotation + &credential(&first, 0);
        let policies = parse(&[Source { file: "bench.yaml".to_owned(), text }], wall_now()).unwrap();
        let issuer = MemoryIssuer::new(SimClock::new(wall_now()));
        let (_, material) = issuer.enrol(Environment::Sandbox, "made by hand");
        let engine = Engine::start(seams(embedded, issuer), policies, Options::default()).await.unwrap();
        engine.submit(Actor::Daemon, &first, material).await.unwrap();
        engine.turn().await;
        let events = embedded.journal().load(&first).await.unwrap().events;
        let events = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        let installation = engine.leading().0;
        let operation = OperationId::new(installation, &first, 1, 1);
        Arc::new(Template { events, operation, version: operation.version(1) })
    }
}

pub(super) fn seams(embedded: &Embedded, issuer: impl keywright::issuers::Issuer + 'static) -> Seams {
    Seams {
        store: Arc::new(embedded.store()),
        journal: Arc::new(embedded.journal()),
        promoter: Arc::new(embedded.store()),
        issuer: Arc::new(issuer),
        audit: Arc::new(MemoryAudit::new()),
        clock: Arc::new(SystemClock::new(Heartbeat::default())),
        delivery: Arc::new(keywright::delivery::stream::StreamHub::new()),
        meter: Arc::new(NoMeter),
        keyring: embedded.keyring(),
    }
}

/// One more credential, with its own value, version and fingerprints, by the calls that the engine makes.
async fn write_one(embedded: &Embedded, template: &Template, installation: InstallationId, term: u64, number: usize) {
    let credential = name(number);
    let operation = OperationId::new(installation, &credential, 1, 1);
    let version = operation.version(1);
    let (store, journal) = (embedded.store(), embedded.journal());
    let slot = Slot { credential: credential.clone(), environment: Environment::Sandbox, path: credential.to_string() };
    let served = material(&credential);
    let own = fingerprint_of(&credential);
    store.put_pending(&slot, &version, &VersionBytes { served, management: Material::default() }).await.unwrap();
    store.promote(&slot, &version, None).await.unwrap();
    let mut position = Position::default();
    for event in &template.events {
        let text =
            event.replace(&template.operation.to_string(), &operation.to_string()).replace(template.version.as_str(), version.as_str());
        let mut event: Event = serde_json::from_str(&text).unwrap();
        if let Event::Issued { fingerprints, key_id, issued_at, .. } = &mut event {
            fingerprints.iter_mut().for_each(|print| print.digest.clone_from(&own));
            *key_id = Some(format!("dinie_ci_test_{number}").parse().unwrap());
            // Anniversaries lie apart, and none is due while this is measured.
            *issued_at = wall_now() - jiff::SignedDuration::from_hours(i64::try_from(number % 1_440).unwrap());
        }
        position = journal.append(&credential, position, term, &event, SealedCopy::Keep).await.unwrap();
    }
}

fn fingerprint_of(credential: &Name) -> String {
    hex::encode(sha256(credential.as_str().as_bytes()))
}

fn material(credential: &Name) -> Material {
    let digest = fingerprint_of(credential);
    let mut material = Material::default();
    material.insert("client_id".parse().unwrap(), Secret::from(format!("dinie_ci_test_{}", &digest[..24])));
    material.insert("client_secret".parse().unwrap(), Secret::from(format!("dinie_cs_{digest}")));
    material
}

/// The lines of a file of `/proc` that begin with this word.
pub(super) fn proc_line(process: u32, file: &str, word: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join(file)).ok()?;
    text.lines().find(|line| line.starts_with(word)).map(str::to_owned)
}

/// What a process has worked so far, on all cores, in ticks of 10 ms: it tells more than the clock where others work, too.
pub(super) fn worked(process: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<i64> = text.rsplit(')').next().unwrap().split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // After the name come the state, which is no number, and then ten fields before user and system time.
    Duration::from_millis(10 * u64::try_from(fields[10] + fields[11]).unwrap())
}
