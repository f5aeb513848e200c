//! The file under attack: cut, flipped, copied while it is written, opened twice, with the wrong key, in the wrong hands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use base64::Engine;

use super::{Embedded, FILE_NAME, OpenError, Restore, RestoreError, restore};
use crate::domain::credential::Environment;
use crate::domain::delivery::Way;
use crate::domain::dispatch::{Dispatch, Place};
use crate::domain::holders::Holding;
use crate::domain::ids::{Name, VersionId};
use crate::domain::material::{Material, Secret};
use crate::domain::rotation::Event;
use crate::journal::contract::event;
use crate::journal::{HoldingChange, Journal, JournalError, Position, SealedCopy, copy_of};
use crate::sealing::KeyError;
use crate::stores::contract::shapes;
use crate::stores::{SecretStore, Slot, Stages, StoreError, VersionBytes};

/// Data directories that live as long as the test.
#[derive(Default)]
pub(crate) struct Fresh(Mutex<Vec<tempfile::TempDir>>);

impl Fresh {
    /// A path in which a data directory may be made.
    pub(crate) fn directory(&self) -> PathBuf {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        self.0.lock().unwrap().push(parent);
        path
    }

    pub(crate) fn open(&self) -> Embedded {
        Fresh::open_in(&self.directory())
    }

    pub(crate) fn open_in(directory: &Path) -> Embedded {
        open(directory).unwrap()
    }
}

