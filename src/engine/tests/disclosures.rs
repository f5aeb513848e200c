//! Reads: who gets what, recorded before it leaves.

use keywright::engine::Reader;
use keywright::engine::audit::AuditFault;
use keywright::engine::errors::ReadError;
use keywright::faults::When;

use super::*;

#[tokio::test]
async fn what_is_not_listed_and_what_does_not_exist_are_answered_alike() {
    let more = format!(
        "{DOCUMENTS}---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: private}}\n\
         spec: {{provider: dinie, environment: production, rotation: hourly}}\n"
    );
    let scene = Scene::new(&more).await;
    let reader = App::new(APPLICATION, "one").reader();
    for asked in ["private", "nothing-of-that-name"] {
        assert_eq!(scene.engine.read(&reader, &name(asked)).await.unwrap_err(), ReadError::Forbidden);
    }
    let stranger = App::new("stranger", "one").reader();
    assert_eq!(scene.engine.read(&stranger, &name(CREDENTIAL)).await.unwrap_err(), ReadError::Forbidden);
    let person = Reader::Operator { who: "uid 0".to_owned(), reason: Some("INC-7".parse().unwrap()) };
    assert_eq!(scene.engine.read(&person, &name("private")).await.unwrap_err(), ReadError::NoVersion);
    assert!(scene.engine.read(&person, &name(CREDENTIAL)).await.is_ok());
    let applications = row(&scene.engine).applications;
    assert!(applications.iter().all(|application| application.instance.is_none()), "a person holds nothing");
}

#[tokio::test]
async fn a_persons_read_of_production_needs_a_reason_and_the_trail_keeps_it() {
    let more = format!(
        "{DOCUMENTS}---\napiVersion: keywright.dev/v1alpha1\nkind: Credential\nmetadata: {{name: play}}\n\
         spec: {{provider: dinie, environment: sandbox, rotation: hourly}}\n"
    );
    let scene = Scene::new(&more).await;
    let person = |reason: Option<&str>| Reader::Operator { who: "uid 0".to_owned(), reason: reason.map(|text| text.parse().unwrap()) };
    let records = scene.world.audit.records().len();
    assert_eq!(scene.engine.read(&person(None), &name(CREDENTIAL)).await.unwrap_err(), ReadError::ReasonMissing);
    assert_eq!(scene.world.audit.records().len(), records, "nothing was disclosed");
    assert_eq!(scene.engine.read(&person(None), &name("no-such")).await.unwrap_err(), ReadError::Forbidden);
    assert_eq!(scene.engine.read(&person(None), &name("play")).await.unwrap_err(), ReadError::NoVersion, "sandbox needs none");
    // Each time, though it is the same person and the same version.
    for reason in ["INC-7: who holds this?", "INC-8"] {
        assert!(scene.engine.read(&person(Some(reason)), &name(CREDENTIAL)).await.is_ok());
        let (_, last) = scene.world.audit.records().pop().unwrap();
        assert_eq!((last.action.as_str(), last.detail), ("disclosed", Some(format!("reason: {reason}"))));
    }
}

#[tokio::test]
async fn a_listed_credential_without_a_version_says_so() {
    let world = World::new(Backend::memory());
    let engine = world.start().await.unwrap();
    let asked = engine.read(&App::new(APPLICATION, "one").reader(), &name(CREDENTIAL)).await;
    assert_eq!(asked.unwrap_err(), ReadError::NoVersion);
    assert_eq!(row(&engine).phase, "missing");
}

#[tokio::test]
async fn while_the_audit_fails_first_disclosures_wait_and_recorded_readers_go_on() {
    let scene = Scene::usual().await;
    let (mut known, mut new) = (App::new(APPLICATION, "known"), App::new(APPLICATION, "new"));
    assert!(known.fetch(&scene.engine).await);
    scene.world.audit.fail_always(Some(AuditFault::Refused));
    assert!(known.fetch(&scene.engine).await);
    assert_eq!(scene.engine.read(&new.reader(), &new.credential).await.unwrap_err(), ReadError::AuditUnavailable);
    assert_eq!(scene.world.audit.repetitions().len(), 1);
    scene.world.audit.fail_always(None);
    assert!(new.fetch(&scene.engine).await);
}

#[tokio::test]
async fn a_disclosure_is_audited_and_durable_before_it_leaves() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    let points = scene.world.faults.count();
    assert!(app.fetch(&scene.engine).await);
    assert_eq!(scene.world.faults.trace()[points..], ["audit.record", "journal.write_holdings"]);
    let points = scene.world.faults.count();
    assert!(app.fetch(&scene.engine).await);
    assert_eq!(scene.world.faults.count(), points, "once is enough");
    // What isn't durable isn't disclosed, and the next try writes it again.
    let mut other = App::new(APPLICATION, "two");
    scene.world.faults.arm(points + 1, When::Before);
    assert_eq!(scene.engine.read(&other.reader(), &other.credential).await.unwrap_err(), ReadError::StoreUnavailable);
    assert!(other.fetch(&scene.engine).await);
    let scene = scene.restart().await;
    let held = scene.world.backend.journal().holdings().await.unwrap().holdings;
    assert_eq!(held.len(), 2);
}

#[tokio::test]
async fn the_revision_grows_with_what_applications_see_and_the_document_has_the_same() {
    let scene = Scene::usual().await;
    let reader = App::new(APPLICATION, "one").reader();
    let before = scene.engine.read(&reader, &name(CREDENTIAL)).await.unwrap();
    scene.rotate().await;
    let after = scene.engine.read(&reader, &name(CREDENTIAL)).await.unwrap();
    assert!(after.revision > before.revision && after.version != before.version);
    assert_eq!(scene.engine.current(&name(CREDENTIAL)).unwrap(), (after.version.clone(), after.revision));
    assert!(!before.fields.same_as(&after.fields));
    let scene = scene.restart().await;
    assert_eq!(scene.engine.current(&name(CREDENTIAL)).unwrap(), (after.version, after.revision), "the same after a restart");
}

#[tokio::test]
async fn a_store_that_is_away_takes_nothing_from_who_is_served_from_memory() {
    let scene = Scene::usual().await;
    let mut app = App::new(APPLICATION, "one");
    assert!(app.fetch(&scene.engine).await);
    scene.world.faults.crash_at(scene.world.faults.count(), When::Before);
    let _down = scene.engine.turn().await;
    let _last = scene.engine.rotate(operator(), &name(CREDENTIAL)).await;
    assert!(scene.world.faults.alive().is_err());
    assert!(app.fetch(&scene.engine).await);
    scene.world.faults.revive();
}
