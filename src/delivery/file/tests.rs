//! The files of a delivery: whole, owned, replaced at once, and never written through anything foreign.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::delivery::courier_contract::{self, Stage, cargo, secret};
use crate::delivery::memory::Delivered;
use crate::domain::delivery::{SignalDelivery, SignalName};
use crate::domain::policy::Application;

/// A folder of a test, and the application whose files go to `inner` of it.
struct Home {
    home: TempDir,
    application: Application,
    courier: FileCourier,
}

impl Home {
    fn new() -> Home {
        let home = tempfile::tempdir().unwrap();
        // A temporary folder of the machine may be reached through a link.
        let directory = home.path().canonicalize().unwrap().join("inner");
        let mut application = courier_contract::application();
        application.delivery.file = Some(FileDelivery { directory, mode: 0o400, owner: None, group: None, signal: None });
        Home { home, application, courier: FileCourier }
    }

    fn asked(&mut self) -> &mut FileDelivery {
        self.application.delivery.file.as_mut().unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.application.delivery.file.as_ref().unwrap().directory.clone()
    }

    async fn bring(&self, what: &[(&str, u64)]) -> Result<Outcome, CourierError> {
        let mut cargo = cargo(&self.application, Way::File, what);
        // The machine's own clock, as its files tell it.
        std::fs::write(self.home.path().join("now"), "").unwrap();
        cargo.now = Timestamp::try_from(std::fs::metadata(self.home.path().join("now")).unwrap().modified().unwrap()).unwrap();
        let progress = self.courier.deliver(&cargo).await?;
        assert_eq!(progress.left, 0);
        Ok(progress.outcome)
    }

    async fn withdraw(&self) -> Result<Withdrawn, CourierError> {
        let place = Place::of(&self.application.delivery, Way::File, None).unwrap();
        self.courier.withdraw(&self.application.name, &place).await
    }

