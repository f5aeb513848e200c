//! Somebody else writes into the store: what is proved is taken up, what isn't is refused and reported, and nobody gets a dead key.

use keywright::domain::credential::Environment;
use keywright::domain::material::Secret;
use keywright::engine::errors::SubmitError;
use keywright::stores::memory::MemoryStore;
use keywright::stores::{SecretStore as _, VersionBytes};

use super::*;

const PRODUCTION: Environment = Environment::Production;

fn store(scene: &Scene) -> MemoryStore {
    match &scene.world.backend {
        Backend::Memory { store, .. } => store.clone(),
        Backend::Embedded { .. } | Backend::Elsewhere(_) | Backend::Cluster { .. } => panic!("others write into memory only"),
    }
}

fn write(scene: &Scene, value: &Material) {
    store(scene).write_natively(&name(CREDENTIAL), PRODUCTION, Some(value.duplicate()));
}

/// One pass over the marks, and what follows from it.
async fn notice(scene: &Scene) {
    assert_eq!(scene.engine.look_for_changes().await.map(|wait| wait.as_secs()), Some(18), "a part of the shortest `maxAge`");
    scene.live(2).await;
}

fn records(scene: &Scene, word: &str) -> usize {
    scene.world.audit.records().iter().filter(|(_, action)| action.action == word).count()
}

fn problem(scene: &Scene) -> Option<String> {
    status(&scene.engine).problems.into_iter().find(|problem| problem.code == "store-changed").map(|problem| problem.message)
}

/// The value that native readers have.
async fn native(scene: &Scene) -> Material {
    let native = store(scene).native(&scene.world.slot(CREDENTIAL)).await.unwrap().unwrap();
    native.served.unwrap()
}

/// A key of the sandbox, by its form.
fn of_the_sandbox(scene: &Scene) -> Material {
    let mut material = scene.first.1.duplicate();
    material.insert("client_id".parse().unwrap(), Secret::from("dinie_ci_test_1".to_owned()));
    material.insert(secret_field(), Secret::from("dinie_cs_test_somebody_elses_value".to_owned()));
    material
}

#[tokio::test]
async fn a_proved_change_is_served_and_pushed_and_the_old_key_ends_like_any_other() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    notice(&scene).await;
    let before = current(&scene.engine);
    let (key_id, theirs) = scene.world.made_by_hand();
    scene.world.pushes.taken();
    write(&scene, &theirs);
    notice(&scene).await;
    let after = current(&scene.engine);
    assert!(after != before && problem(&scene).is_none(), "{:?}", problem(&scene));
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(after.clone()), "a version of ours, with their value");
    assert!(native(&scene).await.same_as(&theirs));
    assert!(!scene.world.pushes.taken().is_empty(), "those who stream are told");
    assert_eq!((records(&scene, "store-change-accepted"), records(&scene, "store-change-refused")), (1, 0));
    assert!(app.fetch(&scene.engine).await && app.held.as_ref().unwrap().0 == after);
    assert!(app.confirm(&scene.engine).await);
    scene.live(200).await;
    assert!(scene.alive(&key_id) && !scene.alive(&scene.first.0), "the replaced key is retired");
    assert_eq!(row(&scene.engine).phase, "steady");
    // Nobody changed anything since: the next pass finds nothing, and the next rotation replaces it.
    notice(&scene).await;
    scene.rotate().await;
    assert_eq!(records(&scene, "store-changed"), 1);
}

#[tokio::test]
async fn a_mismatch_is_refused_and_reported_and_the_last_good_version_stays_in_service() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    notice(&scene).await;
    let version = current(&scene.engine);
    let probes = scene.world.issuer.calls("issuer.probe");
    write(&scene, &of_the_sandbox(&scene));
    notice(&scene).await;
    let told = problem(&scene).expect("it is reported");
    assert!(told.contains("foreign-1") && told.contains("doesn't belong to this environment"), "{told}");
    assert!(!told.contains("somebody_elses_value"));
    assert_eq!(scene.world.issuer.calls("issuer.probe"), probes, "it is sent nowhere");
    assert_eq!((records(&scene, "store-change-refused"), current(&scene.engine)), (1, version.clone()));
    let scene = scene.restart().await;
    notice(&scene).await;
    assert!(app.fetch(&scene.engine).await && app.held.as_ref().unwrap().0 == version);
    assert!(scene.world.accepts(&app.held.as_ref().unwrap().1) && problem(&scene).is_some());
    scene.live(600).await;
    assert_eq!(records(&scene, "store-change-refused"), 2, "once per process");
    // The next one is good, and that ends it.
    write(&scene, &scene.world.made_by_hand().1);
    notice(&scene).await;
    assert!(problem(&scene).is_none() && current(&scene.engine) != version);
}

