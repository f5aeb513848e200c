//! The barrier: who holds the old key alive, by name, and what sets it free.

use std::collections::BTreeMap;

use keywright::engine::audit::Actor;
use keywright::engine::errors::ConfirmError;

use super::*;

/// A rotation that waits for one instance which has the old key, and the new one too, and doesn't confirm.
async fn held(documents: &str) -> (Scene, App) {
    let scene = Scene::new(documents).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    (scene, app)
}

fn problem(engine: &Engine, code: &str) -> Option<String> {
    status(engine).problems.into_iter().find(|problem| problem.code == code).map(|problem| problem.message)
}

#[tokio::test]
async fn an_instance_that_never_confirms_holds_the_old_key_past_its_age_by_name_until_it_is_released() {
    let (scene, mut app) = held(DOCUMENTS).await;
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    assert!(app.fetch(&scene.engine).await);
    let holders = || (scene.engine.measures()[0].holders_of_previous, scene.engine.measures()[0].holders_after_overlap);
    assert_eq!(holders(), (1, 0), "the overlap is there for that");
    scene.live(100).await;
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("held"));
    assert_eq!(holders(), (1, 1));
    assert_eq!(scene.engine.problem_counts().get("overdue"), None);
    scene.live(2 * 3_600).await;
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("overdue"));
    let mut shown = BTreeMap::new();
    status(&scene.engine).problems.into_iter().for_each(|problem| *shown.entry(problem.code).or_insert(0) += 1);
    assert_eq!(scene.engine.problem_counts(), shown, "what is counted is what is shown");
    assert_eq!(shown.get("overdue"), Some(&1));
    assert!(problem(&scene.engine, "overdue").unwrap().contains("payments/one"));
    assert!(scene.alive(&scene.first.0));
    scene.engine.release(operator(), &app.application, Some(&app.instance)).await.unwrap();
    scene.live(5).await;
    assert!(!scene.alive(&scene.first.0));
    assert_eq!(problem(&scene.engine, "overdue"), None);
    assert_eq!((holders(), scene.engine.problem_counts().get("overdue")), ((0, 0), None));
}

#[tokio::test]
async fn where_the_policy_says_so_the_key_is_revoked_at_the_end_of_the_overlap_and_stragglers_are_named() {
    let (scene, app) = held(&documents(&[("spread: 1s", "spread: 1s, unconfirmed: revoke")])).await;
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    scene.live(55).await;
    assert!(scene.alive(&scene.first.0));
    scene.live(10).await;
    assert!(!scene.alive(&scene.first.0));
    let named = |(_, action): &(_, keywright::engine::audit::Action)| {
        action.action == "confirmed" && action.detail.as_deref().is_some_and(|detail| detail.contains("payments"))
    };
    assert!(scene.world.audit.records().iter().any(named));
}

#[tokio::test]
async fn an_application_never_seen_blocks_the_first_revocation_of_a_submitted_key_and_no_later_one() {
    let scene = Scene::usual().await;
    scene.rotate().await;
    scene.live(300).await;
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("no-instance-seen"));
    assert!(scene.alive(&scene.first.0));
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    scene.live(5).await;
    assert!(!scene.alive(&scene.first.0));
    let second = scene.world.ours_living().into_iter().next().unwrap();
    scene.rotate().await;
    scene.live(70).await;
    assert!(!scene.alive(&second), "what was minted was never anywhere but here");
}

#[tokio::test]
async fn a_lease_that_ends_frees_and_a_restart_starts_it_anew() {
    let (scene, app) = held(&documents(&[("identity:", "lease: 40s\n  identity:")])).await;
    drop(scene.engine.open_stream(&app.application, &app.instance));
    scene.live(30).await;
    let scene = scene.restart().await;
    scene.live(35).await;
    assert!(scene.alive(&scene.first.0), "its lease began anew");
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("held"));
    scene.live(60).await;
    assert!(!scene.alive(&scene.first.0));
    assert!(row(&scene.engine).applications.iter().all(|application| application.instance.is_none()), "without a living instance");
}

#[tokio::test]
async fn who_reads_once_at_its_start_holds_for_ever() {
    let (scene, app) = held(&documents(&[("identity:", "uptake: start\n  identity:")])).await;
    scene.engine.touch(&app.application, &app.instance);
    scene.live(100_000).await;
    assert!(scene.alive(&scene.first.0), "unknown use is use");
}

#[tokio::test]
async fn who_was_never_served_the_old_version_does_not_block() {
    let (scene, mut old) = held(DOCUMENTS).await;
    let mut late = App::new(APPLICATION, "late");
    assert!(late.fetch(&scene.engine).await);
    let _streams = [&old, &late].map(|app| scene.engine.open_stream(&app.application, &app.instance));
    assert!(old.fetch(&scene.engine).await && old.confirm(&scene.engine).await);
    scene.live(70).await;
    assert!(!scene.alive(&scene.first.0));
}

