//! Submissions: what is taken, what is refused, and how old it is.

use keywright::domain::credential::Environment;
use keywright::domain::material::Secret;
use keywright::engine::audit::AuditFault;
use keywright::engine::errors::SubmitError;
use keywright::issuers::memory::FaultAction;

use super::*;

const TWO: &str = "---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: second}
spec: {provider: dinie, environment: production, rotation: hourly}
---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: dinie-sandbox}
spec: {provider: dinie, environment: sandbox, rotation: hourly}
";

fn two() -> String {
    format!("{DOCUMENTS}{TWO}")
}

#[tokio::test]
async fn a_value_lives_under_one_credential_only() {
    let scene = Scene::new(&two()).await;
    let again = scene.engine.submit(operator(), &name("second"), scene.first.1.duplicate()).await;
    let Err(SubmitError::EnvironmentMismatch { reasons }) = again else { panic!("{again:?}") };
    assert!(reasons.contains(CREDENTIAL), "{reasons}");
    assert!(scene.engine.current(&name("second")).is_none());
    let history = scene.world.backend.journal().load(&name("second")).await.unwrap();
    assert!(history.events.is_empty() && history.sealed.is_none(), "nothing of it is kept");
}

#[tokio::test]
async fn two_submissions_of_one_value_at_once_leave_it_under_one_credential() {
    let world = World::with(Backend::memory(), &two());
    let engine = world.start().await.unwrap();
    let (_, material) = world.made_by_hand();
    let (left, right) = (name(CREDENTIAL), name("second"));
    let (first, second) =
        tokio::join!(engine.submit(operator(), &left, material.duplicate()), engine.submit(operator(), &right, material.duplicate()));
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
}

#[tokio::test]
async fn a_key_of_the_other_environment_is_refused_and_never_sent_there() {
    let scene = Scene::new(&two()).await;
    let probes = scene.world.issuer.calls("issuer.probe");
    let (_, production) = scene.world.made_by_hand();
    let refused = scene.engine.submit(operator(), &name("dinie-sandbox"), production).await;
    assert!(matches!(refused, Err(SubmitError::EnvironmentMismatch { .. })), "{refused:?}");
    assert_eq!(scene.world.issuer.calls("issuer.probe"), probes);
    let (_, sandbox) = scene.world.issuer.enrol(Environment::Sandbox, "by hand");
    assert!(scene.engine.submit(operator(), &name("dinie-sandbox"), sandbox).await.is_ok());
}

#[tokio::test]
async fn submitting_the_current_value_again_changes_nothing() {
    let scene = Scene::usual().await;
    let (version, issued) = (current(&scene.engine), row(&scene.engine).issued_at);
    scene.live(600).await;
    let again = scene.engine.submit(operator(), &name(CREDENTIAL), scene.first.1.duplicate()).await.unwrap();
    assert_eq!((again.version, row(&scene.engine).issued_at), (version, issued));
}

#[tokio::test]
async fn a_revoked_value_never_comes_back() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(70).await;
    assert!(!scene.alive(&scene.first.0));
    let back = scene.engine.submit(operator(), &name(CREDENTIAL), scene.first.1.duplicate()).await;
    let Err(SubmitError::EnvironmentMismatch { reasons }) = back else { panic!("{back:?}") };
    assert!(reasons.contains("revoked"), "{reasons}");
}

#[tokio::test]
async fn a_pasted_old_key_keeps_its_age() {
    let world = World::new(Backend::memory());
    let engine = world.start().await.unwrap();
    let made = world.now();
    let (_, material) = world.made_by_hand();
    world.clocks.advance(Duration::from_secs(1_800));
    engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
    assert_eq!(row(&engine).issued_at, Some(made));
    assert!(row(&engine).age_seconds.unwrap() >= 1_800);
}

#[tokio::test]
async fn what_cannot_be_a_value_is_refused_field_by_field() {
    let scene = Scene::usual().await;
    let fields = |pairs: &[(&str, &str)]| -> Material {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), Secret::from((*value).to_owned()))).collect()
    };
    let problems = scene.engine.submit(operator(), &name(CREDENTIAL), fields(&[("client_id", "<id>"), ("more", "some-value")])).await;
    let Err(SubmitError::InvalidFields(problems)) = problems else { panic!("{problems:?}") };
    assert_eq!(problems.len(), 3, "unknown, missing and no value: {problems:?}");
    let unknown = scene.engine.submit(operator(), &name("nothing"), scene.first.1.duplicate()).await;
    assert_eq!(unknown.unwrap_err(), SubmitError::UnknownCredential);
}

#[tokio::test]
async fn a_dead_key_is_refused_and_nothing_of_it_is_kept() {
    let scene = Scene::usual().await;
    let (key_id, dead) = scene.world.made_by_hand();
    scene.world.issuer.kill(&key_id);
    let before = scene.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events.len();
    let refused = scene.engine.submit(operator(), &name(CREDENTIAL), dead).await;
    assert!(matches!(refused, Err(SubmitError::ProviderRefused { .. })), "{refused:?}");
    assert_eq!(scene.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events.len(), before);
    let words: Vec<String> = scene.world.audit.records().into_iter().map(|(_, action)| action.action).collect();
    assert_eq!(words.last().map(String::as_str), Some("submission-refused"));
}

#[tokio::test]
async fn while_the_provider_or_the_audit_is_away_it_can_be_tried_again() {
    let world = World::new(Backend::memory());
    let engine = world.start().await.unwrap();
    let (_, material) = world.made_by_hand();
    // As often as one submission asks.
    for _ in 0..6 {
        world.issuer.inject("issuer.probe", FaultAction::Unreachable);
    }
    let away = engine.submit(operator(), &name(CREDENTIAL), material.duplicate()).await;
    assert!(matches!(away, Err(SubmitError::ProviderUnavailable { .. })), "{away:?}");
    world.audit.fail_always(Some(AuditFault::Refused));
    assert_eq!(engine.submit(operator(), &name(CREDENTIAL), material.duplicate()).await.unwrap_err(), SubmitError::AuditUnavailable);
    world.audit.fail_always(None);
    assert!(engine.submit(operator(), &name(CREDENTIAL), material).await.is_ok());
}

#[tokio::test]
async fn a_submission_during_a_rotation_waits_for_it() {
    let scene = Scene::usual().await;
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    let (_, other) = scene.world.made_by_hand();
    assert_eq!(scene.engine.submit(operator(), &name(CREDENTIAL), other).await.unwrap_err(), SubmitError::RotationOpen);
}

#[tokio::test]
async fn a_submission_replaces_a_working_key_and_retires_it() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    let (key_id, other) = scene.world.made_by_hand();
    scene.engine.submit(operator(), &name(CREDENTIAL), other).await.unwrap();
    scene.live(100).await;
    assert!(scene.alive(&scene.first.0), "it is held");
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(70).await;
    assert_eq!(scene.world.ours_living(), [key_id].into());
}