#[tokio::test]
async fn what_is_no_value_is_refused() {
    let scene = Scene::usual().await;
    notice(&scene).await;
    store(&scene).write_natively(&name(CREDENTIAL), PRODUCTION, None);
    notice(&scene).await;
    assert!(problem(&scene).unwrap().contains("flat JSON object"));
    let mut half = scene.first.1.duplicate();
    half.insert(secret_field(), Secret::from("REDACTED".to_owned()));
    write(&scene, &half);
    notice(&scene).await;
    assert!(problem(&scene).unwrap().contains("client_secret"), "{:?}", problem(&scene));
    assert_eq!(records(&scene, "store-change-refused"), 2);
}

#[tokio::test]
async fn a_key_that_the_provider_refuses_is_looked_at_again_a_bounded_number_of_times() {
    let scene = Scene::new(&documents(&[("spread: 1s", "spread: 1s, verifyEvery: 1m")])).await;
    let version = current(&scene.engine);
    let (key_id, theirs) = scene.world.made_by_hand();
    scene.world.issuer.kill(&key_id);
    write(&scene, &theirs);
    notice(&scene).await;
    assert!(problem(&scene).unwrap().contains("doesn't accept"), "{:?}", problem(&scene));
    scene.live(1_200).await;
    assert_eq!((records(&scene, "store-change-refused"), current(&scene.engine)), (5, version));
}

#[tokio::test]
async fn the_same_value_written_again_changes_nothing_and_hinders_no_rotation() {
    let scene = Scene::usual().await;
    let version = current(&scene.engine);
    write(&scene, &scene.first.1);
    notice(&scene).await;
    assert!(problem(&scene).is_none() && current(&scene.engine) == version);
    scene.rotate().await;
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(current(&scene.engine)));
    assert_eq!(records(&scene, "store-changed"), 0);
}

#[tokio::test]
async fn a_change_in_the_middle_of_a_rotation_is_taken_up_at_its_end() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    let rotated = current(&scene.engine);
    let (_, theirs) = scene.world.made_by_hand();
    write(&scene, &theirs);
    notice(&scene).await;
    assert!(problem(&scene).unwrap().contains("once what is under way here has ended"), "{:?}", problem(&scene));
    assert_eq!(current(&scene.engine), rotated);
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(600).await;
    assert!(current(&scene.engine) != rotated && problem(&scene).is_none(), "{:?}", row(&scene.engine));
    assert!(app.fetch(&scene.engine).await && app.held.as_ref().unwrap().1.same_as(&theirs));
}

#[tokio::test]
async fn a_change_before_the_promotion_gives_the_rotation_up_and_is_taken_up() {
    let scene = Scene::usual().await;
    let before = current(&scene.engine);
    let (_, theirs) = scene.world.made_by_hand();
    write(&scene, &theirs);
    // Nobody has noticed yet.
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(400).await;
    assert!(current(&scene.engine) != before && native(&scene).await.same_as(&theirs), "{:?}", row(&scene.engine));
    assert_eq!((records(&scene, "abandoning"), records(&scene, "store-change-accepted")), (1, 1));
    assert_eq!(scene.world.ours_living().len(), 2, "the old one and theirs: what was made for nothing is revoked");
}

#[tokio::test]
async fn an_old_key_that_is_put_back_for_native_readers_is_not_revoked() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    let old = current(&scene.engine);
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    store(&scene).relabel(&name(CREDENTIAL), PRODUCTION, Some(old));
    scene.live(900).await;
    assert!(scene.alive(&scene.first.0), "native readers use it");
    assert!(problem(&scene).is_some() && codes(&scene.engine).contains(&"store-changed".to_owned()));
    let rolled_back = scene.engine.roll_back(operator(), &name(CREDENTIAL)).await.unwrap();
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(rolled_back.version));
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(600).await;
    assert!(problem(&scene).is_none() && scene.alive(&scene.first.0) && scene.world.ours_living().len() == 1);
}

#[tokio::test]
async fn a_persons_submission_replaces_what_somebody_else_wrote() {
    let scene = Scene::usual().await;
    write(&scene, &of_the_sandbox(&scene));
    let (_, good) = scene.world.made_by_hand();
    let submitted = scene.engine.submit(operator(), &name(CREDENTIAL), good).await.unwrap();
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(submitted.version));
    notice(&scene).await;
    assert!(problem(&scene).is_none());
}

#[tokio::test]
async fn a_good_key_that_somebody_writes_in_place_of_a_dead_one_is_taken_up_at_once() {
    let scene = Scene::usual().await;
    notice(&scene).await;
    let before = current(&scene.engine);
    // Revoked outside of us, and found out by a rotation, which is stuck with that.
    scene.world.issuer.kill(&scene.first.0);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(400).await;
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()), "{:?}", codes(&scene.engine));
    let (_, theirs) = scene.world.made_by_hand();
    write(&scene, &theirs);
    notice(&scene).await;
    assert!(current(&scene.engine) != before && problem(&scene).is_none(), "{:?}", status(&scene.engine).problems);
    assert!(!codes(&scene.engine).contains(&"current-refused".to_owned()));
}

