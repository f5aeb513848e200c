//! The current key, revoked outside of us: noticed, said, and brought back by a submission.

use keywright::domain::credential::Environment;
use keywright::engine::errors::RotateError;
use keywright::issuers::memory::FaultAction;

use super::*;

async fn recovers_by_submission(scene: &Scene) {
    let (key_id, material) = scene.world.made_by_hand();
    let submitted = scene.engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
    assert_eq!(current(&scene.engine), submitted.version);
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(400).await;
    assert_eq!(row(&scene.engine).phase, "steady", "{:#?}", status(&scene.engine));
    assert!(!codes(&scene.engine).contains(&"current-refused".to_owned()));
    assert_eq!(scene.world.ours_living(), [key_id].into());
}

#[tokio::test]
async fn a_current_key_that_died_outside_is_noticed_and_a_submission_brings_it_back() {
    let scene = Scene::usual().await;
    scene.world.issuer.kill(&scene.first.0);
    scene.live(2_000).await;
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()), "{:?}", codes(&scene.engine));
    assert_eq!(scene.engine.rotate(operator(), &name(CREDENTIAL)).await, Err(RotateError::CurrentRefused));
    recovers_by_submission(&scene).await;
}

#[tokio::test]
async fn it_is_said_once_and_not_asked_without_pause() {
    let scene = Scene::usual().await;
    scene.world.issuer.kill(&scene.first.0);
    scene.live(7_200).await;
    let history = scene.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap();
    assert!(history.events.len() < 16, "the journal doesn't grow while nothing changes: {}", history.events.len());
    let calls = scene.world.issuer.calls("issuer.list") + scene.world.issuer.calls("issuer.is_dead");
    assert!(calls < 60, "{calls} calls in two hours");
}

#[tokio::test]
async fn a_provider_that_refused_it_by_mistake_is_believed_when_it_accepts_it_again() {
    let scene = Scene::usual().await;
    // Replicas of the provider are down for a while: everything is answered as if the key were dead.
    scene.world.issuer.behave(|behaviour| behaviour.life = None);
    for _ in 0..8 {
        scene.world.issuer.inject("issuer.list", FaultAction::Unauthenticated);
        scene.world.issuer.inject("issuer.is_dead", FaultAction::Unauthenticated);
    }
    scene.live(1_900).await;
    for _ in 0..30 {
        scene.live(100).await;
        if scene.world.issuer.calls("issuer.list") > 8 {
            break;
        }
    }
    scene.live(1_000).await;
    assert!(!codes(&scene.engine).contains(&"current-refused".to_owned()), "{:#?}", status(&scene.engine));
}

#[tokio::test]
async fn it_dies_while_a_candidate_waits() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = true);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(10).await;
    assert_eq!(row(&scene.engine).phase, "stored");
    scene.world.issuer.kill(&scene.first.0);
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = false);
    // The candidate can't be verified and its key can't be revoked: the key that would sign is dead.
    scene.live(3_000).await;
    recovers_by_submission(&scene).await;
}

#[tokio::test]
async fn it_dies_while_a_create_is_of_unknown_outcome() {
    let scene = Scene::usual().await;
    scene.world.issuer.inject("issuer.create", FaultAction::LoseReply);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.engine.turn().await;
    scene.world.issuer.kill(&scene.first.0);
    scene.live(3_000).await;
    recovers_by_submission(&scene).await;
}

#[tokio::test]
async fn it_dies_while_an_orphan_waits_to_be_revoked() {
    let scene = Scene::usual().await;
    scene.world.issuer.inject("issuer.create", FaultAction::LoseReply);
    for _ in 0..40 {
        scene.world.issuer.inject("issuer.revoke", FaultAction::Unreachable);
    }
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(100).await;
    assert_eq!(scene.world.ours_living().len(), 2);
    scene.world.issuer.kill(&scene.first.0);
    scene.live(60_000).await;
    assert!(scene.world.issuer.calls("issuer.revoke") >= 40);
    recovers_by_submission(&scene).await;
}

