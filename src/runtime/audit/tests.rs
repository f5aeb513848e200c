//! The trail under crashes, tampering, crowds and full disks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;

fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn action(word: &str) -> Action {
    Action {
        actor: Actor::Application { name: "payments-api".into(), instance: "pod-1".into() },
        action: word.into(),
        credential: Some("dinie-production".into()),
        version: Some("v2-abc".into()),
        detail: None,
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("audit.jsonl")
    }

    /// A trail of `count` records.
    async fn filled(count: usize) -> Folder {
        let folder = Folder::new();
        let trail = AuditFile::open(&folder.path(), at()).unwrap();
        for number in 0..count {
            trail.record(at(), action(&format!("word-{number}"))).await.unwrap();
        }
        folder
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.path()).unwrap().split_inclusive('\n').map(str::to_owned).collect()
    }

    fn verify(&self) -> Result<u64, VerifyError> {
        verify(&self.path(), None).map(|verified| verified.records)
    }

    /// The record that `verify` names after the file was changed to this.
    fn broken_at(&self, bytes: impl AsRef<[u8]>) -> Option<u64> {
        fs::write(self.path(), bytes).unwrap();
        match self.verify() {
            Err(VerifyError::Broken(broken)) => Some(broken.record),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    }

    /// Opens the trail once the writer before has let go of it.
    async fn reopened(&self) -> Result<AuditFile, OpenError> {
        for _ in 0..200 {
            match AuditFile::open(&self.path(), at()) {
                Err(OpenError::InUse) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                other => return other,
            }
        }
        Err(OpenError::InUse)
    }
}