    /// Whether anything that an application could read is below a folder of ours.
    fn has_anything(folder: &Path) -> bool {
        let shown = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        shown(folder).iter().any(|name| !name.to_string_lossy().starts_with("..")) || !shown(&folder.join("..data")).is_empty()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[async_trait]
impl Stage for Home {
    fn courier(&self) -> &dyn Courier {
        &self.courier
    }

    fn application(&self) -> Application {
        self.application.clone()
    }

    fn again(&mut self) {
        self.courier = FileCourier;
    }

    fn break_target(&self) {
        std::fs::rename(self.folder(), self.home.path().join("away")).unwrap();
        symlink("away", self.folder()).unwrap();
    }

    fn mend_target(&self) {
        std::fs::remove_file(self.folder()).unwrap();
        std::fs::rename(self.home.path().join("away"), self.folder()).unwrap();
    }

    async fn has(&self) -> Option<Delivered> {
        let mut found = BTreeMap::new();
        for name in self.names().iter().filter_map(|name| name.strip_suffix(".json")) {
            let document: serde_json::Value =
                serde_json::from_slice(&std::fs::read(self.folder().join(format!("{name}.json"))).unwrap()).unwrap();
            let revision = document["revision"].as_u64().unwrap();
            let value = std::fs::read_to_string(self.folder().join(name).join("client_secret")).unwrap();
            assert_eq!(value, document["fields"]["client_secret"].as_str().unwrap(), "the file and the document agree");
            let name: crate::domain::ids::Name = name.parse().unwrap();
            assert_eq!(value, secret(&name, revision));
            found.insert(name, (document["version"].as_str().unwrap().parse().unwrap(), revision));
        }
        Some(found)
    }
}

#[tokio::test]
async fn what_nobody_asks_for_any_more_is_taken_away() {
    let place = Home::new();
    place.bring(&[("dinie-production", 1)]).await.unwrap();
    assert!(Home::has_anything(&place.folder()));
    for _ in 0..2 {
        place.withdraw().await.unwrap();
        assert!(!Home::has_anything(&place.folder()));
    }
    // Asked for again, it comes back.
    assert_eq!(place.bring(&[("dinie-production", 1)]).await, Ok(Outcome::Delivered));
    assert!(Home::has_anything(&place.folder()));
    // A process was stopped before what it wrote became the current one, or somebody took the link away.
    std::fs::remove_file(place.folder().join("..data")).unwrap();
    let leftovers = || place.names().iter().filter(|name| name.starts_with("..2")).count();
    assert_eq!(leftovers(), 1);
    place.withdraw().await.unwrap();
    assert_eq!(leftovers(), 0, "values of ours that nothing leads to");
    std::fs::remove_dir_all(place.folder()).unwrap();
    place.withdraw().await.unwrap();
    assert!(!place.folder().exists(), "a folder that is gone isn't made for that");
    let inner = Place::Folder { on: None, directory: place.folder().join("inner"), mode: 0o400, owner: None, group: None };
    let unmounted = place.courier.withdraw(&place.application.name, &inner).await;
    assert!(matches!(unmounted, Err(CourierError::Unavailable(_))), "what it is in isn't there, so nobody knows");
    // Nothing is emptied through a link.
    place.bring(&[("dinie-production", 1)]).await.unwrap();
    place.break_target();
    assert!(matches!(place.withdraw().await, Err(CourierError::Refused(_))));
    assert!(Home::has_anything(&place.home.path().join("away")));
}

#[tokio::test]
async fn delivery_file_keeps_the_contract() {
    courier_contract::check(Home::new()).await;
}

#[tokio::test]
async fn files_have_the_mode_that_is_asked_for_and_hold_the_value_and_nothing_else() {
    let mut place = Home::new();
    assert_eq!(place.bring(&[]).await, Ok(Outcome::Unchanged), "there is nothing yet, so nobody is told");
    assert_eq!(place.bring(&[("key", 1)]).await, Ok(Outcome::Delivered));
    let file = place.folder().join("key/client_secret");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!((mode(&file), mode(&place.folder()), mode(&place.folder().join("key.json"))), (0o400, 0o755, 0o400));
    assert_eq!(std::fs::read(&file).unwrap(), b"secret-value-of-key-1");
    assert_eq!(std::fs::read(place.folder().join("key/client_id")).unwrap(), b"id-key");
    assert!(!std::fs::read_to_string(place.folder().join("key.json")).unwrap().contains("stale"), "that is about the moment of an answer");
    place.asked().mode = 0o440;
    assert_eq!(place.bring(&[("key", 1)]).await, Ok(Outcome::Delivered), "another mode is another delivery");
    assert_eq!(mode(&file), 0o440);
}

/// Where the test may give files away, as in a container of its own; elsewhere that is refused before anything is seen.
#[tokio::test]
async fn files_belong_to_the_owner_that_is_named_or_are_not_there() {
    let mut place = Home::new();
    (place.asked().owner, place.asked().group) = (Some(54_321), Some(54_322));
    match place.bring(&[("key", 1)]).await {
        Ok(_) => {
            let stat = std::fs::metadata(place.folder().join("key/client_secret")).unwrap();
            assert_eq!((stat.uid(), stat.gid()), (54_321, 54_322));
            assert_eq!(place.bring(&[("key", 1)]).await, Ok(Outcome::Unchanged));
        }
        Err(error) => {
            assert!(matches!(error, CourierError::Refused(_)), "{error}");
            assert_eq!(place.names(), Vec::<String>::new(), "nothing is left of it");
        }
    }
}

#[tokio::test]
async fn what_somebody_changed_is_put_right_and_leftovers_of_a_crash_go() {
    let place = Home::new();
    place.bring(&[("key", 1), ("other", 1)]).await.unwrap();
    let file = place.folder().join("key/client_secret");
    for spoil in [
        |file: &Path| std::fs::remove_file(file).unwrap(),
        |file: &Path| {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::write(file, "secret-value-of-key-7").unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o400)).unwrap();
        },
        |file: &Path| std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap(),
        |file: &Path| std::fs::write(file.parent().unwrap().join("more"), "x").unwrap(),
    ] {
        spoil(&file);
        assert_eq!(place.bring(&[("key", 1), ("other", 1)]).await, Ok(Outcome::Delivered));
        assert_eq!(std::fs::read(&file).unwrap(), b"secret-value-of-key-1");
    }
    let left = place.folder().join("..2020_01_01_00_00_00.0123abcd");
    std::fs::create_dir_all(left.join("key")).unwrap();
    std::fs::write(left.join("key/client_secret"), "x").unwrap();
    std::fs::write(place.folder().join("theirs.txt"), "x").unwrap();
    symlink("/etc/passwd", place.folder().join("link")).unwrap();
    assert_eq!(place.bring(&[("key", 1), ("other", 1)]).await, Ok(Outcome::Unchanged));
    assert!(!left.exists());
    place.bring(&[("other", 1)]).await.unwrap();
    let names = place.names();
    assert_eq!(names.iter().filter(|name| name.starts_with("..2")).count(), 1, "{names:?}");
    let seen: Vec<&String> = names.iter().filter(|name| !name.starts_with("..")).collect();
    assert_eq!(seen, ["link", "other", "other.json", "theirs.txt"], "what isn't ours is left alone");
}

