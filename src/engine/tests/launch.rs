//! Going live: what is kept back until a list is passed, who signs, and what stays whatever comes after.

use keywright::domain::ids::ItemId;
use keywright::domain::launch::{ItemState, Signer};
use keywright::engine::Reader;
use keywright::engine::audit::{AuditFault, Order};
use keywright::engine::errors::{LaunchError, ReadError};
use keywright::engine::launch_view::LaunchView;
use keywright::faults::When;

use super::*;

fn gated() -> String {
    documents(&[("environment: production, rotation: hourly}", "environment: production, rotation: hourly, requireGoLive: true}")])
}

fn item(text: &str) -> ItemId {
    text.parse().unwrap()
}

fn ana() -> Signer {
    "Ana Souza".parse().unwrap()
}

async fn list(engine: &Engine) -> LaunchView {
    engine.launch(&name(APPLICATION)).await.unwrap()
}

async fn state(engine: &Engine, id: &str) -> ItemState {
    list(engine).await.items.into_iter().find(|row| row.id == item(id)).unwrap().state
}

async fn confirm(engine: &Engine, id: &str) -> Result<(), LaunchError> {
    engine.confirm_item(operator(), &name(APPLICATION), &item(id), &ana()).await
}

async fn confirm_all(engine: &Engine) {
    for row in list(engine).await.items.iter().filter(|row| row.state == ItemState::NeedsPerson) {
        confirm(engine, row.id.as_str()).await.unwrap();
    }
}

fn words(scene: &Scene) -> Vec<String> {
    let ours = |word: &String| word.starts_with("golive-") || word == "went-live" || word == "disclosed";
    scene.world.audit.records().into_iter().map(|(_, record)| record.action).filter(ours).collect()
}

async fn read(scene: &Scene) -> Result<VersionId, ReadError> {
    let document = scene.engine.read(&App::new(APPLICATION, "one").reader(), &name(CREDENTIAL)).await?;
    Ok(document.version)
}

async fn listed(scene: &Scene, reader: &Reader) -> Option<VersionId> {
    scene.engine.list(reader).await.remove(0).version
}

