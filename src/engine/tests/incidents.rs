//! Incidents: a stolen key, the way back, revocation by hand, pause, and what is forgotten.

use keywright::domain::credential::Environment;
use keywright::domain::rotation::AbandonReason;
use keywright::engine::audit::AuditFault;
use keywright::engine::errors::{ForgetError, PauseError, ReadError, RevokeError, RollbackError, RotateError};
use keywright::engine::views::IncidentStatus;
use keywright::faults::When;

use super::*;

const WITHIN: Duration = Duration::from_secs(600);

async fn compromised(scene: &Scene, within: Duration) {
    scene.engine.compromised(operator(), &name(CREDENTIAL), within).await.unwrap();
}

fn incident(engine: &Engine) -> IncidentStatus {
    row(engine).incident.unwrap()
}

fn recorded(scene: &Scene, action: &str, by_operator: bool) -> usize {
    let records = scene.world.audit.records();
    let by = |actor: &keywright::engine::audit::Actor| matches!(actor, keywright::engine::audit::Actor::Operator { .. }) == by_operator;
    records.iter().filter(|(_, record)| record.action == action && by(&record.actor)).count()
}

#[tokio::test]
async fn a_stolen_key_dies_when_all_have_confirmed_and_the_last_look_names_what_a_thief_made() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.live(10).await;
    let (thiefs, _) = scene.world.issuer.enrol(Environment::Production, "backup");
    let before = current(&scene.engine);
    compromised(&scene, WITHIN).await;
    assert_eq!(codes(&scene.engine), ["compromised"]);
    scene.live(5).await;
    let open = incident(&scene.engine);
    assert_eq!((open.version.clone(), open.holders.len(), open.closed_at), (before, 1, None));
    assert_eq!(open.limit_at.duration_since(open.since).unsigned_abs(), WITHIN);
    assert!(scene.alive(&scene.first.0), "it is still held");
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(2).await;
    assert!(!scene.alive(&scene.first.0), "no overlap of a minute");
    let closed = incident(&scene.engine);
    assert!(closed.closed_at.is_some() && closed.revoked_at.is_some() && closed.stragglers.is_empty() && closed.holders.is_empty());
    assert_eq!(closed.replaced_by, Some(current(&scene.engine)));
    assert_eq!(closed.unknown_keys, Some([thiefs.clone()].into()), "keys that are older than the stolen one aren't named");
    assert_eq!(codes(&scene.engine), ["unknown-keys"]);
    assert!(scene.alive(&thiefs) && scene.world.foreign_live());
    assert_eq!((recorded(&scene, "rotation-requested", true), recorded(&scene, "compromised", false)), (1, 1));
    assert_eq!(recorded(&scene, "incident-closed", false), 1);
    // The report outlives the process; the problem is gone with the next rotation.
    let scene = scene.restart().await;
    assert_eq!(incident(&scene.engine), closed);
    scene.rotate().await;
    assert!(!codes(&scene.engine).contains(&"unknown-keys".to_owned()));
}

#[tokio::test]
async fn at_the_limit_the_key_dies_and_stragglers_are_named_whatever_happened_to_the_daemon() {
    for restarts in [false, true] {
        let mut scene = Scene::new(&documents(&[("identity:", "uptake: start\n  identity:")])).await;
        let app = App::new(APPLICATION, "stuck");
        assert!(scene.engine.read(&app.reader(), &app.credential).await.is_ok());
        compromised(&scene, WITHIN).await;
        scene.live(300).await;
        if restarts {
            scene = scene.restart().await;
        }
        scene.live(299).await;
        assert!(scene.alive(&scene.first.0));
        scene.live(3).await;
        assert!(!scene.alive(&scene.first.0));
        let stragglers = incident(&scene.engine).stragglers;
        assert_eq!((stragglers.len(), stragglers[0].instance.clone()), (1, Some(app.instance.clone())));
    }
}