fn open(directory: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(directory, &directory.join("keywright.key"))
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn version(text: &str) -> VersionId {
    text.parse().unwrap()
}

pub(super) fn slot() -> Slot {
    Slot { credential: name("dinie"), environment: Environment::Production, path: "dinie".to_owned() }
}

pub(super) fn bytes(value: &str) -> VersionBytes {
    let one = |field: &str| -> Material { [(field.parse().unwrap(), Secret::from(value.to_owned()))].into_iter().collect() };
    VersionBytes { served: one("client_secret"), management: one("registration_token") }
}

/// A value that tells in every encoding whether it is there.
pub(super) fn canary(number: usize) -> String {
    format!("canary-{number}-{}", "Zx9Qw7".repeat(40))
}

/// The version that the first event of [`fill`] is for.
pub(super) fn intended() -> VersionId {
    let Event::CreateIntended { version, .. } = event(0) else { panic!("the first is an intent") };
    version
}

/// What the file is to hold: two versions, one promoted over the other, events with a sealed copy, and a holding.
pub(super) async fn fill(embedded: &Embedded) -> Position {
    let (store, journal) = (embedded.store(), embedded.journal());
    store.put_pending(&slot(), &version("v1"), &bytes(&canary(1))).await.unwrap();
    store.promote(&slot(), &version("v1"), None).await.unwrap();
    let term = journal.begin_term().await.unwrap();
    let mut position = Position::default();
    for number in 0..5 {
        position = journal.append(&name("dinie"), position, term, &event(number), SealedCopy::Keep).await.unwrap();
    }
    let sealed = embedded.keyring().seal(&copy_of(&name("dinie"), &intended()), &Secret::from(canary(3))).unwrap();
    position = journal.append(&name("dinie"), position, term, &event(6), SealedCopy::Put(sealed)).await.unwrap();
    let holding = Holding::first(name("app"), "one".parse().unwrap(), name("dinie"), version("v1"));
    journal.write_holdings(term, &[HoldingChange::Put(holding)]).await.unwrap();
    store.put_pending(&slot(), &version("v2"), &bytes(&canary(2))).await.unwrap();
    store.promote(&slot(), &version("v2"), Some(&version("v1"))).await.unwrap();
    position
}

/// Whether everything of [`fill`] is there, or the file says that it is damaged. Anything else, above all other bytes, is a failure.
pub(super) async fn whole_or_damaged(embedded: &Embedded, position: Position) -> bool {
    let (store, journal) = (embedded.store(), embedded.journal());
    let stages = match store.stages(&slot()).await {
        Err(StoreError::Damaged { .. }) => return false,
        other => other.unwrap(),
    };
    assert_eq!(stages, Stages { pending: None, current: Some(version("v2")), previous: Some(version("v1")) });
    for number in 1..3 {
        match store.read(&slot(), &version(&format!("v{number}"))).await {
            Err(StoreError::Damaged { .. }) => return false,
            other => assert!(other.unwrap().same_as(&bytes(&canary(number)))),
        }
    }
    let history = match journal.load(&name("dinie")).await {
        Err(JournalError::Damaged(_)) => return false,
        other => other.unwrap(),
    };
    assert_eq!(history.position, position);
    assert_eq!(history.events, [0, 1, 2, 3, 4, 6].map(event));
    assert!(history.sealed.is_some());
    match journal.holdings().await {
        Err(JournalError::Damaged(_)) => false,
        other => {
            assert_eq!(other.unwrap().holdings.len(), 1);
            true
        }
    }
}

/// Two images of the filled file: as a kill would leave it, and after a clean end.
async fn images(fresh: &Fresh) -> (PathBuf, Position, [Vec<u8>; 2]) {
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    let position = fill(&embedded).await;
    let killed = fs::read(directory.join(FILE_NAME)).unwrap();
    drop(embedded);
    let closed = fs::read(directory.join(FILE_NAME)).unwrap();
    (directory, position, [killed, closed])
}

/// `true`: opened with all there is; `false`: said to be damaged.
async fn judge(directory: &Path, image: &[u8], position: Position) -> bool {
    fs::write(directory.join(FILE_NAME), image).unwrap();
    match open(directory) {
        Err(OpenError::Damaged { .. }) => false,
        Err(error) => panic!("{error}"),
        Ok(embedded) => whole_or_damaged(&embedded, position).await,
    }
}

#[tokio::test]
async fn after_a_kill_and_after_a_clean_end_everything_is_there() {
    let fresh = Fresh::default();
    let (directory, position, images) = images(&fresh).await;
    for image in &images {
        assert!(judge(&directory, image, position).await);
    }
}

#[tokio::test]
async fn a_file_cut_anywhere_is_whole_or_damaged() {
    let fresh = Fresh::default();
    let (directory, position, images) = images(&fresh).await;
    for image in &images {
        let cuts = (0..image.len()).step_by(image.len() / 60 + 1).chain([1, 9, 63, 64, 319, 320, 4095, 4096, image.len() - 1]);
        for cut in cuts {
            assert!(!judge(&directory, &image[..cut], position).await, "cut at {cut} of {}", image.len());
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_harmless_or_damage() {
    let fresh = Fresh::default();
    let (directory, position, images) = images(&fresh).await;
    let mut damaged = 0;
    for image in &images {
        let used: Vec<usize> = (320..image.len()).filter(|at| image[*at] != 0).collect();
        for at in used.iter().step_by(used.len() / 120 + 1) {
            let mut flipped = image.clone();
            flipped[*at] ^= 1 << (at % 8);
            damaged += usize::from(!judge(&directory, &flipped, position).await);
        }
    }
    assert!(damaged > 20, "only {damaged} noticed: did the flips meet the data?");
}

#[tokio::test]
async fn a_flipped_bit_in_the_header_takes_no_commit_back() {
    let fresh = Fresh::default();
    let (directory, position, images) = images(&fresh).await;
    for image in &images {
        // The flags byte decides which commit counts: each of its bits. Then the numbers of both transactions.
        let flips = (0..8).map(|bit| (9, bit)).chain([64 + 104, 192 + 104].into_iter().flat_map(|at| (0..8).map(move |bit| (at, bit))));
        for (at, bit) in flips.chain((0..320).step_by(3).map(|at| (at, at % 8))) {
            let mut flipped = image.clone();
            flipped[at] ^= 1 << bit;
            judge(&directory, &flipped, position).await;
        }
    }
}

#[tokio::test]
async fn nothing_of_a_value_is_in_the_file() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill(&embedded).await;
    let mut values: Vec<String> = (1..4).map(canary).collect();
    for (shape, value) in shapes() {
        embedded.store().put_pending(&slot(), &version(&format!("v-{shape}")), &bytes(&value)).await.unwrap();
        values.push(value);
    }
    drop(embedded);
    let file = fs::read(directory.join(FILE_NAME)).unwrap();
    let holds = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    // A positive control: a name lies in clear, and the scan finds it.
    assert!(holds(b"dinie"));
    let kept = fs::read(directory.join("keywright.key")).unwrap();
    assert!(!holds(&kept));
    for value in values.iter().filter(|value| value.len() >= 8).map(String::as_bytes) {
        for part in value.chunks(8).filter(|part| part.len() == 8).take(10) {
            assert!(!holds(part) && !holds(hex::encode(part).as_bytes()), "a part of a value is in the file");
        }
        for offset in 0..3 {
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&value[offset..value.len().min(48)]);
            assert!(!holds(&encoded.as_bytes()[..8]), "a value is in the file, in base64");
        }
    }
}

#[tokio::test]
async fn only_one_opens_it() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let first = Fresh::open_in(&directory);
    let refused = open(&directory).unwrap_err();
    assert_eq!(refused, OpenError::AlreadyOpen { directory: directory.clone() });
    let store = first.store();
    drop(first);
    assert_eq!(open(&directory).unwrap_err(), refused, "a store that is still held keeps it open");
    drop(store);
    open(&directory).unwrap();
}

#[tokio::test]
async fn without_its_key_it_stays_shut() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let id = Fresh::open_in(&directory).keyring().id();
    let key_file = directory.join("keywright.key");
    let key = fs::read(&key_file).unwrap();
    fs::write(&key_file, [7; 32]).unwrap();
    let wrong = open(&directory).unwrap_err();
    let OpenError::WrongKey { needed, found, .. } = &wrong else { panic!("{wrong:?}") };
    assert_eq!(*needed, id, "the id of the key that is needed is named");
    assert_ne!(found, needed);
    assert!(wrong.to_string().contains(&id), "{wrong}");
    fs::remove_file(&key_file).unwrap();
    let missing = open(&directory).unwrap_err();
    assert_eq!(missing, OpenError::Key(KeyError::Missing { file: key_file.clone() }));
    assert!(missing.to_string().contains("keywright.key") && missing.to_string().contains("backup"));
    assert!(!key_file.exists());
    fs::write(&key_file, key).unwrap();
    assert!(matches!(open(&directory).unwrap_err(), OpenError::Key(KeyError::Exposed { .. })));
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    open(&directory).unwrap();
}

