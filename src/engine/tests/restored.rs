//! Each earlier snapshot of a life comes back: nothing revoked is served, nothing unverified, and nothing that lives is killed.

use std::collections::BTreeSet;

use keywright::embedded::{Embedded, Restore, restore};
use keywright::engine::errors::ReadError;

use super::*;

const HOOK: &str = "payments-webhook";

fn both() -> String {
    DOCUMENTS.replace("[dinie-production]", "[dinie-production, payments-webhook]")
        + "---
apiVersion: keywright.dev/v1alpha1
kind: Credential
metadata: {name: payments-webhook}
spec: {provider: webhook-secret, environment: production, rotation: hourly}
"
}

fn app_of(credential: &str) -> App {
    App { credential: name(credential), ..App::new(APPLICATION, "one") }
}

fn value(material: &Material) -> String {
    material.iter().map(|(_, value)| value.expose_str().unwrap()).collect()
}

/// What an application has by now.
#[derive(Default)]
struct Had {
    hooks: BTreeSet<String>,
    last_hook: Option<String>,
    last_key: Option<Material>,
    revisions: [u64; 2],
}

async fn confirm(engine: &Engine, credential: &str, version: &VersionId, material: &Material) {
    let one = app_of(credential);
    let field = if credential == HOOK { "signing_secret".parse().unwrap() } else { secret_field() };
    let message = format!("keywright-confirm\n{credential}\n{version}\n{}", one.instance);
    let proof = keywright::sealing::hmac_sha256_hex(material.get(&field).unwrap(), message.as_bytes());
    engine.confirm(&one.application, &one.instance, &one.credential, version, &field, &proof).await.unwrap();
}

/// One turn of a life with two rotations of everything. True when it is over.
async fn turn(world: &World, engine: &Arc<Engine>, asked: &mut BTreeSet<u64>, had: &mut Had) -> bool {
    let mut steady = 0;
    for (index, credential) in [CREDENTIAL, HOOK].into_iter().enumerate() {
        if let Ok(document) = engine.read(&app_of(credential).reader(), &name(credential)).await {
            had.revisions[index] = document.revision;
            if credential == HOOK {
                had.hooks.insert(value(&document.fields));
                had.last_hook = Some(value(&document.fields));
            } else {
                had.last_key = Some(document.fields.duplicate());
            }
            confirm(engine, credential, &document.version, &document.fields).await;
        }
        let row = engine.status(Some(&name(credential)), None, 1).unwrap().credentials.remove(0);
        if row.phase == "steady" && row.generation >= 3 {
            steady += 1;
        } else if row.phase == "steady" && asked.insert(row.generation * 2 + index as u64) {
            engine.rotate(operator(), &name(credential)).await.unwrap();
        }
    }
    engine.turn().await;
    world.clocks.advance(Duration::from_secs(7));
    steady == 2
}

/// Lives to the end, with a snapshot before this turn. How many turns there were.
async fn live(world: &World, snapshot_at: usize, snapshot: &std::path::Path, had: &mut Had) -> usize {
    let engine = world.start().await.unwrap();
    let stream = engine.open_stream(&name(APPLICATION), &instance("one"));
    let mut asked = BTreeSet::new();
    for number in 0..200 {
        if number == snapshot_at {
            let mut copy = world.backend.embedded_file().snapshot().await.unwrap();
            std::io::copy(&mut copy, &mut std::fs::File::create_new(snapshot).unwrap()).unwrap();
        }
        if number == 1 {
            let (_, material) = world.made_by_hand();
            engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
        }
        if turn(world, &engine, &mut asked, had).await {
            drop(stream);
            world.bury(engine);
            return number + 1;
        }
    }
    panic!("no end: {:#?}", status(&engine));
}

/// The same world, with another data folder.
fn moved(world: World, backend: Backend) -> World {
    let World { clocks, issuer, audit, pushes, faults, documents, foreign, .. } = world;
    World { clocks, issuer, audit, pushes, faults, backend, documents, foreign }
}

