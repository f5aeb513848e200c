//! A rewrap of a file that holds all there is: nothing changes but the key, also when it is cut off between any two steps.

mod former_key;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use redb::{ReadableDatabase, ReadableTable};

use super::*;
use crate::domain::credential::Environment;
use crate::domain::delivery::Way;
use crate::domain::dispatch::{Dispatch, Place};
use crate::domain::launch::Launch;
use crate::domain::material::Secret;
use crate::embedded::rows::{ALL_ROWS, COPIES, MANAGEMENT, VERSIONS};
use crate::embedded::tests::{Fresh, bytes, canary, fill, intended, name, slot, version, write_snapshot};
use crate::embedded::{FILE_NAME, OpenError, Restore, restore};
use crate::journal::contract::event;
use crate::journal::{Heartbeat, Journal, Pause, Position, SealedCopy, copy_of};
use crate::sealing::Sealed;
use crate::stores::{SecretStore, Slot, StoreError};

/// Enough for several transactions in each table.
const MORE: usize = 70;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn open(directory: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(directory, &directory.join("keywright.key"))
}

fn other(number: usize) -> Slot {
    let credential = name(&format!("other-{number:03}"));
    Slot { path: credential.to_string(), credential, environment: Environment::Sandbox }
}

/// Current, previous, pending and forgotten versions, many credentials, events, a sealed copy, holdings, heartbeat and pause.
async fn fill_all(embedded: &Embedded) {
    fill(embedded).await;
    let (store, journal) = (embedded.store(), embedded.journal());
    journal.installation().await.unwrap();
    store.put_pending(&slot(), &version("v3"), &bytes(&canary(4))).await.unwrap();
    store.forget(&slot(), &version("v3")).await.unwrap();
    store.put_pending(&slot(), &version("v4"), &bytes(&canary(5))).await.unwrap();
    let puts = (0..MORE).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.put_pending(&other(number), &version("v1"), &bytes(&canary(number))).await.unwrap() })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await.unwrap();
    }
    journal.write_heartbeat(1, Heartbeat { wall: Some(at(1)), ..Heartbeat::default() }).await.unwrap();
    journal.write_pause(1, Some(Pause { since: at(2) })).await.unwrap();
    let launch = Launch { live: [(name("dinie"), at(3))].into(), ..Launch::default() };
    journal.write_launch(u64::MAX, &name("payments"), &launch).await.unwrap();
    let place = Place::Folder { on: None, directory: "/run/payments".into(), mode: 0o400, owner: None, group: None };
    let dispatch = Dispatch::default().with_place(&place).unwrap();
    journal.write_dispatch(u64::MAX, &name("payments"), Way::File, &dispatch).await.unwrap();
}

/// All that can be read, as one text for each thing; a value is told by its bytes.
async fn told(embedded: &Embedded) -> BTreeMap<String, String> {
    let (store, journal, keyring) = (embedded.store(), embedded.journal(), embedded.keyring());
    let mut told = BTreeMap::new();
    let mut tell = |what: String, text: String| drop(told.insert(what, text));
    for number in 0..=MORE {
        let slot = if number == MORE { slot() } else { other(number) };
        let stages = store.stages(&slot).await.unwrap();
        tell(format!("{} stages", slot.credential), format!("{stages:?}"));
        for wanted in [&stages.pending, &stages.current, &stages.previous].into_iter().flatten() {
            let read = store.read(&slot, wanted).await.unwrap();
            let plain = [read.served.to_json(), read.management.to_json()].map(|json| json.expose_str().unwrap().to_owned());
            tell(format!("{} {wanted}", slot.credential), plain.concat());
        }
    }
    let gone = store.read(&slot(), &version("v3")).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound { .. }));
    let history = journal.load(&name("dinie")).await.unwrap();
    tell("events".to_owned(), format!("{:?} {:?}", history.position, history.events));
    let copy = keyring.unseal(&copy_of(&name("dinie"), &intended()), &history.sealed.unwrap()).unwrap();
    tell("copy".to_owned(), copy.expose_str().unwrap().to_owned());
    tell("holdings".to_owned(), format!("{:?}", journal.holdings().await.unwrap()));
    tell("meta".to_owned(), format!("{:?} {:?}", journal.heartbeat().await.unwrap(), journal.pause().await.unwrap()));
    tell("launches".to_owned(), format!("{:?}", journal.launches().await.unwrap()));
    tell("dispatches".to_owned(), format!("{:?}", journal.dispatches().await.unwrap()));
    tell("installation".to_owned(), format!("{:?}", journal.installation().await.unwrap()));
    tell("fingerprint".to_owned(), keyring.fingerprint("field", &Secret::from(canary(1))));
    told
}