#[test]
fn it_is_for_its_owner_alone() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    drop(Fresh::open_in(&directory));
    assert_eq!([mode(&directory), mode(&directory.join(FILE_NAME)), mode(&directory.join("keywright.key"))], [0o700, 0o600, 0o600]);
    fs::set_permissions(directory.join(FILE_NAME), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Fresh::open_in(&directory));
    assert_eq!(mode(&directory.join(FILE_NAME)), 0o600);
    for wide in [0o720, 0o702, 0o777] {
        fs::set_permissions(&directory, fs::Permissions::from_mode(wide)).unwrap();
        assert_eq!(open(&directory).unwrap_err(), OpenError::Exposed { directory: directory.clone() });
    }
}

#[test]
fn a_start_that_died_half_way_is_begun_again() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    drop(Fresh::open_in(&directory));
    fs::rename(directory.join(FILE_NAME), directory.join("keywright.redb.new")).unwrap();
    drop(Fresh::open_in(&directory));
    // An empty file under the right name was a store once.
    fs::write(directory.join(FILE_NAME), []).unwrap();
    assert!(matches!(open(&directory).unwrap_err(), OpenError::Damaged { what: "it is empty", .. }));
}

mod tampering {
    //! What somebody changes who can write the file, checksums and all, but hasn't the key.

    use redb::{Database, ReadableDatabase, ReadableTable};

    use super::super::rows::{COPIES, EVENTS, HEADS, MANAGEMENT, Rows, SLOTS, VERSIONS};
    use super::*;

    async fn after(change: impl FnOnce(&redb::WriteTransaction)) -> (Result<(), StoreError>, Result<(), JournalError>) {
        let fresh = Fresh::default();
        let directory = fresh.directory();
        let embedded = Fresh::open_in(&directory);
        fill(&embedded).await;
        drop(embedded);
        let database = Database::open(directory.join(FILE_NAME)).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
        drop(database.begin_read().unwrap());
        drop(database);
        let embedded = Fresh::open_in(&directory);
        let read = embedded.store().read(&slot(), &version("v2")).await.map(drop);
        (read, embedded.journal().load(&name("dinie")).await.map(drop))
    }