async fn check_one(snapshot_at: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let world = World::with(Backend::embedded(), &both());
    let mut had = Had::default();
    let turns = live(&world, snapshot_at, &backup, &mut had).await;
    if snapshot_at >= turns {
        return turns;
    }
    let data = tempfile::tempdir().unwrap();
    std::fs::copy(world.backend.directory().join("keywright.key"), data.path().join("keywright.key")).unwrap();
    let former = world.backend.journal().installation().await.unwrap();
    world.backend.close();
    let key_file = data.path().join("keywright.key");
    let asked = Restore { directory: data.path(), key_file: &key_file, backup: Some(&backup), force: false, has_trail: false };
    let restored = restore(&asked).unwrap();
    assert_ne!(restored.installation, former, "another installation (I8)");

    let world = moved(world, Backend::Embedded { folder: data, open: std::sync::Mutex::new(None) });
    let engine = world.start().await.unwrap();
    for credential in [CREDENTIAL, HOOK] {
        let early = engine.read(&app_of(credential).reader(), &name(credential)).await.unwrap_err();
        assert!(matches!(early, ReadError::NotVerified | ReadError::NoVersion), "{credential}: {early}");
        assert_eq!(engine.current(&name(credential)), None, "no stream is told of it either");
    }
    let _stream = engine.open_stream(&name(APPLICATION), &instance("one"));
    let mut served = [false; 2];
    for _ in 0..60 {
        engine.turn().await;
        world.clocks.advance(Duration::from_secs(7));
        for (index, credential) in [CREDENTIAL, HOOK].into_iter().enumerate() {
            let Ok(document) = engine.read(&app_of(credential).reader(), &name(credential)).await else { continue };
            served[index] = true;
            assert!(document.revision > had.revisions[index], "who saw more than the backup knows takes it up");
            if credential == CREDENTIAL {
                assert!(world.accepts(&document.fields), "nothing revoked is served (I10)");
            } else {
                assert!(!had.hooks.contains(&value(&document.fields)), "nothing that may have been ended since is served");
                let previous = document.previous.as_ref().map(|previous| value(&previous.fields));
                assert!(previous.is_none_or(|previous| !had.hooks.contains(&previous)), "nor handed out to verify with");
            }
            confirm(&engine, credential, &document.version, &document.fields).await;
        }
        assert!(world.foreign_live(), "keys of others are left alone");
        assert!(world.accepts(had.last_key.as_ref().unwrap()), "what applications hold from before lives on (I6)");
    }
    assert!(served[1], "a value of our own is made anew: {:#?}", status(&engine));
    if !served[0] {
        // Dead since, or never there: a person brings a working one, and all is well.
        let known = codes(&engine);
        assert!(known.contains(&"current-refused".to_owned()) || snapshot_at <= 1, "{snapshot_at}: {:#?}", status(&engine));
        let (_, material) = world.made_by_hand();
        engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
        let document = engine.read(&app_of(CREDENTIAL).reader(), &name(CREDENTIAL)).await.unwrap();
        assert!(world.accepts(&document.fields));
    }
    assert!(!codes(&engine).contains(&"unverified".to_owned()));
    turns
}

#[tokio::test]
async fn each_earlier_snapshot_comes_back_safely() {
    let turns = check_one(usize::MAX).await;
    assert!(turns > 20, "{turns} turns");
    for snapshot_at in 0..turns {
        check_one(snapshot_at).await;
    }
}

#[tokio::test]
async fn what_a_former_installation_made_is_shown_and_left_alone() {
    // The backup is from before the rotation whose key lives on beside the enrolled one.
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let world = World::with(Backend::embedded(), DOCUMENTS);
    let engine = world.start().await.unwrap();
    let (first, material) = world.made_by_hand();
    engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
    let mut copy = world.backend.embedded_file().snapshot().await.unwrap();
    std::io::copy(&mut copy, &mut std::fs::File::create_new(&backup).unwrap()).unwrap();
    engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    world.live(&engine, Duration::from_secs(20)).await;
    let both: BTreeSet<KeyId> = world.ours_living();
    assert_eq!(both.len(), 2);
    world.bury(engine);

    let directory = world.backend.directory();
    let key_file = directory.join("keywright.key");
    let mut asked = Restore { directory: &directory, key_file: &key_file, backup: Some(&backup), force: false, has_trail: false };
    let occupied = restore(&asked).unwrap_err().to_string();
    assert!(occupied.contains("--force"), "{occupied}");
    asked.force = true;
    let restored = restore(&asked).unwrap();
    assert!(restored.replaced.unwrap().exists(), "the store that was there isn't lost");
    let engine = world.start().await.unwrap();
    world.live(&engine, Duration::from_secs(2_000)).await;
    assert!(codes(&engine).contains(&"former-key".to_owned()), "{:#?}", status(&engine));
    assert!(both.is_subset(&world.ours_living()), "neither key is revoked: applications, or a copy of us, may use them");
    let document = engine.read(&App::new(APPLICATION, "one").reader(), &name(CREDENTIAL)).await.unwrap();
    assert!(world.accepts(&document.fields));
    assert!(world.alive_now(&first));
    world.bury(engine);

    // With another key, or no backup at all, nothing is touched.
    let other = tempfile::tempdir().unwrap();
    drop(Embedded::open(other.path(), &other.path().join("keywright.key")).unwrap());
    let other_key = other.path().join("keywright.key");
    let before = std::fs::read(directory.join("keywright.redb")).unwrap();
    assert!(restore(&Restore { key_file: &other_key, ..asked }).is_err());
    assert!(restore(&Restore { backup: Some(&other_key), ..asked }).is_err(), "that is no store");
    assert_eq!(std::fs::read(directory.join("keywright.redb")).unwrap(), before);
}

