//! Status and plan as they were reviewed: the documents that programs get, from rotations that really went so far.

use super::*;
use crate::golden;

fn reviewed(file: &str, document: &impl serde::Serialize) {
    golden::assert(file, &golden::pretty(&serde_json::to_value(document).unwrap()));
}

/// The usual documents, and a credential that nobody submitted a key for.
fn with_a_spare() -> String {
    let spare = "---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {name: dinie-spare}\n\
spec: {provider: dinie, environment: production, rotation: hourly}\n";
    DOCUMENTS.to_owned() + spare
}

/// Promoted, with an instance that has the new key too; whether it confirms is the test's to say.
async fn promoted() -> (Scene, App) {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    (scene, app)
}

#[tokio::test]
async fn a_missing_and_a_steady_credential() {
    let scene = Scene::new(&with_a_spare()).await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(600).await;
    reviewed("status/missing-and-steady.json", &status(&scene.engine));
}

#[tokio::test]
async fn the_middle_of_the_overlap() {
    let (scene, mut app) = promoted().await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(20).await;
    reviewed("status/overlap.json", &status(&scene.engine));
}

#[tokio::test]
async fn an_old_key_that_is_held_past_its_deadline() {
    let (scene, mut app) = promoted().await;
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    assert!(app.fetch(&scene.engine).await);
    scene.live(2 * 3_600).await;
    reviewed("status/overdue.json", &status(&scene.engine));
}

#[tokio::test]
async fn a_current_key_that_died_outside() {
    let scene = Scene::usual().await;
    scene.world.issuer.kill(&scene.first.0);
    scene.live(2_000).await;
    reviewed("status/stuck.json", &status(&scene.engine));
    reviewed("plan/blocked.json", &scene.engine.plan(90, None, 100));
}

#[tokio::test]
async fn a_rotation_that_was_given_up() {
    let scene = Scene::usual().await;
    scene.world.issuer.behave(|behaviour| behaviour.stillborn = true);
    scene.engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    scene.live(1_000).await;
    reviewed("status/abandoned.json", &status(&scene.engine));
}

#[tokio::test]
async fn a_clock_that_is_not_believed_and_a_document_that_is_gone() {
    let scene = Scene::new(&with_a_spare()).await;
    let mut without = policies(&with_a_spare());
    without.credentials.remove(&name(CREDENTIAL));
    without.applications.clear();
    scene.engine.set_policies(without).await;
    scene
        .engine
        .set_problem("policies-invalid", Some("policies/all.yaml:4:16: bad-duration; the last good policies are in force".to_owned()));
    scene.world.clocks.ours.trust(false);
    reviewed("status/daemon-problems.json", &status(&scene.engine));
}

/// A dozen credentials of one policy, all made in one hour: without the spread they would come due together.
#[tokio::test]
async fn the_herds_of_a_year() {
    let mut text =
        "apiVersion: keywright.dev/v1alpha1\nkind: RotationPolicy\nmetadata: {name: quarter}\nspec: {maxAge: 90d, spread: 7d}\n".to_owned();
    for number in 1..=12 {
        let account = if number <= 9 { "" } else { ", account: second" };
        text += &format!(
            "---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: key-{number:02}}}\n\
spec: {{provider: dinie, environment: production, rotation: quarter{account}}}\n"
        );
    }
    let world = World::with(Backend::memory(), &text);
    let engine = world.start().await.unwrap();
    for number in 1..=12 {
        engine.submit(operator(), &name(&format!("key-{number:02}")), world.made_by_hand().1).await.unwrap();
    }
    let plan = engine.plan(365, None, 100);
    assert_eq!(plan.herds.iter().map(|herd| herd.starts).sum::<u32>(), 4 * 12);
    reviewed("plan/herds.json", &plan);
    // Pages: the same rows, the herds of each page for itself, and together those of all.
    let mut sums = std::collections::BTreeMap::new();
    let (mut after, mut rows) = (None, Vec::new());
    loop {
        let page = engine.plan(365, after.as_ref(), 5);
        rows.extend(page.plan);
        page.herds.into_iter().for_each(|herd| *sums.entry((herd.account, herd.day)).or_insert(0) += herd.starts);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(rows, plan.plan);
    assert_eq!(
        sums.into_iter().collect::<Vec<_>>(),
        plan.herds.into_iter().map(|herd| ((herd.account, herd.day), herd.starts)).collect::<Vec<_>>()
    );
}