    fn exchange(transaction: &redb::WriteTransaction, rows: Rows, from: super::super::rows::At<'_>, to: super::super::rows::At<'_>) {
        let mut table = transaction.open_table(rows).unwrap();
        let row = table.get(from).unwrap().unwrap().value().to_vec();
        table.insert(to, row.as_slice()).unwrap();
    }

    #[tokio::test]
    async fn a_value_that_was_moved_or_removed_is_damage() {
        let (old, new) = (("dinie", "production", "v1"), ("dinie", "production", "v2"));
        for rows in [VERSIONS, MANAGEMENT] {
            let (store, journal) = after(|transaction| exchange(transaction, rows, old, new)).await;
            assert_eq!((store, journal), (Err(StoreError::Damaged { credential: name("dinie") }), Ok(())));
            let (store, _) = after(|transaction| drop(transaction.open_table(rows).unwrap().remove(new).unwrap())).await;
            assert_eq!(store, Err(StoreError::Damaged { credential: name("dinie") }));
        }
        let (store, _) = after(|transaction| {
            let mut table = transaction.open_table(SLOTS).unwrap();
            let mut row = table.get(("dinie", "production", "")).unwrap().unwrap().value().to_vec();
            let at = row.windows(2).position(|two| two == b"v1").unwrap();
            row[at + 1] = b'3';
            table.insert(("dinie", "production", ""), row.as_slice()).unwrap();
        })
        .await;
        assert_eq!(store, Err(StoreError::Damaged { credential: name("dinie") }));
    }

    #[tokio::test]
    async fn an_event_that_was_removed_altered_or_reordered_is_damage() {
        type Change = fn(&redb::WriteTransaction);
        let changes: [(&str, Change); 6] = [
            ("the first removed", |transaction| drop(transaction.open_table(EVENTS).unwrap().remove(("dinie", 0)).unwrap())),
            ("the last removed", |transaction| drop(transaction.open_table(EVENTS).unwrap().remove(("dinie", 5)).unwrap())),
            ("altered", |transaction| rewrite(transaction, 2, 2, |row| row.push(b' '))),
            ("repeated", |transaction| rewrite(transaction, 5, 6, |_| {})),
            ("reordered", |transaction| rewrite(transaction, 1, 3, |_| {})),
            ("head removed", |transaction| drop(transaction.open_table(HEADS).unwrap().remove(("dinie", "", "")).unwrap())),
        ];
        for (what, change) in changes {
            let (_, journal) = after(change).await;
            assert!(matches!(journal, Err(JournalError::Damaged(_))), "{what}");
        }
        let (_, journal) = after(|transaction| drop(transaction.open_table(COPIES).unwrap().remove(("dinie", "", "")).unwrap())).await;
        assert!(matches!(journal, Err(JournalError::Damaged(_))), "the sealed copy removed");
    }

    fn rewrite(transaction: &redb::WriteTransaction, from: u64, to: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut table = transaction.open_table(EVENTS).unwrap();
        let mut row = table.get(("dinie", from)).unwrap().unwrap().value().to_vec();
        change(&mut row);
        table.insert(("dinie", to), row.as_slice()).unwrap();
    }
}

pub(super) async fn write_snapshot(embedded: &Embedded, to: &Path) {
    let mut copy = embedded.snapshot().await.unwrap();
    std::io::copy(&mut copy, &mut fs::File::create_new(to).unwrap()).unwrap();
}