async fn back_up(world: &World, backup: &std::path::Path) {
    let mut copy = world.backend.embedded_file().snapshot().await.unwrap();
    std::io::copy(&mut copy, &mut std::fs::File::create_new(backup).unwrap()).unwrap();
}

/// The backup comes back in place of what this world lived on since, and is started.
async fn bring_back(world: &World, engine: Arc<Engine>, backup: &std::path::Path) -> Arc<Engine> {
    world.bury(engine);
    let directory = world.backend.directory();
    let key_file = directory.join("keywright.key");
    restore(&Restore { directory: &directory, key_file: &key_file, backup: Some(backup), force: true, has_trail: false }).unwrap();
    world.start().await.unwrap()
}

#[tokio::test]
async fn an_incident_replaces_what_came_back_only_after_it_was_looked_at() {
    for died_since in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let backup = folder.path().join("backup");
        let world = World::with(Backend::embedded(), DOCUMENTS);
        let engine = world.start().await.unwrap();
        let (first, material) = world.made_by_hand();
        engine.submit(operator(), &name(CREDENTIAL), material).await.unwrap();
        back_up(&world, &backup).await;
        let engine = bring_back(&world, engine, &backup).await;
        if died_since {
            world.issuer.kill(&first);
        }
        engine.compromised(operator(), &name(CREDENTIAL), Duration::ZERO).await.unwrap();
        let reader = App::new(APPLICATION, "one").reader();
        let early = engine.read(&reader, &name(CREDENTIAL)).await.unwrap_err();
        assert!(matches!(early, ReadError::NotVerified), "{early}");
        world.live(&engine, Duration::from_secs(600)).await;
        if died_since {
            assert!(codes(&engine).contains(&"current-refused".to_owned()), "{:#?}", status(&engine));
            assert_eq!(world.issuer.calls("issuer.create"), 0, "nothing is made with a key that isn't accepted");
            let (_, working) = world.made_by_hand();
            engine.submit(operator(), &name(CREDENTIAL), working).await.unwrap();
            world.live(&engine, Duration::from_secs(600)).await;
        }
        let document = engine.read(&reader, &name(CREDENTIAL)).await.unwrap();
        assert!(world.accepts(&document.fields) && !world.alive_now(&first));
        assert!(row(&engine).incident.unwrap().closed_at.is_some(), "{:#?}", status(&engine));
    }
}

#[tokio::test]
async fn a_pause_of_what_is_not_in_the_backup_keeps_its_revisions_above_those_that_were_seen() {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let world = World::with(Backend::embedded(), DOCUMENTS);
    let engine = world.start().await.unwrap();
    back_up(&world, &backup).await;
    let submit = async |engine: &Engine| engine.submit(operator(), &name(CREDENTIAL), world.made_by_hand().1).await.unwrap();
    submit(&engine).await;
    engine.rotate(operator(), &name(CREDENTIAL)).await.unwrap();
    world.live(&engine, Duration::from_secs(20)).await;
    let (_, seen) = engine.current(&name(CREDENTIAL)).unwrap();
    let engine = bring_back(&world, engine, &backup).await;
    engine.pause(operator(), Some(&name(CREDENTIAL))).await.unwrap();
    engine.resume(operator(), Some(&name(CREDENTIAL))).await.unwrap();
    submit(&engine).await;
    let (_, revision) = engine.current(&name(CREDENTIAL)).unwrap();
    assert!(revision > seen, "{revision} isn't above {seen}");
}

#[tokio::test]
async fn a_restore_in_the_midst_of_a_rollback_of_our_own_value_ends_both() {
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let world = World::with(Backend::embedded(), &both());
    let engine = world.start().await.unwrap();
    world.live(&engine, Duration::from_secs(2)).await;
    let one = app_of(HOOK);
    let hook = async |engine: &Engine| engine.read(&one.reader(), &name(HOOK)).await;
    let mut had = BTreeSet::from([value(&hook(&engine).await.unwrap().fields)]);
    engine.rotate(operator(), &name(HOOK)).await.unwrap();
    world.live(&engine, Duration::from_secs(2)).await;
    had.insert(value(&hook(&engine).await.unwrap().fields));
    assert_eq!(had.len(), 2);
    // The daemon dies when the rollback is journaled and nothing of it done.
    // Two records of the audit trail come first.
    world.faults.crash_at(world.faults.count() + 2, keywright::faults::When::After);
    let _died = engine.roll_back(operator(), &name(HOOK)).await;
    assert_eq!(world.faults.fired(), Some("journal.append rollback-planned"));
    back_up(&world, &backup).await;
    let engine = bring_back(&world, engine, &backup).await;
    let _stream = engine.open_stream(&one.application, &one.instance);
    world.live(&engine, Duration::from_secs(60)).await;
    let document = hook(&engine).await.unwrap();
    assert!(!had.contains(&value(&document.fields)), "nothing that may have been ended since is served");
    assert!(document.previous.is_none());
}