#[tokio::test]
async fn an_open_rotation_is_hastened_and_keeps_its_operation() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.propagation = Duration::from_secs(20));
    let operation = scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(2).await;
    assert_eq!(scene.engine.compromised(operator(), &name(CREDENTIAL), Duration::ZERO).await, Ok(operation));
    scene.live(60).await;
    assert!(!scene.alive(&scene.first.0));
    assert_eq!((row(&scene.engine).generation, scene.world.ours_living().len()), (2, 1));
    assert!(incident(&scene.engine).closed_at.is_some());
    // An application that was never seen may have had the submitted key.
    assert_eq!(incident(&scene.engine).stragglers[0].instance, None);
}

#[tokio::test]
async fn what_cannot_be_replaced_is_refused_and_nothing_is_recorded_as_stolen() {
    let world = World::with(Backend::memory(), DOCUMENTS);
    let engine = world.start().await.unwrap();
    let ask = async |engine: &Engine, credential: &str| engine.compromised(operator(), &name(credential), WITHIN).await;
    assert_eq!(ask(&engine, CREDENTIAL).await, Err(RotateError::NoVersion));
    assert_eq!(ask(&engine, "nobody").await, Err(RotateError::UnknownCredential));
    let scene = Scene::usual().await;
    scene.world.audit.fail_always(Some(AuditFault::Refused));
    assert_eq!(ask(&scene.engine, CREDENTIAL).await, Err(RotateError::AuditUnavailable));
    scene.world.audit.fail_always(None);
    scene.engine.pause(operator(), None).await.unwrap();
    assert_eq!(ask(&scene.engine, CREDENTIAL).await, Err(RotateError::Paused));
    assert_eq!(row(&scene.engine).incident, None);
}

#[tokio::test]
async fn a_rollback_makes_the_old_key_current_as_a_new_version() {
    let scene = Scene::usual().await;
    let go_back = async || scene.engine.roll_back(operator(), &name(CREDENTIAL)).await;
    assert_eq!(go_back().await, Err(RollbackError::NothingToGoBackTo));
    assert_eq!(scene.engine.roll_back(operator(), &name("nobody")).await, Err(RollbackError::UnknownCredential));
    let first = current(&scene.engine);
    scene.rotate().await;
    let minted = scene.world.ours_living().into_iter().find(|key_id| *key_id != scene.first.0).unwrap();
    let back = go_back().await.unwrap();
    assert_eq!((back.version.clone(), back.revision), scene.engine.current(&name(CREDENTIAL)).unwrap());
    assert_ne!(back.version, first);
    assert!(scene.world.stored(CREDENTIAL, &back.version).await.same_as(&scene.first.1));
    assert_eq!(recorded(&scene, "rollback-requested", true), 1);
    scene.live(70).await;
    assert!(!scene.alive(&minted) && scene.alive(&scene.first.0));
    assert_eq!(go_back().await, Err(RollbackError::NothingToGoBackTo));
}

#[tokio::test]
async fn there_is_no_way_back_to_a_key_that_is_dead_stolen_or_on_its_way_out() {
    let scene = Scene::usual().await;
    scene.rotate().await;
    let second = current(&scene.engine);
    scene.world.issuer.kill(&scene.first.0);
    assert_eq!(scene.engine.roll_back(operator(), &name(CREDENTIAL)).await, Err(RollbackError::Refused));
    assert_eq!((current(&scene.engine), row(&scene.engine).phase.as_str()), (second, "promoted"), "it goes on where it stood");

    let scene = Scene::usual().await;
    let app = App::new(APPLICATION, "one");
    assert!(scene.engine.read(&app.reader(), &app.credential).await.is_ok());
    compromised(&scene, WITHIN).await;
    scene.live(5).await;
    assert_eq!(scene.engine.roll_back(operator(), &name(CREDENTIAL)).await, Err(RollbackError::Stolen));
}