#[tokio::test]
async fn what_the_store_promoted_before_a_crash_is_promoted_even_if_it_died_meanwhile() {
    let rehearsal = Scene::usual().await;
    rehearsal.rotate().await;
    let promotion = rehearsal.world.faults.trace().iter().rposition(|point| *point == "store.promote").unwrap();
    // Dies right after the store has promoted the new version.
    let scene = Scene::usual().await;
    let old = current(&scene.engine);
    scene.world.faults.crash_at(promotion, keywright::faults::When::After);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(1).await;
    assert_eq!(scene.world.faults.fired(), Some("store.promote"));
    assert_eq!(current(&scene.engine), old, "the journal doesn't know yet");
    let new = scene.world.ours_living().into_iter().find(|key_id| *key_id != scene.first.0).unwrap();
    scene.world.issuer.kill(&new);
    let scene = scene.restart().await;
    scene.live(3_000).await;
    assert_ne!(current(&scene.engine), old, "the store is the truth about stages");
    assert!(scene.alive(&scene.first.0));
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()));
}

#[tokio::test]
async fn the_new_key_dies_during_the_overlap_and_the_old_one_is_kept() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    let new = scene.world.ours_living().into_iter().find(|key_id| *key_id != scene.first.0).unwrap();
    scene.world.issuer.kill(&new);
    scene.live(3_000).await;
    assert!(scene.alive(&scene.first.0), "the only living key isn't revoked (I5)");
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()), "{:?}", codes(&scene.engine));
}

#[tokio::test]
async fn the_new_key_dies_before_the_old_one_is_revoked() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(10).await;
    assert_eq!(row(&scene.engine).phase, "promoted", "an instance holds the old key");
    let died = row(&scene.engine).version.unwrap();
    let fresh: Vec<_> = scene.world.ours_living().into_iter().filter(|key| *key != scene.first.0).collect();
    scene.world.issuer.kill(&fresh[0]);
    scene.live(3_000).await;
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()), "{:?}", codes(&scene.engine));
    assert_eq!(scene.world.ours_living(), [scene.first.0.clone()].into(), "the old key stays while the new one is dead");
    recovers_by_submission(&scene).await;
    let versions = scene.engine.versions(&name(CREDENTIAL)).unwrap();
    let dead = versions.iter().find(|view| view.version == died).unwrap();
    assert!(dead.revoked_at.is_some(), "what died is known to be dead");
}

#[tokio::test]
async fn the_old_key_that_is_brought_back_is_not_given_up_by_what_it_signs() {
    let scene = Scene::new(&documents(&[("maxAge: 1h, overlap: 60s, spread: 1s", "maxAge: 10d, overlap: 2h, spread: 1s")])).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    let (new, marker) = scene
        .world
        .issuer
        .living(Environment::Production)
        .into_iter()
        .find(|(_, called)| called.ends_with("-2-1") && !called.contains("ffffffff"))
        .unwrap();
    // A key of an earlier attempt is left over, can't be revoked for a while, and the current key dies meanwhile.
    let (orphan, _) = scene.world.issuer.enrol(Environment::Production, &marker.replace("-2-1", "-1-7"));
    for _ in 0..40 {
        scene.world.issuer.inject("issuer.revoke", FaultAction::Unreachable);
    }
    scene.live(2_000).await;
    assert!(scene.world.issuer.calls("issuer.revoke") > 0, "it was found");
    scene.world.issuer.kill(&new);
    scene.live(60_000).await;
    assert!(codes(&scene.engine).contains(&"current-refused".to_owned()), "{:?}", codes(&scene.engine));
    // It signs for the clearing up, and mustn't pass for the current key there: its own end would begin.
    let submitted = scene.engine.submit(operator(), &name(CREDENTIAL), scene.first.1.duplicate()).await.unwrap();
    assert_eq!(current(&scene.engine), submitted.version);
    scene.live(3_000).await;
    assert!(scene.alive(&scene.first.0) && !scene.alive(&orphan));
}
