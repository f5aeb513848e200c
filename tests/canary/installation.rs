//! One run of the daemon's parts in this process: engine, API on loopback and on a socket, metrics; on seams that outlive it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use keywright::api::{App, EngineService, Limits, Listener, bind_address, bind_socket, serve};
use keywright::delivery::stream::StreamHub;
use keywright::domain::access::{Identity, Operator, Right};
use keywright::engine::audit::Audit;
use keywright::engine::errors::StartError;
use keywright::engine::meter::Meter;
use keywright::engine::{Engine, Options, Seams};
use keywright::runtime::metrics::{CredentialSample, Metrics};
use keywright::stores::Apart;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::calls::{Calls, Watched};
use crate::support::wire::Target;
use crate::world::World;

pub struct Process {
    pub engine: Arc<Engine>,
    pub tcp: Target,
    pub socket: Target,
    stop: CancellationToken,
    served: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// The engine's counts, as the daemon wires them.
struct Counting(Metrics);

impl Meter for Counting {
    fn rotation_ended(&self, outcome: &'static str) {
        self.0.rotation_ended(outcome);
    }

    fn step_took(&self, step: &'static str, took: Duration) {
        self.0.step_took(step, took);
    }

    fn pushed(&self, latency: Duration) {
        self.0.pushed(latency);
    }
}

impl Process {
    pub async fn start(world: &World, calls: &Calls, audit: Arc<dyn Audit>) -> Result<Process, StartError> {
        let (hub, metrics) = (Arc::new(StreamHub::new()), Metrics::new());
        let store = Arc::new(Watched { inner: world.backend.store(), calls: calls.clone() });
        let journal = Arc::new(Watched { inner: world.backend.journal(), calls: calls.clone() });
        let seams = Seams {
            store: store.clone(),
            journal: journal.clone(),
            promoter: match world.backend.promoter() {
                Some(together) => Arc::new(Watched { inner: together, calls: calls.clone() }),
                None => Arc::new(Apart::new(store, journal)),
            },
            issuer: world.issuer.clone(),
            audit: Arc::new(Watched { inner: audit, calls: calls.clone() }),
            clock: world.clocks.clone(),
            delivery: hub.clone(),
            meter: Arc::new(Counting(metrics.clone())),
            keyring: world.backend.keyring(),
        };
        let policies = world.documents.lock().unwrap().clone();
        let engine = Engine::start(seams, policies, Options::default()).await?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keywright.sock");
        let address = bind_address("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let tcp = Target::Tcp(address.address().unwrap());
        let listeners = vec![Listener::Socket(bind_socket(&path).unwrap()), address];
        let uid = rustix::process::getuid().as_raw();
        let app = App {
            service: Arc::new(EngineService(engine.clone())),
            hub,
            operators: vec![Operator { identity: Identity::Unix { uid }, may: Right::ALL.into() }],
            reviews: None,
            snapshots: None,
            rewraps: None,
            metrics: render(metrics, engine.clone()),
            ready: Arc::new(AtomicBool::new(true)),
            limits: Limits { retry_first: Duration::from_millis(2), drain: Duration::from_millis(200), ..Limits::default() },
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listeners, app, stop.clone()));
        Ok(Process { engine, tcp, socket: Target::Socket(path), stop, served, _folder: folder })
    }

    /// Begins the end: streams say `bye`.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until nothing of it is left.
    pub async fn ended(self) {
        self.stop.cancel();
        self.served.await.unwrap();
        // Tasks of streams see the stop by themselves.
        for _ in 0..1000 {
            if Arc::strong_count(&self.engine) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("something still holds the engine");
    }
}

fn render(metrics: Metrics, engine: Arc<Engine>) -> keywright::api::Metrics {
    Arc::new(move |with_names| {
        let measures = engine.measures();
        let samples = measures.iter().map(|measured| CredentialSample {
            name: measured.name.to_string(),
            provider: measured.provider.to_string(),
            environment: measured.environment.as_str(),
            age: None,
            until_deadline_seconds: None,
            verdict: measured.verdict.map(|verdict| verdict.as_str()),
            holders: measured.holders_of_previous as u64,
            holders_after_overlap: measured.holders_after_overlap as u64,
            request: None,
            store_changed: measured.store_changed,
            rollout_step: measured.rollout_step.map(|step| step as u64),
        });
        metrics.encode(&samples.collect::<Vec<_>>(), &engine.problem_counts(), with_names).unwrap()
    })
}