#[tokio::test]
async fn a_trail_is_continued_after_a_restart_and_verifies() {
    let folder = Folder::filled(3).await;
    let trail = folder.reopened().await.unwrap();
    let mut strange = action("submission-refused");
    strange.detail = Some("a\nb\"c\\d\u{0}é".into());
    trail.record(at(), strange).await.unwrap();
    assert_eq!(folder.verify(), Ok(4));
    assert_eq!(trail.head().seq, 4);
    let last: serde_json::Value = serde_json::from_str(folder.lines().last().unwrap()).unwrap();
    assert_eq!(last["detail"], "a\nb\"c\\d\u{0}é");
    assert_eq!(last["hash"], trail.head().hash);
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn long_texts_are_clipped_and_the_record_stays_readable() {
    let folder = Folder::new();
    let trail = AuditFile::open(&folder.path(), at()).unwrap();
    let mut long = action("x");
    long.detail = Some("\u{0}".repeat(1 << 20));
    long.version = Some("é".repeat(1 << 20));
    long.credential = Some("\u{1}".repeat(1 << 20));
    long.action = "\u{1}".repeat(1 << 20);
    long.actor = Actor::Application { name: "\u{1}".repeat(1 << 20), instance: "\u{1}".repeat(1 << 20) };
    trail.record(at(), long).await.unwrap();
    assert_eq!(folder.verify(), Ok(1));
}

#[tokio::test]
async fn a_crash_at_any_byte_of_the_last_two_lines_loses_only_what_was_not_whole() {
    let folder = Folder::filled(4).await;
    drop(folder.reopened().await.unwrap());
    let whole = fs::read(folder.path()).unwrap();
    let lines = folder.lines();
    let first_two = lines[0].len() + lines[1].len();
    for cut in first_two..=whole.len() {
        let copy = Folder::new();
        fs::write(copy.path(), &whole[..cut]).unwrap();
        let records = whole[..cut].iter().filter(|byte| **byte == b'\n').count() as u64;
        let torn = !whole[..cut].ends_with(b"\n");
        assert_eq!(copy.verify(), Ok(records), "cut at {cut}");
        let trail = AuditFile::open(&copy.path(), at()).unwrap();
        trail.record(at(), action("after")).await.unwrap();
        assert_eq!(copy.verify(), Ok(records + 1 + u64::from(torn)), "cut at {cut}");
        assert_eq!(copy.lines().iter().any(|line| line.contains("torn-line-removed")), torn, "cut at {cut}");
    }
}

#[tokio::test]
async fn each_changed_byte_is_found_in_its_record() {
    let folder = Folder::filled(3).await;
    let whole = fs::read(folder.path()).unwrap();
    let mut record = 1;
    for place in 0..whole.len() - 1 {
        for change in [1_u8, 0x20, 0x80] {
            let mut changed = whole.clone();
            changed[place] ^= change;
            assert_eq!(folder.broken_at(&changed), Some(record), "byte {place} ^ {change}");
        }
        record += u64::from(whole[place] == b'\n');
    }
    // A last newline that is lost leaves a line that is no record.
    assert_eq!(folder.broken_at(&whole[..whole.len() - 1]), None);
    assert_eq!(verify(&folder.path(), None).unwrap().records, 2);
}

#[tokio::test]
async fn removed_inserted_reordered_and_replaced_records_are_found() {
    let folder = Folder::filled(5).await;
    let lines = folder.lines();
    let joined = |order: &[usize]| order.iter().map(|index| lines[*index].as_str()).collect::<String>();
    assert_eq!(folder.broken_at(joined(&[0, 1, 3, 4])), Some(3));
    assert_eq!(folder.broken_at(joined(&[1, 2, 3, 4])), Some(1));
    assert_eq!(folder.broken_at(joined(&[0, 1, 1, 2, 3, 4])), Some(3));
    assert_eq!(folder.broken_at(joined(&[0, 2, 1, 3, 4])), Some(2));
    assert_eq!(folder.broken_at(format!("{}\n{}", lines[0], joined(&[1, 2]))), Some(2));
    // A record with the right number and hash, which the second one doesn't follow from.
    let mut forged_head = Head::default();
    let mut forged = Vec::new();
    record::append(&mut forged, &mut forged_head, &Entry { at: at(), action: action("forged"), count: None }).unwrap();
    assert_eq!(folder.broken_at([forged.as_slice(), lines[1].as_bytes()].concat()), Some(2));
    assert_eq!(folder.broken_at("x".repeat(200_000) + "\n"), Some(1));
}

#[tokio::test]
async fn what_is_missing_from_the_end_is_found_by_a_remembered_head() {
    let folder = Folder::filled(3).await;
    let trail = folder.reopened().await.unwrap();
    let head = trail.head();
    assert_eq!(verify(&folder.path(), Some(&head)).unwrap().records, 3);
    let lines = folder.lines();
    fs::write(folder.path(), lines[..2].concat()).unwrap();
    assert_eq!(folder.verify(), Ok(2));
    let missing = Broken { record: 3, reason: Flaw::Missing };
    assert_eq!(verify(&folder.path(), Some(&head)), Err(VerifyError::Broken(missing)));
    let rewritten = Folder::new();
    let other = AuditFile::open(&rewritten.path(), at()).unwrap();
    for _ in 0..4 {
        other.record(at(), action("rewritten")).await.unwrap();
    }
    let replaced = Broken { record: 3, reason: Flaw::NotAnchored };
    assert_eq!(verify(&rewritten.path(), Some(&head)), Err(VerifyError::Broken(replaced)));
}

#[tokio::test]
async fn a_broken_end_is_not_continued() {
    let folder = Folder::filled(3).await;
    drop(folder.reopened().await.unwrap());
    let changed = fs::read_to_string(folder.path()).unwrap().replace("word-2", "word-9");
    fs::write(folder.path(), &changed).unwrap();
    let refused = Broken { record: 3, reason: Flaw::Changed };
    assert_eq!(folder.reopened().await.unwrap_err(), OpenError::Broken(refused));
    assert_eq!(fs::read_to_string(folder.path()).unwrap(), changed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_share_few_fsyncs() {
    let folder = Folder::new();
    let trail = Arc::new(AuditFile::open(&folder.path(), at()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let trail = Arc::clone(&trail);
        tasks.spawn(async move { trail.record(at(), action("disclosed")).await });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(folder.verify(), Ok(1000));
    assert!(trail.syncs() < 500, "{} fsyncs", trail.syncs());
}

fn request() -> (Request, oneshot::Receiver<Result<(), AuditError>>) {
    let (done, outcome) = oneshot::channel();
    (Request { entries: vec![Entry { at: at(), action: action("x"), count: None }], done }, outcome)
}

#[test]
fn a_full_disk_refuses_and_the_trail_goes_on_when_there_is_room_again() {
    let folder = Folder::new();
    let mut writer = Writer::open(&folder.path(), at(), Arc::default()).unwrap();
    assert_eq!(writer.commit(&[request().0]), Ok(()));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let real = writer.file.replace(full);
    assert_eq!(writer.commit(&[request().0]), Err(AuditError));
    // Somebody still holds the file: it stays poisoned.
    assert_eq!(writer.commit(&[request().0]), Err(AuditError));
    drop(real);
    // As if a part had been written before the disk was full.
    let mut bytes = fs::read(folder.path()).unwrap();
    let copy = bytes.clone();
    bytes.extend_from_slice(&copy);
    bytes.extend_from_slice(b"{\"seq\":3,");
    fs::write(folder.path(), bytes).unwrap();
    assert_eq!(writer.commit(&[request().0]), Ok(()));
    assert_eq!(folder.verify(), Ok(3));
    assert!(folder.lines()[1].contains("trail-reopened"));
}

#[test]
fn a_trail_that_was_cut_deleted_or_replaced_under_us_is_not_continued() {
    for damage in [|path: &Path| fs::write(path, "").unwrap(), |path: &Path| fs::remove_file(path).unwrap()] {
        let folder = Folder::new();
        let mut writer = Writer::open(&folder.path(), at(), Arc::default()).unwrap();
        assert_eq!(writer.commit(&[request().0]), Ok(()));
        damage(&folder.path());
        assert_eq!(writer.commit(&[request().0]), Err(AuditError));
        assert_eq!(writer.commit(&[request().0]), Err(AuditError));
    }
}

#[test]
fn an_end_that_changed_while_the_trail_was_closed_is_not_continued() {
    let folder = Folder::new();
    let mut writer = Writer::open(&folder.path(), at(), Arc::default()).unwrap();
    assert_eq!(writer.commit(&[request().0]), Ok(()));
    writer.file = None;
    fs::write(folder.path(), fs::read_to_string(folder.path()).unwrap().replace("pod-1", "pod-2")).unwrap();
    assert_eq!(writer.commit(&[request().0]), Err(AuditError));
}

#[tokio::test]
async fn a_symlink_another_writer_and_a_device_are_refused() {
    let folder = Folder::new();
    let link = folder.0.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    assert_eq!(AuditFile::open(&link, at()).unwrap_err(), OpenError::Symlink);
    assert!(!folder.path().exists());
    let _first = AuditFile::open(&folder.path(), at()).unwrap();
    assert_eq!(AuditFile::open(&folder.path(), at()).unwrap_err(), OpenError::InUse);
    assert_eq!(AuditFile::open(Path::new("/dev/null"), at()).unwrap_err(), OpenError::NotAFile);
    let missing = folder.0.path().join("no/such/folder");
    assert_eq!(AuditFile::open(&missing, at()).unwrap_err(), OpenError::Unusable(io::ErrorKind::NotFound));
}

#[tokio::test]
async fn repetitions_are_counted_and_written_as_one_record_each() {
    let folder = Folder::new();
    let trail = AuditFile::open(&folder.path(), at()).unwrap();
    for _ in 0..57 {
        trail.repeated(action("disclosed"));
    }
    trail.repeated(Action { version: Some("v3".into()), ..action("disclosed") });
    assert_eq!(folder.verify(), Ok(0));
    trail.flush_repeats(at()).await.unwrap();
    trail.flush_repeats(at()).await.unwrap();
    let counts: Vec<u64> =
        folder.lines().iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [57, 1]);
    assert_eq!(folder.verify(), Ok(2));
}

#[test]
fn counts_are_bounded_and_none_is_lost() {
    let mut repeats = Repeats::default();
    for number in 0..REPEATS_MAX + 5 {
        repeats.add(RepeatKey { actor: Actor::Daemon, action: number.to_string(), credential: None, version: None }, 1);
    }
    assert_eq!((repeats.counts.len(), repeats.others), (REPEATS_MAX, 5));
    let mut merged = Repeats::default();
    merged.merge(repeats);
    let total: u64 = merged.entries(at()).iter().filter_map(|entry| entry.count).sum();
    assert_eq!(total, REPEATS_MAX as u64 + 5);
}

#[tokio::test]
async fn counts_that_could_not_be_written_are_kept() {
    let progress = Arc::new(Progress::default());
    let (requests, receiver) = mpsc::channel(1);
    drop(receiver);
    let trail = AuditFile { requests, repeats: Mutex::default(), progress, failing: AtomicBool::new(false) };
    assert!(trail.is_writing());
    trail.repeated(action("disclosed"));
    assert_eq!(trail.flush_repeats(at()).await, Err(AuditError));
    assert!(!trail.is_writing());
    assert_eq!(trail.record(at(), action("x")).await, Err(AuditError));
    assert_eq!(trail.repeats.lock().unwrap().counts.len(), 1);
}