/// Ids of the keys that the sealed rows of a file are under.
fn ids_in(embedded: &Embedded) -> BTreeSet<String> {
    let transaction = embedded.database.begin_read().unwrap();
    let mut ids = BTreeSet::new();
    for rows in [VERSIONS, MANAGEMENT, COPIES] {
        let table = transaction.open_table(rows).unwrap();
        ids.extend(table.iter().unwrap().map(|row| Sealed(row.unwrap().1.value().to_vec()).key_id().unwrap()));
    }
    ids
}

/// How an operator goes about it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// The daemon makes the key.
    InPlace,
    /// A key of the operator's, and the configuration isn't changed before the next start.
    Named,
    /// The same, and after the crash the key file holds the new key already.
    NamedAndMoved,
}

impl How {
    const ALL: [How; 3] = [How::InPlace, How::Named, How::NamedAndMoved];

    /// Makes the key that is to come, if it is the operator's to make.
    fn prepare(self, directory: &Path) -> Option<PathBuf> {
        let file = directory.join("next.key");
        (self != How::InPlace).then(|| {
            Keyring::read_or_create(&file).unwrap();
            file
        })
    }
}

/// Goes on until nothing is left to do, or so many steps were made. Which steps.
async fn go_on(embedded: &Embedded, steps: usize) -> Vec<Step> {
    let mut rewrapper = Rewrapper::new(embedded.clone());
    let mut done = Vec::new();
    while done.len() < steps {
        let step = rewrapper.next().await.unwrap();
        if matches!(step, Step::Rest | Step::AwaitKeyFile) {
            break;
        }
        rewrapper.perform(step, at(100)).await.unwrap();
        done.push(step);
    }
    done
}

async fn begin(embedded: &Embedded, file: Option<PathBuf>) -> Result<(), RewrapError> {
    let key = embedded.new_key(file).await?;
    embedded.begin_rewrap(key, at(50)).await
}

#[tokio::test]
async fn every_read_is_the_same_before_during_and_after() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let (before, old) = (told(&embedded).await, embedded.keyring().id());
    let old_key = fs::read(directory.join("keywright.key")).unwrap();
    assert_eq!(embedded.rewrap_standing().await.unwrap(), None);
    begin(&embedded, None).await.unwrap();
    let new = embedded.keyring().id();
    let mut rewrapper = Rewrapper::new(embedded.clone());
    let mut steps = Vec::new();
    loop {
        assert_eq!(told(&embedded).await, before, "after {steps:?}");
        let step = rewrapper.next().await.unwrap();
        if step == Step::Rest {
            break;
        }
        rewrapper.perform(step, at(100)).await.unwrap();
        steps.push(step);
    }
    assert!(steps.iter().filter(|step| **step == Step::Reseal).count() > 4, "{steps:?}");
    assert_eq!(steps[steps.len() - 4..], [Step::Finish, Step::KeepFormer, Step::Replace, Step::Settle]);
    assert_eq!(ids_in(&embedded), BTreeSet::from([new.clone()]));
    let standing = embedded.rewrap_standing().await.unwrap().unwrap();
    let kept = directory.join(format!("keywright.key.{}", &old[..8]));
    assert_eq!((standing.finished_at, standing.awaits_key_file, standing.has_old_pages), (Some(at(100)), false, true));
    assert_eq!(standing.former_file.as_deref(), Some(kept.as_path()));
    assert_eq!(fs::read(&kept).unwrap(), old_key, "older backups open with it alone");
    drop((embedded, rewrapper));

    let embedded = open(&directory).unwrap();
    assert_eq!((embedded.keyring().id(), told(&embedded).await), (new.clone(), before.clone()));
    assert!(!embedded.rewrap_standing().await.unwrap().unwrap().has_old_pages);
    drop(embedded);
    // The former key alone doesn't open it, and the error says which one does.
    fs::rename(&kept, directory.join("keywright.key")).unwrap();
    let refused = open(&directory).unwrap_err();
    assert!(matches!(&refused, OpenError::WrongKey { needed, found, .. } if *needed == new && *found == old), "{refused:?}");
    assert!(refused.to_string().contains("since the rewrap of 2023-11-14T22:14:10Z"), "{refused}");
}