#[tokio::test]
async fn nothing_is_taken_up_under_a_clock_that_isnt_believed() {
    let scene = Scene::usual().await;
    notice(&scene).await;
    let before = current(&scene.engine);
    scene.world.clocks.ours.trust(false);
    write(&scene, &scene.world.made_by_hand().1);
    notice(&scene).await;
    assert!(problem(&scene).unwrap().contains("clock"), "{:?}", problem(&scene));
    assert_eq!(current(&scene.engine), before);
    scene.world.clocks.ours.trust(true);
    scene.live(1_000).await;
    assert!(current(&scene.engine) != before && problem(&scene).is_none(), "{:?}", problem(&scene));
}

#[tokio::test]
async fn a_submission_puts_a_store_right_that_lost_everything() {
    let scene = Scene::usual().await;
    let versions = [current(&scene.engine)].into();
    store(&scene).clear(&scene.world.slot(CREDENTIAL), &versions).await.unwrap();
    notice(&scene).await;
    assert!(problem(&scene).is_some(), "it is told");
    let (_, good) = scene.world.made_by_hand();
    let submitted = scene.engine.submit(operator(), &name(CREDENTIAL), good).await.unwrap();
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(submitted.version));
    scene.live(2).await;
    assert!(problem(&scene).is_none());
}

/// A credential that was never submitted, and a value in its place.
async fn found(value: Option<Material>) -> (Scene, KeyId, Material) {
    let world = World::with(Backend::memory(), DOCUMENTS);
    let engine = world.start().await.unwrap();
    let (key_id, good) = world.made_by_hand();
    let scene = Scene { world, engine, first: (key_id.clone(), good.duplicate()) };
    store(&scene).write_natively(&name(CREDENTIAL), PRODUCTION, Some(value.unwrap_or_else(|| good.duplicate())));
    (scene, key_id, good)
}

#[tokio::test]
async fn what_others_made_is_adopted_only_when_that_is_asked_and_proved() {
    let (scene, key_id, good) = found(None).await;
    let name = name(CREDENTIAL);
    assert_eq!(scene.engine.submit(operator(), &name, good.duplicate()).await.unwrap_err(), SubmitError::Occupied);
    scene.live(60).await;
    assert!(scene.engine.current(&name).is_none());
    let adopted = scene.engine.adopt(operator(), &name, Material::default()).await.unwrap();
    assert_eq!((scene.world.stages(CREDENTIAL).await.current, records(&scene, "adopted")), (Some(adopted.version.clone()), 1));
    assert!(native(&scene).await.same_as(&good));
    let again = scene.engine.adopt(operator(), &name, Material::default()).await.unwrap();
    assert_eq!(again.version, adopted.version, "it is ours already");
    scene.rotate().await;
    assert!(scene.alive(&key_id));
}

#[tokio::test]
async fn a_value_of_another_environment_is_not_adopted_and_what_is_brought_takes_its_place() {
    let mut wrong = Material::default();
    wrong.insert("client_id".parse().unwrap(), Secret::from("dinie_ci_test_1".to_owned()));
    wrong.insert(secret_field(), Secret::from("dinie_cs_test_somebody_elses_value".to_owned()));
    let (scene, _, good) = found(Some(wrong.duplicate())).await;
    let name = name(CREDENTIAL);
    let refused = scene.engine.adopt(operator(), &name, Material::default()).await;
    assert!(matches!(refused, Err(SubmitError::EnvironmentMismatch { .. })), "{refused:?}");
    assert!(scene.engine.current(&name).is_none() && native(&scene).await.same_as(&wrong));
    assert_eq!(records(&scene, "adoption-refused"), 1);
    let adopted = scene.engine.adopt(operator(), &name, good.duplicate()).await.unwrap();
    assert_eq!(scene.world.stages(CREDENTIAL).await.current, Some(adopted.version));
    assert!(native(&scene).await.same_as(&good));
}

#[tokio::test]
async fn there_may_be_nothing_to_adopt() {
    let world = World::with(Backend::memory(), DOCUMENTS);
    let engine = world.start().await.unwrap();
    let refused = engine.adopt(operator(), &name(CREDENTIAL), Material::default()).await;
    assert_eq!(refused.unwrap_err(), SubmitError::NothingThere);
    let unknown = engine.adopt(operator(), &name("nobody"), Material::default()).await;
    assert_eq!(unknown.unwrap_err(), SubmitError::UnknownCredential);
}

#[tokio::test]
async fn bytes_that_somebody_tampered_with_are_never_taken_up() {
    let scene = Scene::usual().await;
    let version = current(&scene.engine);
    let bytes = VersionBytes { served: scene.world.made_by_hand().1, ..VersionBytes::default() };
    store(&scene).tamper(&name(CREDENTIAL), PRODUCTION, &version, Some(bytes));
    scene.live(3_700).await;
    assert_eq!((current(&scene.engine), records(&scene, "store-change-accepted")), (version, 0));
}
