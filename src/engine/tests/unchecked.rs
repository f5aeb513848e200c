//! Credentials of providers that nobody can ask: a person makes and removes the keys, and nothing waits for an answer.

use keywright::domain::ledger::Closure;
use keywright::domain::material::Secret;
use keywright::domain::rotation::Event;
use keywright::engine::errors::SubmitError;

use super::*;

const TOKEN: &str = "initial_access_token";

/// [`DOCUMENTS`] with an initial access token in the place of the usual key.
fn tokens(accept: &str) -> String {
    documents(&[
        (
            "provider: dinie, environment: production, rotation: hourly",
            &format!("provider: oauth-initial-access, environment: production, rotation: hourly{accept}"),
        ),
        ("maxAge: 1h, overlap: 60s, spread: 1s", "maxAge: 10d, overlap: 60s, spread: 1s"),
        ("identity: {unix: {uid: 1000}}", "identity: {unix: {uid: 1000}}\n  lease: 1h"),
    ])
}

const ACCEPTED: &str = ", acceptUndetermined: they said so";

fn token(text: &str) -> Material {
    [(TOKEN.parse().unwrap(), Secret::from(text.to_owned()))].into_iter().collect()
}

async fn enrolled() -> (World, Arc<Engine>) {
    let world = World::with(Backend::memory(), &tokens(ACCEPTED));
    let engine = world.start().await.unwrap();
    engine.submit(operator(), &name(CREDENTIAL), token("the-first-token-of-them-all")).await.unwrap();
    (world, engine)
}

fn asked(world: &World) -> u64 {
    keywright::issuers::memory::POINTS.iter().map(|point| world.issuer.calls(point)).sum()
}

#[tokio::test]
async fn in_production_an_undetermined_value_needs_a_reason() {
    let world = World::with(Backend::memory(), &tokens(""));
    let engine = world.start().await.unwrap();
    let refused = engine.submit(operator(), &name(CREDENTIAL), token("the-first-token-of-them-all")).await;
    assert!(matches!(refused, Err(SubmitError::Undetermined { .. })), "{refused:?}");
    assert!(engine.current(&name(CREDENTIAL)).is_none());
}

#[tokio::test]
async fn in_the_sandbox_it_is_taken_as_it_is() {
    let sandbox = tokens("").replace("environment: production", "environment: sandbox");
    let world = World::with(Backend::memory(), &sandbox);
    let engine = world.start().await.unwrap();
    engine.submit(operator(), &name(CREDENTIAL), token("the-first-token-of-them-all")).await.unwrap();
    assert_eq!(row(&engine).phase, "steady");
}

#[tokio::test]
async fn nobody_is_asked_and_nothing_fails_while_it_lives() {
    let (world, engine) = enrolled().await;
    let before = world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events.len();
    for day in 0..5 {
        world.live(&engine, Duration::from_secs(86_400)).await;
        assert_eq!((row(&engine).phase.as_str(), codes(&engine)), ("steady", Vec::<String>::new()), "day {day}");
    }
    assert_eq!(asked(&world), 0);
    assert_eq!(world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events.len(), before);
}

#[tokio::test]
async fn when_it_is_due_a_person_is_asked_and_a_submission_replaces_it() {
    let (world, engine) = enrolled().await;
    let first = current(&engine);
    world.live(&engine, Duration::from_secs(10 * 86_400)).await;
    assert_eq!((row(&engine).reason.as_deref(), row(&engine).phase.as_str()), (Some("manual-request"), "planned"));
    let problem = status(&engine).problems.remove(0);
    assert!(problem.code == "manual-request" && problem.message.contains("keywright submit dinie-production"), "{problem:?}");
    assert_eq!(current(&engine), first, "until then it is what there is");

    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&engine).await);
    engine.submit(operator(), &name(CREDENTIAL), token("the-second-token-of-them-all")).await.unwrap();
    assert_ne!(current(&engine), first);
    assert!(app.fetch(&engine).await);
    let (version, material) = app.held.as_ref().map(|(version, material)| (version.clone(), material.duplicate())).unwrap();
    let message = format!("keywright-confirm\n{CREDENTIAL}\n{version}\none");
    let proof = keywright::sealing::hmac_sha256_hex(material.get(&TOKEN.parse().unwrap()).unwrap(), message.as_bytes());
    engine.confirm(&name(APPLICATION), &instance("one"), &name(CREDENTIAL), &version, &TOKEN.parse().unwrap(), &proof).await.unwrap();
    world.live(&engine, Duration::from_secs(120)).await;
    // It was submitted on the last day: the old one should be dead by now.
    assert_eq!((row(&engine).reason.as_deref(), row(&engine).phase.as_str()), (Some("overdue"), "retired"));
    assert!(codes(&engine).contains(&"manual-removal".to_owned()), "{:?}", codes(&engine));
    // Nobody says anything, and nobody can be asked: it isn't waited for longer than a person needs.
    world.live(&engine, Duration::from_secs(86_400)).await;
    assert_eq!((row(&engine).phase.as_str(), codes(&engine)), ("steady", Vec::<String>::new()));
    let events = world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events;
    let closures: Vec<&Closure> = events
        .iter()
        .filter_map(|event| match event {
            Event::Revoked { closure, .. } => Some(closure),
            _ => None,
        })
        .collect();
    assert_eq!(closures, [&Closure::Unproved], "that the old one is dead nobody can prove");
    assert_eq!(asked(&world), 0);
}

#[tokio::test]
async fn the_old_one_is_kept_while_somebody_holds_it() {
    let (world, engine) = enrolled().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&engine).await);
    engine.submit(operator(), &name(CREDENTIAL), token("the-second-token-of-them-all")).await.unwrap();
    world.live(&engine, Duration::from_secs(70)).await;
    assert_eq!(row(&engine).phase, "promoted", "the barrier holds without a check, too");
    assert_eq!(engine.measures()[0].holders_of_previous, 1);
}

/// The built-in description of Dinie without its token and probe calls: every call is signed with the pair itself.
fn pairs_without_a_check() -> String {
    let built_in = dinie().replace("  signs: token\n", "");
    let (before, rest) = built_in.split_once("    token:\n").unwrap();
    let calls = rest.split_once("    create:\n").unwrap().1;
    let basic = "authentication: {basic: {username: client_id, password: client_secret}}\n";
    format!("{before}    create:\n{}\n---{DOCUMENTS}", calls.replace("authentication: token\n", basic))
}

#[tokio::test]
async fn pairs_that_nobody_can_ask_about_are_rotated_all_the_same() {
    let scene = Scene::new(&pairs_without_a_check()).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(100).await;
    assert_eq!(row(&scene.engine).phase, "steady");
    assert!(!scene.alive(&scene.first.0) && scene.world.ours_living().len() == 1);
    assert_eq!(scene.world.issuer.calls("issuer.probe"), 0);
}

#[tokio::test]
async fn a_key_that_was_refused_elsewhere_ends_no_other_though_nobody_can_ask() {
    let scene = Scene::new(&pairs_without_a_check()).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    let new = scene.world.ours_living().into_iter().find(|key_id| *key_id != scene.first.0).unwrap();
    scene.world.issuer.kill(&new);
    // The list, which the pair signs, is refused again and again.
    scene.live(2_000).await;
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()), "{:?}", codes(&scene.engine));
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    let before = scene.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events.len();
    scene.live(2_000).await;
    assert!(scene.alive(&scene.first.0), "the only living key isn't revoked (I5)");
    let after = scene.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events.len();
    assert!(after <= before + 2, "and it isn't journaled again and again: {before}, then {after}");
}