#[tokio::test]
async fn cut_off_between_any_two_steps_it_is_taken_up_again() {
    let (mut tried, mut recovered) = (0, 0);
    let fresh = Fresh::default();
    let template = fresh.directory();
    fill_all(&Fresh::open_in(&template)).await;
    let before = told(&open(&template).unwrap()).await;
    for how in How::ALL {
        for cut in 0.. {
            let directory = fresh.directory();
            copy_directory(&template, &directory);
            let embedded = Fresh::open_in(&directory);
            let file = how.prepare(&directory);
            let key = embedded.new_key(file.clone()).await.unwrap();
            let new = key.id();
            let mut steps = Vec::new();
            // The first cut is after the new key was made, the second after the beginning.
            if cut > 0 {
                embedded.begin_rewrap(key, at(50)).await.unwrap();
                steps = go_on(&embedded, cut - 1).await;
            }
            let is_last = cut > 0 && steps.len() < cut - 1;
            crash(&directory, embedded);
            if how == How::NamedAndMoved && cut > 0 {
                fs::copy(directory.join("next.key"), directory.join("keywright.key")).unwrap();
            }
            tried += 1;
            let embedded = open(&directory).unwrap_or_else(|error| panic!("{how:?} after {steps:?}: {error}"));
            assert_eq!(told(&embedded).await, before, "{how:?} after {steps:?}");
            if cut == 0 {
                assert_ne!(embedded.keyring().id(), new);
                begin(&embedded, file).await.unwrap();
            }
            go_on(&embedded, usize::MAX).await;
            assert_eq!(embedded.keyring().id(), new, "{how:?}: the same key, also if it was made before a crash");
            assert_eq!(ids_in(&embedded), BTreeSet::from([new.clone()]), "{how:?} after {steps:?}");
            let standing = embedded.rewrap_standing().await.unwrap().unwrap();
            let awaits = how == How::Named || (how == How::NamedAndMoved && cut == 0);
            assert!(standing.finished_at.is_some() && standing.awaits_key_file == awaits, "{how:?}: {standing:?}");
            drop(embedded);
            let embedded = open(&directory).unwrap();
            assert_eq!((embedded.keyring().id(), told(&embedded).await), (new, before.clone()), "{how:?} after {steps:?}");
            recovered += 1;
            if is_last {
                break;
            }
        }
    }
    println!("rewrap: {tried} points tried, {recovered} recovered");
    assert!(tried > 24 && recovered == tried, "{recovered} of {tried}");
}

