//! A provider where a person makes and removes the keys: what is asked, answered wrongly and rightly, and believed at the end.

use keywright::domain::credential::Environment;
use keywright::domain::ledger::Closure;
use keywright::domain::manual::{Asks, Urgency};
use keywright::domain::material::Secret;
use keywright::domain::rotation::Event;
use keywright::engine::errors::{RevokeError, SubmitError};
use keywright::issuers::memory::FaultAction;

use super::*;

const BY_HAND: &str = "---
apiVersion: keywright.dev/v1alpha1
kind: Provider
metadata: {name: by-hand}
spec:
  title: By Hand
  lifecycle: manual
  environments: {sandbox: {base: \"https://sandbox.by-hand.invalid\"}, production: {base: \"https://by-hand.invalid\"}}
  fields:
    client_id: {class: public, bound: true}
    client_secret: {class: secret}
    webhook_key: {class: secret, use: verify, is: client_secret}
  calls:
    probe: {harmless: true, method: GET, path: /me, authentication: {bearer: client_secret}, provesEnvironment: true, rules: [{status: [401], means: dead}]}
  manual:
    create: [\"Make one for {credential} in {environment}, beside {old_version}.\"]
    remove: [\"Remove the one of {old_issued_at}.\"]
";

pub(super) fn by_hand() -> String {
    format!("{}{BY_HAND}", documents(&[("provider: dinie", "provider: by-hand"), ("spread: 1s", "spread: 1s, verifyEvery: 5m")]))
}

fn asks(engine: &Engine) -> Option<Asks> {
    row(engine).request.map(|request| request.asks)
}

async fn events(scene: &Scene) -> Vec<Event> {
    scene.world.backend.journal().load(&name(CREDENTIAL)).await.unwrap().events
}

async fn closures(scene: &Scene) -> Vec<Closure> {
    let closed = |event: Event| if let Event::Revoked { closure, .. } = event { Some(closure) } else { None };
    events(scene).await.into_iter().filter_map(closed).collect()
}

/// A second key is submitted and confirmed; the removal of the first is asked for.
async fn removing() -> (Scene, App) {
    let scene = Scene::new(&by_hand()).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let (_, second) = scene.world.made_by_hand();
    scene.engine.submit(operator(), &name(CREDENTIAL), second).await.unwrap();
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(61).await;
    assert_eq!(asks(&scene.engine), Some(Asks::OldKeyRemoval));
    (scene, app)
}

#[tokio::test]
async fn it_waits_across_restarts_is_answered_wrongly_and_then_rightly() {
    let scene = Scene::new(&by_hand()).await;
    scene.live(3_500).await;
    let before = row(&scene.engine);
    let request = before.request.clone().unwrap();
    assert_eq!((before.phase.as_str(), before.reason.as_deref(), request.asks), ("planned", Some("manual-request"), Asks::NewKey));
    let first = current(&scene.engine);
    assert_eq!(request.instructions[0], format!("Make one for dinie-production in production, beside {first}."));
    assert!(codes(&scene.engine).contains(&"manual-request".to_owned()));
    let scene = scene.restart().await;
    let told = events(&scene).await.len();
    assert_eq!(row(&scene.engine).request.unwrap().opened_at, request.opened_at);
    let (_, of_the_sandbox) = scene.world.issuer.enrol(Environment::Sandbox, "wrong environment");
    let (dead_id, dead) = scene.world.made_by_hand();
    scene.world.issuer.kill(&dead_id);
    for wrong in [of_the_sandbox, dead] {
        let refused = scene.engine.submit(operator(), &name(CREDENTIAL), wrong).await;
        assert!(matches!(refused, Err(SubmitError::ProviderRefused { .. } | SubmitError::EnvironmentMismatch { .. })), "{refused:?}");
    }
    assert_eq!(events(&scene).await.len(), told, "nothing of them is kept");
    assert_eq!(asks(&scene.engine), Some(Asks::NewKey), "and it is still asked for");
    let (_, right) = scene.world.made_by_hand();
    scene.engine.submit(operator(), &name(CREDENTIAL), right).await.unwrap();
    assert!(asks(&scene.engine).is_none() && row(&scene.engine).phase == "promoted");
}

#[tokio::test]
async fn reminders_rise_and_are_on_record_once() {
    let scene = Scene::new(&by_hand()).await;
    scene.live(3_600).await;
    let scene = scene.restart().await;
    scene.live(100).await;
    let request = row(&scene.engine).request.unwrap();
    assert_eq!((request.urgency, request.reminders), (Urgency::Overdue, 3));
    let words = scene.world.audit.records().into_iter().filter(|(_, action)| action.action == "manual-reminded");
    let details: Vec<String> = words.filter_map(|(_, action)| action.detail).collect();
    assert_eq!(details, ["new-key: soon", "new-key: urgent", "new-key: overdue"]);
    assert!(scene.engine.measures()[0].request.is_some_and(|(_, urgency, left)| urgency == Urgency::Overdue && left.is_negative()));
}

#[tokio::test]
async fn an_old_key_that_lives_on_is_proved_dead_once_it_is_removed() {
    let (scene, _app) = removing().await;
    scene.live(400).await;
    let problem = status(&scene.engine).problems.into_iter().find(|problem| problem.code == "manual-removal").unwrap();
    assert!(problem.message.contains("still accepted"), "{problem:?}");
    let scene = scene.restart().await;
    let (_, material) = (&scene.first.0, scene.world.stored(CREDENTIAL, &row(&scene.engine).previous_version.unwrap()).await);
    assert!(scene.world.accepts(&material), "what proves its death is kept until then");
    scene.world.issuer.kill(&scene.first.0);
    scene.live(800).await;
    assert_eq!(closures(&scene).await, [Closure::Proved]);
    assert_eq!((row(&scene.engine).phase.as_str(), codes(&scene.engine)), ("steady", Vec::new()));
    assert_eq!(scene.world.stages(CREDENTIAL).await.previous, None, "and its bytes are gone");
}

#[tokio::test]
async fn one_refusal_proves_nothing() {
    let (scene, _app) = removing().await;
    scene.world.issuer.inject("issuer.is_dead", FaultAction::Unauthenticated);
    scene.live(1_000).await;
    assert_eq!((closures(&scene).await, asks(&scene.engine)), (Vec::new(), Some(Asks::OldKeyRemoval)));
}

#[tokio::test]
async fn a_persons_word_is_taken_unless_the_provider_says_otherwise() {
    let (scene, _app) = removing().await;
    let old = row(&scene.engine).previous_version.unwrap();
    let alive = scene.engine.revoke_version(operator(), &name(CREDENTIAL), &old, false).await;
    assert!(matches!(alive, Err(RevokeError::NotNow(why)) if why.contains("still accepts")), "{alive:?}");
    assert_eq!(closures(&scene).await, []);
    scene.engine.revoke_version(operator(), &name(CREDENTIAL), &old, true).await.unwrap();
    assert_eq!((closures(&scene).await, row(&scene.engine).phase.as_str()), (vec![Closure::Reported], "steady"));
}

#[tokio::test]
async fn where_nothing_tells_it_is_closed_as_unproved_in_time() {
    let without = by_hand().replace("\n  calls:\n    probe: ", "\n  facts: []\n  limits: {}\n  # ");
    let without = without.replace("rotation: hourly}", "rotation: hourly, acceptUndetermined: nobody can tell}");
    let scene = Scene::new(&without).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let (_, second) = scene.world.made_by_hand();
    scene.engine.submit(operator(), &name(CREDENTIAL), second).await.unwrap();
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(61).await;
    assert_eq!(asks(&scene.engine), Some(Asks::OldKeyRemoval));
    scene.live(1_200).await;
    assert_eq!(closures(&scene).await, [Closure::Unproved]);
}

#[tokio::test]
async fn the_next_key_is_taken_while_the_last_ones_removal_is_asked_for() {
    let (scene, mut app) = removing().await;
    let second = current(&scene.engine);
    let asked = scene.engine.compromised(operator(), &name(CREDENTIAL), Duration::from_secs(600)).await.unwrap();
    assert_eq!(asks(&scene.engine), Some(Asks::NewKey), "a stolen key is asked for at once");
    let (third_id, third) = scene.world.made_by_hand();
    scene.engine.submit(operator(), &name(CREDENTIAL), third).await.unwrap();
    assert_eq!(scene.world.stages(CREDENTIAL).await.previous, Some(second));
    assert_eq!(closures(&scene).await, [Closure::Unproved]);
    assert!(codes(&scene.engine).contains(&"unproved".to_owned()), "the first may live on: {:?}", codes(&scene.engine));
    let operation = |event: &Event| matches!(event, Event::Planned { plan } if plan.operation == asked);
    assert!(events(&scene).await.iter().any(operation), "what was asked for is what was answered");
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.world.ours_living().into_iter().filter(|key| *key != third_id).for_each(|key| scene.world.issuer.kill(&key));
    scene.live(1_000).await;
    assert_eq!(closures(&scene).await, [Closure::Unproved, Closure::Proved]);
    assert!(row(&scene.engine).incident.unwrap().closed_at.is_some());
}

#[tokio::test]
async fn asked_twice_it_is_one_request() {
    let scene = Scene::new(&by_hand()).await;
    let first = scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    let again = scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    assert_eq!(first, again);
    let opened = events(&scene).await.into_iter().filter(|event| matches!(event, Event::ManualRequested { .. })).count();
    assert_eq!((opened, asks(&scene.engine)), (1, Some(Asks::NewKey)));
}

#[tokio::test]
async fn where_the_new_key_ends_the_old_one_nothing_is_asked_afterwards() {
    let replacing = by_hand().replace("remove: [\"Remove the one of {old_issued_at}.\"]", "replaces: true");
    let scene = Scene::new(&replacing).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    let problem = status(&scene.engine).problems.into_iter().find(|problem| problem.code == "manual-request").unwrap();
    assert!(problem.message.contains("no working key"), "{problem:?}");
    let (_, second) = scene.world.made_by_hand();
    scene.world.issuer.kill(&scene.first.0);
    scene.engine.submit(operator(), &name(CREDENTIAL), second).await.unwrap();
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(5).await;
    assert_eq!((closures(&scene).await, asks(&scene.engine)), (vec![Closure::Proved], None));
}

#[tokio::test]
async fn a_field_that_is_another_one_comes_with_it_and_is_never_brought() {
    let scene = Scene::new(&by_hand()).await;
    let mut app = App::new(APPLICATION, "one");
    let (secret, webhook) = (secret_field(), "webhook_key".parse().unwrap());
    let pair = |material: &Material| material.get(&secret).unwrap().same_as(material.get(&webhook).unwrap());
    assert!(app.fetch(&scene.engine).await && pair(&app.held.as_ref().unwrap().1));
    let first = scene.first.1.get(&secret).unwrap();
    let (_, mut second) = scene.world.made_by_hand();
    second.insert(webhook.clone(), Secret::from("brought-by-a-person".to_owned()));
    let refused = scene.engine.submit(operator(), &name(CREDENTIAL), second.duplicate()).await;
    assert!(matches!(refused, Err(SubmitError::InvalidFields(problems)) if problems.len() == 1));
    let second: Material = second.partition(|field| *field != webhook).0;
    scene.engine.submit(operator(), &name(CREDENTIAL), second).await.unwrap();
    let document = scene.engine.read(&app.reader(), &name(CREDENTIAL)).await.unwrap();
    assert!(pair(&document.fields) && !document.fields.get(&secret).unwrap().same_as(first));
    let previous = document.previous.unwrap();
    assert!(previous.fields.get(&webhook).unwrap().same_as(first) && previous.fields.get(&secret).is_none());
    assert!(pair(&scene.world.stored(CREDENTIAL, &current(&scene.engine)).await), "native readers see it, too");
}
