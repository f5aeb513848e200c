//! The store is changed by hand: noticed in time, reported, and neither overwritten nor served.

use keywright::domain::credential::Environment;
use keywright::domain::material::Secret;
use keywright::engine::errors::ReadError;
use keywright::stores::VersionBytes;
use keywright::stores::memory::MemoryStore;

use super::*;

fn store(scene: &Scene) -> MemoryStore {
    match &scene.world.backend {
        Backend::Memory { store, .. } => store.clone(),
        Backend::Embedded { .. } | Backend::Elsewhere(_) | Backend::Cluster { .. } => panic!("a hand reaches memory only"),
    }
}

async fn scene() -> Scene {
    Scene::new(&documents(&[("spread: 1s", "spread: 1s, verifyEvery: 5m")])).await
}

fn records(scene: &Scene, word: &str) -> usize {
    scene.world.audit.records().iter().filter(|(_, action)| action.action == word).count()
}

fn is_reported(scene: &Scene) -> bool {
    codes(&scene.engine).contains(&"store-changed".to_owned())
}

#[tokio::test]
async fn another_current_version_is_reported_and_the_known_one_stays_in_service() {
    let scene = scene().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let version = current(&scene.engine);
    let foreign: VersionId = "v9-foreign".parse().unwrap();
    store(&scene).relabel(&name(CREDENTIAL), Environment::Production, Some(foreign.clone()));
    scene.live(310).await;
    assert!(is_reported(&scene) && row(&scene.engine).reason.as_deref() == Some("store-changed"));
    assert!(scene.engine.measures()[0].store_changed);
    let scene = scene.restart().await;
    scene.live(1).await;
    assert!(is_reported(&scene), "looked at afresh after a start");
    assert!(app.fetch(&scene.engine).await && app.held.as_ref().unwrap().0 == version);
    // It comes due: nothing is made that couldn't be promoted, and the label stays as it was put.
    let made = scene.world.issuer.calls("issuer.create");
    scene.live(4_000).await;
    assert_eq!(scene.world.issuer.calls("issuer.create"), made);
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(foreign));
    store(&scene).relabel(&name(CREDENTIAL), Environment::Production, Some(version));
    scene.live(310).await;
    assert!(!is_reported(&scene) && row(&scene.engine).generation == 2, "put back, it goes on: {:?}", row(&scene.engine));
    assert_eq!((records(&scene, "store-changed"), records(&scene, "store-as-before")), (2, 1), "once per process");
}

#[tokio::test]
async fn other_bytes_are_sent_nowhere_and_not_served() {
    let scene = scene().await;
    let version = current(&scene.engine);
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let mut foreign = scene.first.1.duplicate();
    foreign.insert(secret_field(), Secret::from("dinie_cs_live_somebody_elses_value".to_owned()));
    let bytes = VersionBytes { served: foreign, ..VersionBytes::default() };
    store(&scene).tamper(&name(CREDENTIAL), Environment::Production, &version, Some(bytes));
    scene.live(310).await;
    assert!(is_reported(&scene));
    assert!(app.fetch(&scene.engine).await && scene.world.accepts(&app.held.as_ref().unwrap().1), "the last known good is in memory");
    let scene = scene.restart().await;
    let read = scene.engine.read(&app.reader(), &name(CREDENTIAL)).await;
    assert!(matches!(read, Err(ReadError::NoVersion)), "{read:?}");
    let probes = scene.world.issuer.calls("issuer.probe");
    scene.live(700).await;
    assert_eq!(scene.world.issuer.calls("issuer.probe"), probes, "bytes of somebody else are sent nowhere");
    // A person submits a new one, which is the way out.
    let (_, good) = scene.world.made_by_hand();
    scene.engine.submit(operator(), &name(CREDENTIAL), good).await.unwrap();
    scene.live(310).await;
    assert!(!is_reported(&scene) && app.fetch(&scene.engine).await);
}

#[tokio::test]
async fn a_value_that_is_gone_is_reported() {
    let scene = scene().await;
    store(&scene).tamper(&name(CREDENTIAL), Environment::Production, &current(&scene.engine), None);
    scene.live(310).await;
    assert!(is_reported(&scene) && records(&scene, "store-changed") == 1);
}

#[tokio::test]
async fn nothing_is_said_of_a_store_that_is_as_it_should_be() {
    let scene = scene().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    scene.live(1_000).await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(1_000).await;
    assert_eq!(records(&scene, "store-changed"), 0);
    assert_eq!(row(&scene.engine).phase, "steady");
}
