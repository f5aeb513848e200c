//! Values of our own: made by themselves, verified by read-back, and the previous one served to those who verify with it.

use std::collections::BTreeSet;

use keywright::domain::environment::{EvidenceKind, Says, Verdict};
use keywright::domain::material::Secret;
use keywright::engine::errors::SubmitError;
use keywright::engine::views::Document;
use keywright::faults::When;

use super::*;

const HOOK: &str = "payments-webhook";

fn hooks() -> String {
    DOCUMENTS.replace("[dinie-production]", "[dinie-production, payments-webhook]")
        + "---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: payments-webhook}
spec: {provider: webhook-secret, environment: production, rotation: hourly}
"
}

fn hook_row(engine: &Engine) -> CredentialStatus {
    engine.status(Some(&name(HOOK)), None, 1).unwrap().credentials.remove(0)
}

fn app(called: &str) -> App {
    App { credential: name(HOOK), ..App::new(APPLICATION, called) }
}

async fn read(engine: &Engine, app: &App) -> Document {
    engine.read(&app.reader(), &name(HOOK)).await.unwrap()
}

fn signing_secret(material: &Material) -> String {
    material.get(&"signing_secret".parse().unwrap()).unwrap().expose_str().unwrap().to_owned()
}

async fn confirm(engine: &Engine, app: &App, document: &Document) {
    let message = format!("keywright-confirm\n{HOOK}\n{}\n{}", document.version, app.instance);
    let field = "signing_secret".parse().unwrap();
    let proof = keywright::sealing::hmac_sha256_hex(document.fields.get(&field).unwrap(), message.as_bytes());
    engine.confirm(&app.application, &app.instance, &name(HOOK), &document.version, &field, &proof).await.unwrap();
}

/// The version that is current, once it is another than `not`.
async fn next_version(world: &World, engine: &Engine, not: Option<&VersionId>) -> VersionId {
    for _ in 0..500 {
        world.live(engine, Duration::from_secs(1)).await;
        if let Some((version, _)) = engine.current(&name(HOOK)).filter(|(version, _)| Some(version) != not) {
            return version;
        }
    }
    panic!("no version: {:#?}", status(engine));
}

#[tokio::test]
async fn the_first_one_comes_by_itself_and_is_proved_without_asking_anyone() {
    let world = World::with(Backend::memory(), &hooks());
    let engine = world.start().await.unwrap();
    assert_eq!(hook_row(&engine).phase, "missing");
    world.live(&engine, Duration::from_secs(1)).await;
    let row = hook_row(&engine);
    assert_eq!((row.phase.as_str(), row.generation, row.endpoint), ("steady", 1, None));
    let proof = row.proof.unwrap();
    assert_eq!(proof.verdict, Verdict::Match);
    let decisive: Vec<_> = proof.evidence.iter().filter(|piece| piece.says == Says::For).collect();
    assert!(matches!(decisive.as_slice(), [piece] if piece.kind == EvidenceKind::Fingerprint && piece.why.contains("made it for this")));
    let document = read(&engine, &app("one")).await;
    assert!(signing_secret(&document.fields).starts_with("whsec_"));
    assert!(document.previous.is_none());
    for call in ["issuer.create", "issuer.list", "issuer.probe", "issuer.is_dead", "issuer.revoke"] {
        assert_eq!(world.issuer.calls(call), 0, "{call}: there is no provider");
    }
}