#[tokio::test]
async fn a_reader_sees_one_version_or_the_other() {
    let place = Home::new();
    place.bring(&[("key", 1)]).await.unwrap();
    let (folder, stop) = (place.folder(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let reader = std::thread::spawn(move || {
        let mut reads = 0;
        while !stopped.load(Ordering::Acquire) {
            // As an application should: the folder is opened once, by the link, and read from there.
            let data = folder.join(std::fs::read_link(folder.join("..data")).unwrap());
            let (Ok(document), Ok(value)) =
                (std::fs::read_to_string(data.join("key.json")), std::fs::read_to_string(data.join("key/client_secret")))
            else {
                // Replaced in between: that folder is gone, as a whole.
                continue;
            };
            assert!(document.contains(&value), "{document} {value}");
            reads += 1;
        }
        reads
    });
    for revision in 2..60 {
        place.bring(&[("key", revision)]).await.unwrap();
    }
    stop.store(true, Ordering::Release);
    assert!(reader.join().unwrap() > 0);
}

#[tokio::test]
async fn nothing_goes_through_what_is_foreign() {
    let refused = |outcome: &Result<Outcome, CourierError>| matches!(outcome, Err(CourierError::Refused(_)));
    // A link in the middle of the way, and one at its end.
    for (link, rest) in [("middle", "inner"), ("inner", "")] {
        let mut place = Home::new();
        let home = place.home.path().canonicalize().unwrap();
        std::fs::create_dir(home.join("outside")).unwrap();
        symlink("outside", home.join(link)).unwrap();
        place.asked().directory = home.join(link).join(rest);
        assert!(refused(&place.bring(&[("key", 1)]).await), "{link}");
        assert_eq!(std::fs::read_dir(home.join("outside")).unwrap().count(), 0);
    }
    // A folder around it in which anybody may rename.
    let place = Home::new();
    std::fs::set_permissions(place.home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&place.bring(&[("key", 1)]).await));
    std::fs::set_permissions(place.home.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(place.bring(&[("key", 1)]).await, Ok(Outcome::Delivered), "sticky, as /tmp is");
    // Names that are taken.
    for (name, target) in
        [("key.json", "/etc/passwd"), ("key", "elsewhere"), ("..data", "../outside"), ("..data", "..2"), ("..data", "/tmp")]
    {
        let place = Home::new();
        std::fs::create_dir(place.folder()).unwrap();
        symlink(target, place.folder().join(name)).unwrap();
        assert!(refused(&place.bring(&[("key", 1)]).await), "{name} {target}");
        assert_eq!(std::fs::read_link(place.folder().join(name)).unwrap(), Path::new(target));
        std::fs::remove_file(place.folder().join(name)).unwrap();
        std::fs::write(place.folder().join(name), "theirs").unwrap();
        assert!(refused(&place.bring(&[("key", 1)]).await), "{name}, a file");
        assert_eq!(std::fs::read(place.folder().join(name)).unwrap(), b"theirs");
    }
    // Somebody else's folder, where the test may make one.
    let place = Home::new();
    std::fs::create_dir(place.folder()).unwrap();
    if std::os::unix::fs::chown(place.folder(), Some(54_321), None).is_ok() {
        assert!(refused(&place.bring(&[("key", 1)]).await));
    }
}

/// While files are replaced, somebody swaps parts of the way by links to a folder outside.
#[tokio::test]
async fn nothing_is_ever_written_outside_however_the_way_is_swapped() {
    let mut place = Home::new();
    let home = place.home.path().canonicalize().unwrap();
    std::fs::create_dir_all(home.join("a/b")).unwrap();
    std::fs::create_dir(home.join("outside")).unwrap();
    place.asked().directory = home.join("a/b/c");
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, at) = (Arc::clone(&stop), home.clone());
    let attacker = std::thread::spawn(move || {
        let mut swaps = 0u32;
        while !stopped.load(Ordering::Acquire) {
            for part in ["a/b/c", "a/b", "a"] {
                let (path, aside) = (at.join(part), at.join("aside"));
                if std::fs::rename(&path, &aside).is_ok() {
                    let _raced = symlink(at.join("outside"), &path);
                    std::thread::sleep(Duration::from_micros(u64::from(swaps % 7) * 30));
                    let _raced = std::fs::remove_file(&path);
                    // Where a folder was made in its place meanwhile, it goes.
                    while std::fs::rename(&aside, &path).is_err() {
                        let _raced = std::fs::remove_dir_all(&path);
                    }
                    swaps += 1;
                }
            }
        }
        swaps
    });
    let (mut delivered, mut refused) = (0, 0);
    for revision in 1..2_000 {
        match place.bring(&[("key", revision)]).await {
            Ok(_) => delivered += 1,
            Err(_) => refused += 1,
        }
        if delivered > 20 && refused > 20 && revision > 300 {
            break;
        }
    }
    stop.store(true, Ordering::Release);
    let swaps = attacker.join().unwrap();
    assert!(swaps > 0 && delivered > 0 && refused > 0, "{swaps} swaps, {delivered} delivered, {refused} refused");
    assert_eq!(std::fs::read_dir(home.join("outside")).unwrap().count(), 0, "something was written outside");
    assert!(place.bring(&[("key", 5_000)]).await.is_ok(), "and it goes on when it is quiet");
}

/// A process that writes a line for each SIGHUP, and is ended with the test.
struct Listener {
    child: Child,
    heard: PathBuf,
}

impl Listener {
    fn start(home: &Path) -> Listener {
        let heard = home.join("heard");
        let script = format!("trap 'echo hup >> {0}' HUP; : > {0}; while :; do sleep 0.05; done", heard.display());
        let child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        let listener = Listener { child, heard };
        listener.wait(|text| text.is_some());
        listener
    }

    fn write_pid(&self, file: &Path) {
        std::fs::write(file, format!("{}\n", self.child.id())).unwrap();
    }

    fn count(&self) -> usize {
        std::fs::read_to_string(&self.heard).unwrap().lines().count()
    }

    fn wait(&self, done: impl Fn(Option<&str>) -> bool) {
        for _ in 0..600 {
            if done(std::fs::read_to_string(&self.heard).ok().as_deref()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the process never said so");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn a_process_is_signalled_once_for_each_replacement() {
    let mut place = Home::new();
    let home = place.home.path().canonicalize().unwrap();
    let (listener, pid_file) = (Listener::start(&home), home.join("app.pid"));
    place.asked().signal = Some(SignalDelivery { pid_file: pid_file.clone(), name: SignalName::Hup });
    assert!(matches!(place.bring(&[("key", 1)]).await, Err(CourierError::Refused(_))), "there is nobody to signal yet");
    assert_eq!(std::fs::read(place.folder().join("key/client_secret")).unwrap(), b"secret-value-of-key-1", "and the files are there");
    listener.write_pid(&pid_file);
    assert_eq!(place.bring(&[("key", 1)]).await, Ok(Outcome::Delivered), "the signal was still to come");
    listener.wait(|text| text.is_some_and(|text| text.lines().count() == 1));
    place.courier = FileCourier;
    assert_eq!(place.bring(&[("key", 1)]).await, Ok(Outcome::Unchanged), "a restart signals nobody");
    assert_eq!(place.bring(&[("key", 2)]).await, Ok(Outcome::Delivered));
    listener.wait(|text| text.is_some_and(|text| text.lines().count() == 2));
    assert_eq!(listener.count(), 2);
}

#[tokio::test]
async fn no_other_process_is_signalled() {
    let mut place = Home::new();
    let home = place.home.path().canonicalize().unwrap();
    let (listener, pid_file) = (Listener::start(&home), home.join("app.pid"));
    place.asked().signal = Some(SignalDelivery { pid_file: pid_file.clone(), name: SignalName::Hup });
    let refused = |outcome: Result<Outcome, CourierError>| assert!(matches!(outcome, Err(CourierError::Refused(_))), "{outcome:?}");
    // A link, a folder, and what is no number.
    symlink("elsewhere", &pid_file).unwrap();
    refused(place.bring(&[("key", 1)]).await);
    std::fs::remove_file(&pid_file).unwrap();
    std::fs::create_dir(&pid_file).unwrap();
    refused(place.bring(&[("key", 1)]).await);
    std::fs::remove_dir(&pid_file).unwrap();
    std::fs::write(&pid_file, format!("{} 1", listener.child.id())).unwrap();
    refused(place.bring(&[("key", 1)]).await);
    // The file is older than the process: somebody else had this number when it was written.
    listener.write_pid(&pid_file);
    let old = std::fs::metadata(&pid_file).unwrap().modified().unwrap() - Duration::from_secs(3_600);
    std::fs::File::options().write(true).open(&pid_file).unwrap().set_modified(old).unwrap();
    refused(place.bring(&[("key", 1)]).await);
    // A process of another user.
    listener.write_pid(&pid_file);
    place.asked().owner = Some(54_321);
    if std::os::unix::fs::chown(&pid_file, Some(54_321), None).is_ok() {
        refused(place.bring(&[("key", 1)]).await);
    }
    assert_eq!(listener.count(), 0);
}