#[tokio::test]
async fn an_old_version_goes_by_hand_at_once_and_who_holds_it_only_by_force() {
    let scene = Scene::usual().await;
    let first = current(&scene.engine);
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let revoke = async |version: &VersionId, force| scene.engine.revoke_version(operator(), &name(CREDENTIAL), version, force).await;
    assert_eq!(revoke(&first, true).await, Err(RevokeError::Current));
    assert_eq!(revoke(&"v9-x".parse().unwrap(), true).await, Err(RevokeError::Unknown));
    scene.rotate().await;
    assert_eq!(revoke(&first, false).await, Err(RevokeError::Held { who: "payments/one".to_owned() }));
    scene.engine.pause(operator(), None).await.unwrap();
    assert!(matches!(revoke(&first, true).await, Err(RevokeError::NotNow(_))));
    scene.engine.resume(operator(), None).await.unwrap();
    assert!(scene.alive(&scene.first.0));
    assert_eq!(revoke(&first, true).await, Ok(()));
    assert!(!scene.alive(&scene.first.0), "long before the end of the overlap");
    assert_eq!(revoke(&first, false).await, Ok(()), "again is fine");
    let named = scene.world.audit.records().into_iter().find(|(_, record)| record.action == "revocation-asked");
    assert!(named.unwrap().1.detail.unwrap().contains(APPLICATION));
}

#[tokio::test]
async fn nothing_goes_by_hand_while_the_current_key_cannot_be_verified() {
    let scene = Scene::usual().await;
    let first = current(&scene.engine);
    scene.rotate().await;
    let calls = scene.world.issuer.calls("issuer.revoke");
    scene.world.issuer.hook(std::sync::Arc::new(|_| keywright::issuers::memory::FaultAction::Unreachable));
    let asked = scene.engine.revoke_version(operator(), &name(CREDENTIAL), &first, true).await;
    assert!(matches!(asked, Err(RevokeError::Later { .. })), "{asked:?}");
    assert_eq!(scene.world.issuer.calls("issuer.revoke"), calls);
    assert!(scene.alive(&scene.first.0));
    // It was asked for: when the provider is back it goes by itself.
    scene.world.issuer.hook(std::sync::Arc::new(|_| keywright::issuers::memory::FaultAction::Proceed));
    scene.live(200).await;
    assert!(!scene.alive(&scene.first.0));
}

#[tokio::test]
async fn a_candidate_that_is_revoked_by_hand_is_abandoned() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.propagation = Duration::from_secs(50));
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(2).await;
    let versions = scene.engine.versions(&name(CREDENTIAL)).unwrap();
    let candidate = versions.into_iter().find(|view| view.stage == "pending").unwrap().version;
    assert_eq!(scene.engine.revoke_version(operator(), &name(CREDENTIAL), &candidate, false).await, Ok(()));
    assert_eq!(scene.world.ours_living(), [scene.first.0.clone()].into());
    assert_eq!(codes(&scene.engine), [AbandonReason::RevokedByHand.as_str()]);
}

#[tokio::test]
async fn a_pause_of_everything_outlives_a_restart_and_holds_for_what_comes_later() {
    let scene = Scene::usual().await;
    scene.rotate().await;
    scene.engine.pause(operator(), None).await.unwrap();
    let since = row(&scene.engine).paused_since.unwrap();
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    let scene = scene.restart().await;
    scene.live(500).await;
    assert!(scene.alive(&scene.first.0));
    assert_eq!((row(&scene.engine).paused, row(&scene.engine).paused_since), (true, Some(since)));
    assert_eq!(row(&scene.engine).reason.as_deref(), Some("paused"));
    assert!(codes(&scene.engine).contains(&"paused".to_owned()));
    // By its own name as well: that stays when all are resumed.
    scene.engine.pause(operator(), Some(&name(CREDENTIAL))).await.unwrap();
    scene.engine.resume(operator(), None).await.unwrap();
    scene.live(100).await;
    assert!(scene.alive(&scene.first.0));
    scene.engine.resume(operator(), Some(&name(CREDENTIAL))).await.unwrap();
    scene.live(10).await;
    assert!(!scene.alive(&scene.first.0));
    assert_eq!((row(&scene.engine).paused, row(&scene.engine).paused_since), (false, None));
    assert_eq!(scene.engine.pause(operator(), Some(&name("nobody"))).await, Err(PauseError::Unknown));
    assert_eq!((recorded(&scene, "pause-requested", true), recorded(&scene, "resume-requested", true)), (2, 2));
}

