//! Power lost at every write: the file as the disk may have it then opens with all that was acknowledged (I11).
//!
//! What isn't flushed may be on the disk in any choice and half-written; what was flushed before is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use redb::{Builder, StorageBackend};

use super::tests::Fresh;
use super::writer::Writer;
use super::{Embedded, FILE_NAME, RewrapStep, Rewrapper};
use crate::domain::credential::Environment;
use crate::domain::material::Secret;
use crate::journal::contract::event;
use crate::journal::{Journal, Position, SealedCopy};
use crate::sealing::{Keyring, Sealed};
use crate::stores::{SecretStore, Slot, VersionBytes};

#[derive(Debug, Clone)]
enum Did {
    Write(u64, Vec<u8>),
    Length(u64),
    Flush,
    /// So many operations have been acknowledged.
    Acknowledged(u64),
}

/// A disk that remembers what was done to it.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, Vec<Did>)>>);

impl Disk {
    fn does(&self, did: Did) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        apply(&mut state.0, &did);
        state.1.push(did);
    }
}

fn apply(bytes: &mut Vec<u8>, did: &Did) {
    match did {
        Did::Write(offset, data) => {
            let at = usize::try_from(*offset).unwrap();
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        Did::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        Did::Flush | Did::Acknowledged(_) => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap().0[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.does(Did::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.does(Did::Flush);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.does(Did::Write(offset, data.to_vec()));
        Ok(())
    }
}

fn slot() -> Slot {
    Slot { credential: "dinie".parse().unwrap(), environment: Environment::Sandbox, path: "dinie".to_owned() }
}

fn bytes(number: u64) -> VersionBytes {
    let value = format!("value {number} ").repeat(1000);
    VersionBytes { served: [("a".parse().unwrap(), Secret::from(value))].into_iter().collect(), ..VersionBytes::default() }
}

/// Each operation is a version that is put and promoted, and an event with a sealed copy: acknowledged one by one.
async fn work(embedded: &Embedded, disk: &Disk, count: u64) {
    let (store, journal) = (embedded.store(), embedded.journal());
    let term = journal.begin_term().await.unwrap();
    let (mut position, mut before) = (Position::default(), None);
    for number in 1..=count {
        let version = format!("v{number}").parse().unwrap();
        store.put_pending(&slot(), &version, &bytes(number)).await.unwrap();
        store.promote(&slot(), &version, before.as_ref()).await.unwrap();
        let copy = SealedCopy::Put(Sealed(vec![7; 5000]));
        position = journal.append(&slot().credential, position, term, &event(number), copy).await.unwrap();
        before = Some(version);
        disk.does(Did::Acknowledged(number));
    }
}

/// The whole of a rewrap, step by step.
async fn rewrap(embedded: &Embedded, to: &Path) {
    let key = embedded.new_key(Some(to.to_owned())).await.unwrap();
    embedded.begin_rewrap(key, Timestamp::UNIX_EPOCH).await.unwrap();
    let mut rewrapper = Rewrapper::new(embedded.clone());
    loop {
        let step = rewrapper.next().await.unwrap();
        rewrapper.perform(step, Timestamp::UNIX_EPOCH).await.unwrap();
        if step == RewrapStep::AwaitKeyFile {
            return;
        }
    }
}

async fn all_acknowledged_is_there(directory: &Path, image: &[u8], acknowledged: u64, what: &str) {
    fs::write(directory.join(FILE_NAME), image).unwrap();
    let embedded = Embedded::open(directory, &directory.join("keywright.key")).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (store, journal) = (embedded.store(), embedded.journal());
    for number in 1..=acknowledged {
        let read = store.read(&slot(), &format!("v{number}").parse().unwrap()).await;
        assert!(read.unwrap().same_as(&bytes(number)), "{what}");
    }
    let history = journal.load(&slot().credential).await.unwrap();
    let kept = history.events.len() as u64;
    assert!(kept == acknowledged || kept == acknowledged + 1, "{what}: {kept} events of {acknowledged}");
    assert_eq!(history.events, (1..=kept).map(event).collect::<Vec<_>>());
    let current = store.stages(&slot()).await.unwrap().current.map(|version| version.to_string());
    let possible = [acknowledged, acknowledged + 1].map(|number| (number > 0).then(|| format!("v{number}")));
    assert!(possible.contains(&current), "{what}: {current:?}");
}

#[tokio::test]
async fn power_lost_at_any_write_loses_nothing_acknowledged() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    drop(Fresh::open_in(&directory));
    let images = at_any_write(&directory, 0, async |embedded, disk| work(embedded, disk, 2).await).await;
    assert!(images > 100, "only {images} images");
}

#[tokio::test]
async fn power_lost_at_any_write_of_a_rewrap_loses_nothing() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let (disk, to) = (Disk::default(), directory.join("next.key"));
    work(&Fresh::open_in(&directory), &disk, 2).await;
    let before = Keyring::read(&directory.join("keywright.key")).unwrap().id();
    let next = Keyring::read_or_create(&to).unwrap().id();
    let mut keys = BTreeSet::new();
    let rewrapping = async |embedded: &Embedded, _: &Disk| {
        keys.insert(embedded.keyring().id());
        rewrap(embedded, &to).await;
        keys.insert(embedded.keyring().id());
    };
    let images = at_any_write(&directory, 2, rewrapping).await;
    assert_eq!(keys, BTreeSet::from([before, next]));
    assert!(images > 100, "only {images} images");
}

/// Does the work on a disk that remembers, then loses power at each of its writes. So many operations were acknowledged before.
/// How many images were looked at.
async fn at_any_write(directory: &Path, before: u64, mut work: impl AsyncFnMut(&Embedded, &Disk)) -> usize {
    let start = fs::read(directory.join(FILE_NAME)).unwrap();
    let keyring = Arc::new(Keyring::read(&directory.join("keywright.key")).unwrap());
    let disk = Disk(Arc::new(Mutex::new((start.clone(), Vec::new()))));
    let database = Arc::new(Builder::new().create_with_backend(disk.clone()).unwrap());
    let writer = Arc::new(Writer::start(Arc::clone(&database), Arc::clone(&keyring)).unwrap());
    let lock = Arc::new(fs::File::open("/dev/null").unwrap());
    let key_file = directory.join("keywright.key").into();
    work(&Embedded { writer, database, keyring, directory: directory.into(), key_file, _lock: lock }, &disk).await;
    let done = disk.0.lock().unwrap().1.clone();
    let (mut flushed, mut unflushed, mut acknowledged, mut images): (_, Vec<Did>, _, _) = (start, Vec::new(), before, 0);
    for (at, did) in done.iter().enumerate() {
        match did {
            Did::Acknowledged(number) => acknowledged = *number,
            Did::Flush => unflushed.drain(..).for_each(|did| apply(&mut flushed, &did)),
            Did::Length(_) | Did::Write(..) => {
                unflushed.push(did.clone());
                for (how, image) in possible_images(&flushed, &unflushed) {
                    all_acknowledged_is_there(directory, &image, acknowledged, &format!("write {at} of {}, {how}", done.len())).await;
                    images += 1;
                }
            }
        }
    }
    images
}

/// All of it, the last one torn, the last one alone, every other one.
fn possible_images(flushed: &[u8], unflushed: &[Did]) -> Vec<(&'static str, Vec<u8>)> {
    let with = |keep: &dyn Fn(usize) -> bool, torn: bool| {
        let mut image = flushed.to_vec();
        for (index, did) in unflushed.iter().enumerate() {
            // A file's length is kept in order with the writes beyond it.
            match did {
                Did::Write(offset, data) if torn && index + 1 == unflushed.len() => {
                    apply(&mut image, &Did::Write(*offset, data[..data.len() / 2].to_vec()))
                }
                Did::Write(..) if !keep(index) => {}
                _ => apply(&mut image, did),
            }
        }
        image
    };
    let last = unflushed.len() - 1;
    vec![
        ("all", with(&|_| true, false)),
        ("the last torn", with(&|_| true, true)),
        ("the last alone", with(&|index| index == last, false)),
        ("every other", with(&|index| index % 2 == last % 2, false)),
    ]
}