fn copy_directory(from: &Path, to: &Path) {
    drop(Fresh::open_in(to));
    for file in [FILE_NAME, "keywright.key"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_is_moved_in_the_middle_is_no_matter() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let before = told(&embedded).await;
    begin(&embedded, None).await.unwrap();
    go_on(&embedded, 2).await;
    drop(embedded);
    let moved = directory.with_file_name("moved");
    fs::rename(&directory, &moved).unwrap();
    let embedded = open(&moved).unwrap();
    assert_eq!(go_on(&embedded, usize::MAX).await.last(), Some(&Step::Settle));
    drop(embedded);
    assert_eq!(told(&open(&moved).unwrap()).await, before);
    assert!(!moved.join("keywright.key.new").exists());
}

/// The file as a kill would leave it.
fn crash(directory: &Path, embedded: Embedded) {
    let killed = fs::read(directory.join(FILE_NAME)).unwrap();
    drop(embedded);
    fs::write(directory.join(FILE_NAME), killed).unwrap();
}

#[tokio::test]
async fn what_was_sealed_before_and_is_written_after_is_under_the_new_key() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let (keyring, journal, store) = (embedded.keyring(), embedded.journal(), embedded.store());
    let (dinie, first) = (name("dinie"), intended());
    let place = copy_of(&dinie, &first);
    let late = keyring.seal(&place, &Secret::from(canary(9))).unwrap();
    begin(&embedded, None).await.unwrap();
    let mut rewrapper = Rewrapper::new(embedded.clone());
    while rewrapper.next().await.unwrap() != Step::Finish {
        rewrapper.perform(Step::Reseal, at(60)).await.unwrap();
    }
    // Behind the last row that was looked at: values of all stages, and the late copy.
    store.put_pending(&other(0), &version("v2"), &bytes(&canary(8))).await.unwrap();
    let Position { term, revision } = journal.load(&name("dinie")).await.unwrap().position;
    journal.append(&name("dinie"), Position { term, revision }, term, &event(1), SealedCopy::Put(late.clone())).await.unwrap();
    go_on(&embedded, usize::MAX).await;
    assert_eq!(ids_in(&embedded), BTreeSet::from([keyring.id()]));
    // What is still in memory opens, too.
    assert!(keyring.unseal(&place, &late).unwrap().same_as(&Secret::from(canary(9))));
    drop((embedded, journal, store, rewrapper, keyring));
    let embedded = open(&directory).unwrap();
    let copy = embedded.journal().load(&name("dinie")).await.unwrap().sealed.unwrap();
    assert!(embedded.keyring().unseal(&place, &copy).unwrap().same_as(&Secret::from(canary(9))));
    assert!(embedded.store().read(&other(0), &version("v2")).await.unwrap().same_as(&bytes(&canary(8))));
    // The former key is in nobody's memory any more.
    assert!(embedded.keyring().unseal(&place, &late).is_err());
}

#[tokio::test]
async fn a_new_key_that_cant_be_used_is_refused_with_the_way_out() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill(&embedded).await;
    let key_file = directory.join("keywright.key");
    let write = |name: &str, length: usize, mode: u32| {
        let file = directory.join(name);
        fs::write(&file, vec![7; length]).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    };
    let missing = directory.join("missing");
    let same = directory.join("same");
    fs::copy(&key_file, &same).unwrap();
    let cases = [
        (missing.clone(), "there is no new key"),
        (write("truncated", 31, 0o600), "exactly 32 bytes"),
        (write("long", 33, 0o600), "exactly 32 bytes"),
        (write("group", 32, 0o640), "may be used by others"),
        (directory.clone(), "may be used by others"),
        (same, "sealed with already"),
        (key_file.clone(), "sealed with already"),
    ];
    for (file, said) in cases {
        let refused = begin(&embedded, Some(file.clone())).await.unwrap_err();
        assert!(refused.to_string().contains(said) && refused.to_string().contains(file.to_str().unwrap()), "{refused}");
    }
    assert_eq!(embedded.rewrap_standing().await.unwrap(), None, "nothing has begun");
    // A key that is mounted is a link: what it points at isn't ours to replace.
    let mounted = directory.join("mounted");
    fs::rename(&key_file, &mounted).unwrap();
    std::os::unix::fs::symlink(&mounted, &key_file).unwrap();
    assert_eq!(begin(&embedded, None).await, Err(RewrapError::NotOurs { file: key_file.clone() }));
    fs::rename(&mounted, &key_file).unwrap();
    // One that was cut off while it was made is made again.
    write("keywright.key.new", 5, 0o600);
    begin(&embedded, None).await.unwrap();
    let to = embedded.keyring().id();
    let next = write("next", 32, 0o600);
    assert_eq!(begin(&embedded, Some(next)).await, Err(RewrapError::UnderWay { to }));
    let key = Keyring::read(&directory.join("keywright.key.new")).unwrap();
    assert_eq!(key.id(), embedded.keyring().id());
}

