//! Clocks that jump, or disagree: nothing is destroyed on their word.

use jiff::SignedDuration;

use super::*;

const TEN_YEARS: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// Confirmed, and in the middle of the overlap.
async fn overlapping() -> Scene {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(20).await;
    assert_eq!(row(&scene.engine).phase, "confirmed");
    scene
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_revokes_nothing_and_starts_nothing() {
    for jump in [TEN_YEARS, -TEN_YEARS] {
        let scene = overlapping().await;
        let creates = scene.world.issuer.calls("issuer.create");
        scene.world.clocks.ours.jump(jump);
        scene.world.clocks.ours.trust(false);
        scene.live(30).await;
        assert!(scene.alive(&scene.first.0), "jump {jump:?}: the overlap isn't over");
        scene.live(300).await;
        assert!(scene.alive(&scene.first.0), "jump {jump:?}: a clock that isn't believed destroys nothing");
        assert_eq!(scene.world.issuer.calls("issuer.create"), creates, "jump {jump:?}: no second rotation");
        assert!(codes(&scene.engine).contains(&"clock-untrusted".to_owned()), "jump {jump:?}: and a person is told");
        scene.world.clocks.ours.jump(-jump);
        scene.world.clocks.ours.trust(true);
        scene.live(120).await;
        assert!(!scene.alive(&scene.first.0), "jump {jump:?}: it goes on");
        assert_eq!(row(&scene.engine).phase, "steady");
    }
}

#[tokio::test]
async fn a_jump_that_nobody_noticed_does_not_shorten_the_overlap() {
    let scene = overlapping().await;
    scene.world.clocks.ours.jump(SignedDuration::from_secs(200));
    scene.live(30).await;
    assert!(scene.alive(&scene.first.0), "measured by the smaller of both clocks");
}

#[tokio::test]
async fn while_the_providers_clock_disagrees_nothing_is_revoked() {
    let scene = overlapping().await;
    scene.world.clocks.theirs.set(scene.world.now().checked_sub(Duration::from_secs(400)).unwrap());
    scene.live(600).await;
    assert!(scene.alive(&scene.first.0));
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("clock-disagrees"));
    scene.world.clocks.theirs.set(scene.world.now());
    scene.live(400).await;
    assert!(!scene.alive(&scene.first.0));
    assert_eq!(codes(&scene.engine), Vec::<String>::new());
}

#[tokio::test]
async fn while_the_clocks_disagree_keys_that_are_left_over_are_found() {
    // Found by the simulator: a process that was deposed in the middle of a create made a key while the new one stood before a
    // revocation that the clocks kept back, for two hours.
    let scene = overlapping().await;
    // Ahead, so that all keys are made already.
    scene.world.clocks.theirs.advance(Duration::from_secs(1_000));
    scene.live(600).await;
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("clock-disagrees"));
    let installation = scene.engine.leading().0;
    let called = keywright::domain::ids::marker(installation, &name(CREDENTIAL), 2, 1);
    let (stray, _) = scene.world.issuer.enrol(keywright::domain::credential::Environment::Production, &called);
    scene.live(1_500).await;
    assert!(!scene.alive(&stray), "{:#?}", status(&scene.engine));
    assert!(scene.alive(&scene.first.0), "what the clocks keep back waits");
}

#[tokio::test]
async fn a_long_sleep_is_made_up_for_by_one_rotation() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let Scene { world, engine, first } = scene;
    world.bury(engine);
    world.clocks.ours.jump(SignedDuration::from_hours(30 * 24));
    world.clocks.theirs.advance(Duration::from_secs(30 * 86_400));
    let scene = Scene { engine: world.start().await.unwrap(), world, first };
    scene.live(30).await;
    assert_eq!(scene.world.issuer.calls("issuer.create"), 1);
    assert_eq!(row(&scene.engine).generation, 2);
    assert!(scene.alive(&scene.first.0), "who held it then holds it still: its lease began anew");
}

#[tokio::test]
async fn a_clock_that_is_not_believed_asks_the_provider_for_the_time() {
    let scene = Scene::new(&documents(&[("spread: 1s", "spread: 1s, verifyEvery: 15m")])).await;
    scene.live(30).await;
    scene.world.clocks.ours.trust(false);
    let asked = scene.world.issuer.calls("issuer.probe");
    // Each sweep signs with the current key, which shows that it lives, but tells no time.
    scene.live(3_000).await;
    assert!(scene.world.issuer.calls("issuer.probe") > asked, "or it would never be believed again");
}

#[tokio::test]
async fn a_key_made_under_a_clock_that_is_behind_is_not_old() {
    let scene = Scene::usual().await;
    scene.world.clocks.ours.jump(-TEN_YEARS);
    scene.world.clocks.ours.trust(false);
    scene.rotate().await;
    scene.world.clocks.ours.jump(TEN_YEARS);
    scene.world.clocks.ours.trust(true);
    let creates = scene.world.issuer.calls("issuer.create");
    scene.live(600).await;
    assert_eq!(scene.world.issuer.calls("issuer.create"), creates, "no second rotation");
    assert!(row(&scene.engine).age_seconds.is_some_and(|age| (0..1_000).contains(&age)), "{:?}", row(&scene.engine).age_seconds);
}

#[tokio::test]
async fn a_wait_that_was_noted_under_a_clock_that_was_ahead_does_not_last_ten_years() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.slots = Some(3));
    scene.world.clocks.ours.jump(TEN_YEARS);
    scene.world.clocks.ours.trust(false);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(5).await;
    assert_eq!(row(&scene.engine).phase, "steady", "given up: there is no free slot");
    scene.world.issuer.behave(|behaviour| behaviour.slots = None);
    scene.world.clocks.ours.jump(-TEN_YEARS);
    scene.world.clocks.ours.trust(true);
    scene.live(3_600).await;
    assert!(row(&scene.engine).generation >= 2, "{:?}", row(&scene.engine));
}