#[tokio::test]
async fn who_comes_back_with_the_old_key_only_is_still_a_holder_after_a_restart() {
    let (scene, app) = held(DOCUMENTS).await;
    let scene = scene.restart().await;
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    scene.live(500).await;
    assert!(scene.alive(&scene.first.0));
    let state = row(&scene.engine).applications.remove(0);
    assert_eq!(serde_json::to_value(state.state).unwrap(), "holds");
}

#[tokio::test]
async fn only_a_right_proof_of_the_newest_version_counts() {
    let (scene, mut app) = held(DOCUMENTS).await;
    let (engine, field) = (&scene.engine, secret_field());
    let (old, old_proof) = app.proof().unwrap();
    let say = async |instance: &str, version: &VersionId, proof: &str| {
        engine.confirm(&name(APPLICATION), &super::instance(instance), &name(CREDENTIAL), version, &field, proof).await
    };
    assert!(app.fetch(engine).await);
    let (new, proof) = app.proof().unwrap();
    assert_eq!(say("one", &old, &old_proof).await, Err(ConfirmError::NotNewest));
    assert_eq!(say("one", &new, &old_proof).await, Err(ConfirmError::WrongProof));
    assert_eq!(say("one", &new, "").await, Err(ConfirmError::WrongProof));
    assert_eq!(say("two", &new, &proof).await, Err(ConfirmError::NotNewest), "never served");
    let forbidden = engine.confirm(&name("others"), &app.instance, &name(CREDENTIAL), &new, &field, &proof).await;
    assert_eq!(forbidden, Err(ConfirmError::Forbidden));
    scene.world.audit.fail_always(Some(keywright::engine::audit::AuditFault::Refused));
    assert_eq!(say("one", &new, &proof).await, Err(ConfirmError::AuditUnavailable));
    scene.world.audit.fail_always(None);
    scene.world.faults.arm(scene.world.faults.count() + 1, keywright::faults::When::Before);
    assert_eq!(say("one", &new, &proof).await, Err(ConfirmError::Unavailable));
    assert_eq!(serde_json::to_value(row(engine).applications[0].state).unwrap(), "served");
    assert_eq!(say("one", &new, &proof).await, Ok(()));
    assert_eq!(say("one", &new, &proof).await, Ok(()), "and again");
    assert_eq!(serde_json::to_value(row(engine).applications[0].state).unwrap(), "confirmed");
}

#[tokio::test]
async fn two_instances_without_a_name_confirm_nothing() {
    let (scene, _) = held(DOCUMENTS).await;
    let mut unnamed = App::new(APPLICATION, "default");
    assert!(unnamed.fetch(&scene.engine).await);
    let first = scene.engine.open_stream(&unnamed.application, &unnamed.instance);
    let second = scene.engine.open_stream(&unnamed.application, &unnamed.instance);
    let (version, proof) = unnamed.proof().unwrap();
    let said = scene.engine.confirm(&unnamed.application, &unnamed.instance, &unnamed.credential, &version, &secret_field(), &proof).await;
    assert_eq!(said, Err(ConfirmError::AmbiguousInstance));
    drop((first, second));
}

#[tokio::test]
async fn what_a_delivery_saw_taken_up_everywhere_frees_its_own_instance_and_no_other() {
    use keywright::domain::delivery::Way;

    let scene = Scene::usual().await;
    let mut secret = App::new(APPLICATION, Way::KubernetesSecret.as_str());
    assert!(secret.fetch(&scene.engine).await);
    let old = scene.engine.current(&name(CREDENTIAL)).unwrap().0;
    scene.rotate().await;
    assert!(secret.fetch(&scene.engine).await);
    let new = scene.engine.current(&name(CREDENTIAL)).unwrap().0;
    assert_ne!(old, new);
    let taken_up = async |version: &VersionId| {
        let versions = [(name(CREDENTIAL), version.clone())];
        scene.engine.taken_up(&secret.application, Way::KubernetesSecret, &versions).await.unwrap();
    };
    taken_up(&old).await;
    let _streams = scene.engine.open_stream(&secret.application, &secret.instance);
    scene.live(100).await;
    assert!(scene.alive(&scene.first.0), "what is taken up is the old version");
    scene.engine.taken_up(&secret.application, Way::File, &[(name(CREDENTIAL), new.clone())]).await.unwrap();
    scene.live(5).await;
    assert!(scene.alive(&scene.first.0), "another way brought nothing");
    taken_up(&new).await;
    taken_up(&new).await;
    scene.live(5).await;
    assert!(!scene.alive(&scene.first.0));
    let records = scene.world.audit.records();
    let recorded: Vec<_> = records.iter().filter(|(_, action)| action.action == "confirmed" && action.detail.is_some()).collect();
    assert!(matches!(recorded[..], [(_, action)] if action.actor == Actor::Daemon), "{recorded:?}");
}
