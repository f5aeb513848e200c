//! Notices that files changed (the policies, the certificate): by looking every second, and by SIGHUP.
//!
//! Looking also works where watching doesn't: network file systems, and Kubernetes, which swaps a symlink.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use super::shutdown::{Reloads, Shutdown};

/// Time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Deeper folders aren't looked at: a symlink can lead round in a circle.
const DEPTH_MAX: usize = 16;
/// More entries aren't looked at: the folder may be the wrong one. SIGHUP still works.
const ENTRIES_MAX: usize = 20_000;

/// What a folder or some files looked like: equal as long as nothing in it was written, replaced, added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look(u64);

/// Looks at path, size, times, device and inode of everything below these paths, symlinks followed, contents unread. Hidden
/// entries of folders are left out: editors keep their own there. What can't be read looks different from what can.
pub fn look(paths: &[PathBuf]) -> Look {
    let mut entries = BTreeMap::new();
    paths.iter().for_each(|path| collect(path, 0, &mut entries));
    let mut hasher = DefaultHasher::new();
    entries.hash(&mut hasher);
    Look(hasher.finish())
}

/// Size, modified and changed (seconds and nanoseconds), device, inode; or the kind of the error.
type Marks = Result<[i128; 7], String>;

fn collect(path: &Path, depth: usize, entries: &mut BTreeMap<PathBuf, Marks>) {
    if entries.len() >= ENTRIES_MAX {
        return;
    }
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return drop(entries.insert(path.to_owned(), Err(error.kind().to_string()))),
    };
    if !metadata.is_dir() {
        let (modified, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        let times = [modified.0, modified.1, changed.0, changed.1].map(i128::from);
        let marks = [metadata.size(), metadata.dev(), metadata.ino()].map(i128::from);
        entries.insert(path.to_owned(), Ok([times[0], times[1], times[2], times[3], marks[0], marks[1], marks[2]]));
        return;
    }
    if depth >= DEPTH_MAX {
        return;
    }
    match std::fs::read_dir(path) {
        Ok(inside) => {
            for entry in inside.flatten().filter(|entry| !is_hidden(&entry.file_name())) {
                collect(&entry.path(), depth + 1, entries);
            }
        }
        Err(error) => drop(entries.insert(path.to_owned(), Err(error.kind().to_string()))),
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

/// Decides when a change is worth reading: once it has looked the same twice, so that nobody reads half of a copy.
#[derive(Debug, Clone)]
pub struct Changes {
    /// As it was when the files were last read.
    read: Look,
    last: Look,
}

impl Changes {
    /// `read` is the look from before the files were read, so that a change meanwhile is noticed.
    pub fn new(read: Look) -> Changes {
        Changes { read, last: read }
    }

    /// Whether the files are to be read now.
    pub fn observe(&mut self, look: Look) -> bool {
        let stable = look == self.last;
        self.last = look;
        let changed = stable && look != self.read;
        if changed {
            self.read = look;
        }
        changed
    }

    /// The files are read now, whatever they look like.
    pub fn reading(&mut self, look: Look) {
        *self = Changes::new(look);
    }
}

/// Why the files are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    Changed,
    /// By SIGHUP, or by a call.
    Requested,
}

/// Watches a folder, or some files that belong together.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    changes: Changes,
    shutdown: Shutdown,
    reloads: Reloads,
    ticks: Interval,
}

impl Watch {
    /// To be made before the files are first read: a change from then on is noticed. Looks every `every`; blocks for one look.
    pub fn new(paths: Vec<PathBuf>, every: Duration, shutdown: Shutdown) -> Watch {
        let changes = Changes::new(look(&paths));
        let reloads = shutdown.reloads();
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Watch { paths, changes, shutdown, reloads, ticks }
    }

    /// Waits until the files are to be read again; `None` when the process ends.
    pub async fn next(&mut self) -> Option<Reload> {
        loop {
            let requested = tokio::select! {
                biased;
                () = self.shutdown.begun() => return None,
                () = self.reloads.requested() => true,
                _ = self.ticks.tick() => false,
            };
            let paths = self.paths.clone();
            // A disk can be slow: never on a thread that serves others.
            let Ok(look) = tokio::task::spawn_blocking(move || look(&paths)).await else { continue };
            if requested {
                self.changes.reading(look);
                return Some(Reload::Requested);
            }
            if self.changes.observe(look) {
                return Some(Reload::Changed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn look_at(folder: &Path) -> Look {
        look(&[folder.to_owned()])
    }

    #[test]
    fn a_change_is_read_once_and_only_when_it_is_stable() {
        let looks = [1, 1, 2, 3, 3, 3, 4, 3, 3, 1, 1, 1];
        let mut changes = Changes::new(Look(1));
        let read: Vec<bool> = looks.iter().map(|look| changes.observe(Look(*look))).collect();
        let expected = [false, false, false, false, true, false, false, false, false, false, true, false];
        assert_eq!(read, expected);
    }

    #[test]
    fn each_kind_of_change_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let mut looks = vec![look_at(folder.path())];
        let mut remember = || looks.push(look_at(folder.path()));
        fs::write(&file, "a: 1").unwrap();
        remember();
        fs::write(&file, "a: 22").unwrap();
        remember();
        fs::write(folder.path().join("b"), "b: 22").unwrap();
        remember();
        fs::rename(folder.path().join("b"), &file).unwrap();
        remember();
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(folder.path().join("sub/c.yaml"), "").unwrap();
        remember();
        fs::remove_file(&file).unwrap();
        remember();
        fs::remove_dir_all(folder.path()).unwrap();
        remember();
        for (index, one) in looks.iter().enumerate() {
            assert!(!looks[index + 1..].contains(one), "{index}");
        }
    }

    #[test]
    fn nothing_changed_looks_the_same_and_hidden_files_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "a").unwrap();
        let before = look_at(folder.path());
        fs::write(folder.path().join(".a.yaml.swp"), "a").unwrap();
        assert_eq!(look_at(folder.path()), before);
    }

    #[test]
    fn a_mounted_config_map_changes_by_its_symlink_and_circles_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..v1", "..v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.yaml"), "same").unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/a.yaml", at("a.yaml")).unwrap();
        symlink(".", at("circle")).unwrap();
        let before = look_at(folder.path());
        assert_eq!(look_at(folder.path()), before);
        symlink("..v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert_ne!(look_at(folder.path()), before);
    }

    #[tokio::test]
    async fn a_watch_tells_changes_requests_and_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let shutdown = Shutdown::new();
        let mut watch = Watch::new(vec![folder.path().to_owned()], Duration::from_millis(5), shutdown.clone());
        fs::write(folder.path().join("a.yaml"), "a").unwrap();
        assert_eq!(watch.next().await, Some(Reload::Changed));
        shutdown.request_reload();
        assert_eq!(watch.next().await, Some(Reload::Requested));
        shutdown.begin();
        assert_eq!(watch.next().await, None);
    }
}