#[tokio::test]
async fn a_second_rewrap_waits_for_the_key_file_of_the_first() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let before = told(&embedded).await;
    let first = How::Named.prepare(&directory).unwrap();
    begin(&embedded, Some(first.clone())).await.unwrap();
    go_on(&embedded, usize::MAX).await;
    let to = embedded.keyring().id();
    let second = directory.join("second.key");
    Keyring::read_or_create(&second).unwrap();
    let refused = begin(&embedded, Some(second.clone())).await.unwrap_err();
    assert_eq!(refused, RewrapError::KeyFileIsOld { to: to.clone(), file: first.clone() });
    drop(embedded);

    // The new key's file is needed, and nobody but the former key can say which one that is.
    fs::rename(&first, directory.join("aside")).unwrap();
    let missing = open(&directory).unwrap_err();
    assert!(matches!(&missing, OpenError::NewKeyMissing { needed, new_key, .. } if *needed == to && *new_key == first), "{missing:?}");
    fs::copy(&second, &first).unwrap();
    let wrong = open(&directory).unwrap_err();
    assert!(matches!(&wrong, OpenError::WrongKey { key_file, needed, .. } if *key_file == first && *needed == to), "{wrong:?}");
    fs::rename(directory.join("aside"), &first).unwrap();
    let stranger = directory.join("stranger");
    Keyring::read_or_create(&stranger).unwrap();
    let wrong = Embedded::open(&directory, &stranger).unwrap_err();
    assert!(matches!(&wrong, OpenError::WrongKey { key_file, .. } if *key_file == stranger), "{wrong:?}");

    fs::copy(&first, directory.join("keywright.key")).unwrap();
    let embedded = open(&directory).unwrap();
    assert_eq!(go_on(&embedded, usize::MAX).await, [Step::Settle]);
    begin(&embedded, Some(second.clone())).await.unwrap();
    go_on(&embedded, usize::MAX).await;
    drop(embedded);
    let embedded = Embedded::open(&directory, &second).unwrap();
    assert_eq!(told(&embedded).await, before);
}

#[tokio::test]
async fn backups_open_with_the_key_of_their_time() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill_all(&embedded).await;
    let old = directory.join("old.key");
    fs::copy(directory.join("keywright.key"), &old).unwrap();
    let backups = ["before", "during", "after"].map(|when| directory.join(when));
    write_snapshot(&embedded, &backups[0]).await;
    begin(&embedded, None).await.unwrap();
    assert_eq!(go_on(&embedded, 2).await, [Step::Reseal; 2]);
    write_snapshot(&embedded, &backups[1]).await;
    assert_eq!(ids_in(&embedded).len(), 2, "some rows are under each key");
    go_on(&embedded, usize::MAX).await;
    write_snapshot(&embedded, &backups[2]).await;
    let new = directory.join("keywright.key");
    for (backup, right, wrong) in [(&backups[0], &old, &new), (&backups[1], &new, &old), (&backups[2], &new, &old)] {
        let target = fresh.directory();
        let asked = Restore { directory: &target, key_file: wrong, backup: Some(backup), force: false, has_trail: true };
        restore(&asked).unwrap_err();
        restore(&Restore { key_file: right, ..asked }).unwrap();
        let back = Embedded::open(&target, right).unwrap();
        go_on(&back, usize::MAX).await;
        assert_eq!(ids_in(&back).len(), 1, "what was under way goes on");
        for number in 0..MORE {
            let read = back.store().read(&other(number), &version("v1")).await.unwrap();
            assert!(read.same_as(&bytes(&canary(number))));
        }
    }
}