#[tokio::test]
async fn who_verifies_gets_the_previous_one_until_it_ends() {
    let world = World::with(Backend::memory(), &hooks());
    let engine = world.start().await.unwrap();
    let one = app("one");
    let stream = engine.open_stream(&one.application, &one.instance);
    let first = next_version(&world, &engine, None).await;
    let before = read(&engine, &one).await;
    confirm(&engine, &one, &before).await;
    engine.rotate(operator(), &name(HOOK)).await.unwrap();
    let second = next_version(&world, &engine, Some(&first)).await;

    let during = read(&engine, &one).await;
    let previous = during.previous.as_ref().unwrap();
    assert_eq!((&during.version, &previous.version), (&second, &first));
    assert_eq!(signing_secret(&previous.fields), signing_secret(&before.fields));
    assert_ne!(signing_secret(&during.fields), signing_secret(&before.fields));
    assert_eq!(Some(previous.valid_until), hook_row(&engine).overlap_ends_at);
    // Somebody new verifies too, holds nothing old for it, and is on record for both.
    let two = app("two");
    let _other = engine.open_stream(&two.application, &two.instance);
    let newcomer = read(&engine, &two).await;
    assert!(newcomer.previous.is_some());
    read(&engine, &two).await;
    let told = |record: &keywright::engine::audit::Action| {
        let by_two = format!("{:?}", record.actor).contains("two");
        (by_two && record.action == "disclosed").then(|| record.version.clone().unwrap())
    };
    let disclosed: Vec<String> = world.audit.records().iter().filter_map(|(_, record)| told(record)).collect();
    assert_eq!(disclosed, [second.to_string(), first.to_string()], "each once");

    confirm(&engine, &one, &during).await;
    confirm(&engine, &two, &newcomer).await;
    world.pushes.taken();
    world.live(&engine, Duration::from_secs(120)).await;
    let after = read(&engine, &one).await;
    assert!(after.previous.is_none());
    assert_eq!(after.version, second);
    assert!(after.revision > during.revision, "the end of the previous one is a change that applications see");
    assert!(!world.pushes.taken().is_empty(), "and are told of");
    let versions = engine.versions(&name(HOOK)).unwrap();
    assert!(versions.iter().any(|row| row.version == first && row.revoked_at.is_some()), "{versions:?}");
    assert_eq!(hook_row(&engine).phase, "steady");
    assert!(world.audit.records().iter().any(|(_, record)| record.action == "revoked" && record.detail.as_deref() == Some("unproved")));
    drop(stream);
}

#[tokio::test]
async fn a_signer_that_has_not_changed_over_keeps_the_previous_one_listed() {
    let world = World::with(Backend::memory(), &hooks());
    let engine = world.start().await.unwrap();
    let (slow, quick) = (app("slow"), app("quick"));
    let _streams = [&slow, &quick].map(|app| engine.open_stream(&app.application, &app.instance));
    let first = next_version(&world, &engine, None).await;
    read(&engine, &slow).await;
    engine.rotate(operator(), &name(HOOK)).await.unwrap();
    next_version(&world, &engine, Some(&first)).await;
    let document = read(&engine, &quick).await;
    confirm(&engine, &quick, &document).await;
    // Long after the overlap somebody may still sign with the old one: it stays good for all.
    world.live(&engine, Duration::from_secs(600)).await;
    assert_eq!(read(&engine, &quick).await.previous.as_ref().unwrap().version, first);
}

#[tokio::test]
async fn a_stolen_one_is_replaced_and_those_who_sign_with_it_have_until_the_limit() {
    let world = World::with(Backend::memory(), &hooks());
    let engine = world.start().await.unwrap();
    let one = app("one");
    let _stream = engine.open_stream(&one.application, &one.instance);
    let first = next_version(&world, &engine, None).await;
    read(&engine, &one).await;
    let within = Duration::from_secs(300);
    engine.compromised(operator(), &name(HOOK), within).await.unwrap();
    let second = next_version(&world, &engine, Some(&first)).await;
    let open = hook_row(&engine).incident.unwrap();
    let during = read(&engine, &one).await;
    let previous = during.previous.as_ref().unwrap();
    assert_eq!((&during.version, &previous.version, previous.valid_until), (&second, &first, open.limit_at));
    // Nobody confirms: it ends at the limit all the same, and who still signs with it is named.
    world.live(&engine, Duration::from_secs(290)).await;
    assert!(read(&engine, &one).await.previous.is_some());
    world.live(&engine, Duration::from_secs(15)).await;
    assert!(read(&engine, &one).await.previous.is_none());
    let closed = hook_row(&engine).incident.unwrap();
    assert!(closed.closed_at.is_some() && closed.revoked_at.is_some());
    assert_eq!((closed.replaced_by, closed.stragglers.len()), (Some(second), 1));
    assert_eq!(closed.unknown_keys, Some(BTreeSet::new()), "there is no provider where a thief could have made one");
    assert_eq!(world.issuer.calls("issuer.list"), 0);
}