#[tokio::test]
async fn a_pause_that_cannot_be_recorded_is_refused() {
    let scene = Scene::usual().await;
    scene.world.audit.fail_always(Some(AuditFault::Refused));
    assert_eq!(scene.engine.pause(operator(), None).await, Err(PauseError::AuditUnavailable));
    assert_eq!(scene.engine.pause(operator(), Some(&name(CREDENTIAL))).await, Err(PauseError::AuditUnavailable));
    assert!(!row(&scene.engine).paused);
}

#[tokio::test]
async fn what_is_in_use_is_forgotten_by_force_only_and_a_crash_on_the_way_is_taken_up() {
    let scene = Scene::usual().await;
    let forget = async |force| scene.engine.forget(operator(), &name(CREDENTIAL), force).await;
    assert_eq!(forget(false).await, Err(ForgetError::Documented));
    // Two records, the event, then the store.
    scene.world.faults.crash_at(scene.world.faults.count() + 3, When::Before);
    assert_eq!(forget(true).await, Err(ForgetError::StoreUnavailable));
    assert_eq!(scene.world.faults.trace().last(), Some(&"store.clear"));
    assert!(scene.world.stages(CREDENTIAL).await.current.is_some(), "the store still has it");
    let reader = App::new(APPLICATION, "one").reader();
    let scene = scene.restart().await;
    assert_eq!(scene.engine.read(&reader, &name(CREDENTIAL)).await.err(), Some(ReadError::NoVersion));
    scene.live(1).await;
    assert_eq!(scene.world.stages(CREDENTIAL).await, keywright::stores::Stages::default());
    assert!(scene.alive(&scene.first.0), "nothing is revoked");
    assert_eq!(row(&scene.engine).phase, "missing");
    let kept = scene.engine.versions(&name(CREDENTIAL)).unwrap();
    assert_eq!((kept[0].stage, kept[0].revoked_at), ("forgotten", None));
    scene.engine.submit(operator(), &name(CREDENTIAL), scene.first.1.duplicate()).await.unwrap();
    scene.rotate().await;
}

#[tokio::test]
async fn what_no_document_names_is_forgotten_once_nobody_holds_it_and_no_longer_reported() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let gone = documents(&[
        ("credentials: [dinie-production]", "credentials: []"),
        ("kind: Credential\nmetadata: {name: dinie-production}", "kind: Credential\nmetadata: {name: other}"),
    ]);
    *scene.world.documents.lock().unwrap() = policies(&gone);
    scene.engine.set_policies(policies(&gone)).await;
    assert_eq!(codes(&scene.engine), ["unmanaged"]);
    let forget = async || scene.engine.forget(operator(), &name(CREDENTIAL), false).await;
    assert_eq!(forget().await, Err(ForgetError::Held { who: "payments/one".to_owned() }));
    scene.engine.release(operator(), &app.application, None).await.unwrap();
    assert_eq!(forget().await, Ok(()));
    assert_eq!(forget().await, Ok(()), "again is fine");
    assert!(codes(&scene.engine).is_empty());
    assert_eq!(scene.world.stages(CREDENTIAL).await, keywright::stores::Stages::default());
    assert_eq!(scene.engine.forget(operator(), &name("nobody"), true).await, Err(ForgetError::Unknown));
}