#[tokio::test]
async fn a_copy_that_is_taken_under_writes_is_whole_and_of_one_moment() {
    let fresh = Fresh::default();
    let (directory, target) = (fresh.directory(), fresh.directory());
    let embedded = Fresh::open_in(&directory);
    let last = fill(&embedded).await;
    let journal = embedded.journal();
    let writing = async {
        let mut position = last;
        for number in 10..90 {
            position = journal.append(&name("dinie"), position, position.term, &event(number), SealedCopy::Keep).await.unwrap();
        }
    };
    let backup = directory.join("backup");
    let ((), ()) = tokio::join!(writing, write_snapshot(&embedded, &backup));
    let left: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "nothing is left over beside store, key and backup: {left:?}");

    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
    let key_file = directory.join("keywright.key");
    let asked = Restore { directory: &target, key_file: &key_file, backup: Some(&backup), force: false, has_trail: true };
    // As if a restore before had been cut off half-way.
    fs::write(target.join("keywright.redb.restored"), "half").unwrap();
    let restored = restore(&asked).unwrap();
    assert_eq!((restored.credentials, restored.replaced), (1, None));
    let back = Embedded::open(&target, &key_file).unwrap();
    let history = back.journal().load(&name("dinie")).await.unwrap();
    assert_eq!(history.events.last(), Some(&crate::domain::rotation::Event::Restored));
    assert!(history.position.term > last.term && history.events.len() >= 6, "{:?}", history.position);
    let read = back.store().read(&slot(), &version("v1")).await.unwrap();
    assert!(read.served.same_as(&bytes(&canary(1)).served));
    let former = back.journal().former_installations().await.unwrap();
    assert_eq!(back.journal().installation().await.unwrap(), restored.installation);
    assert!(!former.contains(&restored.installation));
}

/// Folders are on the machine where the backup was made, and may be those of a copy that lives on.
#[tokio::test]
async fn what_comes_back_from_a_backup_takes_nothing_out_of_folders() {
    let fresh = Fresh::default();
    let (directory, target) = (fresh.directory(), fresh.directory());
    let embedded = Fresh::open_in(&directory);
    let journal = embedded.journal();
    let term = journal.begin_term().await.unwrap();
    let folder = Place::Folder { on: None, directory: "/run/payments".into(), mode: 0o400, owner: None, group: None };
    let secret = Place::Secret { namespace: name("shop"), secret: "payments".parse().unwrap() };
    for (way, place) in [(Way::File, &folder), (Way::KubernetesSecret, &secret)] {
        let dispatch = Dispatch::default().with_place(place).unwrap();
        journal.write_dispatch(term, &name("payments"), way, &dispatch).await.unwrap();
    }
    let backup = directory.join("backup");
    write_snapshot(&embedded, &backup).await;
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
    let key_file = directory.join("keywright.key");
    restore(&Restore { directory: &target, key_file: &key_file, backup: Some(&backup), force: false, has_trail: true }).unwrap();
    let back = Embedded::open(&target, &key_file).unwrap();
    let kept = back.journal().dispatches().await.unwrap();
    let has = |place: &Place| kept.iter().any(|(_, dispatch)| dispatch.has(place));
    assert!(!has(&folder) && has(&secret), "{kept:?}");
}

#[tokio::test]
async fn a_restore_that_fails_changes_nothing() {
    let fresh = Fresh::default();
    let directory = fresh.directory();
    let embedded = Fresh::open_in(&directory);
    fill(&embedded).await;
    let backup = directory.join("backup");
    write_snapshot(&embedded, &backup).await;
    let key_file = directory.join("keywright.key");
    let asked = Restore { directory: &directory, key_file: &key_file, backup: Some(&backup), force: true, has_trail: true };
    assert!(matches!(restore(&asked), Err(RestoreError::Open(OpenError::AlreadyOpen { .. }))), "the daemon has it open");
    drop(embedded);
    let before = fs::read(directory.join(FILE_NAME)).unwrap();
    assert!(matches!(restore(&Restore { force: false, ..asked }), Err(RestoreError::Occupied { .. })));
    let mut damaged = fs::read(&backup).unwrap();
    damaged[4_096..40_960].fill(0x5a);
    let bad = directory.join("damaged");
    fs::write(&bad, damaged).unwrap();
    let missing = directory.join("no-such-key");
    for wrong in [
        Restore { backup: Some(&bad), ..asked },
        Restore { backup: Some(&missing), ..asked },
        Restore { key_file: &missing, ..asked },
        Restore { backup: Some(&key_file), ..asked },
    ] {
        let refused = restore(&wrong).unwrap_err();
        assert_eq!(fs::read(directory.join(FILE_NAME)).unwrap(), before, "{refused}");
        assert!(!directory.join("keywright.redb.restored").exists(), "{refused}");
    }
    open(&directory).unwrap();
}
