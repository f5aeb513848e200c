//! Documents that change while a rotation is open, and restarts on which nothing changed.

use super::*;

#[tokio::test]
async fn a_restart_with_nothing_changed_pushes_and_writes_nothing() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.live(30).await;
    scene.world.pushes.taken();
    let scene = scene.restart().await;
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    let (points, writes) = (scene.world.faults.count(), ["issuer.create", "issuer.revoke"].map(|point| scene.world.issuer.calls(point)));
    scene.live(60).await;
    assert_eq!(scene.world.pushes.taken(), []);
    assert_eq!(["issuer.create", "issuer.revoke"].map(|point| scene.world.issuer.calls(point)), writes);
    let trace = scene.world.faults.trace();
    assert!(trace[points..].iter().all(|point| *point == "journal.write_heartbeat"), "{:?}", &trace[points..]);
}

#[tokio::test]
async fn an_open_rotation_takes_over_safer_terms_only() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.rotate().await;
    scene.engine.set_policies(policies(&documents(&[("overlap: 60s", "overlap: 10s")]))).await;
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(50).await;
    assert!(scene.alive(&scene.first.0), "a shorter overlap comes too late");
    scene.engine.set_policies(policies(&documents(&[("overlap: 60s", "overlap: 300s")]))).await;
    scene.live(200).await;
    assert!(scene.alive(&scene.first.0), "a longer one counts");
    scene.live(100).await;
    assert!(!scene.alive(&scene.first.0));
}

#[tokio::test]
async fn a_credential_without_its_document_is_unmanaged_and_still_held() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    let _stream = scene.engine.open_stream(&app.application, &app.instance);
    scene.rotate().await;
    let mut without = policies(DOCUMENTS);
    without.credentials.clear();
    without.applications.clear();
    scene.engine.set_policies(without).await;
    scene.live(10_000).await;
    assert_eq!(codes(&scene.engine), ["unmanaged"]);
    assert!(scene.alive(&scene.first.0), "removing a document revokes nothing");
    assert!(!app.fetch(&scene.engine).await, "and ends the serving");
    scene.engine.set_policies(policies(DOCUMENTS)).await;
    scene.live(100).await;
    assert!(scene.alive(&scene.first.0), "who held it holds it still");
    assert!(app.fetch(&scene.engine).await && app.confirm(&scene.engine).await);
    scene.live(5).await;
    assert!(!scene.alive(&scene.first.0));
}

#[tokio::test]
async fn a_reload_that_cannot_be_audited_is_not_applied() {
    let scene = Scene::usual().await;
    let before = scene.engine.policies().digest.clone();
    scene.world.audit.fail_always(Some(keywright::engine::audit::AuditFault::Refused));
    scene.engine.set_policies(policies(&documents(&[("overlap: 60s", "overlap: 30s")]))).await;
    assert_eq!(scene.engine.policies().digest, before);
    assert!(codes(&scene.engine).contains(&"audit-unavailable".to_owned()));
    scene.world.audit.fail_always(None);
    scene.engine.set_policies(policies(&documents(&[("overlap: 60s", "overlap: 30s")]))).await;
    assert_ne!(scene.engine.policies().digest, before);
    assert_eq!(codes(&scene.engine), Vec::<String>::new(), "and the problem is over");
}

#[tokio::test]
async fn pages_of_status_name_each_credential_once_and_in_order() {
    let mut text = DOCUMENTS.to_owned();
    for number in 0..23 {
        text += &format!(
            "---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: key-{number:02}}}\n\
spec: {{provider: dinie, environment: production, rotation: hourly}}\n"
        );
    }
    let world = World::with(Backend::memory(), &text);
    let engine = world.start().await.unwrap();
    let whole = status(&engine);
    let (mut after, mut rows, mut sizes) = (None, Vec::new(), Vec::new());
    loop {
        let page = engine.status(None, after.as_ref(), 5).unwrap();
        sizes.push(page.credentials.len());
        rows.extend(page.credentials);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(rows, whole.credentials);
    assert_eq!(sizes.iter().sum::<usize>(), whole.credentials.len());
    assert!(sizes.iter().rev().skip(1).all(|size| *size == 5), "{sizes:?}");
    assert!(whole.next.is_none() && engine.status(None, rows.last().map(|row| &row.name), 5).unwrap().credentials.is_empty());
}