#[tokio::test]
async fn what_is_forgotten_begins_anew_by_itself_while_its_document_is_there() {
    let world = World::with(Backend::memory(), &hooks());
    let engine = world.start().await.unwrap();
    let first = next_version(&world, &engine, None).await;
    let before = signing_secret(&read(&engine, &app("one")).await.fields);
    engine.forget(operator(), &name(HOOK), true).await.unwrap();
    next_version(&world, &engine, Some(&first)).await;
    assert_ne!(signing_secret(&read(&engine, &app("one")).await.fields), before);
}

#[tokio::test]
async fn a_value_of_somebody_else_is_taken_where_the_policy_takes_what_nobody_proves() {
    let brought = || -> Material {
        [("signing_secret".parse().unwrap(), Secret::from("whsec_cmFuZG9tcmFuZG9tcmFuZG9t".to_owned()))].into_iter().collect()
    };
    let world = World::with(Backend::memory(), &hooks());
    let engine = world.start().await.unwrap();
    let first = next_version(&world, &engine, None).await;
    let refused = engine.submit(operator(), &name(HOOK), brought()).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Undetermined { .. }), "production fails closed: {refused}");

    let world = World::with(
        Backend::memory(),
        &hooks().replace("provider: webhook-secret,", "provider: webhook-secret, acceptUndetermined: \"moved from the old system\","),
    );
    let engine = world.start().await.unwrap();
    next_version(&world, &engine, None).await;
    let submitted = engine.submit(operator(), &name(HOOK), brought()).await.unwrap();
    assert_ne!(submitted.version, first);
    assert_eq!(signing_secret(&read(&engine, &app("one")).await.fields), "whsec_cmFuZG9tcmFuZG9tcmFuZG9t");
}

/// One life of a value of our own: made, rotated, confirmed, revoked. What ever was current, by what the store gave.
async fn life(world: &World) -> usize {
    let (mut engine, mut deaths, mut asked) = (None, 0, false);
    let mut values: std::collections::BTreeMap<VersionId, String> = Default::default();
    for _ in 0..400 {
        let running: Arc<Engine> = match engine.take() {
            Some(running) => running,
            None => match world.start().await {
                Ok(started) => started,
                Err(_) => {
                    deaths += 1;
                    world.faults.revive();
                    continue;
                }
            },
        };
        running.turn().await;
        let one = app("one");
        if let Ok(document) = running.read(&one.reader(), &name(HOOK)).await {
            let value = signing_secret(&document.fields);
            assert_eq!(values.entry(document.version.clone()).or_insert_with(|| value.clone()), &value, "a version is one value (I12)");
            if let Some(previous) = &document.previous {
                assert_eq!(values.get(&previous.version), Some(&signing_secret(&previous.fields)));
            }
            let message = format!("keywright-confirm\n{HOOK}\n{}\n{}", document.version, one.instance);
            let field = "signing_secret".parse().unwrap();
            let proof = keywright::sealing::hmac_sha256_hex(document.fields.get(&field).unwrap(), message.as_bytes());
            let _ = running.confirm(&one.application, &one.instance, &name(HOOK), &document.version, &field, &proof).await;
            if !asked && document.version.as_str().starts_with("v1") {
                asked = running.rotate(operator(), &name(HOOK)).await.is_ok();
            }
        }
        if world.faults.alive().is_err() {
            deaths += 1;
            world.bury(running);
            continue;
        }
        let row = hook_row(&running);
        if row.generation >= 2 && row.phase == "steady" {
            assert!(status(&running).problems.is_empty(), "{:#?}", status(&running));
            let distinct: BTreeSet<&String> = values.values().collect();
            assert_eq!(distinct.len(), values.len(), "no value came back");
            drop(running);
            return deaths;
        }
        engine = Some(running);
        world.clocks.advance(Duration::from_secs(7));
    }
    panic!("stuck: {:#?}", engine.map(|engine| status(&engine)));
}

#[tokio::test]
async fn it_outlives_a_death_before_and_after_each_write() {
    let world = World::with(Backend::memory(), &hooks());
    assert_eq!(life(&world).await, 0);
    let points = world.faults.trace();
    assert!(points.contains(&"store.put_pending") && points.len() > 20, "{points:?}");
    for (index, point) in points.iter().enumerate() {
        for when in When::ALL {
            let world = World::with(Backend::memory(), &hooks());
            world.faults.crash_at(index, when);
            assert!(life(&world).await > 0, "{index} {point} {when:?}");
            world.faults.disarm();
        }
    }
}