#[tokio::test]
async fn it_is_kept_back_until_the_list_is_passed() {
    let scene = Scene::new(&gated()).await;
    let app = App::new(APPLICATION, "one").reader();
    let before = list(&scene.engine).await;
    assert!(!before.ready);
    let failed: Vec<_> = before.items.iter().filter(|row| row.state == ItemState::Failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(read(&scene).await, Err(ReadError::NotLive));
    assert_eq!(listed(&scene, &app).await, None);
    assert!(row(&scene.engine).applications.iter().all(|row| row.instance.is_none()), "who was refused holds nothing");
    // A person who may read isn't bound.
    let boss = Reader::Operator { who: "uid 0".to_owned(), reason: Some("OPS-1".parse().unwrap()) };
    scene.engine.read(&boss, &name(CREDENTIAL)).await.unwrap();
    assert_eq!(listed(&scene, &boss).await, Some(current(&scene.engine)));

    confirm_all(&scene.engine).await;
    assert!(list(&scene.engine).await.ready);
    assert_eq!(list(&scene.engine).await.credentials[0].live_since, None, "nobody was served it yet");
    assert_eq!(listed(&scene, &app).await, Some(current(&scene.engine)));
    assert_eq!(read(&scene).await, Ok(current(&scene.engine)));
    read(&scene).await.unwrap();
    assert_eq!(list(&scene.engine).await.credentials[0].live_since, Some(scene.world.now()));
    let told = words(&scene);
    assert_eq!(told.iter().filter(|word| *word == "went-live").count(), 1, "{told:?}");
    let live = told.iter().position(|word| word == "went-live").unwrap();
    assert_eq!(told[live + 1], "disclosed", "on record before it is served");
}

#[tokio::test]
async fn what_went_live_stays_live() {
    let scene = Scene::new(&gated()).await;
    confirm_all(&scene.engine).await;
    read(&scene).await.unwrap();
    scene.engine.withdraw_item(operator(), &name(APPLICATION), &item("retries")).await.unwrap();
    let bad = gated().replace("identity:", "endpoints: {webhook: \"https://localhost/hook\"}\n  identity:");
    scene.engine.set_policies(policies(&bad)).await;
    let after = list(&scene.engine).await;
    assert!(!after.ready && after.items.iter().any(|row| row.state == ItemState::Failed));
    read(&scene).await.unwrap();
    let scene = scene.restart().await;
    scene.engine.set_policies(policies(&bad)).await;
    read(&scene).await.unwrap();
    // Another application hasn't gone live with it.
    let second = bad.clone()
        + "---\napiVersion: keywright.dev/v1alpha1\nkind: Application\nmetadata: {name: second}\n\
spec: {environment: production, credentials: [dinie-production], identity: {unix: {uid: 2}}}\n";
    scene.engine.set_policies(policies(&second)).await;
    let refused = scene.engine.read(&App::new("second", "one").reader(), &name(CREDENTIAL)).await;
    assert_eq!(refused.unwrap_err(), ReadError::NotLive);
}

#[tokio::test]
async fn who_has_it_already_keeps_it() {
    let scene = Scene::usual().await;
    read(&scene).await.unwrap();
    scene.engine.set_policies(policies(&gated())).await;
    let reader = App::new(APPLICATION, "another").reader();
    assert_eq!(listed(&scene, &reader).await, Some(current(&scene.engine)));
    scene.engine.read(&reader, &name(CREDENTIAL)).await.unwrap();
    let detail = scene.world.audit.records().into_iter().find(|(_, record)| record.action == "went-live").unwrap().1.detail;
    assert_eq!(detail.as_deref(), Some("payments: served before the list was asked for"));
}

#[tokio::test]
async fn a_release_opens_no_gate() {
    let scene = Scene::new(&gated()).await;
    scene.engine.release(operator(), &name(APPLICATION), None).await.unwrap();
    assert_eq!(read(&scene).await, Err(ReadError::NotLive));
}

#[tokio::test]
async fn a_sign_off_is_on_record_first_and_durable() {
    let scene = Scene::new(&gated()).await;
    scene.world.audit.fail_always(Some(AuditFault::Refused));
    assert_eq!(confirm(&scene.engine, "retries").await, Err(LaunchError::AuditUnavailable));
    scene.world.audit.fail_always(None);
    assert_eq!(state(&scene.engine, "dinie-production.retries").await, ItemState::NeedsPerson);
    // The record comes first, then the journal.
    scene.world.faults.arm(scene.world.faults.count() + 1, When::Before);
    assert_eq!(confirm(&scene.engine, "retries").await, Err(LaunchError::Unavailable));
    assert_eq!(scene.world.faults.fired(), Some("journal.write_launch"));
    let scene = scene.restart().await;
    assert_eq!(state(&scene.engine, "dinie-production.retries").await, ItemState::NeedsPerson);

    let order = Order { reason: Some("OPS-7: seen in the log".parse().unwrap()), ..operator() };
    scene.engine.confirm_item(order, &name(APPLICATION), &item("retries"), &ana()).await.unwrap();
    let record = scene.world.audit.records().into_iter().rfind(|(_, record)| record.action == "golive-confirmed").unwrap().1;
    let detail = "payments: dinie-production.retries confirmed by Ana Souza; reason: OPS-7: seen in the log";
    assert_eq!((record.detail.as_deref(), record.credential.as_deref()), (Some(detail), Some(CREDENTIAL)));
    let count = words(&scene).len();
    // Again is fine, and nothing new; somebody else is.
    scene.world.pushes.taken();
    confirm(&scene.engine, "dinie-production.retries").await.unwrap();
    assert_eq!(words(&scene).len(), count);
    assert!(scene.world.pushes.taken().is_empty());
    let other: Signer = "Rui".parse().unwrap();
    scene.engine.confirm_item(operator(), &name(APPLICATION), &item("retries"), &other).await.unwrap();
    assert!(!scene.world.pushes.taken().is_empty(), "streams that wait look again");
    let scene = scene.restart().await;
    let row = list(&scene.engine).await.items.into_iter().find(|row| row.id == item("dinie-production.retries")).unwrap();
    let confirmation = row.confirmation.unwrap();
    assert_eq!((row.state, confirmation.by.as_str(), confirmation.outdated), (ItemState::Confirmed, "Rui", false));

    scene.engine.withdraw_item(operator(), &name(APPLICATION), &item("retries")).await.unwrap();
    scene.engine.withdraw_item(operator(), &name(APPLICATION), &item("retries")).await.unwrap();
    assert_eq!(words(&scene).iter().filter(|word| *word == "golive-withdrawn").count(), 1);
    let scene = scene.restart().await;
    assert_eq!(state(&scene.engine, "dinie-production.retries").await, ItemState::NeedsPerson);
}

#[tokio::test]
async fn only_what_needs_a_person_is_signed() {
    let scene = Scene::new(&gated()).await;
    assert!(matches!(confirm(&scene.engine, "production-keys").await, Err(LaunchError::Judged(_))));
    assert_eq!(confirm(&scene.engine, "nothing-like-it").await, Err(LaunchError::UnknownItem));
    let unknown = scene.engine.confirm_item(operator(), &name("nobody"), &item("retries"), &ana()).await;
    assert_eq!(unknown, Err(LaunchError::UnknownApplication));
    assert_eq!(scene.engine.launch(&name("nobody")).await, None);
    let withdrawn = scene.engine.withdraw_item(operator(), &name(APPLICATION), &item("nothing-like-it")).await;
    assert_eq!(withdrawn, Err(LaunchError::UnknownItem));
}

/// The built-in description, with one more item.
fn with_a_way_back() -> String {
    let built_in = keywright::policies::builtin_sources().into_iter().find(|source| source.file.ends_with("/dinie.yaml")).unwrap().text;
    let item = "    - {id: way-back, title: A way back, check: rollback, source: a test, confidence: unknown}\n";
    format!("{}---\n{built_in}{item}", gated())
}

#[tokio::test]
async fn a_version_before_is_a_way_back_while_it_lives() {
    let scene = Scene::new(&with_a_way_back()).await;
    assert_eq!(state(&scene.engine, "dinie-production.way-back").await, ItemState::NeedsPerson);
    scene.rotate().await;
    assert_eq!(state(&scene.engine, "dinie-production.way-back").await, ItemState::Passed);
}

#[tokio::test]
async fn the_list_is_the_one_that_was_reviewed() {
    let reviewed = |file: &str, view: &LaunchView| {
        crate::golden::assert(&format!("golive/{file}.json"), &crate::golden::pretty(&serde_json::to_value(view).unwrap()));
    };
    let twin = "---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {name: dinie-sandbox}\n\
spec: {provider: dinie, environment: sandbox, rotation: hourly}\n";
    let text = gated().replace("requireGoLive: true}", "requireGoLive: true, twin: dinie-sandbox}").replace(
        "identity:",
        "endpoints: {callback: \"https://payments.example.com/done\", webhook: \"https://staging.example.com/hook\"}\n  identity:",
    ) + twin;
    let scene = Scene::new(&text).await;
    reviewed("not-ready", &list(&scene.engine).await);
    let scene = Scene::new(&gated()).await;
    confirm_all(&scene.engine).await;
    read(&scene).await.unwrap();
    reviewed("ready", &list(&scene.engine).await);
}
