//! The engine among fakes: one story per test, with the clock and the provider in the test's hands.

mod administrators;
mod barrier;
mod catch_up;
mod current;
mod deliveries;
mod disclosures;
mod documents;
mod drift;
mod foreign;
mod generated;
mod golden;
mod incidents;
mod jumps;
mod keys;
mod launch;
mod manual;
mod outages;
mod pods;
mod replicas;
mod restored;
mod rollouts;
mod submissions;
mod times;
mod trio;
mod unchecked;
#[allow(unreachable_pub, dead_code, reason = "shared with the crash matrix")]
#[path = "../../../tests/crash_matrix/world.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use keywright::domain::ids::{KeyId, VersionId};
use keywright::domain::material::Material;
use keywright::engine::Engine;
use keywright::engine::views::{CredentialStatus, Status};

use world::{App, Backend, DOCUMENTS, World, instance, name, operator, policies, secret_field};

const CREDENTIAL: &str = "dinie-production";
const APPLICATION: &str = "payments";

/// [`DOCUMENTS`] with other words.
fn documents(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(DOCUMENTS.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn status(engine: &Engine) -> Status {
    engine.status(None, None, 100).unwrap()
}

fn row(engine: &Engine) -> CredentialStatus {
    engine.status(Some(&name(CREDENTIAL)), None, 1).unwrap().credentials.remove(0)
}

fn codes(engine: &Engine) -> Vec<String> {
    status(engine).problems.into_iter().map(|problem| problem.code).collect()
}

fn current(engine: &Engine) -> VersionId {
    engine.current(&name(CREDENTIAL)).unwrap().0
}

/// A world with one submitted key, as an operator leaves it.
struct Scene {
    world: World,
    engine: Arc<Engine>,
    first: (KeyId, Material),
}

impl Scene {
    async fn new(documents: &str) -> Scene {
        let world = World::with(Backend::memory(), documents);
        let engine = world.start().await.unwrap();
        let first = world.made_by_hand();
        engine.submit(operator(), &name(CREDENTIAL), first.1.duplicate()).await.unwrap();
        Scene { world, engine, first }
    }

    async fn usual() -> Scene {
        Scene::new(DOCUMENTS).await
    }

    async fn live(&self, seconds: u64) {
        self.world.live(&self.engine, Duration::from_secs(seconds)).await;
    }

    /// Asks for a rotation and drives it to its promotion.
    async fn rotate(&self) {
        let before = current(&self.engine);
        self.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
        for _ in 0..400 {
            self.live(1).await;
            if current(&self.engine) != before {
                return;
            }
        }
        panic!("no promotion: {:#?}", status(&self.engine));
    }

    fn alive(&self, key_id: &KeyId) -> bool {
        self.world.issuer.accepts(key_id, self.world.clocks.theirs.now())
    }

    async fn restart(self) -> Scene {
        let Scene { world, engine, first } = self;
        world.bury(engine);
        let engine = world.start().await.unwrap();
        Scene { world, engine, first }
    }
}

/// The built-in description of Dinie without its examples, which are of calls that a test takes away.
fn dinie() -> String {
    let text = keywright::policies::builtin_sources().into_iter().find(|source| source.file.ends_with("/dinie.yaml")).unwrap().text;
    let (before, rest) = text.split_once("  examples:\n").unwrap();
    format!("{before}  facts:\n{}", rest.split_once("  facts:\n").unwrap().1)
}
